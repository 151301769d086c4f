//! Who may talk to this node, and what of that has to outlive a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_log::NodeId;
use tokio::sync::watch;
use tracing::warn;
use uuid::Uuid;

use super::identity::{self, Identity as Own};
use super::limits::REMEMBER_AGAIN;
use crate::link::{Admission, Identity, Local, Refusal, RefusalCode};
use crate::metadata::Metadata;
use crate::quorum::{Disk, Quorum};

/// Who may talk to this node: the nodes of its cluster, with the data directories that they registered with.
pub(super) fn admission(metadata: watch::Receiver<Metadata>, voters: Vec<NodeId>) -> Arc<dyn Admission> {
    Arc::new(move |peer: &Identity| {
        let id = NodeId(peer.node);
        let known = metadata.borrow();
        if known.image.cluster().is_none() {
            return Ok(());
        }
        let Some(node) = known.image.node(id) else {
            if voters.contains(&id) {
                return Ok(());
            }
            let text = format!("node {id} is not in the cluster: admit it with `forebay cluster add {id}`");
            return Err(Refusal::new(RefusalCode::NotAdmitted, text));
        };
        match &node.registration {
            Some(registration) if registration.directory != peer.directory => {
                let text = format!(
                    "node {id} came with data directory {}, its replicas and votes are in {}: start it with that one; if \
                     it is lost, take the node out of the cluster and add it again",
                    peer.directory, registration.directory
                );
                Err(Refusal::new(RefusalCode::WrongDirectory, text))
            }
            _ => Ok(()),
        }
    })
}

/// Tells the links which cluster this is, as soon as that is known, and notes it for the next start: until then the node would talk to
/// any.
pub(super) async fn name_cluster(local: Arc<Local>, mut metadata: watch::Receiver<Metadata>, disk: Disk, own: Own) {
    let known = metadata.wait_for(|metadata| metadata.image.cluster().is_some()).await;
    let Some(id) = known.ok().and_then(|known| known.image.cluster()) else { return };
    local.set_cluster_id(&id.to_string());
    if own.cluster == Some(id) {
        return;
    }
    let named = move || identity::change(&disk, |stored| Own { cluster: Some(id), ..stored });
    let noted = tokio::task::spawn_blocking(named).await;
    if let Err(error) = noted.unwrap_or_else(|error| Err(error.into())) {
        warn!(%error, "the cluster's id was not noted; the next start tries again");
    }
}

/// Has a snapshot taken when a node came with a data directory: what is only in the log is not known after a restart until there is a
/// leader, and until then a node with an emptied directory could vote anew.
pub(super) async fn remember_directories(quorum: Quorum, mut metadata: watch::Receiver<Metadata>) {
    let mut remembered = BTreeMap::new();
    loop {
        let (entry, directories) = {
            let known = metadata.borrow_and_update();
            let of = |(id, node): (NodeId, &forebay_log::cluster::Node)| {
                node.registration.as_ref().map(|registration| (id, registration.directory))
            };
            (known.entry, known.image.nodes().filter_map(of).collect::<BTreeMap<NodeId, Uuid>>())
        };
        while remembered != directories {
            if quorum.status().snapshot >= Some(entry) {
                remembered.clone_from(&directories);
            } else {
                quorum.snapshot().await;
                tokio::time::sleep(REMEMBER_AGAIN).await;
            }
        }
        if metadata.changed().await.is_err() {
            return;
        }
    }
}
