//! Both indexes of one segment, kept up as batches are appended.

use super::{OffsetIndex, TimeIndex};
use crate::limits::INDEX_INTERVAL_BYTES;
use crate::record::BatchHeader;
use crate::units::{Millis, Offset};

/// The indexes of a segment and what is needed to go on with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexes {
    pub offsets: OffsetIndex,
    pub times: TimeIndex,
    /// Greatest timestamp so far and the last offset of the first batch that has it.
    max_timestamp: Option<(Millis, Offset)>,
    bytes_since_entry: usize,
}

impl Indexes {
    #[must_use]
    pub fn new(base: Offset) -> Indexes {
        Indexes {
            offsets: OffsetIndex::new(base),
            times: TimeIndex::new(base),
            max_timestamp: None,
            bytes_since_entry: 0,
        }
    }

    /// Takes in a batch that was appended at `position` of the log file: an entry every
    /// [`INDEX_INTERVAL_BYTES`].
    pub fn on_append(&mut self, header: &BatchHeader, position: u64) {
        if self.max_timestamp.is_none_or(|(max, _)| header.max_timestamp > max) {
            self.max_timestamp = Some((header.max_timestamp, header.last_offset()));
        }
        if self.bytes_since_entry > INDEX_INTERVAL_BYTES {
            self.offsets.append(header.last_offset(), position);
            self.index_time();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.size;
    }

    /// Closes the segment: the time index ends with its greatest timestamp.
    pub fn on_close(&mut self) {
        self.index_time();
    }

    fn index_time(&mut self) {
        if let Some((timestamp, offset)) = self.max_timestamp {
            self.times.append(timestamp, offset);
        }
    }

    /// The greatest timestamp in the segment; `None` while it is empty.
    #[must_use]
    pub fn max_timestamp(&self) -> Option<Millis> {
        self.max_timestamp.map(|(timestamp, _)| timestamp)
    }
}
