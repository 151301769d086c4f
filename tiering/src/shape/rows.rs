//! Records into record batches: payloads into typed columns, the rest into system columns.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::types::{BinaryType, Utf8Type};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, SchemaRef};
use forebay_log::{Millis, Offset};

use super::encode::Encoder;
use super::headers::HeaderRows;
use super::json::{Parser, Syntax};
use super::notes::{Notes, TOO_MANY_CELLS};
use super::object::StructData;
use super::schema::{MAX_FIELDS, Shape};
use super::style::Proof;
use super::texts::ByteColumn;
use super::token::Next;

/// Gathers the records of one partition and turns them into record batches of a shape.
pub struct Shaper {
    shape: Arc<Shape>,
    schema: SchemaRef,
    partition: i32,
    root: StructData,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: ByteColumn,
    headers: HeaderRows,
    /// Payloads that may have to be stored as they are.
    kept: Vec<Kept>,
    payloads: Vec<u8>,
    errors: Vec<(usize, String)>,
    bytes: usize,
    cells: usize,
    more: bool,
    /// Space followed the first separator of the first payload.
    spaced: Option<bool>,
}

/// A payload that is not known to be what its columns reproduce.
struct Kept {
    row: usize,
    bytes: Range<usize>,
    proof: Proof,
}

/// A finished batch and how much of it could not be typed.
pub struct Shaped {
    pub batch: RecordBatch,
    /// Rows with an `_error`.
    pub errors: u64,
}

impl Shaper {
    pub fn new(shape: Arc<Shape>, schema: SchemaRef, partition: u32) -> Shaper {
        Shaper {
            root: StructData::new(&shape.fields, shape.spaced),
            shape,
            schema,
            partition: i32::try_from(partition).unwrap_or(i32::MAX),
            offsets: Vec::new(),
            timestamps: Vec::new(),
            keys: ByteColumn::default(),
            headers: HeaderRows::default(),
            kept: Vec::new(),
            payloads: Vec::new(),
            errors: Vec::new(),
            bytes: 0,
            cells: 0,
            more: false,
            spaced: None,
        }
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes of keys, payloads and headers gathered since the last batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Values gathered since the last batch, nulls included: of a table with many columns, short payloads take far more
    /// memory than bytes.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Whether any payload so far holds a field that the shape could have and has not.
    pub fn is_too_narrow(&self) -> bool {
        self.more && self.shape.field_count() < MAX_FIELDS
    }

    /// The shape, with the ways of writing that were seen in all payloads so far.
    pub fn seen(&self) -> Shape {
        let mut shape = Shape { spaced: self.spaced.unwrap_or(self.shape.spaced), fields: self.shape.fields.clone() };
        self.root.show_styles(&mut shape.fields);
        shape
    }

    /// Adds a record; offsets must rise.
    pub fn push<'r>(
        &mut self,
        offset: Offset,
        timestamp: Millis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
    ) {
        let row = self.offsets.len();
        match value {
            None => self.root.push_null(),
            Some(payload) => self.push_payload(row, payload),
        }
        let (header_bytes, header_cells) = self.headers.push(headers);
        self.bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + header_bytes + 32;
        self.cells += self.root.width() + header_cells;
        self.offsets.push(offset.0);
        self.timestamps.push(timestamp.0.saturating_mul(1000));
        self.keys.push(key);
    }

    fn push_payload(&mut self, row: usize, payload: &[u8]) {
        let proof = match self.decode(row, payload) {
            Ok(proof) => proof,
            Err(error) => {
                self.errors.push((row, error));
                Proof::Differs
            }
        };
        if proof != Proof::Same || cfg!(debug_assertions) {
            let start = self.payloads.len();
            self.payloads.extend_from_slice(payload);
            self.kept.push(Kept { row, bytes: start..self.payloads.len(), proof });
        }
    }

    /// Fills one row of the payload columns. An error names what is wrong; a malformed payload leaves nulls, one with a
    /// field that does not fit leaves null in that field.
    fn decode(&mut self, row: usize, payload: &[u8]) -> Result<Proof, String> {
        let mut notes = Notes::of(self.shape.spaced);
        let mut fill = || -> Result<Option<Next>, Syntax> {
            let mut parser = Parser::new(payload)?;
            let next = parser.peek()?;
            if next != Next::Object {
                parser.skip()?;
                parser.end()?;
                return Ok(Some(next));
            }
            // Without any field it would come back as no payload.
            let empty = !self.root.fill(&mut parser, &mut notes)?;
            parser.end()?;
            if empty || parser.spaced {
                let open = !empty && self.shape.spaced;
                notes.prove(if open { Proof::Open } else { Proof::Differs });
            }
            Ok(None)
        };
        let problem = match fill() {
            Ok(None) => {
                self.cells += notes.cells;
                self.more |= notes.more;
                if self.spaced.is_none() {
                    self.spaced = spaced_after_key(payload);
                }
                return notes.misfit.map_or(Ok(notes.proof), Err);
            }
            Ok(Some(other)) => format!("not a JSON object: {}", other.name()),
            Err(_) if payload.is_empty() => "empty payload".to_owned(),
            Err(error) if error.what == TOO_MANY_CELLS => error.to_string(),
            Err(error) => format!("not JSON: {error}"),
        };
        self.root.truncate(row);
        self.root.push_null();
        Err(problem)
    }

    /// The record batch of what was gathered since the last one. A payload that its typed columns reproduce byte for byte is
    /// not stored again in `_value`.
    ///
    /// # Errors
    /// Never for a schema that is the shape's own.
    pub fn take(&mut self) -> Result<Shaped, ArrowError> {
        let rows = self.offsets.len();
        let mut columns = self.root.take()?;
        let encoder = Encoder::new(&self.shape, |name| self.schema.index_of(name).ok().and_then(|at| columns.get(at)))
            .ok_or_else(|| ArrowError::SchemaError("the columns are not those of the shape".into()))?;
        let mut text = String::new();
        let mut values = ByteColumn::default();
        for Kept { row, bytes, proof } in self.kept.drain(..) {
            let payload = &self.payloads[bytes];
            let mut same = || encoder.write(row, &mut text) && text.as_bytes() == payload;
            if proof == Proof::Same {
                debug_assert!(same(), "taken for what its columns reproduce: {}", String::from_utf8_lossy(payload));
            } else if proof == Proof::Differs || !same() {
                values.pad(row);
                values.push(Some(payload));
            }
        }
        values.pad(rows);
        self.payloads.clear();
        let errors = self.errors.len() as u64;
        let mut reasons = ByteColumn::default();
        for (row, reason) in self.errors.drain(..) {
            reasons.pad(row);
            reasons.push(Some(reason.as_bytes()));
        }
        reasons.pad(rows);
        let offsets = std::mem::take(&mut self.offsets);
        let timestamps = std::mem::take(&mut self.timestamps);
        let system: [ArrayRef; 7] = [
            Arc::new(Int32Array::from_value(self.partition, rows)),
            Arc::new(Int64Array::from(offsets)),
            Arc::new(TimestampMicrosecondArray::from(timestamps).with_timezone("UTC")),
            Arc::new(self.keys.take::<BinaryType>()?),
            self.headers.take(&self.schema)?,
            Arc::new(values.take::<BinaryType>()?),
            Arc::new(reasons.take::<Utf8Type>()?),
        ];
        columns.extend(system);
        (self.bytes, self.cells) = (0, 0);
        Ok(Shaped { batch: RecordBatch::try_new(self.schema.clone(), columns)?, errors })
    }
}

/// Whether a space follows the colon of the first key; `None` if there is no key.
fn spaced_after_key(payload: &[u8]) -> Option<bool> {
    let mut parser = Parser::new(payload).ok()?;
    parser.peek().ok()?;
    parser.enter();
    parser.key(true).ok()??;
    Some(parser.at_space())
}
