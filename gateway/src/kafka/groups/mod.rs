//! Consumer groups: a task for each partition that keeps them owns its groups, on the node that leads it; requests come to it as
//! questions and wait for their answers.

mod admin;
mod commit;
mod consumer;
mod coordinator;
mod entry;
mod held;
mod led;
mod offsets;
mod overview;
mod place;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use forebay_cluster::{Log, LogError, Partition, Topic};
use forebay_log::group::classic::{Join, Joined, Leaver, MemberRecord, Sync, Synced};
use forebay_log::group::consumer::{Beat, Heartbeat, MemberView};
use forebay_log::group::{GroupError, Limits, Name};
use forebay_log::{Millis, NodeId, TopicConfig};
use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use forebay_log::group::stored::Committed;
pub(crate) use offsets::TopicPartition;
pub(crate) use overview::Overview;
#[cfg(test)]
pub(crate) use place::partition_of;

use super::errors::Refusal;
use crate::config::Config;
use crate::log_limit::FaultLog;
use crate::metrics::Metrics;
use led::{Led, Ready, Stage};
use topics::Topics;

/// The topic that Kafka, too, keeps groups and their offsets in.
const TOPIC: &str = "__consumer_offsets";
/// Its partitions where a cluster of several nodes makes it (Kafka has 50). A node alone makes one.
const PARTITIONS: u32 = 16;
/// How long a request waits for a coordinator that loads; then the client is told to come again.
const LOAD_WAIT: Duration = Duration::from_secs(1);
/// Time between two looks whether this node leads what it was chosen to lead.
const NOT_YET_LED: Duration = Duration::from_millis(10);
/// Longest time between two looks whether it leads something else.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where the answer to a JoinGroup or a SyncGroup goes.
pub(crate) type Waiter = oneshot::Sender<Answer>;
/// Where the answer to a heartbeat of the consumer protocol goes.
pub(crate) type BeatWaiter = oneshot::Sender<Result<Beat, GroupError>>;
/// Where the answer to anything else goes.
type Reply<R> = oneshot::Sender<Result<R, Refusal>>;

/// What a member has waited for.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The member's id, too: a new one learns it so, whether it has joined or has to come again.
    Joined(Name, Result<Joined, GroupError>),
    Synced(Result<Synced, GroupError>),
}

/// Who asks, and of which generation: what a heartbeat and a commit have to be right about.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) generation: i32,
    pub(crate) id: Name,
    pub(crate) instance: Option<Name>,
}

/// What is asked of a group.
pub(crate) enum Ask {
    Join(Join<Waiter>),
    Sync(Sync<Waiter>),
    Heartbeat(Membership, Reply<()>),
    /// Of the consumer protocol.
    Beat(Heartbeat<BeatWaiter>),
    /// Whether who says that it is a member may read the group's offsets.
    MayFetch(Membership, Reply<()>),
    /// Each one's own result.
    Leave(Vec<Leaver>, Reply<Vec<Result<(), GroupError>>>),
    /// All of the offsets or none, at this time of the wall clock; answered when they are durable.
    Commit(Membership, Vec<(TopicPartition, Committed)>, Millis, Reply<()>),
    Describe(Reply<Described>),
    DescribeConsumer(Reply<DescribedConsumer>),
    Delete(Reply<()>),
    /// Each one's own result.
    Forget(Vec<TopicPartition>, Reply<Vec<Result<(), ResponseError>>>),
}

/// A group as tools show it.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    /// One of Kafka's names of states.
    pub(crate) state: &'static str,
    pub(crate) protocol_type: Name,
    pub(crate) protocol: Name,
    pub(crate) members: Vec<MemberRecord>,
}

/// A group of the consumer protocol as tools show it.
#[derive(Debug, Clone)]
pub(crate) struct DescribedConsumer {
    /// One of Kafka's names of states.
    pub(crate) state: &'static str,
    pub(crate) epoch: i32,
    pub(crate) target_epoch: i32,
    pub(crate) assignor: &'static str,
    pub(crate) members: Vec<MemberView>,
}

/// A group in a list.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) group: Name,
    /// The protocol that its members speak, `classic` or `consumer`.
    pub(crate) kind: &'static str,
    pub(crate) state: &'static str,
    pub(crate) protocol_type: Name,
}

enum Command {
    Of(Name, Ask),
    List(oneshot::Sender<Vec<Listed>>),
    /// How many there are, and so many of them.
    Overview(usize, oneshot::Sender<(usize, Vec<Overview>)>),
    #[cfg(test)]
    Look(Millis, oneshot::Sender<()>),
}

/// The way to the coordinators. Each partition of the topic has one, on the node that leads it; the topic is made with the first use.
pub struct Groups {
    led: Led,
    topics: Topics,
    /// The configs of the topic, if this node makes it.
    config: TopicConfig,
    /// What the configuration allows.
    pub(crate) limits: Limits,
}

impl Groups {
    pub(crate) fn new(metrics: Arc<Metrics>, config: &Config) -> Groups {
        let limits = config.kafka.groups;
        let state = config.replicated(TopicConfig::internal());
        Groups { led: Led::new(metrics, limits), topics: Topics::new(), config: state, limits }
    }

    async fn topic(&self, log: &Log) -> Result<Arc<Topic>, Refusal> {
        if let Some(topic) = log.topic(TOPIC) {
            return Ok(topic);
        }
        let partitions = if has_others(log) { PARTITIONS } else { 1 };
        match log.create_topic(TOPIC, partitions, self.config.clone()).await {
            Ok(topic) => Ok(topic),
            // Another node was first.
            Err(LogError::TopicExists(_)) => log.topic(TOPIC).ok_or_else(|| unavailable("the topic is being made")),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    /// The node that coordinates a group: it leads the partition that keeps it. A node alone makes the topic with the first group.
    pub(crate) async fn coordinator(&self, log: &Log, group: &str) -> Option<NodeId> {
        let topic = match log.topic(TOPIC) {
            None if !has_others(log) => return Some(log.node_id()),
            None => self.topic(log).await.ok()?,
            Some(topic) => topic,
        };
        partition(&topic, group)?.leader()
    }

    /// Takes up the groups of each partition that this node leads, and lets go of others: until told to stop.
    pub(crate) async fn follow(&self, log: &Log, stop: CancellationToken) {
        let mut changed = log.topics_changed();
        loop {
            changed.mark_unchanged();
            leave_to_cleaner(log).await;
            let wait = if self.take_up(log) { NOT_YET_LED } else { LOOK_AGAIN };
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Whether there are partitions that this node is to lead and does not yet, though it could.
    pub(crate) fn take_up(&self, log: &Log) -> bool {
        let Some(topic) = log.topic(TOPIC) else { return false };
        let here = log.node_id();
        let mut waits = false;
        for partition in &topic.partitions {
            let led = self.led.of(partition, || self.topics.catalog(log));
            waits |= led.is_none() && partition.leader() == Some(here) && partition.unopened().is_none();
        }
        waits
    }

    /// The coordinator of a partition; waits for a while for one that loads.
    async fn ready(&self, log: &Log, partition: &Arc<Partition>) -> Result<Arc<Ready>, Refusal> {
        let deadline = Instant::now() + LOAD_WAIT;
        let loading = || Err(ResponseError::CoordinatorLoadInProgress.into());
        let mut stage = loop {
            if let Some(stage) = self.led.of(partition, || self.topics.catalog(log)) {
                break stage;
            }
            if partition.leader() != Some(log.node_id()) {
                return Err(ResponseError::NotCoordinator.into());
            }
            if let Some(why) = partition.unopened() {
                return Err(unavailable(why));
            }
            if Instant::now() >= deadline {
                return loading();
            }
            tokio::time::sleep(NOT_YET_LED).await;
        };
        let loaded = stage.wait_for(|stage| !matches!(stage, Stage::Loading));
        let Ok(stage) = tokio::time::timeout_at(deadline, loaded).await else { return loading() };
        match stage.map(|stage| Stage::clone(&stage)) {
            Ok(Stage::Ready(ready)) => Ok(ready),
            Ok(Stage::Failed(why)) => Err(unavailable(why)),
            Ok(Stage::Loading) | Err(_) => Err(ResponseError::NotCoordinator.into()),
        }
    }

    async fn of(&self, log: &Log, group: &str) -> Result<Arc<Ready>, Refusal> {
        let topic = self.topic(log).await?;
        let partition = partition(&topic, group).ok_or(ResponseError::NotCoordinator)?;
        self.ready(log, partition).await
    }

    /// Those of all partitions that this node leads, but for those that cannot be read: as with Kafka, the groups in there have no
    /// coordinator, and the others do.
    ///
    /// # Errors
    /// One of them is still loading.
    async fn all(&self, log: &Log) -> Result<Vec<Arc<Ready>>, Refusal> {
        let topic = log.topic(TOPIC);
        let here = Some(log.node_id());
        let led = topic.iter().flat_map(|topic| &topic.partitions).filter(|led| led.leader() == here);
        // Side by side: each may take its time to load.
        let all = join_all(led.map(|partition| self.ready(log, partition))).await;
        let loading = |refusal: &Refusal| refusal.code == ResponseError::CoordinatorLoadInProgress.code();
        all.into_iter().filter(|ready| ready.as_ref().err().is_none_or(loading)).collect()
    }

    /// Asks each coordinator here; one that ends meanwhile has nothing to say.
    async fn ask_all<R>(&self, log: &Log, command: impl Fn(oneshot::Sender<R>) -> Command) -> Result<Vec<R>, Refusal> {
        let mut answers = Vec::new();
        for ready in self.all(log).await? {
            let (reply, answer) = oneshot::channel();
            if self.send(log, &ready, command(reply)).await.is_ok() {
                answers.extend(answer.await.ok());
            }
        }
        Ok(answers)
    }

    async fn send(&self, log: &Log, ready: &Ready, command: Command) -> Result<(), Refusal> {
        let sent = ready.commands.send((self.topics.catalog(log), command)).await;
        sent.map_err(|_| ResponseError::NotCoordinator.into())
    }

    /// Asks something of a group; the answer comes later, or never where another node coordinates the group by then.
    pub(crate) async fn ask(&self, log: &Log, group: &str, ask: Ask) -> Result<(), Refusal> {
        let ready = self.of(log, group).await?;
        self.send(log, &ready, Command::Of(group.into(), ask)).await
    }

    /// Asks something of a group and waits for the answer.
    pub(crate) async fn answer<R>(
        &self,
        log: &Log,
        group: &str,
        ask: impl FnOnce(Reply<R>) -> Ask,
    ) -> Result<R, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.ask(log, group, ask(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(ResponseError::NotCoordinator.into()))
    }

    /// All groups that have members or offsets and are coordinated here.
    pub(crate) async fn list(&self, log: &Log) -> Result<Vec<Listed>, Refusal> {
        let mut listed: Vec<Listed> = self.ask_all(log, Command::List).await?.into_iter().flatten().collect();
        listed.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(listed)
    }

    /// How many groups are coordinated here; the first `most` of them with their members, and how far they have read.
    pub(crate) async fn overview(&self, log: &Log, most: usize) -> Result<(usize, Vec<Overview>), Refusal> {
        let (mut count, mut shown) = (0, Vec::new());
        for (there, some) in self.ask_all(log, |reply| Command::Overview(most, reply)).await? {
            count += there;
            shown.extend(some);
        }
        shown.sort_by(|a: &Overview, b| a.listed.group.cmp(&b.listed.group));
        shown.truncate(most);
        Ok((count, shown))
    }

    /// One offset of a group.
    pub(crate) async fn offset(
        &self,
        log: &Log,
        group: &str,
        of: TopicPartition,
    ) -> Result<Option<Committed>, Refusal> {
        let found = offsets::get(&self.of(log, group).await?.state, group, of);
        may_answer(log)?;
        Ok(found)
    }

    /// Every offset of a group.
    pub(crate) async fn offsets(&self, log: &Log, group: &str) -> Result<Vec<(TopicPartition, Committed)>, Refusal> {
        let found = offsets::all(&self.of(log, group).await?.state, group);
        may_answer(log)?;
        Ok(found)
    }

    /// Looks for groups to forget as if it were `now`.
    #[cfg(test)]
    pub(crate) async fn look(&self, log: &Log, now: Millis) -> Result<(), Refusal> {
        self.ask_all(log, |reply| Command::Look(now, reply)).await.map(drop)
    }
}

/// Earlier releases rewrote the topic by themselves; now the cleaner keeps it short. Tried again with the next look.
async fn leave_to_cleaner(log: &Log) {
    static FAULTS: FaultLog = FaultLog::new();
    let Some(topic) = log.topic(TOPIC) else { return };
    let config = topic.config();
    if !config.self_compacting || topic.partitions.first().and_then(|first| first.leader()) != Some(log.node_id()) {
        return;
    }
    let config = TopicConfig { self_compacting: false, ..TopicConfig::clone(&config) };
    if let Err(error) = log.alter_topic(TOPIC, config).await
        && let Some(suppressed) = FAULTS.admit(&error)
    {
        tracing::warn!(%error, suppressed, "{TOPIC} is not left to the cleaner yet; trying again");
    }
}

/// Whether what was found before is not older than what another coordinator may have told by now: one that the controller has not
/// heard of for as long as a session lasts may have been followed without knowing it. Clients then look for the coordinator again.
fn may_answer(log: &Log) -> Result<(), Refusal> {
    let holds_lease = log.cluster().is_none_or(|cluster| cluster.standing().borrow().holds_lease());
    if !holds_lease && has_others(log) { Err(ResponseError::NotCoordinator.into()) } else { Ok(()) }
}

/// Whether there are other nodes in the cluster.
fn has_others(log: &Log) -> bool {
    log.cluster().is_some_and(|cluster| cluster.metadata().borrow().image.nodes().nth(1).is_some())
}

fn partition<'a>(topic: &'a Topic, group: &str) -> Option<&'a Arc<Partition>> {
    topic.partitions.get(place::partition_of(group, topic.partitions.len()))
}

fn unavailable(why: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::CoordinatorNotAvailable, why)
}
