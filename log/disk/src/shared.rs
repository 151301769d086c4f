//! What a partition's shard publishes and its handles read, without a lock on either side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use forebay_log::partition::{ClosedSegment, EpochCache, IsrChange, Starts, Watermarks};
use forebay_log::replication::PartitionId;
use forebay_log::topic::is_internal;
use forebay_log::{AppendError, Offset};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::machine::Machine;
use crate::replica::{IsrProposal, Observer};
use crate::segment_file::SegmentFile;
use crate::stats::Stats;

/// Where changes of in-sync replicas are proposed: never more than the node has partitions.
pub(crate) type Outbox = mpsc::UnboundedSender<IsrProposal>;

/// One partition, seen from outside its shard.
pub(crate) struct Shared {
    pub(crate) topic: String,
    /// A topic that is deleted and made again is another one.
    pub(crate) topic_id: Uuid,
    pub(crate) index: u32,
    /// Of an internal topic: may use the reserve on a full disk.
    pub(crate) internal: bool,
    /// The local segments, oldest first.
    pub(crate) segments: ArcSwap<Vec<Arc<SegmentFile>>>,
    pub(crate) marks: watch::Sender<Watermarks>,
    pub(crate) closed: ArcSwap<Vec<ClosedSegment>>,
    pub(crate) epoch: AtomicI32,
    pub(crate) epochs: ArcSwap<EpochCache>,
    pub(crate) starts: ArcSwap<Starts>,
    pub(crate) local_bytes: AtomicU64,
    /// Below which offset the log is compacted.
    pub(crate) compacted: AtomicI64,
    pub(crate) offline: ArcSwapOption<String>,
    /// The topic is deleted.
    pub(crate) removed: AtomicBool,
    /// Whether this node leads it.
    pub(crate) leading: AtomicBool,
    pub(crate) observers: ArcSwap<Vec<Arc<dyn Observer>>>,
    pub(crate) outbox: Outbox,
    /// Of [`Machine::closed_segments`] when it was last published.
    closed_version: AtomicU64,
    pub(crate) stats: Arc<Stats>,
}

impl Shared {
    /// A partition that is not opened yet; all that is known of it is its recovery point. Its log start is not known: what
    /// lies below must not be taken for gone, or the lake would delete it.
    pub(crate) fn new(
        (topic, topic_id): (&str, Uuid),
        index: u32,
        point: Offset,
        stats: Arc<Stats>,
        outbox: Outbox,
    ) -> Shared {
        let marks = Watermarks { log_start: Offset::ZERO, local_start: point, high_watermark: point, log_end: point };
        Shared {
            topic: topic.to_owned(),
            topic_id,
            index,
            internal: is_internal(topic),
            segments: ArcSwap::default(),
            marks: watch::channel(marks).0,
            closed: ArcSwap::default(),
            epoch: AtomicI32::new(0),
            epochs: ArcSwap::default(),
            starts: ArcSwap::default(),
            local_bytes: AtomicU64::new(0),
            compacted: AtomicI64::new(0),
            offline: ArcSwapOption::empty(),
            removed: AtomicBool::new(false),
            leading: AtomicBool::new(false),
            observers: ArcSwap::default(),
            outbox,
            closed_version: AtomicU64::new(u64::MAX),
            stats,
        }
    }

    /// Publishes what the machine now says, apart from the watermarks, which it publishes itself.
    pub(crate) fn publish(&self, machine: &Machine) {
        self.epoch.store(machine.epoch().0, Ordering::Release);
        self.leading.store(machine.leads(), Ordering::Release);
        if **self.epochs.load() != *machine.epochs() {
            self.epochs.store(Arc::new(machine.epochs().clone()));
        }
        if **self.starts.load() != *machine.starts() {
            self.starts.store(Arc::new(machine.starts().clone()));
        }
        self.compacted.store(machine.compacted_to().0, Ordering::Release);
        self.local_bytes.store(machine.local_bytes(), Ordering::Release);
        if self.closed_version.swap(machine.closed_version(), Ordering::AcqRel) != machine.closed_version() {
            self.closed.store(Arc::new(machine.closed_segments()));
        }
        let offline = machine.offline();
        if self.offline.load().as_deref() != offline.as_ref() {
            self.offline.store(offline.map(Arc::new));
        }
    }

    /// Why the shard has dropped a request instead of answering it.
    pub(crate) fn unanswered(&self) -> AppendError {
        if let Some(why) = self.offline.load().as_deref() {
            AppendError::Offline(why.clone())
        } else if self.removed.load(Ordering::Acquire) {
            AppendError::Offline("the topic is deleted".to_owned())
        } else {
            AppendError::Closed
        }
    }

    pub(crate) fn propose_isr(&self, change: IsrChange) {
        let partition = PartitionId { topic: self.topic_id, index: self.index };
        let proposal = IsrProposal { partition, change };
        // Without a controller to ask there are no followers either.
        let _ = self.outbox.send(proposal);
    }

    pub(crate) fn publish_marks(&self, marks: Watermarks) {
        let changed = self.marks.send_if_modified(|known| {
            let changed = *known != marks;
            *known = marks;
            changed
        });
        if changed {
            self.observers.load().iter().for_each(|observer| observer.moved(&self.topic, self.index, &marks));
        }
    }
}
