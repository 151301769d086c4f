//! Columns while they are filled: typed storage that a malformed payload can be rolled back from.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field as ArrowField};

use super::json::{Parser, Syntax};
use super::schema::{Field, Kind, arrow_fields};
use super::time;
use super::token::Next;

/// Most values, nulls included, that one payload may put into columns: a list of empty objects takes three bytes for each
/// and a null in every column that such an object has.
pub(super) const MAX_PAYLOAD_CELLS: usize = 1 << 20;
/// Characters of a key that `_error` shows.
const SHOWN_KEY_CHARS: usize = 80;

/// What [`Notes::spend`] fails with: such a payload is JSON, but stays bytes.
pub(super) const TOO_MANY_CELLS: &str = "more values than one payload may put into columns";

/// A value that its column cannot hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Misfit {
    got: &'static str,
    want: &'static str,
}

/// What is remembered of one payload while its columns are filled.
#[derive(Default)]
pub(super) struct Notes {
    path: String,
    /// The first field that did not fit, for people.
    pub(super) misfit: Option<String>,
    /// Values put into columns so far.
    pub(super) cells: usize,
}

impl Notes {
    fn spend(&mut self, cells: usize, parser: &Parser<'_>) -> Result<(), Syntax> {
        self.cells += cells;
        if self.cells > MAX_PAYLOAD_CELLS { parser.fail(TOO_MANY_CELLS) } else { Ok(()) }
    }

    fn note(&mut self, key: &str, what: &str) {
        if self.misfit.is_none() {
            let cut = key.char_indices().nth(SHOWN_KEY_CHARS).map_or(key.len(), |(at, _)| at);
            let more = if cut < key.len() { "..." } else { "" };
            self.misfit = Some(format!("field {}{}{more}: {what}", self.path, &key[..cut]));
        }
    }
}

/// A column under construction.
pub(super) struct Column {
    valid: BooleanBufferBuilder,
    data: Data,
}

enum Data {
    Bigint(Vec<i64>),
    Double(Vec<f64>),
    Time(Vec<i64>),
    Bool(BooleanBufferBuilder),
    Text {
        bytes: Vec<u8>,
        ends: Vec<i32>,
    },
    Struct(StructData),
    List {
        ends: Vec<i32>,
        element: Box<Column>,
        element_type: DataType,
    },
    /// No column: values are skipped.
    Opaque,
}

/// The fields of an object.
pub(super) struct StructData {
    fields: Vec<(Field, Column)>,
    /// Values that one object puts into columns, lists aside.
    width: usize,
}

impl Column {
    pub(super) fn new(kind: &Kind) -> Column {
        let data = match kind {
            _ if !kind.has_column() => Data::Opaque,
            Kind::Bigint => Data::Bigint(Vec::new()),
            Kind::Double(_) => Data::Double(Vec::new()),
            Kind::Time(_) => Data::Time(Vec::new()),
            Kind::Bool => Data::Bool(BooleanBufferBuilder::new(0)),
            Kind::Text => Data::Text { bytes: Vec::new(), ends: vec![0] },
            Kind::Struct(fields) => Data::Struct(StructData::new(fields)),
            Kind::List(element) => {
                Data::List { ends: vec![0], element: Box::new(Column::new(element)), element_type: element.data_type() }
            }
            Kind::Opaque => Data::Opaque,
        };
        Column { valid: BooleanBufferBuilder::new(0), data }
    }

    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Values that one entry takes, lists aside.
    fn width(&self) -> usize {
        if let Data::Struct(data) = &self.data { 1 + data.width } else { 1 }
    }

    pub(super) fn push_null(&mut self) {
        self.valid.append(false);
        match &mut self.data {
            Data::Bigint(values) | Data::Time(values) => values.push(0),
            Data::Double(values) => values.push(0.0),
            Data::Bool(values) => values.append(false),
            Data::Text { ends, .. } | Data::List { ends, .. } => ends.push(*ends.last().unwrap_or(&0)),
            Data::Struct(data) => data.push_null(),
            Data::Opaque => {}
        }
    }

    /// Forgets the values after the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        if self.valid.len() <= len {
            return;
        }
        self.valid.truncate(len);
        match &mut self.data {
            Data::Bigint(values) | Data::Time(values) => values.truncate(len),
            Data::Double(values) => values.truncate(len),
            Data::Bool(values) => values.truncate(len),
            Data::Text { bytes, ends } => {
                ends.truncate(len + 1);
                bytes.truncate(end_of(ends));
            }
            Data::List { ends, element, .. } => {
                ends.truncate(len + 1);
                element.truncate(end_of(ends));
            }
            Data::Struct(data) => data.truncate(len),
            Data::Opaque => {}
        }
    }

    /// Takes the next value of the payload and appends exactly one entry: the value, or null if it is null or a misfit.
    fn fill(&mut self, parser: &mut Parser<'_>, notes: &mut Notes) -> Result<Option<Misfit>, Syntax> {
        let next = parser.peek()?;
        let misfit = |want| Ok(Some(Misfit { got: next.name(), want }));
        match (&mut self.data, next) {
            (_, Next::Null) => {
                parser.null()?;
                self.push_null();
                return Ok(None);
            }
            (Data::Opaque, _) => {
                parser.skip()?;
                self.push_null();
                return Ok(None);
            }
            (Data::Bigint(values), Next::Number) => match parser.number()?.bigint() {
                Some(value) => values.push(value),
                None => {
                    self.push_null();
                    return misfit("BIGINT");
                }
            },
            (Data::Double(values), Next::Number) => match parser.number()?.double() {
                Some(value) => values.push(value),
                None => {
                    self.push_null();
                    return misfit("DOUBLE");
                }
            },
            (Data::Bool(values), Next::Bool) => values.append(parser.bool()?),
            (Data::Time(values), Next::Text) => match parser.quoted()?.text().as_deref().and_then(time::parse) {
                Some((micros, _)) => values.push(micros),
                None => {
                    self.push_null();
                    return misfit("TIMESTAMP");
                }
            },
            (Data::Text { bytes, ends }, Next::Text) => match parser.quoted()?.text() {
                Some(text) => {
                    bytes.extend_from_slice(text.as_bytes());
                    ends.push(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                }
                None => {
                    self.push_null();
                    return misfit("STRING (a lone surrogate is no text)");
                }
            },
            (Data::Struct(data), Next::Object) => data.fill(parser, notes)?,
            (Data::List { ends, element, .. }, Next::Array) => {
                let start = element.len();
                let mut wrong = None;
                parser.enter();
                let mut first = true;
                let width = element.width();
                while parser.element(first)? {
                    first = false;
                    notes.spend(width, parser)?;
                    wrong = wrong.or(element.fill(parser, notes)?);
                }
                if wrong.is_some() {
                    element.truncate(start);
                    self.push_null();
                    return Ok(wrong);
                }
                ends.push(i32::try_from(element.len()).unwrap_or(i32::MAX));
            }
            (data, _) => {
                let want = match data {
                    Data::Bigint(_) => "BIGINT",
                    Data::Double(_) => "DOUBLE",
                    Data::Time(_) => "TIMESTAMP",
                    Data::Bool(_) => "BOOLEAN",
                    Data::Text { .. } => "STRING",
                    Data::Struct(_) => "STRUCT",
                    Data::List { .. } | Data::Opaque => "ARRAY",
                };
                parser.skip()?;
                self.push_null();
                return misfit(want);
            }
        }
        self.valid.append(true);
        Ok(None)
    }

    fn finish(self) -> Result<Option<ArrayRef>, ArrowError> {
        let Column { mut valid, data } = self;
        let nulls = Some(NullBuffer::new(valid.finish())).filter(|nulls| nulls.null_count() > 0);
        let offsets = |ends: Vec<i32>| OffsetBuffer::new(ScalarBuffer::from(ends));
        Ok(Some(match data {
            Data::Bigint(values) => Arc::new(Int64Array::try_new(values.into(), nulls)?),
            Data::Double(values) => Arc::new(Float64Array::try_new(values.into(), nulls)?),
            Data::Time(values) => {
                Arc::new(TimestampMicrosecondArray::try_new(values.into(), nulls)?.with_timezone("UTC"))
            }
            Data::Bool(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Data::Text { bytes, ends } => {
                Arc::new(StringArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?)
            }
            Data::List { ends, element, element_type } => {
                let Some(values) = element.finish()? else { return Ok(None) };
                let field = Arc::new(ArrowField::new("element", element_type, true));
                Arc::new(ListArray::try_new(field, offsets(ends), values, nulls)?)
            }
            Data::Struct(data) => {
                let (fields, arrays) = data.finish()?;
                Arc::new(StructArray::try_new(arrow_fields(&fields), arrays, nulls)?)
            }
            Data::Opaque => return Ok(None),
        }))
    }
}

fn end_of(ends: &[i32]) -> usize {
    ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0)
}

impl StructData {
    pub(super) fn new(fields: &[Field]) -> StructData {
        let fields: Vec<_> = fields.iter().map(|field| (field.clone(), Column::new(&field.kind))).collect();
        let width = fields.iter().map(|(_, column)| column.width()).sum();
        StructData { fields, width }
    }

    /// Values that one object puts into columns, lists aside.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn push_null(&mut self) {
        for (_, column) in &mut self.fields {
            column.push_null();
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        for (_, column) in &mut self.fields {
            column.truncate(len);
        }
    }

    /// Takes the object that comes next and appends one entry to each field.
    pub(super) fn fill(&mut self, parser: &mut Parser<'_>, notes: &mut Notes) -> Result<(), Syntax> {
        let row = self.fields.first().map_or(0, |(_, column)| column.len());
        parser.enter();
        // Payloads of one writer have their keys in one order: try the next field first.
        let mut expected = 0;
        let mut first = true;
        while let Some(quoted) = parser.key(first)? {
            first = false;
            let Some(key) = quoted.text() else {
                parser.skip()?;
                notes.note("?", "a lone surrogate in the key is no text");
                continue;
            };
            let at = if self.fields.get(expected).is_some_and(|(field, _)| field.key == key) {
                Some(expected)
            } else {
                self.fields.iter().position(|(field, _)| field.key == key)
            };
            let Some(at) = at else {
                if parser.skip()? {
                    notes.note(&key, "has no column");
                }
                continue;
            };
            expected = at + 1;
            let (field, column) = &mut self.fields[at];
            if column.len() > row {
                parser.skip()?;
                notes.note(&key, "appears twice");
                continue;
            }
            let mark = notes.path.len();
            if matches!(field.kind, Kind::Struct(_) | Kind::List(_)) {
                notes.path.push_str(&key);
                notes.path.push('.');
            }
            let misfit = column.fill(parser, notes);
            notes.path.truncate(mark);
            if let Some(Misfit { got, want }) = misfit? {
                notes.note(&key, &format!("{got} does not fit {want}"));
            }
        }
        for (_, column) in &mut self.fields {
            if column.len() == row {
                column.push_null();
            }
        }
        Ok(())
    }

    /// The fields that have columns, and these.
    pub(super) fn finish(self) -> Result<(Vec<Field>, Vec<ArrayRef>), ArrowError> {
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for (field, column) in self.fields {
            if let Some(array) = column.finish()? {
                fields.push(field);
                arrays.push(array);
            }
        }
        Ok((fields, arrays))
    }
}
