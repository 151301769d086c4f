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
}

/// Counts this start, durably.
///
/// # Errors
/// The disk, or a file that is damaged: the quorum would take a directory with another id for a lost one.
pub(super) fn begin(files: &dyn Files) -> io::Result<Identity> {
    let known = read_sealed(files, Path::new(FILE), HEADING)?;
    let before = match &known {
        None => Identity { directory: Uuid::new_v4(), incarnation: Incarnation(0) },
        Some(text) => parse(text).ok_or_else(|| {
            let what = format!("{FILE}: malformed; restore it from a backup, or remove and add this node again");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?,
    };
    let now = Identity { incarnation: before.incarnation.next(), ..before };
    let text = format!("directory {}\nincarnation {}\n", now.directory, now.incarnation);
    replace_sealed(files, Path::new(FILE), HEADING, &text)?;
    Ok(now)
}

fn parse(text: &str) -> Option<Identity> {
    let mut lines = text.lines();
    let directory = lines.next()?.strip_prefix("directory ")?.parse().ok()?;
    let incarnation = lines.next()?.strip_prefix("incarnation ")?.parse().ok()?;
    Some(Identity { directory, incarnation: Incarnation(incarnation) })
}

#[cfg(test)]
mod tests {
    use forebay_disk::sim::SimFiles;

    use super::*;

    #[test]
    fn each_start_has_a_higher_incarnation_in_the_same_directory() {
        let files = SimFiles::new(1);
        let first = begin(&files).unwrap();
        files.crash();
        let second = begin(&files).unwrap();
        assert_eq!((second.directory, second.incarnation), (first.directory, Incarnation(2)));
    }
}
