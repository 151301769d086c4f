//! The column of headers: a list of names and values for each record, order and duplicates kept.

use std::sync::Arc;

use arrow_array::types::{BinaryType, Utf8Type};
use arrow_array::{ArrayRef, ListArray, StructArray};
use arrow_buffer::{BooleanBufferBuilder, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, SchemaRef};

use super::names;
use super::texts::ByteColumn;

/// Cells that a header counts for: what it takes in memory while rows are gathered.
const HEADER_CELLS: usize = 8;

/// The headers of the rows gathered.
pub(super) struct HeaderRows {
    names: ByteColumn,
    values: ByteColumn,
    ends: Vec<i32>,
    valid: BooleanBufferBuilder,
    text: String,
}

impl Default for HeaderRows {
    fn default() -> Self {
        HeaderRows {
            names: ByteColumn::default(),
            values: ByteColumn::default(),
            ends: vec![0],
            valid: BooleanBufferBuilder::new(0),
            text: String::new(),
        }
    }
}

impl HeaderRows {
    /// Adds the headers of the next row; tells how many bytes and cells they take.
    pub(super) fn push<'r>(&mut self, headers: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>) -> (usize, usize) {
        let before = self.names.len();
        let mut bytes = 0;
        for (name, value) in headers {
            bytes += name.len() + value.map_or(0, <[u8]>::len);
            if name.is_ascii() {
                self.names.push(Some(name));
            } else {
                self.text.clear();
                names::to_text(name, &mut self.text);
                self.names.push(Some(self.text.as_bytes()));
            }
            self.values.push(value);
        }
        let count = self.names.len() - before;
        self.valid.append(count > 0);
        self.ends.push(i32::try_from(self.names.len()).unwrap_or(i32::MAX));
        (bytes, count * HEADER_CELLS)
    }

    /// The column so far; it goes on empty.
    pub(super) fn take(&mut self, schema: &SchemaRef) -> Result<ArrayRef, ArrowError> {
        let DataType::List(element) = schema.field_with_name("_headers")?.data_type() else {
            return Err(ArrowError::SchemaError("_headers is no list".into()));
        };
        let DataType::Struct(fields) = element.data_type() else {
            return Err(ArrowError::SchemaError("_headers holds no structs".into()));
        };
        let columns: Vec<ArrayRef> =
            vec![Arc::new(self.names.take::<Utf8Type>()?), Arc::new(self.values.take::<BinaryType>()?)];
        let entries = StructArray::try_new(fields.clone(), columns, None)?;
        let ends = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.ends, vec![0])));
        let nulls = Some(NullBuffer::new(self.valid.finish())).filter(|nulls| nulls.null_count() > 0);
        Ok(Arc::new(ListArray::try_new(element.clone(), ends, Arc::new(entries), nulls)?))
    }
}
