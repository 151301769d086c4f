//! Opening what is in the data directory: the node's identity, and each partition up to its machine and files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use forebay_log::partition::{Event, Watermarks};
use forebay_log::{Epoch, Millis, Offset, TopicConfig};
use tokio::sync::watch;
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
use crate::store::Store;
use crate::topic::is_internal;

/// Kafka's name for the file that tells whose data directory this is.
const PROPERTIES_FILE: &str = "meta.properties";

/// Reads the node's metadata, or begins it at the first start.
pub(crate) fn identify(files: &dyn Files, space: &Space) -> Result<Metadata, LogError> {
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
        let text = format!("version=1\ncluster.id={}\nnode.id=1\n", metadata.cluster_id);
        space.reserved(|| replace_file(files, &path, text.as_bytes())).map_err(LogError::io(&path))?;
    }
    dirs::sweep(files).map_err(LogError::io(LOG_DIR))?;
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

/// A partition to be opened.
pub(crate) struct OpenPartition<'a> {
    pub(crate) files: &'a Arc<dyn Files>,
    pub(crate) space: &'a Arc<Space>,
    pub(crate) topic: &'a str,
    pub(crate) index: u32,
    pub(crate) config: &'a TopicConfig,
}

impl OpenPartition<'_> {
    /// Recovers it. One that cannot be opened has no driver and is offline, the others are not touched by it.
    pub(crate) fn run(&self, point: Offset) -> Result<(Option<Driver>, Arc<Shared>), LogError> {
        let dir = partition_dir(self.topic, self.index);
        let now = Millis::from_system(SystemTime::now());
        let recovery = Recovery { files: self.files, dir: &dir, point, now };
        let shared = Arc::new(self.shared(point));
        let Recovered { restored, segments } = match recovery.run() {
            Ok(recovered) => recovered,
            Err(error) => {
                tracing::error!(topic = self.topic, partition = self.index, %error, "partition is offline: not recovered");
                shared.offline.store(Some(Arc::new(format!("{}: {error}", dir.display()))));
                return Ok((None, shared));
            }
        };
        let epoch = restored.epochs.latest().map_or(Epoch(0), |latest| Epoch(latest.0 + 1));
        let mut machine = Machine::new(self.config.clone(), now, restored);
        // A new epoch at each start: a log that lost its unsynced tail is not taken for the one before (KIP-101).
        let mut effects = Vec::new();
        machine.handle(now, Event::BecomeLeader { epoch, followers: Vec::new() }, &mut effects);
        shared.publish(&machine);
        shared.publish_marks(machine.watermarks());
        let active = segments.last().cloned();
        shared.segments.store(Arc::new(segments));
        let active = active.ok_or_else(|| LogError::Format {
            path: dir.display().to_string(),
            what: "recovery made no segment".to_owned(),
        })?;
        let store = Store::new(Arc::clone(self.files), dir, Arc::clone(self.space), Arc::clone(&shared), active);
        Ok((Some(Driver::new(machine, store)), shared))
    }

    fn shared(&self, point: Offset) -> Shared {
        let marks = Watermarks { log_start: point, local_start: point, high_watermark: point, log_end: point };
        Shared {
            topic: self.topic.to_owned(),
            index: self.index,
            internal: is_internal(self.topic),
            segments: ArcSwap::default(),
            marks: watch::channel(marks).0,
            closed: ArcSwap::default(),
            epoch: AtomicI32::new(0),
            local_bytes: AtomicU64::new(0),
            offline: ArcSwapOption::empty(),
            removed: AtomicBool::new(false),
        }
    }
}
