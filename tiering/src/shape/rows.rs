//! Records into a record batch: payloads into typed columns, the rest into system columns.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder, StringBuilder, StructBuilder, make_builder};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use bytes::Bytes;
use forebay_log::record::{Record, RecordHeader};

use super::column::{Notes, StructData, TOO_MANY_CELLS};
use super::encode::Encoder;
use super::json::{Parser, Syntax};
use super::names;
use super::schema::Shape;
use super::token::Next;

/// Gathers the records of one partition and turns them into a record batch of a shape.
pub struct Shaper {
    shape: Arc<Shape>,
    schema: SchemaRef,
    partition: i32,
    root: StructData,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: Vec<Option<Bytes>>,
    headers: Vec<Vec<RecordHeader>>,
    payloads: Vec<Option<Bytes>>,
    errors: Vec<Option<String>>,
    bytes: usize,
    cells: usize,
}

/// Cells that a header counts for: what it takes in memory while rows are gathered.
const HEADER_CELLS: usize = 8;

/// A finished batch and how much of it could not be typed.
pub struct Shaped {
    pub batch: RecordBatch,
    /// Rows with an `_error`.
    pub errors: u64,
}

impl Shaper {
    pub fn new(shape: Arc<Shape>, schema: SchemaRef, partition: u32) -> Shaper {
        Shaper {
            root: StructData::new(&shape.fields),
            shape,
            schema,
            partition: i32::try_from(partition).unwrap_or(i32::MAX),
            offsets: Vec::new(),
            timestamps: Vec::new(),
            keys: Vec::new(),
            headers: Vec::new(),
            payloads: Vec::new(),
            errors: Vec::new(),
            bytes: 0,
            cells: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes of keys, payloads and headers gathered.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Values gathered, nulls included: of a table with many columns, short payloads take far more memory than bytes.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Adds a record; offsets must rise.
    pub fn push(&mut self, record: Record) {
        let row = self.offsets.len();
        let error = record.value.as_deref().and_then(|payload| self.decode(row, payload).err());
        if record.value.is_none() {
            self.root.push_null();
        }
        let header_bytes = |h: &RecordHeader| h.name.len() + h.value.as_ref().map_or(0, Bytes::len);
        self.bytes += record.key.as_ref().map_or(0, Bytes::len)
            + record.value.as_ref().map_or(0, Bytes::len)
            + record.headers.iter().map(header_bytes).sum::<usize>()
            + 32;
        self.cells += self.root.width() + record.headers.len() * HEADER_CELLS;
        self.offsets.push(record.offset.0);
        self.timestamps.push(record.timestamp.0.saturating_mul(1000));
        self.keys.push(record.key);
        self.headers.push(record.headers);
        self.payloads.push(record.value);
        self.errors.push(error);
    }

    /// Fills one row of the payload columns. An error names what is wrong; a malformed payload leaves nulls, one with a
    /// field that does not fit leaves null in that field.
    fn decode(&mut self, row: usize, payload: &[u8]) -> Result<(), String> {
        let mut notes = Notes::default();
        let mut fill = || -> Result<Option<Next>, Syntax> {
            let mut parser = Parser::new(payload)?;
            let next = parser.peek()?;
            if next != Next::Object {
                parser.skip()?;
                parser.end()?;
                return Ok(Some(next));
            }
            self.root.fill(&mut parser, &mut notes)?;
            parser.end()?;
            Ok(None)
        };
        let problem = match fill() {
            Ok(None) => {
                self.cells += notes.cells;
                return notes.misfit.map_or(Ok(()), Err);
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

    /// The record batch. A payload that its typed columns reproduce byte for byte is not stored again in `_value`.
    ///
    /// # Errors
    /// Never for a schema that is the shape's own.
    pub fn finish(self) -> Result<Shaped, ArrowError> {
        let rows = self.offsets.len();
        let (_, mut columns) = self.root.finish()?;
        let encoder = Encoder::new(&self.shape, |name| self.schema.index_of(name).ok().and_then(|at| columns.get(at)))
            .ok_or_else(|| ArrowError::SchemaError("the columns are not those of the shape".into()))?;
        let mut values = BinaryBuilder::new();
        let mut text = String::new();
        for (row, payload) in self.payloads.iter().enumerate() {
            let kept = payload.as_ref().filter(|payload| {
                self.errors[row].is_some() || !encoder.write(row, &mut text) || text.as_bytes() != payload.as_ref()
            });
            values.append_option(kept);
        }
        let errors = self.errors.iter().filter(|error| error.is_some()).count() as u64;
        let mut keys = BinaryBuilder::new();
        self.keys.iter().for_each(|key| keys.append_option(key.as_ref()));
        let mut reasons = StringBuilder::new();
        self.errors.iter().for_each(|error| reasons.append_option(error.as_ref()));
        let system: [ArrayRef; 7] = [
            Arc::new(Int32Array::from_value(self.partition, rows)),
            Arc::new(Int64Array::from(self.offsets)),
            Arc::new(TimestampMicrosecondArray::from(self.timestamps).with_timezone("UTC")),
            Arc::new(keys.finish()),
            header_column(&self.schema, &self.headers)?,
            Arc::new(values.finish()),
            Arc::new(reasons.finish()),
        ];
        columns.extend(system);
        Ok(Shaped { batch: RecordBatch::try_new(self.schema, columns)?, errors })
    }
}

fn header_column(schema: &SchemaRef, headers: &[Vec<RecordHeader>]) -> Result<ArrayRef, ArrowError> {
    let DataType::List(element) = schema.field_with_name("_headers")?.data_type() else {
        return Err(ArrowError::SchemaError("_headers is no list".into()));
    };
    let DataType::Struct(fields) = element.data_type() else {
        return Err(ArrowError::SchemaError("_headers holds no structs".into()));
    };
    let builders = fields.iter().map(|field| make_builder(field.data_type(), 0)).collect();
    let mut lists = ListBuilder::new(StructBuilder::new(fields.clone(), builders)).with_field(element.clone());
    let mut text = String::new();
    for record in headers {
        let entries = lists.values();
        for header in record {
            text.clear();
            names::to_text(&header.name, &mut text);
            if let Some(names) = entries.field_builder::<StringBuilder>(0) {
                names.append_value(&text);
            }
            if let Some(values) = entries.field_builder::<BinaryBuilder>(1) {
                values.append_option(header.value.as_ref());
            }
            entries.append(true);
        }
        lists.append(!record.is_empty());
    }
    Ok(Arc::new(lists.finish()))
}
