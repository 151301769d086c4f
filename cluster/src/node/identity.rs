//! Who this node is: the id of its data directory, and which start of the process this is.

use std::io;
use std::path::Path;

use forebay_disk::Files;
use forebay_disk::sealed::{read_sealed, replace_sealed};
use forebay_log::Incarnation;
use uuid::Uuid;

const FILE: &str = "node";
const HEADING: &str = "forebay-node 1";

/// Kept in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) directory: Uuid,
    pub(super) incarnation: Incarnation,
    /// What the log had before the node was in a cluster is in the cluster's metadata, or there was nothing. Until then the metadata
    /// says nothing of what may be deleted here.
    pub(super) adopted: bool,
}

/// Counts this start, durably.
///
/// # Errors
/// The disk, or a file that is damaged: the quorum would take a directory with another id for a lost one.
pub(super) fn begin(files: &dyn Files) -> io::Result<Identity> {
    let known = read_sealed(files, Path::new(FILE), HEADING)?;
    let before = match &known {
        None => Identity { directory: Uuid::new_v4(), incarnation: Incarnation(0), adopted: false },
        Some(text) => parse(text).ok_or_else(|| {
            let what = format!("{FILE}: malformed; restore it from a backup, or remove and add this node again");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?,
    };
    let now = Identity { incarnation: before.incarnation.next(), ..before };
    save(files, &now)?;
    Ok(now)
}

/// Notes that the cluster's metadata knows of everything that is here.
pub(super) fn adopted(files: &dyn Files, identity: &Identity) -> io::Result<()> {
    save(files, &Identity { adopted: true, ..*identity })
}

fn save(files: &dyn Files, identity: &Identity) -> io::Result<()> {
    let Identity { directory, incarnation, adopted } = identity;
    let text = format!("directory {directory}\nincarnation {incarnation}\nadopted {adopted}\n");
    replace_sealed(files, Path::new(FILE), HEADING, &text)
}

fn parse(text: &str) -> Option<Identity> {
    let mut lines = text.lines();
    let directory = lines.next()?.strip_prefix("directory ")?.parse().ok()?;
    let incarnation = lines.next()?.strip_prefix("incarnation ")?.parse().ok()?;
    let adopted = lines.next()?.strip_prefix("adopted ")?.parse().ok()?;
    Some(Identity { directory, incarnation: Incarnation(incarnation), adopted })
}

#[cfg(test)]
mod tests {
    use forebay_disk::sim::SimFiles;

    use super::*;

    #[test]
    fn each_start_has_a_higher_incarnation_in_the_same_directory() {
        let files = SimFiles::new(1);
        let first = begin(&files).unwrap();
        assert!(!first.adopted);
        adopted(&files, &first).unwrap();
        files.crash();
        let second = begin(&files).unwrap();
        assert_eq!((second.directory, second.incarnation, second.adopted), (first.directory, Incarnation(2), true));
    }
}
