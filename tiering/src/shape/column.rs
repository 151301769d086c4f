//! Columns while they are filled: typed storage that a malformed payload can be rolled back from.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field as ArrowField};

use super::json::{Parser, Syntax};
use super::notes::{Misfit, Notes};
use super::object::StructData;
use super::schema::{Kind, NumberStyle};
use super::style::{Decimals, Proof, double_proof, time_proof};
use super::time::{self, TimeStyle};
use super::token::Next;

/// A column under construction.
pub(super) struct Column {
    valid: BooleanBufferBuilder,
    data: Data,
}

enum Data {
    Bigint(Vec<i64>),
    Double {
        values: Vec<f64>,
        style: NumberStyle,
        seen: Decimals,
    },
    Time {
        values: Vec<i64>,
        style: TimeStyle,
        /// The first one's.
        seen: Option<TimeStyle>,
    },
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
    Opaque {
        may_gain_column: bool,
    },
}

impl Column {
    pub(super) fn new(kind: &Kind, spaced: bool) -> Column {
        let data = match kind {
            _ if !kind.has_column() => Data::Opaque { may_gain_column: kind.may_gain_column() },
            Kind::Bigint => Data::Bigint(Vec::new()),
            Kind::Double(style) => Data::Double { values: Vec::new(), style: *style, seen: Decimals::default() },
            Kind::Time(style) => Data::Time { values: Vec::new(), style: *style, seen: None },
            Kind::Bool => Data::Bool(BooleanBufferBuilder::new(0)),
            Kind::Text => Data::Text { bytes: Vec::new(), ends: vec![0] },
            Kind::Struct(fields) => Data::Struct(StructData::new(fields, spaced)),
            Kind::List(element) => Data::List {
                ends: vec![0],
                element: Box::new(Column::new(element, spaced)),
                element_type: element.data_type(),
            },
            Kind::Opaque => Data::Opaque { may_gain_column: false },
        };
        Column { valid: BooleanBufferBuilder::new(0), data }
    }

    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Values that one entry takes, lists aside.
    pub(super) fn width(&self) -> usize {
        if let Data::Struct(data) = &self.data { 1 + data.width() } else { 1 }
    }

    /// Whether the entry at `row` is not null.
    pub(super) fn is_valid(&self, row: usize) -> bool {
        self.valid.get_bit(row)
    }

    pub(super) fn push_null(&mut self) {
        self.valid.append(false);
        match &mut self.data {
            Data::Bigint(values) | Data::Time { values, .. } => values.push(0),
            Data::Double { values, .. } => values.push(0.0),
            Data::Bool(values) => values.append(false),
            Data::Text { ends, .. } | Data::List { ends, .. } => ends.push(*ends.last().unwrap_or(&0)),
            Data::Struct(data) => data.push_null(),
            Data::Opaque { .. } => {}
        }
    }

    /// Forgets the values after the first `len`, those within an object or list that was not finished too.
    pub(super) fn truncate(&mut self, len: usize) {
        self.valid.truncate(len.min(self.valid.len()));
        match &mut self.data {
            Data::Bigint(values) | Data::Time { values, .. } => values.truncate(len),
            Data::Double { values, .. } => values.truncate(len),
            Data::Bool(values) => values.truncate(len.min(values.len())),
            Data::Text { bytes, ends } => {
                ends.truncate(len + 1);
                bytes.truncate(end_of(ends));
            }
            Data::List { ends, element, .. } => {
                ends.truncate(len + 1);
                element.truncate(end_of(ends));
            }
            Data::Struct(data) => data.truncate(len),
            Data::Opaque { .. } => {}
        }
    }

    /// Takes the next value of the payload and appends exactly one entry: the value, or null if it is null or a misfit.
    pub(super) fn fill(&mut self, parser: &mut Parser<'_>, notes: &mut Notes) -> Result<Option<Misfit>, Syntax> {
        let next = parser.peek()?;
        let misfit = |want| Ok(Some(Misfit { got: next.name(), want }));
        match (&mut self.data, next) {
            (_, Next::Null) => {
                parser.null()?;
                self.push_null();
                return Ok(None);
            }
            (Data::Opaque { may_gain_column }, _) => {
                let gains = *may_gain_column;
                notes.more |= parser.skip()? && gains;
                notes.prove(Proof::Differs);
                self.push_null();
                return Ok(None);
            }
            (Data::Bigint(values), Next::Number) => {
                let number = parser.number()?;
                let Some(value) = number.bigint() else {
                    self.push_null();
                    return misfit("BIGINT");
                };
                values.push(value);
                if value == 0 && number.negative() {
                    notes.prove(Proof::Differs);
                }
            }
            (Data::Double { values, style, seen }, Next::Number) => {
                let number = parser.number()?;
                seen.note(number);
                let Some(value) = number.double() else {
                    self.push_null();
                    return misfit("DOUBLE");
                };
                values.push(value);
                notes.prove(double_proof(number, *style));
            }
            (Data::Bool(values), Next::Bool) => values.append(parser.bool()?),
            (Data::Time { values, style, seen }, Next::Text) => {
                let quoted = parser.quoted()?;
                let Some((micros, found)) = quoted.text().as_deref().and_then(time::parse) else {
                    self.push_null();
                    return misfit("TIMESTAMP");
                };
                values.push(micros);
                seen.get_or_insert(found);
                notes.prove(if quoted.escaped { Proof::Differs } else { time_proof(found, *style) });
            }
            (Data::Text { bytes, ends }, Next::Text) => {
                let quoted = parser.quoted()?;
                let Some(text) = quoted.text() else {
                    self.push_null();
                    return misfit("STRING (a lone surrogate is no text)");
                };
                bytes.extend_from_slice(text.as_bytes());
                ends.push(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                if quoted.escaped {
                    notes.prove(Proof::Open);
                }
            }
            (Data::Struct(data), Next::Object) => {
                data.fill(parser, notes)?;
            }
            (Data::List { ends, element, .. }, Next::Array) => {
                let start = element.len();
                let mut wrong = None;
                parser.enter();
                let mut first = true;
                let width = element.width();
                while parser.element(first)? {
                    if notes.spaced && !first {
                        notes.prove(Proof::Open);
                    }
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
                    Data::Double { .. } => "DOUBLE",
                    Data::Time { .. } => "TIMESTAMP",
                    Data::Bool(_) => "BOOLEAN",
                    Data::Text { .. } => "STRING",
                    Data::Struct(_) => "STRUCT",
                    Data::List { .. } | Data::Opaque { .. } => "ARRAY",
                };
                parser.skip()?;
                self.push_null();
                return misfit(want);
            }
        }
        self.valid.append(true);
        Ok(None)
    }

    /// The column so far; it goes on empty.
    pub(super) fn take(&mut self) -> Result<Option<ArrayRef>, ArrowError> {
        let valid = self.valid.finish();
        let nulls = Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0);
        let offsets = |ends: &mut Vec<i32>| OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])));
        Ok(Some(match &mut self.data {
            Data::Bigint(values) => Arc::new(Int64Array::try_new(std::mem::take(values).into(), nulls)?),
            Data::Double { values, .. } => Arc::new(Float64Array::try_new(std::mem::take(values).into(), nulls)?),
            Data::Time { values, .. } => {
                let values = std::mem::take(values).into();
                Arc::new(TimestampMicrosecondArray::try_new(values, nulls)?.with_timezone("UTC"))
            }
            Data::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Data::Text { bytes, ends } => {
                let bytes = Buffer::from_vec(std::mem::take(bytes));
                Arc::new(StringArray::try_new(offsets(ends), bytes, nulls)?)
            }
            Data::List { ends, element, element_type } => {
                let Some(values) = element.take()? else { return Ok(None) };
                let field = Arc::new(ArrowField::new("element", element_type.clone(), true));
                Arc::new(ListArray::try_new(field, offsets(ends), values, nulls)?)
            }
            Data::Struct(data) => {
                let arrays = data.take()?;
                Arc::new(StructArray::try_new(data.arrow_fields(), arrays, nulls)?)
            }
            Data::Opaque { .. } => return Ok(None),
        }))
    }

    /// Puts into `kind` how the values that came were written.
    pub(super) fn show_style(&self, kind: &mut Kind) {
        match (&self.data, kind) {
            (Data::Double { seen, .. }, Kind::Double(style)) => *style = seen.seen().unwrap_or(*style),
            (Data::Time { seen, .. }, Kind::Time(style)) => *style = seen.unwrap_or(*style),
            (Data::List { element, .. }, Kind::List(kind)) => element.show_style(kind),
            (Data::Struct(data), Kind::Struct(fields)) => data.show_styles(fields),
            _ => {}
        }
    }
}

fn end_of(ends: &[i32]) -> usize {
    ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0)
}
