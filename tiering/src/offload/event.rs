//! What the offload of a topic is told, and what it asks for.

use std::sync::Arc;

use forebay_log::{Millis, Offset};
use uuid::Uuid;

use crate::manifest::Entry;
use crate::parquet::Written;
use crate::shape::Shape;

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
        result: Result<(), String>,
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

/// What follows a durable manifest change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    CopyStarted { partition: u32 },
    CopyFinished { partition: u32 },
    Committed { partitions: Vec<u32> },
    Deleting,
    Forgotten { partition: u32, id: Uuid },
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
    Persist {
        changes: Vec<Change>,
        then: Then,
    },
    /// Write the object of this range, starting from this shape.
    Copy {
        entry: Box<Entry>,
        shape: Arc<Shape>,
    },
    /// Bring ranges into the table and let others go, in one version; ranges already there are passed over.
    Commit {
        adds: Vec<Entry>,
        removes: Vec<Entry>,
        shape: Arc<Shape>,
        at: Millis,
    },
    DeleteObject {
        partition: u32,
        id: Uuid,
        path: String,
    },
    /// Everything below `end` is in the lake: the local copy may go.
    Tiered {
        partition: u32,
        end: Offset,
    },
}
