//! The log on disk: files behind a trait, group commit, recovery, and the handles that doors use.

mod files;
mod log;

pub use files::{File, Files};
pub use log::{
    AppendData, Appended, ClosedSegment, Fetched, Log, LogError, LogOptions, Partition, Ticket, Topic, Watermarks,
};
