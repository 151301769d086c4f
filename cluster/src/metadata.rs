//! The cluster's metadata as the quorum keeps it: entries of records in, an image that everybody here follows out.

use forebay_log::cluster::{Image, Record};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::quorum::Machine;

/// Records that were decided together, on one image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The entry that the image was at. Applied on another one, it is nothing: a controller of the past cannot mix in what it has
    /// decided on older metadata.
    pub(crate) base: u64,
    pub(crate) records: Vec<Record>,
}

/// The cluster's metadata at one moment.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    pub image: Image,
    /// The last entry that made it.
    pub(crate) entry: u64,
}

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    entry: u64,
    image: Image,
}

/// Applies what is committed.
pub(crate) struct MetadataMachine {
    current: Metadata,
    published: watch::Sender<Metadata>,
}

impl MetadataMachine {
    pub(crate) fn new() -> (MetadataMachine, watch::Receiver<Metadata>) {
        let (published, followed) = watch::channel(Metadata::default());
        (MetadataMachine { current: Metadata::default(), published }, followed)
    }

    fn publish(&self) {
        self.published.send_replace(self.current.clone());
    }
}

impl Machine for MetadataMachine {
    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<(), String> {
        let Entry { base, records } = serde_json::from_slice(entry).map_err(|error| {
            format!("entry {index} of the cluster's metadata: {error}; is this release older than the others?")
        })?;
        if base == self.current.entry {
            records.iter().for_each(|record| self.current.image.apply(record));
            self.current.entry = index;
            self.publish();
        } else {
            tracing::info!(index, base, at = self.current.entry, "a decision on older metadata is left out");
        }
        Ok(())
    }

    fn snapshot(&self) -> Vec<u8> {
        let snapshot = Snapshot { entry: self.current.entry, image: self.current.image.clone() };
        // Maps with text keys and numbers: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(&snapshot).unwrap_or_default()
    }

    fn check(&self, snapshot: &[u8]) -> Result<(), String> {
        read(snapshot).map(drop)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let Snapshot { entry, image } = read(snapshot)?;
        self.current = Metadata { image, entry };
        self.publish();
        Ok(())
    }
}

fn read(snapshot: &[u8]) -> Result<Snapshot, String> {
    serde_json::from_slice(snapshot).map_err(|error| format!("{error}; is this release older than the others?"))
}

#[cfg(test)]
mod tests {
    use forebay_log::{Level, NodeId};
    use uuid::Uuid;

    use super::*;

    fn entry(base: u64, records: Vec<Record>) -> Vec<u8> {
        serde_json::to_vec(&Entry { base, records }).unwrap()
    }

    fn created() -> Record {
        Record::ClusterCreated { id: Uuid::from_u128(1), level: Level(1), nodes: vec![NodeId(1)] }
    }

    #[test]
    fn a_decision_on_older_metadata_is_nothing() {
        let (mut machine, followed) = MetadataMachine::new();
        machine.apply(3, &entry(0, vec![created()])).unwrap();
        let next = |next| vec![Record::ProducerIds { next }];
        machine.apply(5, &entry(3, next(10))).unwrap();
        machine.apply(6, &entry(3, next(20))).unwrap();
        assert_eq!(followed.borrow().image.next_producer_id(), 10);
        machine.apply(7, &entry(5, next(30))).unwrap();
        assert_eq!((followed.borrow().image.next_producer_id(), followed.borrow().entry), (30, 7));
    }

    #[test]
    fn a_snapshot_goes_on_where_it_was_taken() {
        let (mut machine, _) = MetadataMachine::new();
        machine.apply(3, &entry(0, vec![created()])).unwrap();
        let (mut other, followed) = MetadataMachine::new();
        other.restore(&machine.snapshot()).unwrap();
        other.apply(9, &entry(3, vec![Record::ProducerIds { next: 5 }])).unwrap();
        assert_eq!((followed.borrow().image.cluster(), followed.borrow().entry), (Some(Uuid::from_u128(1)), 9));
        assert!(other.restore(b"{").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_told_and_changes_nothing() {
        let (mut machine, followed) = MetadataMachine::new();
        let error = machine.apply(1, b"{\"base\":0,\"records\":[{\"of_a_later_release\":{}}]}").unwrap_err();
        assert!(error.contains("entry 1") && error.contains("is this release older"), "{error}");
        assert_eq!((followed.borrow().image.cluster(), followed.borrow().entry), (None, 0));
    }
}
