//! Who this node is: the id of its data directory, and which start of the process this is.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use forebay_disk::sealed::{read_sealed, replace_sealed};
use forebay_log::{Incarnation, NodeId};
use uuid::Uuid;

use crate::quorum::Disk;

const FILE: &str = "node";
const HEADING: &str = "forebay-node 1";

/// Kept in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    pub(super) directory: Uuid,
    pub(super) incarnation: Incarnation,
    /// What the log had before the node was in a cluster is in the cluster's metadata, or there was nothing. Until then the metadata
    /// says nothing of what may be deleted here.
    pub(super) adopted: bool,
    /// The node's part of the quorum has begun: from then on its files must be there.
    pub(super) begun: bool,
    /// The cluster that the node belongs to, once that was known.
    pub(super) cluster: Option<Uuid>,
}

/// Counts this start, durably.
///
/// # Errors
/// The disk, or a file that is damaged: the quorum would take a directory with another id for a lost one.
pub(super) fn begin(disk: &Disk, node: NodeId) -> io::Result<Identity> {
    let known = read_sealed(disk.files.as_ref(), Path::new(FILE), HEADING)?;
    let before = match &known {
        None => Identity {
            node,
            directory: Uuid::new_v4(),
            incarnation: Incarnation(0),
            adopted: false,
            begun: false,
            cluster: None,
        },
        Some(text) => parse(text).ok_or_else(|| {
            let what = format!("{FILE}: malformed; restore it from a backup, or remove and add this node again");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?,
    };
    if before.node != node {
        let what = format!(
            "the data directory is node {}'s: set node.id = {}, or node.data_dir to a directory of node {node}",
            before.node, before.node
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let now = Identity { incarnation: before.incarnation.next(), ..before };
    save(disk, &now)?;
    Ok(now)
}

/// Replaces what is stored.
///
/// # Errors
/// The disk.
pub(super) fn save(disk: &Disk, identity: &Identity) -> io::Result<()> {
    let Identity { node, directory, incarnation, adopted, begun, cluster } = identity;
    let mut text = format!("node {node}\ndirectory {directory}\nincarnation {incarnation}\nadopted {adopted}\n");
    let _ = writeln!(text, "begun {begun}");
    if let Some(cluster) = cluster {
        let _ = writeln!(text, "cluster {cluster}");
    }
    disk.write("the node's identity", || replace_sealed(disk.files.as_ref(), Path::new(FILE), HEADING, &text))
}

/// Changes what is stored.
///
/// # Errors
/// The disk.
pub(super) fn change(disk: &Disk, change: impl FnOnce(Identity) -> Identity) -> io::Result<()> {
    let stored = read_sealed(disk.files.as_ref(), Path::new(FILE), HEADING)?;
    match stored.as_deref().and_then(parse) {
        Some(stored) => save(disk, &change(stored)),
        None => Ok(()),
    }
}

/// Has the next start count on from `known`, which the cluster has heard of: this directory was put back from a backup.
///
/// # Errors
/// The disk.
pub(super) fn count_on(disk: &Disk, known: Incarnation) -> io::Result<()> {
    change(disk, |stored| Identity { incarnation: stored.incarnation.max(known), ..stored })
}

fn parse(text: &str) -> Option<Identity> {
    let mut lines = text.lines();
    let node = NodeId(lines.next()?.strip_prefix("node ")?.parse().ok()?);
    let directory = lines.next()?.strip_prefix("directory ")?.parse().ok()?;
    let incarnation = lines.next()?.strip_prefix("incarnation ")?.parse().ok()?;
    let adopted = lines.next()?.strip_prefix("adopted ")?.parse().ok()?;
    // Earlier releases wrote no more.
    let begun = lines.next().is_some_and(|line| line == "begun true");
    let cluster = lines.next().and_then(|line| line.strip_prefix("cluster ")?.parse().ok());
    Some(Identity { node, directory, incarnation: Incarnation(incarnation), adopted, begun, cluster })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_disk::sim::SimFiles;

    use super::*;

    #[test]
    fn each_start_has_a_higher_incarnation_in_the_same_directory() {
        let files = SimFiles::new(1);
        let disk = Disk::new(Arc::new(files.clone()), |write| write());
        let first = begin(&disk, NodeId(3)).unwrap();
        assert!(!first.adopted);
        let cluster = Some(Uuid::from_u128(9));
        save(&disk, &Identity { adopted: true, begun: true, cluster, ..first }).unwrap();
        files.crash();
        let second = begin(&disk, NodeId(3)).unwrap();
        let incarnation = Incarnation(2);
        assert_eq!(second, Identity { incarnation, adopted: true, begun: true, cluster, ..first });
        count_on(&disk, Incarnation(7)).unwrap();
        count_on(&disk, Incarnation(5)).unwrap();
        assert_eq!(begin(&disk, NodeId(3)).unwrap(), Identity { incarnation: Incarnation(8), ..second });
        let error = begin(&disk, NodeId(1)).unwrap_err().to_string();
        assert!(error.contains("node.id = 3"), "{error}");
    }
}
