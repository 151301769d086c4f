//! What a node of the quorum keeps on disk: its journal of votes and entries, and its last snapshot.

mod format;
mod journal;
mod memory;
mod raft_log;
mod recover;
mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use raft_log::LogStore;
pub(super) use snapshot::{Covered, SnapshotFile};

use std::io;

/// Runs what may block.
///
/// # Errors
/// Its own; a panic.
pub(in crate::quorum) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|error| Err(error.into()))
}

/// What to do about files that cannot be read.
pub(super) const REMEDY: &str = "restore it from a backup; or, if the other voters are whole, take this node out of the \
                                 cluster, and add it again with an empty data directory";

/// An error that says what was done to which file.
pub(super) fn at(what: &str, path: &std::path::Path) -> impl FnOnce(io::Error) -> io::Error {
    let what = format!("{what} {}", path.display());
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// A file that another release has written: nothing is wrong with it, and nothing about it is to be mended here.
pub(super) fn newer(path: &std::path::Path, what: &str) -> io::Error {
    let what = format!("{}: {what}; start the release that wrote it", path.display());
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// Damage: the content of a file is not what was written.
pub(in crate::quorum) fn damage(path: &std::path::Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}; {REMEDY}", path.display()))
}
