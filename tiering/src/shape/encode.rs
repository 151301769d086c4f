//! Writes payloads back from typed columns, in the canonical form: compact or spaced JSON, keys in the shape's order.

use std::fmt::Write;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};

use super::schema::{Field, Kind, NumberStyle, Shape};
use super::time::{self, TimeStyle};

/// The payload columns of one record batch, ready to be written back row by row.
pub(super) struct Encoder<'a> {
    root: Vec<Member<'a>>,
    comma: &'static str,
}

/// A field: its key with quotes and colon, and its values.
struct Member<'a> {
    key: String,
    view: View<'a>,
}

enum View<'a> {
    Bigint(&'a Int64Array),
    Double(&'a Float64Array, NumberStyle),
    Time(&'a TimestampMicrosecondArray, TimeStyle),
    Bool(&'a BooleanArray),
    Text(&'a StringArray),
    Struct(&'a StructArray, Vec<Member<'a>>),
    List(&'a ListArray, Box<View<'a>>),
}

impl<'a> View<'a> {
    fn new(kind: &Kind, array: &'a ArrayRef, spaced: bool) -> Option<View<'a>> {
        Some(match kind {
            Kind::Bigint => View::Bigint(array.as_primitive_opt::<Int64Type>()?),
            Kind::Double(style) => View::Double(array.as_primitive_opt::<Float64Type>()?, *style),
            Kind::Time(style) => View::Time(array.as_primitive_opt::<TimestampMicrosecondType>()?, *style),
            Kind::Bool => View::Bool(array.as_boolean_opt()?),
            Kind::Text => View::Text(array.as_string_opt()?),
            Kind::Struct(fields) => {
                let values = array.as_struct_opt()?;
                View::Struct(values, members(fields, |name| values.column_by_name(name), spaced)?)
            }
            Kind::List(element) => {
                let lists: &ListArray = array.as_list_opt()?;
                View::List(lists, Box::new(View::new(element, lists.values(), spaced)?))
            }
            Kind::Opaque => return None,
        })
    }

    fn array(&self) -> &dyn Array {
        match self {
            View::Bigint(array) => *array,
            View::Double(array, _) => *array,
            View::Time(array, _) => *array,
            View::Bool(array) => *array,
            View::Text(array) => *array,
            View::Struct(array, _) => *array,
            View::List(array, _) => *array,
        }
    }

    fn write(&self, row: usize, comma: &str, out: &mut String) {
        if self.array().is_null(row) {
            out.push_str("null");
            return;
        }
        match self {
            View::Bigint(array) => {
                let _ = write!(out, "{}", array.value(row));
            }
            View::Double(array, style) => write_double(out, array.value(row), *style),
            View::Time(array, style) => {
                out.push('"');
                time::write(out, array.value(row), *style);
                out.push('"');
            }
            View::Bool(array) => out.push_str(if array.value(row) { "true" } else { "false" }),
            View::Text(array) => write_text(out, array.value(row)),
            View::Struct(_, members) => {
                write_object(members, row, comma, out);
            }
            View::List(array, element) => {
                let ends = array.value_offsets();
                let (start, end) = (index(ends[row]), index(ends[row + 1]));
                out.push('[');
                for at in start..end {
                    if at > start {
                        out.push_str(comma);
                    }
                    element.write(at, comma, out);
                }
                out.push(']');
            }
        }
    }
}

fn index(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

fn members<'a>(
    fields: &[Field],
    column: impl Fn(&str) -> Option<&'a ArrayRef>,
    spaced: bool,
) -> Option<Vec<Member<'a>>> {
    let mut members = Vec::new();
    for field in fields.iter().filter(|field| field.kind.has_column()) {
        let mut key = String::new();
        write_text(&mut key, &field.key);
        key.push_str(if spaced { ": " } else { ":" });
        members.push(Member { key, view: View::new(&field.kind, column(&field.column)?, spaced)? });
    }
    Some(members)
}

/// Writes the fields that are not null; tells whether there was any.
fn write_object(members: &[Member<'_>], row: usize, comma: &str, out: &mut String) -> bool {
    out.push('{');
    let mut any = false;
    for Member { key, view } in members {
        if view.array().is_null(row) {
            continue;
        }
        if any {
            out.push_str(comma);
        }
        any = true;
        out.push_str(key);
        view.write(row, comma, out);
    }
    out.push('}');
    any
}

pub(super) fn write_double(out: &mut String, value: f64, style: NumberStyle) {
    let _ = match style {
        NumberStyle::Fixed(places) => write!(out, "{value:.*}", usize::from(places)),
        NumberStyle::Bare if value.fract() == 0.0 && value.abs() < 1e15 => write!(out, "{value}"),
        _ => write!(out, "{value:?}"),
    };
}

pub(super) fn write_text(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            8 => "\\b",
            12 => "\\f",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + 1;
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

impl<'a> Encoder<'a> {
    /// `None` if the columns are not those of the shape.
    pub(super) fn new(shape: &Shape, column: impl Fn(&str) -> Option<&'a ArrayRef>) -> Option<Encoder<'a>> {
        let comma = if shape.spaced { ", " } else { "," };
        Some(Encoder { root: members(&shape.fields, column, shape.spaced)?, comma })
    }

    /// The payload of a row into `out` (cleared first); `false` if every column is null: a record without payload.
    pub(super) fn write(&self, row: usize, out: &mut String) -> bool {
        out.clear();
        write_object(&self.root, row, self.comma, out)
    }
}
