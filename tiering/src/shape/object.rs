//! The columns of an object's fields, filled key by key.

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, Fields};

use super::column::Column;
use super::encode::write_text;
use super::json::{Parser, Syntax};
use super::notes::{Misfit, Notes};
use super::schema::{Field, Kind, MAX_KEY_BYTES, arrow_fields};
use super::style::Proof;

/// Fields that are tried as the next one before all are searched.
const LOOKAHEAD: usize = 16;
/// The fields of an object.
pub(super) struct StructData {
    fields: Vec<Member>,
    /// Between two members, as the shape writes it.
    comma: &'static [u8],
    /// Values that one object puts into columns, lists aside.
    width: usize,
}

/// A field and its column.
struct Member {
    field: Field,
    /// The key with quotes, escapes and colon, as the shape writes it.
    token: Box<[u8]>,
    column: Column,
}

impl StructData {
    /// `spaced`: as the shape's.
    pub(super) fn new(fields: &[Field], spaced: bool) -> StructData {
        let member = |field: &Field| {
            let mut token = String::new();
            write_text(&mut token, &field.key);
            token.push_str(if spaced { ": " } else { ":" });
            let column = Column::new(&field.kind, spaced);
            Member { field: field.clone(), token: token.into_bytes().into(), column }
        };
        let fields: Vec<Member> = fields.iter().map(member).collect();
        let width = fields.iter().map(|member| member.column.width()).sum();
        StructData { fields, comma: if spaced { b", " } else { b"," }, width }
    }

    /// Values that one object puts into columns, lists aside.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn push_null(&mut self) {
        for member in &mut self.fields {
            member.column.push_null();
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        for member in &mut self.fields {
            member.column.truncate(len);
        }
    }

    /// Takes the object that comes next and appends one entry to each field; tells whether any is not null.
    pub(super) fn fill(&mut self, parser: &mut Parser<'_>, notes: &mut Notes) -> Result<bool, Syntax> {
        let row = self.fields.first().map_or(0, |member| member.column.len());
        parser.enter();
        let (mut expected, mut first, mut any) = (0, true, false);
        loop {
            let at = match self.next_field(expected, first, parser) {
                Some(at) => at,
                None => match self.other_field(expected, first, parser, notes)? {
                    Some(at) => at,
                    None => break,
                },
            };
            (expected, first) = (at + 1, false);
            let Member { field, column, .. } = &mut self.fields[at];
            if column.len() > row {
                parser.skip()?;
                notes.note(&field.key, "appears twice");
                continue;
            }
            let mark = notes.path.len();
            if matches!(field.kind, Kind::Struct(_) | Kind::List(_)) {
                notes.path.push_str(&field.key);
                notes.path.push('.');
            }
            let misfit = column.fill(parser, notes);
            notes.path.truncate(mark);
            if let Some(Misfit { got, want }) = misfit? {
                notes.note(&field.key, &format!("{got} does not fit {want}"));
            } else if column.is_valid(row) {
                any = true;
            } else {
                // A null is not written.
                notes.prove(Proof::Differs);
            }
        }
        for member in &mut self.fields {
            if member.column.len() == row {
                member.column.push_null();
            }
        }
        Ok(any)
    }

    /// Takes the next key and its colon if it is that of one of the next fields, written as the shape writes it: payloads of
    /// one writer have their keys in one order.
    fn next_field(&self, expected: usize, first: bool, parser: &mut Parser<'_>) -> Option<usize> {
        let start = parser.clone();
        if first || parser.take(self.comma) {
            let next = self.fields.iter().enumerate().skip(expected).take(LOOKAHEAD);
            for (at, member) in next {
                if parser.take(&member.token) {
                    return Some(at);
                }
            }
        }
        *parser = start;
        None
    }

    /// Takes the next key that has a field, wherever and however it is written; `None` at the end of the object.
    fn other_field(
        &self,
        expected: usize,
        mut first: bool,
        parser: &mut Parser<'_>,
        notes: &mut Notes,
    ) -> Result<Option<usize>, Syntax> {
        while let Some(quoted) = parser.key(first)? {
            first = false;
            let Some(key) = quoted.text() else {
                parser.skip()?;
                notes.note("?", "a lone surrogate in the key is no text");
                continue;
            };
            if let Some(at) = self.fields.iter().position(|member| member.field.key == key) {
                let as_written = !quoted.escaped && !notes.spaced;
                notes.prove(match at >= expected {
                    true if as_written => Proof::Same,
                    true => Proof::Open,
                    false => Proof::Differs,
                });
                return Ok(Some(at));
            }
            notes.prove(Proof::Differs);
            if parser.skip()? {
                notes.more |= key.len() <= MAX_KEY_BYTES;
                notes.note(&key, "has no column");
            }
        }
        Ok(None)
    }

    /// Puts into `fields`, which these were made of, how the values that came were written.
    pub(super) fn show_styles(&self, fields: &mut [Field]) {
        for (member, field) in self.fields.iter().zip(fields) {
            member.column.show_style(&mut field.kind);
        }
    }

    pub(super) fn arrow_fields(&self) -> Fields {
        let fields: Vec<Field> = self.fields.iter().map(|member| member.field.clone()).collect();
        arrow_fields(&fields)
    }

    /// The columns of the fields that have one; these go on empty.
    pub(super) fn take(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let columns = self.fields.iter_mut().filter_map(|member| member.column.take().transpose());
        columns.collect()
    }
}
