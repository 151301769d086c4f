//! What the offload of a topic is told, and what it asks for.

use std::sync::Arc;

use forebay_log::{Millis, Offset};
use uuid::Uuid;

use crate::manifest::Entry;
use crate::parquet::Written;
use crate::shape::Shape;
use crate::table::{Ends, Settled};

/// A closed segment of the local log, wholly below the high watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub base: Offset,
    /// The offset after the last one.
    pub end: Offset,
    pub bytes: u64,
    /// UTC day of append, days since 1970-01-01.
    pub append_day: i64,
}

/// The configs that the offload follows; they may change at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `lake.format` is a table, not bare objects.
    pub table: bool,
    /// `lake.commit.interval.ms`
    pub commit_interval: i64,
    /// Bytes of closed segments that may wait while the program is busy with other work. Beyond that the disk counts for more
    /// than the rate of ingest, and copies take no rest.
    pub unhurried_bytes: u64,
}

#[derive(Debug)]
pub enum Event {
    /// The state of a partition's local log, told whenever it may have changed.
    Local {
        partition: u32,
        log_start: Offset,
        segments: Vec<Segment>,
    },
    Policy(Policy),
    /// A manifest change is durable.
    Persisted(Then),
    /// An object is whole (with the shape widened by its payloads), or it failed.
    Copied {
        partition: u32,
        id: Uuid,
        result: Result<(Written, Shape), String>,
    },
    /// The table holds the ranges asked for, or it failed and may or may not hold them.
    Committed {
        result: Result<(), NotCommitted>,
    },
    /// An object is gone (or was never there), or it failed.
    Deleted {
        partition: u32,
        id: Uuid,
        result: Result<(), String>,
    },
    /// Offload everything now: no waiting for the commit interval or after a failure.
    Flush,
    /// A deadline has come.
    Tick,
}

/// Why the table may not hold the ranges asked for.
#[derive(Debug, Clone)]
pub enum NotCommitted {
    /// It may hold them all the same: try again.
    Failed(String),
    /// It does not: they have to be written again.
    Settled(Box<Settled>),
}

/// What follows a durable manifest change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    CopyStarted {
        partition: u32,
    },
    CopyFinished {
        partition: u32,
    },
    Committed {
        partitions: Vec<u32>,
    },
    Deleting,
    /// Objects that do not fit the table are to go, and their ranges to be copied again.
    Undone {
        entries: Vec<Entry>,
    },
    Forgotten {
        partition: u32,
        id: Uuid,
    },
}

/// One change of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Box<Entry>),
    Forget(Box<Entry>),
    Shape(Arc<Shape>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make the changes durable, all or none; then, and only then, report `then`.
    Persist { changes: Vec<Change>, then: Then },
    /// Write the object of this range, starting from this shape.
    Copy { entry: Box<Entry>, shape: Arc<Shape> },
    /// Bring ranges into the table and let others go, in one version; ranges already there are passed over.
    Commit { adds: Vec<Entry>, removes: Vec<Entry>, shape: Arc<Shape>, held: Ends, at: Millis },
    DeleteObject {
        partition: u32,
        id: Uuid,
        path: String,
        /// Of a copy that was not finished: the table does not list it.
        unfinished: bool,
    },
    /// Everything below `end` is in the lake: the local copy may go.
    Tiered { partition: u32, end: Offset },
}
