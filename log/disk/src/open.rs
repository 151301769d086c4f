//! Opening what is in the data directory: the node's identity, and each partition up to its machine and files.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_log::limits::REPLICA_LAG_TIME_MAX_MS;
use forebay_log::partition::{Event, Leadership};
use forebay_log::{Epoch, Millis, Offset, PartitionEpoch, TopicConfig};
use uuid::Uuid;

use crate::LogError;
use crate::dirs;
use crate::engine::Driver;
use crate::files::{Files, read_file, replace_file};
use crate::layout::{LOG_DIR, partition_dir};
use crate::machine::Machine;
use crate::meta::Metadata;
use crate::recover::{Recovered, Recovery};
use crate::shared::Shared;
use crate::space::Space;
use crate::store::{EPOCHS_FILE, Store};

/// Kafka's name for the file that tells whose data directory this is.
const PROPERTIES_FILE: &str = "meta.properties";

/// Reads the node's metadata, or begins it at the first start.
pub(crate) fn identify(node_id: u32, files: &dyn Files, space: &Space) -> Result<Metadata, LogError> {
    let metadata = match Metadata::load(files)? {
        Some(metadata) => metadata,
        None => {
            refuse_orphans(files)?;
            let fresh =
                Metadata { cluster_id: dirs::kafka_id(Uuid::new_v4()), topics: std::collections::BTreeMap::new() };
            space.reserved(|| fresh.save(files)).map_err(LogError::io("metadata"))?;
            fresh
        }
    };
    let path = std::path::Path::new(LOG_DIR).join(PROPERTIES_FILE);
    if read_file(files, &path).map_err(LogError::io(&path))?.is_none() {
        let text = format!("version=1\ncluster.id={}\nnode.id={node_id}\n", metadata.cluster_id);
        space.reserved(|| replace_file(files, &path, text.as_bytes())).map_err(LogError::io(&path))?;
    }
    if let Err(error) = dirs::sweep(files) {
        tracing::warn!(%error, "directories of deleted topics are not all removed: tried again at the next start");
    }
    Ok(metadata)
}

/// A log without metadata has lost it: starting anew would hide records that were acknowledged.
fn refuse_orphans(files: &dyn Files) -> Result<(), LogError> {
    let names = files.list(std::path::Path::new(LOG_DIR)).map_err(LogError::io(LOG_DIR))?;
    let is_partition = |name: &str| name.rsplit_once('-').is_some_and(|(_, number)| number.parse::<u32>().is_ok());
    match names.iter().find(|name| name.to_str().is_some_and(is_partition)) {
        None => Ok(()),
        Some(name) => {
            let what = format!("missing, though {LOG_DIR}/{} exists: restore it from a backup", name.display());
            Err(LogError::Format { path: "metadata".to_owned(), what })
        }
    }
}

/// A partition to be opened; kept for another try while that fails.
pub(crate) struct OpenPartition {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) space: Arc<Space>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Arc<ArcSwap<TopicConfig>>,
    /// Its recovery point.
    pub(crate) point: Offset,
    /// It leads at once, without a controller that says so.
    pub(crate) alone: bool,
}

impl OpenPartition {
    /// Recovers it and publishes what it holds.
    ///
    /// # Errors
    /// IO errors: the partition is offline then, the others are not touched by it.
    pub(crate) fn run(&self, now: Millis) -> io::Result<Driver> {
        let dir = partition_dir(&self.shared.topic, self.shared.index);
        let recovered =
            Recovery { files: &self.files, dir: &dir, point: self.point, now, stats: &self.shared.stats }.run();
        let Recovered { restored, segments } = recovered.inspect_err(|error| {
            self.shared.offline.store(Some(Arc::new(format!("{}: {error}", dir.display()))));
        })?;
        let epoch = match restored.epochs.latest() {
            None => Epoch(0),
            Some(latest) => latest.0.checked_add(1).map(Epoch).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{EPOCHS_FILE}: the last leader epoch is no epoch"))
            })?,
        };
        let config = Arc::unwrap_or_clone(self.config.load_full());
        let mut machine = Machine::new(config, now, restored);
        // A new epoch at each start: a log that lost its unsynced tail is not taken for the one before (KIP-101).
        if self.alone {
            let (partition_epoch, followers, in_sync) = (PartitionEpoch(0), Vec::new(), Vec::new());
            let max_lag_ms = REPLICA_LAG_TIME_MAX_MS;
            let word = Leadership { epoch, partition_epoch, followers, in_sync, max_lag_ms };
            machine.handle(now, Event::Lead(word), &mut Vec::new());
        }
        let active = segments.last().cloned().ok_or_else(|| io::Error::other("recovery made no segment"))?;
        self.shared.segments.store(Arc::new(segments));
        self.shared.publish_marks(machine.watermarks());
        self.shared.publish(&machine);
        let (files, shared) = (Arc::clone(&self.files), Arc::clone(&self.shared));
        let store = Store::new(files, dir, Arc::clone(&self.space), shared, active);
        Ok(Driver::new(machine, store))
    }
}
