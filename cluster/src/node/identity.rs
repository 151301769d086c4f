//! Who this node is: the id of its data directory, and which start of the process this is.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

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
fn begin(disk: &Disk, node: NodeId) -> io::Result<Identity> {
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

/// What this start goes by, and keeps in the data directory.
pub(super) struct Kept {
    disk: Disk,
    identity: Mutex<Identity>,
}

impl Kept {
    /// Counts this start, durably. Blocking.
    ///
    /// # Errors
    /// As [`begin`].
    pub(super) fn begin(disk: Disk, node: NodeId) -> io::Result<Kept> {
        let identity = Mutex::new(begin(&disk, node)?);
        Ok(Kept { disk, identity })
    }

    pub(super) fn get(&self) -> Identity {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what is stored, if that changes it. Blocking.
    ///
    /// # Errors
    /// The disk; what is stored is as it was.
    pub(super) fn change(&self, change: impl FnOnce(&mut Identity)) -> io::Result<()> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = *identity;
        change(&mut changed);
        if changed != *identity {
            save(&self.disk, &changed)?;
            *identity = changed;
        }
        Ok(())
    }
}

fn save(disk: &Disk, identity: &Identity) -> io::Result<()> {
    let Identity { node, directory, incarnation, adopted, begun, cluster } = identity;
    let mut text = format!("node {node}\ndirectory {directory}\nincarnation {incarnation}\nadopted {adopted}\n");
    let _ = writeln!(text, "begun {begun}");
    if let Some(cluster) = cluster {
        let _ = writeln!(text, "cluster {cluster}");
    }
    disk.write("the node's identity", || replace_sealed(disk.files.as_ref(), Path::new(FILE), HEADING, &text))
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
        let kept = Kept::begin(disk.clone(), NodeId(3)).unwrap();
        let first = kept.get();
        assert!(!first.adopted && !first.begun);
        let cluster = Some(Uuid::from_u128(9));
        kept.change(|now| *now = Identity { adopted: true, begun: true, cluster, ..*now }).unwrap();
        files.crash();
        let incarnation = Incarnation(2);
        let kept = Kept::begin(disk.clone(), NodeId(3)).unwrap();
        assert_eq!(kept.get(), Identity { incarnation, adopted: true, begun: true, cluster, ..first });
        kept.change(|now| now.incarnation = Incarnation(7)).unwrap();
        assert_eq!(Kept::begin(disk.clone(), NodeId(3)).unwrap().get().incarnation, Incarnation(8));
        let error = Kept::begin(disk, NodeId(1)).err().unwrap().to_string();
        assert!(error.contains("node.id = 3"), "{error}");
    }
}
