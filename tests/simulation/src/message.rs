//! What nodes and clients tell each other.

use bytes::Bytes;
use forebay_log::cluster::{Refusal, Reply, Request};
use forebay_log::partition::Appended;
use forebay_log::replication::{End, Part, PartitionId, Pull};
use forebay_log::{AppendError, Incarnation, Offset};

use crate::services::groups::{GroupAsk, GroupReply};

/// Who sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Node(usize),
    Producer(usize),
    Consumer(usize),
    Member(usize),
    Admin,
}

/// What is appended, as the wire has it.
#[derive(Debug, Clone)]
pub struct Produce {
    pub partition: PartitionId,
    /// One batch: of an idempotent producer, or of one without id.
    pub batch: Bytes,
    /// To be acknowledged by all in-sync replicas, not only by the leader.
    pub all: bool,
    /// The client's number of this attempt.
    pub attempt: u64,
    /// First and last number of the records in it.
    pub numbers: (u64, u64),
}

/// A message.
#[derive(Debug, Clone)]
pub enum Message {
    /// The quorum's leader of a term, and how many entries are committed.
    Lead {
        term: u64,
        commit: usize,
    },
    /// A request to the controller.
    Ask {
        id: u64,
        request: Box<Request>,
    },
    /// `None`: no controller is here.
    Answer {
        id: u64,
        answer: Option<Box<Result<Reply, Refusal>>>,
    },
    Pull {
        incarnation: Incarnation,
        pull: Pull,
    },
    /// `None`: the session is lost.
    Pulled {
        session: u64,
        sequence: u32,
        parts: Option<Vec<Part>>,
    },
    Ends {
        incarnation: Incarnation,
        ends: Vec<End>,
    },
    Produce(Produce),
    Produced {
        attempt: u64,
        outcome: Result<Appended, Refused>,
    },
    Fetch {
        attempt: u64,
        partition: PartitionId,
        from: Offset,
    },
    Fetched {
        attempt: u64,
        batches: Option<Bytes>,
    },
    Group {
        id: u64,
        ask: GroupAsk,
    },
    GroupAnswer {
        id: u64,
        reply: GroupReply,
    },
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The partition is not on this node, or its topic is gone.
    NotHere,
    By(AppendError),
}

impl Message {
    /// Whether messages of this kind keep their order between the same two, and come once: they go over one connection.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        !matches!(self, Message::Lead { .. } | Message::Pull { .. } | Message::Pulled { .. } | Message::Ends { .. })
    }

    /// A few words for the trace.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Message::Lead { term, commit } => format!("lead term {term} commit {commit}"),
            Message::Ask { id, request } => format!("ask #{id} {request:?}"),
            Message::Answer { id, answer } => format!("answer #{id} {answer:?}"),
            Message::Pull { pull, .. } => format!("pull {}/{} {:?}", pull.session, pull.sequence, pull.wants),
            Message::Pulled { session, sequence, parts } => {
                let parts = parts.as_ref().map(|parts| parts.iter().map(told_part).collect::<Vec<_>>());
                format!("pulled {session}/{sequence} {parts:?}")
            }
            Message::Ends { ends, .. } => format!("ends {ends:?}"),
            Message::Produce(produce) => format!("produce #{} {:?}", produce.attempt, produce.numbers),
            Message::Produced { attempt, outcome } => format!("produced #{attempt} {outcome:?}"),
            Message::Fetch { attempt, from, .. } => format!("fetch #{attempt} from {from}"),
            Message::Group { id, ask } => format!("group #{id} {ask:?}"),
            Message::GroupAnswer { id, reply } => format!("group answer #{id} {reply:?}"),
            Message::Fetched { attempt, batches } => {
                format!("fetched #{attempt} {:?}", batches.as_ref().map(Bytes::len))
            }
        }
    }
}

fn told_part(part: &Part) -> String {
    use forebay_log::replication::PartBody;
    match &part.body {
        PartBody::Batches { from, marks, batches } => {
            format!("e{} from {from} {} bytes hw {}", part.epoch, batches.len(), marks.high_watermark)
        }
        other => format!("e{} {other:?}", part.epoch),
    }
}
