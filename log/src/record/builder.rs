//! Builds one v2 batch from gathered chunks or from single records, compressed once.

use bytes::Bytes;

use super::{Compression, RecordChunk};
use crate::units::{Epoch, Millis, Offset};

/// Gathers records for one batch.
pub struct BatchBuilder {
    #[allow(dead_code)]
    compression: Compression,
}

impl BatchBuilder {
    pub fn new(compression: Compression) -> BatchBuilder {
        BatchBuilder { compression }
    }
    /// Adds all records of a chunk; returns the index of its first record in the batch.
    pub fn push_chunk(&mut self, chunk: &RecordChunk) -> usize {
        let _ = chunk;
        todo!()
    }
    /// Adds one record at an explicit distance from the base offset (cold reads keep gaps).
    pub fn push(
        &mut self,
        offset_delta: i32,
        timestamp: Millis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let _ = (offset_delta, timestamp, key, value, headers);
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Raw bytes gathered so far.
    pub fn bytes(&self) -> usize {
        todo!()
    }
    /// The finished batch with the offset and epoch written in; `None` when nothing was gathered.
    pub fn build(self, base_offset: Offset, epoch: Epoch) -> Option<Bytes> {
        let _ = (base_offset, epoch);
        todo!()
    }
}
