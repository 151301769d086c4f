//! Consumer groups: one task owns them all, requests come to it as questions and wait for their answers.

mod admin;
mod consumer;
mod coordinator;
mod entry;
mod offsets;
mod overview;
mod topics;

use std::sync::Arc;

use forebay_cluster::Log;
use forebay_log::group::classic::{Join, Joined, Leaver, MemberRecord, Sync, Synced};
use forebay_log::group::consumer::{Beat, Catalog, Heartbeat, MemberView};
use forebay_log::group::{GroupError, Limits, Name};
use forebay_log::{Millis, NodeId};
use kafka_protocol::ResponseError;
use tokio::sync::{OnceCell, mpsc, oneshot};

pub(crate) use forebay_log::group::stored::Committed;
pub(crate) use offsets::TopicPartition;
pub(crate) use overview::Overview;

use super::errors::Refusal;
use super::limits::GROUP_QUEUE;
use crate::metrics::Metrics;
use crate::state::StateTopic;
use coordinator::Coordinator;
use topics::Topics;

/// The topic that Kafka, too, keeps groups and their offsets in.
const TOPIC: &str = "__consumer_offsets";

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

/// The way to the coordinator; it and the topic begin with the first use.
pub struct Groups {
    begun: OnceCell<Begun>,
    topics: Topics,
    metrics: Arc<Metrics>,
    /// What the configuration allows.
    pub(crate) limits: Limits,
}

struct Begun {
    state: Arc<StateTopic>,
    commands: mpsc::Sender<(Arc<Catalog>, Command)>,
}

impl Groups {
    pub(crate) fn new(metrics: Arc<Metrics>, limits: Limits) -> Groups {
        Groups { begun: OnceCell::new(), topics: Topics::new(), metrics, limits }
    }

    /// Whether there may be any group: if not, nobody has to make the topic to see that.
    fn is_used(&self, log: &Log) -> bool {
        self.begun.initialized() || log.topic(TOPIC).is_some()
    }

    /// The node that coordinates the groups: it leads the partition that keeps them. Before there is one it is this node, which
    /// makes it with the first use.
    pub(crate) fn coordinator(&self, log: &Log) -> Option<NodeId> {
        log.topic(TOPIC).map_or(Some(log.node_id()), |topic| topic.partitions.first()?.leader())
    }

    fn is_here(&self, log: &Log) -> bool {
        self.coordinator(log) == Some(log.node_id())
    }

    /// Takes the groups up that there were before a restart, so that the sessions of members that are gone run out.
    pub(crate) async fn resume(&self, log: &Log) {
        if self.is_used(log)
            && self.is_here(log)
            && let Err(refusal) = self.begun(log).await
        {
            tracing::warn!(
                reason = refusal.message,
                "the consumer groups cannot be read now, and are with the first request"
            );
        }
    }

    async fn begun(&self, log: &Log) -> Result<&Begun, Refusal> {
        if !self.is_here(log) {
            return Err(ResponseError::NotCoordinator.into());
        }
        let begin = async || {
            let state = StateTopic::open(log, TOPIC).await?;
            // From an older offset a group reads records again, as after any crash of its own.
            state.go_on_damaged();
            let (commands, asked) = mpsc::channel(GROUP_QUEUE);
            let coordinator =
                Coordinator::load(Arc::clone(&state), self.topics.catalog(log), Arc::clone(&self.metrics), self.limits);
            tokio::spawn(coordinator.run(asked));
            Ok(Begun { state, commands })
        };
        let begun = self.begun.get_or_try_init(begin).await;
        begun.map_err(|error: forebay_cluster::LogError| unavailable(error.to_string()))
    }

    async fn send(&self, log: &Log, command: Command) -> Result<(), Refusal> {
        let sent = self.begun(log).await?.commands.send((self.topics.catalog(log), command)).await;
        sent.map_err(|_| unavailable("the node shuts down"))
    }

    /// Asks something of a group; the answer comes later.
    pub(crate) async fn ask(&self, log: &Log, group: &str, ask: Ask) -> Result<(), Refusal> {
        self.send(log, Command::Of(group.into(), ask)).await
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
        answer.await.unwrap_or_else(|_| Err(unavailable("the node shuts down")))
    }

    /// All groups that have members or offsets.
    pub(crate) async fn list(&self, log: &Log) -> Result<Vec<Listed>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(log, Command::List(reply)).await?;
        answer.await.map_err(|_| unavailable("the node shuts down"))
    }

    /// How many groups there are; the first `most` of them with their members, and how far they have read.
    pub(crate) async fn overview(&self, log: &Log, most: usize) -> Result<(usize, Vec<Overview>), Refusal> {
        if !self.is_used(log) {
            return Ok((0, Vec::new()));
        }
        let (reply, answer) = oneshot::channel();
        self.send(log, Command::Overview(most, reply)).await?;
        answer.await.map_err(|_| unavailable("the node shuts down"))
    }

    /// One offset of a group.
    pub(crate) async fn offset(
        &self,
        log: &Log,
        group: &str,
        of: TopicPartition,
    ) -> Result<Option<Committed>, Refusal> {
        Ok(offsets::get(&self.begun(log).await?.state, group, of))
    }

    /// Every offset of a group.
    pub(crate) async fn offsets(&self, log: &Log, group: &str) -> Result<Vec<(TopicPartition, Committed)>, Refusal> {
        Ok(offsets::all(&self.begun(log).await?.state, group))
    }

    /// Looks for groups to forget as if it were `now`.
    #[cfg(test)]
    pub(crate) async fn look(&self, log: &Log, now: Millis) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(log, Command::Look(now, reply)).await?;
        answer.await.map_err(|_| unavailable("the node shuts down"))
    }
}

fn unavailable(why: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::CoordinatorNotAvailable, why)
}
