//! Texts or bytes of many rows, gathered in one buffer.

use arrow_array::GenericByteArray;
use arrow_array::types::ByteArrayType;
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

/// A column of bytes under construction.
pub(super) struct ByteColumn {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    valid: BooleanBufferBuilder,
}

impl Default for ByteColumn {
    fn default() -> Self {
        ByteColumn { bytes: Vec::new(), ends: vec![0], valid: BooleanBufferBuilder::new(0) }
    }
}

impl ByteColumn {
    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    pub(super) fn push(&mut self, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.bytes.extend_from_slice(value);
        }
        self.valid.append(value.is_some());
        self.ends.push(self.end());
    }

    /// What is gathered is bounded far below 2 GiB.
    fn end(&self) -> i32 {
        i32::try_from(self.bytes.len()).unwrap_or(i32::MAX)
    }

    /// Nulls up to row `rows`.
    pub(super) fn pad(&mut self, rows: usize) {
        let missing = rows.saturating_sub(self.len());
        self.valid.append_n(missing, false);
        self.ends.resize(self.ends.len() + missing, self.end());
    }

    /// The column so far; it goes on empty.
    pub(super) fn take<T: ByteArrayType<Offset = i32>>(&mut self) -> Result<GenericByteArray<T>, ArrowError> {
        let nulls = Some(NullBuffer::new(self.valid.finish())).filter(|nulls| nulls.null_count() > 0);
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let bytes = Buffer::from_vec(std::mem::take(&mut self.bytes));
        GenericByteArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), bytes, nulls)
    }
}
