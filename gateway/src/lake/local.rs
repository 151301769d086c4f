//! The local log as the offload sees it: closed segments, their records, and what it is told.

use std::sync::Arc;

use async_trait::async_trait;
use forebay_cluster::{Log, Partition, Topic};
use forebay_log::{Offset, ReadError};
use forebay_tiering::offload::{LocalLog, Segment};
use forebay_tiering::parquet::{SegmentSource, SourceError, Stretch};
use tokio_util::sync::CancellationToken;

use crate::leadership::Term;

/// Bytes read at once while a segment is copied.
const READ_BYTES: usize = 1 << 20;

/// One topic.
pub(super) struct TopicLog {
    pub(super) log: Log,
    pub(super) topic: Arc<Topic>,
    pub(super) stop: CancellationToken,
}

impl TopicLog {
    fn partition(&self, partition: u32) -> Result<&Arc<Partition>, String> {
        self.topic.partitions.get(partition as usize).ok_or_else(|| format!("partition {partition} does not exist"))
    }
}

struct PartitionSource {
    partition: Option<Arc<Partition>>,
    /// Another leader copies from now on.
    term: Option<Term>,
    stop: CancellationToken,
}

impl SegmentSource for PartitionSource {
    fn read(&mut self, from: Offset) -> Result<Stretch, SourceError> {
        if self.stop.is_cancelled() {
            return Err(SourceError("shutting down".into()));
        }
        if !self.term.as_ref().is_some_and(Term::lasts) {
            return Err(SourceError("another node leads the partition now".into()));
        }
        let partition = self.partition.as_ref().ok_or_else(|| SourceError("no such partition".into()))?;
        match partition.read(from, READ_BYTES) {
            Ok(fetched) => Ok(Stretch::Batches(fetched.batches)),
            Err(error @ ReadError::Corrupt { next, .. }) => Ok(Stretch::Damaged { next, cause: error.to_string() }),
            Err(error) => Err(SourceError(error.to_string())),
        }
    }
}

#[async_trait]
impl LocalLog for TopicLog {
    fn local(&self, partition: u32) -> (Offset, Vec<Segment>) {
        let Ok(partition) = self.partition(partition) else { return (Offset::ZERO, Vec::new()) };
        let segments = partition.closed_segments().into_iter().map(|segment| Segment {
            base: segment.base_offset,
            end: segment.end_offset,
            bytes: segment.bytes,
            append_day: segment.append_day,
        });
        (partition.watermarks().log_start, segments.collect())
    }

    fn source(&self, partition: u32) -> Box<dyn SegmentSource> {
        let partition = self.partition(partition).ok().cloned();
        let term = partition.as_ref().and_then(|partition| Term::of(&self.log, partition));
        Box::new(PartitionSource { partition, term, stop: self.stop.clone() })
    }

    async fn set_tiered(&self, partition: u32, end: Offset) -> Result<(), String> {
        self.partition(partition)?.set_tiered(end).await.map_err(|error| error.to_string())
    }
}
