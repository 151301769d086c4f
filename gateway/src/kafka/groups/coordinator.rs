//! The task that owns all groups of one partition: gives the machines what is asked and the time, stores what they want stored.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forebay_log::group::classic::{ClassicGroup, Effect, Then};
use forebay_log::group::consumer::Catalog;
use forebay_log::group::stored::Key;
use forebay_log::group::{GroupError, Limits, Name};
use forebay_log::{AppendError, Millis};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::ResponseError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::entry::{Entry, Group};
use super::held::{Amounts, Share};
use super::{Answer, Ask, Command, Reply, Waiter};
use crate::kafka::errors::Refusal;
use crate::kafka::limits::{GROUP_LOOK_INTERVAL, GROUP_MEMORY, LOG_LINES, MAX_GROUPS};
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::state::StateTopic;

pub(super) static FULL: LogLimit = LogLimit::new(LOG_LINES);

/// What waits for changes to be durable.
pub(super) enum Kept {
    /// A classic group's record.
    Group(Name, Then),
    /// Records of a group of the consumer protocol, of this entry.
    Beats(Name, u64),
    /// So many new offsets, and who wants to know.
    Offsets(usize, Reply<()>),
    /// Nobody.
    Removed(Name),
}

type Storing = std::pin::Pin<Box<dyn Future<Output = (Kept, Result<(), AppendError>)> + Send>>;

/// All groups of one partition.
pub(super) struct Coordinator {
    pub(super) state: Arc<StateTopic>,
    metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    /// The topics as the last command found them.
    pub(super) catalog: Arc<Catalog>,
    pub(super) groups: HashMap<Name, Entry>,
    /// Entries that there ever were.
    pub(super) entered: u64,
    pub(super) deadlines: BTreeSet<(Millis, Name)>,
    storing: FuturesUnordered<Storing>,
    /// New offsets on their way.
    pub(super) coming: usize,
    /// Of all groups' members.
    pub(super) bytes: usize,
    /// What that is of the node's.
    share: Share,
    began: Instant,
    /// When groups are looked through for those that nobody uses any more. Not right after the start, when the clock may not
    /// be set yet.
    look_at: Instant,
}

impl Coordinator {
    pub(super) fn load(
        state: Arc<StateTopic>,
        catalog: Arc<Catalog>,
        metrics: Arc<Metrics>,
        limits: Limits,
        share: Share,
    ) -> Coordinator {
        let mut coordinator = Coordinator {
            limits,
            catalog,
            groups: HashMap::new(),
            entered: 0,
            deadlines: BTreeSet::new(),
            storing: FuturesUnordered::new(),
            coming: 0,
            bytes: 0,
            share,
            began: Instant::now(),
            look_at: Instant::now() + GROUP_LOOK_INTERVAL,
            state,
            metrics,
        };
        let of_kind = |kind: [u8; 2]| coordinator.state.scan(&kind);
        let keys = Key::all_consumer().chain([Key::all_groups()]).flat_map(of_kind);
        let name = |(key, _)| match Key::decode(key)? {
            Key::Group(name) | Key::Consumer(name, _) => Some(name),
            Key::Offset { .. } => None,
        };
        let names: HashSet<Name> = keys.filter_map(name).collect();
        names.iter().for_each(|name| coordinator.take_up(name));
        coordinator.total();
        coordinator
    }

    /// What all coordinators of the node hold.
    pub(super) fn total(&mut self) -> Amounts {
        self.share.set(Amounts {
            groups: self.groups.len(),
            bytes: self.bytes,
            offsets: self.state.count() + self.coming,
        });
        self.share.total()
    }

    /// Until nobody can ask any more, or this node does not lead the partition any more. Who waits then is told by the drop of
    /// what they wait for.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<(Arc<Catalog>, Command)>) {
        loop {
            let due = self.deadlines.first().map(|(at, _)| self.began + Duration::from_millis(at.0.max(0) as u64));
            let due = due.unwrap_or(self.look_at).min(self.look_at);
            tokio::select! {
                // What is durable is waited for, and what was asked in time counts before time is up.
                biased;
                Some((kept, result)) = self.storing.next() => {
                    if matches!(result, Err(AppendError::NotLeader | AppendError::FencedLeaderEpoch)) {
                        return;
                    }
                    self.stored(kept, result).await;
                }
                asked = asked.recv() => {
                    let Some((catalog, command)) = asked else { return };
                    // Two commands may come the other way round than they looked.
                    if catalog.version > self.catalog.version {
                        self.catalog = catalog;
                    }
                    self.commanded(command).await;
                }
                () = tokio::time::sleep_until(due) => self.due().await,
            }
        }
    }

    async fn commanded(&mut self, command: Command) {
        match command {
            Command::Of(group, ask) => self.asked(group, ask).await,
            Command::List(reply) => drop(reply.send(self.list())),
            Command::Overview(most, reply) => drop(reply.send(self.overview(most))),
            #[cfg(test)]
            Command::Look(now, reply) => {
                self.forget_unused(now).await;
                while let Some((kept, result)) = self.storing.next().await {
                    self.stored(kept, result).await;
                }
                let _ = reply.send(());
            }
        }
    }

    /// A clock that is never set.
    pub(super) fn now(&self) -> Millis {
        Millis(i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    async fn asked(&mut self, name: Name, ask: Ask) {
        let now = self.now();
        let mut effects = Vec::new();
        match ask {
            Ask::Join(join) => {
                self.make_way(&name);
                let total = self.total();
                // Who is in already may come again as it is, also when there is no room for more.
                let (room, held) = match self.groups.get(&name).map(|entry| &entry.group) {
                    Some(Group::Classic(group)) => (true, group.bytes_of(&join)),
                    Some(Group::Consumer(_)) => {
                        let answer = Answer::Joined(join.id, Err(GroupError::InconsistentGroupProtocol));
                        return drop(join.to.send(answer));
                    }
                    None => (total.groups < MAX_GROUPS, 0),
                };
                let grows = (join.bytes() + name.len()).saturating_sub(held);
                if room && (grows == 0 || total.bytes + grows <= GROUP_MEMORY) {
                    if !self.groups.contains_key(&name) {
                        self.enter(&name, Group::Classic(ClassicGroup::new(self.limits)), true);
                    }
                    if let Some(group) = self.classic(&name) {
                        group.join(now, join, &mut effects);
                    }
                } else {
                    if let Some(suppressed) = FULL.admit() {
                        let (groups, bytes) = (total.groups, total.bytes);
                        tracing::warn!(group = %name, groups, bytes, suppressed, "no room for a further member of a group");
                    }
                    let answer = Answer::Joined(join.id, Err(GroupError::GroupMaxSizeReached));
                    drop(join.to.send(answer));
                }
            }
            Ask::Sync(sync) => match self.classic(&name) {
                Some(group) => group.sync(now, sync, &mut effects),
                None => drop(sync.to.send(Answer::Synced(Err(GroupError::UnknownMemberId)))),
            },
            Ask::Heartbeat(member, reply) => {
                let result = match self.classic(&name) {
                    Some(group) => group.heartbeat(now, member.generation, &member.id, member.instance.as_deref()),
                    None => Err(GroupError::UnknownMemberId),
                };
                drop(reply.send(result.map_err(Refusal::from)));
            }
            Ask::Beat(beat) => return self.beat(&name, beat).await,
            Ask::Leave(leavers, reply) => {
                if let Some(Group::Consumer(_)) = self.groups.get(&name).map(|entry| &entry.group) {
                    return self.send_away(&name, leavers, reply).await;
                }
                let left = leavers.into_iter().map(|leaver| match self.classic(&name) {
                    Some(group) => group.leave(now, leaver, &mut effects),
                    None => Err(GroupError::UnknownMemberId),
                });
                drop(reply.send(Ok(left.collect())));
            }
            Ask::Commit(member, committed, at, reply) => {
                if let Some(reply) = self.may_commit(&name, &member, reply) {
                    self.commit(&name, &committed, at, reply).await;
                }
            }
            Ask::MayFetch(member, reply) => {
                let allowed = match self.groups.get(&name).map(|entry| &entry.group) {
                    Some(Group::Consumer(group)) => group.may_commit(member.generation, &member.id, None),
                    _ => Ok(()),
                };
                drop(reply.send(allowed.map_err(Refusal::from)));
            }
            Ask::Describe(reply) => {
                let described = self.describe(&name).ok_or_else(|| ResponseError::GroupIdNotFound.into());
                drop(reply.send(described));
            }
            Ask::DescribeConsumer(reply) => {
                let described = self.describe_consumer(&name).ok_or_else(|| ResponseError::GroupIdNotFound.into());
                drop(reply.send(described));
            }
            Ask::Delete(reply) => self.delete(&name, reply).await,
            Ask::Forget(which, reply) => self.forget(&name, which, reply).await,
        }
        self.perform(&name, effects).await;
    }

    async fn perform(&mut self, name: &Name, effects: Vec<Effect<Waiter>>) {
        for effect in effects {
            // Who does not wait any more needs no answer.
            match effect {
                Effect::Joined { to, id, answer } => drop(to.send(Answer::Joined(id, answer))),
                Effect::Synced { to, answer } => drop(to.send(Answer::Synced(answer))),
                Effect::Persist { record, then } => {
                    let value = record.encode(wall_clock());
                    let change = (Key::Group(name.clone()).encode(), Some(value));
                    let changes = self.with_leftovers(name, vec![change]);
                    self.store(changes, Kept::Group(name.clone(), then)).await;
                }
            }
        }
        self.settle(name);
    }

    /// In the order of the calls; what is stored for whom comes back in [`Coordinator::stored`].
    pub(super) async fn store(&mut self, changes: Vec<(Bytes, Option<Bytes>)>, kept: Kept) {
        let durable = self.state.submit(changes).await;
        self.storing.push(Box::pin(async move { (kept, durable.await.unwrap_or(Err(AppendError::Closed))) }));
    }

    async fn stored(&mut self, kept: Kept, result: Result<(), AppendError>) {
        match kept {
            Kept::Group(name, then) => {
                // What was replicated too seldom is in the log all the same.
                let is_kept = matches!(result, Ok(()) | Err(AppendError::NotEnoughReplicasAfterAppend));
                if let Err(error) = &result {
                    tracing::warn!(group = %name, %error, is_kept, "a consumer group's state could not be stored");
                }
                let now = self.now();
                let Some(entry) = self.groups.get_mut(&name) else { return };
                let Group::Classic(group) = &mut entry.group else { return };
                entry.fresh &= !is_kept;
                let mut effects = Vec::new();
                group.stored(now, then, is_kept, &mut effects);
                self.perform(&name, effects).await;
            }
            Kept::Beats(name, number) => self.beats_stored(&name, number, result).await,
            Kept::Offsets(new, reply) => {
                self.coming -= new;
                drop(reply.send(result.map_err(not_stored)));
            }
            Kept::Removed(name) => {
                if let Err(error) = result {
                    tracing::warn!(group = %name, %error, "offsets of a consumer group that nobody uses stay for now");
                }
            }
        }
    }

    async fn due(&mut self) {
        let now = self.now();
        while let Some((_, name)) = self.deadlines.first().filter(|(at, _)| *at <= now).cloned() {
            match self.groups.get_mut(&name).map(|entry| &mut entry.group) {
                Some(Group::Classic(group)) => {
                    let mut effects = Vec::new();
                    group.tick(now, &mut effects);
                    self.perform(&name, effects).await;
                }
                Some(Group::Consumer(group)) => {
                    let mut effects = Vec::new();
                    group.tick(now, &self.catalog, &mut effects);
                    self.perform_beats(&name, effects).await;
                }
                None => drop(self.deadlines.pop_first()),
            }
        }
        if self.look_at <= Instant::now() {
            self.look_at = Instant::now() + GROUP_LOOK_INTERVAL;
            self.forget_unused(wall_clock()).await;
        }
    }

    /// Notes when the group wants to be looked at again; one that is as if it had never been goes.
    pub(super) fn settle(&mut self, name: &Name) {
        let Some(entry) = self.groups.get_mut(name) else { return };
        if !entry.has_changed() {
            return;
        }
        if let Some(before) = entry.deadline.take() {
            self.deadlines.remove(&(before, name.clone()));
        }
        self.bytes -= entry.bytes;
        entry.bytes = name.len() + entry.group.bytes();
        self.bytes += entry.bytes;
        if entry.group.never_was() {
            self.leave_out(name);
            return;
        }
        entry.show(&self.metrics.kafka);
        entry.deadline = entry.group.next_deadline();
        if let Some(at) = entry.deadline {
            self.deadlines.insert((at, name.clone()));
        }
    }

    /// Takes a group out of memory.
    pub(super) fn leave_out(&mut self, name: &Name) -> Option<Entry> {
        let mut entry = self.groups.remove(name)?;
        self.bytes -= entry.bytes;
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, name.clone()));
        }
        entry.hide(&self.metrics.kafka);
        Some(entry)
    }

    fn classic(&mut self, name: &Name) -> Option<&mut ClassicGroup<Waiter>> {
        match &mut self.groups.get_mut(name)?.group {
            Group::Classic(group) => Some(group),
            Group::Consumer(_) => None,
        }
    }
}

pub(super) fn not_stored(error: AppendError) -> Refusal {
    match error {
        // The client tries again with these, and finds another coordinator if there is one.
        AppendError::Closed | AppendError::NotLeader | AppendError::FencedLeaderEpoch => {
            ResponseError::NotCoordinator.into()
        }
        // Sent again, they would be refused again.
        AppendError::TooLarge { .. } => Refusal::new(ResponseError::InvalidCommitOffsetSize, error.to_string()),
        AppendError::Invalid(_) | AppendError::Corrupt(_) => {
            Refusal::new(ResponseError::UnknownServerError, error.to_string())
        }
        other => Refusal::new(ResponseError::CoordinatorNotAvailable, other.to_string()),
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.groups.values_mut().for_each(|entry| entry.hide(&self.metrics.kafka));
    }
}

fn wall_clock() -> Millis {
    Millis::from_system(SystemTime::now())
}
