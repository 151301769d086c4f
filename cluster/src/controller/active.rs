//! Runs the controller while this node leads the quorum: one batch of decisions at a time is on its way to being committed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_log::cluster::controller::{Controller, Limits};
use forebay_log::cluster::{Image, Record, Refusal, Reply, Request};
use forebay_log::{Millis, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};
use uuid::Uuid;

use super::ask::Answer;
use super::entries::entries;
use super::limits::{BATCH, LEAD_AGAIN};
use crate::metadata::{Entry, Metadata};
use crate::quorum::{Leadership, MemberError, Quorum};

/// A request and whom to answer.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// The controller of this node: active while it leads.
pub(crate) struct Active {
    pub(crate) node: NodeId,
    pub(crate) quorum: Quorum,
    pub(crate) metadata: watch::Receiver<Metadata>,
    pub(crate) requests: mpsc::Receiver<Asked>,
    pub(crate) limits: Limits,
    /// The id that a new cluster gets.
    pub(crate) new_cluster: Uuid,
    pub(crate) started: Instant,
}

/// Why a controller is not the active one any more.
struct Deposed;

impl Active {
    /// Until nobody can ask any more.
    pub(crate) async fn run(mut self) {
        let mut leadership = self.quorum.leadership();
        loop {
            let Leadership { term, leader, .. } = *leadership.borrow_and_update();
            if leader != Some(self.raft_id()) {
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() { return },
                    asked = self.requests.recv() => match asked {
                        Some(asked) => drop(asked.answer.send(Answer::NotController { leader: leader.and_then(node_id) })),
                        None => return,
                    },
                }
                continue;
            }
            // Everything that leaders before have committed is applied here on return.
            if self.quorum.confirm_leader().await.is_err() {
                tokio::time::sleep(LEAD_AGAIN).await;
                continue;
            }
            info!(term, "this node is the active controller");
            match self.lead(&mut leadership, term).await {
                Ok(()) => return,
                Err(Deposed) => {
                    info!(term, "this node is not the active controller any more");
                    tokio::time::sleep(LEAD_AGAIN).await;
                }
            }
        }
    }

    fn raft_id(&self) -> u64 {
        u64::try_from(self.node.0).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Millis {
        Millis(i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    async fn lead(&mut self, leadership: &mut watch::Receiver<Leadership>, term: u64) -> Result<(), Deposed> {
        let Metadata { image, entry, .. } = self.metadata.borrow().clone();
        let voters = self.voters();
        let mut base = entry;
        let mut controller = Controller::new(image, self.limits, voters.clone(), self.now());
        if controller.image().cluster().is_none() {
            let (id, nodes) = (self.new_cluster, voters.into_iter().collect());
            let mut records = Vec::new();
            let made = controller.handle(self.now(), Request::CreateCluster { id, nodes }, &mut records);
            if let Err(error) = made {
                warn!(%error, "the cluster cannot be made");
            }
            base = self.commit(base, vec![records]).await?;
        }
        let mut unfinished = Vec::new();
        controller.take_over(&mut unfinished);
        base = self.commit(base, vec![unfinished]).await?;
        let (mut batch, mut changing) = (Vec::new(), None);
        loop {
            let due = controller.next_deadline().0.saturating_sub(self.now().0).clamp(1, 60_000);
            let due = Duration::from_millis(due.unsigned_abs());
            tokio::select! {
                changed = leadership.changed() => {
                    let Leadership { term: now, leader, .. } = *leadership.borrow_and_update();
                    if changed.is_err() || now != term || leader != Some(self.raft_id()) {
                        return Err(Deposed);
                    }
                }
                received = self.requests.recv_many(&mut batch, BATCH) => if received == 0 { return Ok(()) },
                () = tokio::time::sleep(due) => {}
            }
            controller.set_voters(self.voters());
            let mut decisions = Vec::new();
            let now = self.now();
            let mut decide = |Asked { request, answer }: Asked| {
                let mut records = Vec::new();
                let decided = controller.handle(now, request, &mut records);
                decisions.push(records);
                (answer, decided)
            };
            let decided: Vec<_> = batch.drain(..).map(&mut decide).collect();
            let mut due = Vec::new();
            controller.tick(now, &mut due);
            decisions.push(due);
            let committed = self.commit(base, decisions).await;
            let answer = |decided: Result<Reply, Refusal>| match &committed {
                Ok(_) => Answer::Decided(decided),
                Err(Deposed) => Answer::Unknown,
            };
            for (asked, decided) in decided {
                // Who has given up is not told.
                let _ = asked.send(answer(decided));
            }
            base = committed?;
            self.follow_members(controller.image(), &mut changing);
        }
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        self.quorum.status().voters.into_keys().filter_map(node_id).collect()
    }

    /// Returns the entry that the image is at now.
    async fn commit(&self, mut base: u64, decisions: Vec<Vec<Record>>) -> Result<u64, Deposed> {
        for records in entries(decisions) {
            base = self.commit_entry(base, records).await?;
        }
        Ok(base)
    }

    async fn commit_entry(&self, base: u64, records: Vec<Record>) -> Result<u64, Deposed> {
        let count = records.len();
        let entry = serde_json::to_vec(&Entry { base, records }).map_err(|error| {
            tracing::error!(%error, records = count, "decisions of this controller cannot be written down");
            Deposed
        })?;
        let index = self.quorum.propose(Bytes::from(entry)).await.map_err(|error| {
            warn!(%error, records = count, "decisions of this controller are not known to be committed");
            Deposed
        })?;
        // It is applied here. If it was decided on older metadata, then as nothing.
        if self.metadata.borrow().entry == index { Ok(index) } else { Err(Deposed) }
    }

    /// Has every node of the cluster follow the quorum, and none that was removed. One change at a time: the quorum takes no other
    /// meanwhile.
    fn follow_members(&self, image: &Image, changing: &mut Option<JoinHandle<()>>) {
        if changing.as_ref().is_some_and(|change| !change.is_finished()) {
            return;
        }
        let status = self.quorum.status();
        let members: BTreeSet<u64> = status.voters.keys().chain(status.learners.keys()).copied().collect();
        for (id, node) in image.nodes() {
            let Ok(raft_id) = u64::try_from(id.0) else { continue };
            if let Some(address) = node.address("cluster").filter(|_| !members.contains(&raft_id)) {
                let (quorum, address) = (self.quorum.clone(), address.to_owned());
                *changing = Some(tokio::spawn(async move { told(id, quorum.add_learner(raft_id, address).await) }));
                return;
            }
        }
        for raft_id in status.learners.into_keys() {
            let Some(id) = node_id(raft_id).filter(|id| image.node(*id).is_none()) else { continue };
            let quorum = self.quorum.clone();
            *changing = Some(tokio::spawn(async move { told(id, quorum.remove(raft_id).await) }));
            return;
        }
    }
}

fn told(id: NodeId, done: Result<(), MemberError>) {
    match done {
        Ok(()) => info!(node = id.0, "the members of the controller quorum have changed"),
        Err(error) => tracing::debug!(node = id.0, %error, "the members of the controller quorum have not changed"),
    }
}

fn node_id(raft_id: u64) -> Option<NodeId> {
    i32::try_from(raft_id).ok().map(NodeId)
}
