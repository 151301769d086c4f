//! Tables over the lake's objects, behind a trait of our own: what a commit adds and lets go, and what a table holds.

mod delta;
mod schema;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use forebay_log::{Millis, Offset};
use uuid::Uuid;

pub use delta::DeltaLake;

use crate::manifest::Entry;
use crate::shape::Shape;

/// Why a commit was not made, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("{0}")]
    Delta(#[from] deltalake_core::DeltaTableError),
    #[error(
        "the table at {url} belongs to another topic (forebay.topic.id is {found}, not {expected}): move it away or set another object_store.url"
    )]
    Foreign { url: String, found: String, expected: String },
    #[error(
        "column {column} is {table} in the table and {ours} in the payloads: rename the column or move the table away"
    )]
    ColumnType { column: String, table: String, ours: String },
    /// Another writer has settled the types of columns first.
    #[error("{0}")]
    Settled(Box<Settled>),
    #[error("partition {partition}: the table ends at offset {table_end}, inside the range {base}..{end}")]
    Overlap { partition: u32, table_end: i64, base: i64, end: i64 },
    /// An older version was restored, or the manifest is wrong.
    #[error(
        "partition {partition}: the table ends at offset {table_end}, but ranges up to {held} were brought in before {base}..{end}: \
         restore the table, or move it away to begin a new one here"
    )]
    Gap { partition: u32, table_end: i64, held: Offset, base: i64, end: i64 },
    #[error("{0}")]
    Metadata(#[from] serde_json::Error),
}

/// What to write again so that it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The first column that does not fit, and how.
    pub why: String,
    /// The shape to write with.
    pub shape: Shape,
    /// The files that are not in the table and have other types.
    pub misfits: Vec<Uuid>,
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; written again with the table's types", self.why)
    }
}

/// A data file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFile {
    /// Below the root of the object store, as in the manifest.
    pub path: String,
    pub bytes: u64,
    /// Rows by the file's statistics.
    pub rows: Option<u64>,
}

/// What a table holds at its latest version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableContents {
    /// `None`: there is no table yet.
    pub version: Option<i64>,
    pub files: Vec<TableFile>,
}

/// How far the manifest says that partitions are in the table.
pub type Ends = BTreeMap<u32, Offset>;

/// A table of one topic.
#[async_trait]
pub trait Table: Send + Sync {
    /// Brings `adds` in and lets `removes` go in one version. Ranges that the table has already, and files that it has no
    /// more, are passed over: a commit repeated after a lost answer or a crash changes nothing. Where the table
    /// ends before what it must hold already, the next range would leave a gap, and is refused. A table without a range of the
    /// partition takes any, and ranges that the log itself did not have any more when its next ones were noted are no gap.
    ///
    /// # Errors
    /// The table may or may not have changed: repeat.
    async fn commit(
        &mut self,
        adds: &[Entry],
        removes: &[Entry],
        shape: &Shape,
        held: &Ends,
        at: Millis,
    ) -> Result<(), TableError>;

    /// The end offset of the partition's last range in the table.
    ///
    /// # Errors
    /// The table cannot be read.
    async fn committed_end(&mut self, partition: u32) -> Result<Option<i64>, TableError>;

    /// # Errors
    /// The table cannot be read.
    async fn contents(&mut self) -> Result<TableContents, TableError>;

    /// The version seen last.
    fn version(&self) -> Option<i64>;
}
