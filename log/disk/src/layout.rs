//! Names in the data directory: where topics, partitions and their files lie.

use std::path::{Path, PathBuf};

use forebay_log::Offset;
use forebay_log::segment::{FileKind, file_name};

/// The directory that holds the partitions' directories.
pub(crate) const LOG_DIR: &str = "log";
/// How the name of a directory that is being deleted ends (Kafka's).
pub(crate) const DELETED: &str = "-delete";

/// `log/TOPIC-PARTITION`
pub(crate) fn partition_dir(topic: &str, partition: u32) -> PathBuf {
    Path::new(LOG_DIR).join(format!("{topic}-{partition}"))
}

/// Where a partition's directory goes while its files are removed: a name that no topic can take.
pub(crate) fn deleted_dir(topic_id: uuid::Uuid, partition: u32) -> PathBuf {
    Path::new(LOG_DIR).join(format!("{}.{partition}{DELETED}", topic_id.simple()))
}

pub(crate) fn segment_path(dir: &Path, base: Offset, kind: FileKind) -> PathBuf {
    dir.join(file_name(base, kind))
}

/// Where a compacted segment is written: nothing yet, and removed by the next start.
pub(crate) fn cleaned_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(file_name(base, FileKind::Log) + CLEANED)
}

/// A compacted segment that is to take the places of those that it was made of; the next start sees to it (Kafka's names).
pub(crate) fn swap_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(file_name(base, FileKind::Log) + SWAP)
}

pub(crate) const CLEANED: &str = ".cleaned";
pub(crate) const SWAP: &str = ".swap";
