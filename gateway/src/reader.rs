//! Reads a partition by offset or time, hot and cold alike: the local log first, the lake below it.

use std::sync::Arc;

use forebay_cluster::{Fetched, Partition};
use forebay_log::{Millis, Offset, ReadError};

use crate::lake::Lake;

/// The one way to read records. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    lake: Option<Arc<Lake>>,
}

impl Reader {
    pub fn new(lake: Option<Arc<Lake>>) -> Reader {
        Reader { lake }
    }

    /// As [`Partition::read`], going on into the cold tier below the local log start.
    pub async fn read(&self, partition: &Arc<Partition>, from: Offset, max_bytes: usize) -> Result<Fetched, ReadError> {
        self.read_by(partition, from, max_bytes, false).await
    }

    /// As [`Reader::read`], at the partition's leader: what was acknowledged is there before it is here.
    pub async fn read_at_leader(
        &self,
        partition: &Arc<Partition>,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Fetched, ReadError> {
        self.read_by(partition, from, max_bytes, true).await
    }

    async fn read_by(
        &self,
        partition: &Arc<Partition>,
        mut from: Offset,
        max_bytes: usize,
        at_leader: bool,
    ) -> Result<Fetched, ReadError> {
        loop {
            let read = match at_leader {
                true => partition.fetch_from_leader(from, max_bytes).await,
                false => partition.fetch(from, max_bytes).await,
            };
            let (asked, local_start) = match read {
                Err(ReadError::Tiered { asked, local_start }) => (asked, local_start),
                read => return read,
            };
            let Some(lake) = &self.lake else {
                let end = partition.watermarks().high_watermark;
                return Err(ReadError::OutOfRange { asked, start: local_start, end });
            };
            let batches = lake.read(partition.topic(), partition.index(), asked, max_bytes).await?;
            if !batches.is_empty() {
                return Ok(Fetched { batches, watermarks: partition.watermarks() });
            }
            // The lake ends in a gap: what follows is in the local log, or has just left it.
            from = local_start;
        }
    }

    /// The largest timestamp in the cold tier; `None` when it has nothing that the local log has not.
    pub fn largest_cold_timestamp(&self, partition: &Partition) -> Option<Millis> {
        let marks = partition.watermarks();
        let lake = self.lake.as_ref().filter(|_| marks.log_start < marks.local_start)?;
        lake.largest_timestamp(partition.topic(), partition.index())
    }

    /// The first record at or after `at`, searching the cold tier before the local log.
    pub async fn offset_for_time(
        &self,
        partition: &Arc<Partition>,
        at: Millis,
    ) -> Result<Option<(Offset, Millis)>, ReadError> {
        let marks = partition.watermarks();
        if let Some(lake) = &self.lake
            && marks.log_start < marks.local_start
            && let Some(found) = lake.offset_for_time(partition.topic(), partition.index(), at).await?
            && found.0 < marks.local_start
        {
            return Ok(Some(found));
        }
        partition.offset_for_time(at)
    }
}
