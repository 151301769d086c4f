//! The shape of a topic: which payload fields there are, of which type, in which order, and how they were written.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use super::time::TimeStyle;

/// Most fields, nested ones included, that a topic's shape may have; further ones stay in `_value`.
pub const MAX_FIELDS: usize = 1000;
/// Longest JSON key, in bytes, that becomes a column.
pub const MAX_KEY_BYTES: usize = 255;
/// Objects and arrays nested deeper than this have no column of their own.
pub const MAX_COLUMN_DEPTH: usize = 16;

/// The columns that every table has beside the payload's own, the partition column included.
pub const SYSTEM_COLUMNS: [&str; 8] =
    ["_partition", "_offset", "_timestamp", "_key", "_headers", "_value", "_error", "_date"];

/// How the writer prints numbers of a DOUBLE field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberStyle {
    /// The shortest that reads back the same, whole numbers as `1.0`.
    Shortest,
    /// The shortest, whole numbers as `1`.
    Bare,
    /// Always this many decimals.
    Fixed(u8),
}

/// The type of a field, and how its values are written where JSON leaves a choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Bigint,
    Double(NumberStyle),
    Bool,
    Text,
    Time(TimeStyle),
    Struct(Vec<Field>),
    List(Box<Kind>),
    /// Arrays of several types, or nested too deep: no column; such payloads keep their bytes.
    Opaque,
}

impl Kind {
    /// Whether values have a place in the table.
    pub fn has_column(&self) -> bool {
        match self {
            Kind::Opaque => false,
            Kind::List(element) => element.has_column(),
            Kind::Struct(fields) => fields.iter().any(|field| field.kind.has_column()),
            _ => true,
        }
    }

    /// Whether a kind without a column may gain one, when objects in it bring a field.
    pub(super) fn may_gain_column(&self) -> bool {
        match self {
            Kind::List(element) => element.may_gain_column(),
            Kind::Struct(_) => true,
            _ => false,
        }
    }

    /// The SQL name of the type, for messages.
    pub fn sql_name(&self) -> &'static str {
        match self {
            Kind::Bigint => "BIGINT",
            Kind::Double(_) => "DOUBLE",
            Kind::Bool => "BOOLEAN",
            Kind::Text => "STRING",
            Kind::Time(_) => "TIMESTAMP",
            Kind::Struct(_) => "STRUCT",
            Kind::List(_) => "ARRAY",
            Kind::Opaque => "no column",
        }
    }

    /// The Arrow type of the column.
    pub fn data_type(&self) -> DataType {
        match self {
            Kind::Bigint => DataType::Int64,
            Kind::Double(_) => DataType::Float64,
            Kind::Bool => DataType::Boolean,
            Kind::Text | Kind::Opaque => DataType::Utf8,
            Kind::Time(_) => timestamp_type(),
            Kind::Struct(fields) => DataType::Struct(arrow_fields(fields)),
            Kind::List(element) => DataType::List(Arc::new(ArrowField::new("element", element.data_type(), true))),
        }
    }
}

/// Microseconds, UTC: what Delta's TIMESTAMP is.
pub(super) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// One field of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The JSON key.
    pub key: String,
    /// The column's name: the key, made fit for Delta and unique.
    pub column: String,
    pub kind: Kind,
}

pub(super) fn arrow_fields(fields: &[Field]) -> Fields {
    fields
        .iter()
        .filter(|field| field.kind.has_column())
        .map(|field| ArrowField::new(&field.column, field.kind.data_type(), true))
        .collect()
}

/// The fields of a topic's payloads, in the order of the payloads' keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// Separators are written `", "` and `": "` (Python's default), not `","` and `":"`.
    pub spaced: bool,
    pub fields: Vec<Field>,
}

impl Shape {
    /// The schema of a table or file: the payload's columns, then the system columns (without `_date`, which is in the path).
    pub fn schema(&self) -> SchemaRef {
        let mut fields: Vec<Arc<ArrowField>> = arrow_fields(&self.fields).iter().cloned().collect();
        let header = Fields::from(vec![
            ArrowField::new("name", DataType::Utf8, true),
            ArrowField::new("value", DataType::Binary, true),
        ]);
        let headers = DataType::List(Arc::new(ArrowField::new("element", DataType::Struct(header), true)));
        for (name, data_type) in SYSTEM_COLUMNS.iter().zip([
            DataType::Int32,
            DataType::Int64,
            timestamp_type(),
            DataType::Binary,
            headers,
            DataType::Binary,
            DataType::Utf8,
        ]) {
            fields.push(Arc::new(ArrowField::new(*name, data_type, true)));
        }
        Arc::new(Schema::new(fields))
    }

    /// Fields, nested ones included.
    pub fn field_count(&self) -> usize {
        count(&self.fields)
    }
}

fn count(fields: &[Field]) -> usize {
    fields.iter().map(|field| 1 + count_kind(&field.kind)).sum()
}

fn count_kind(kind: &Kind) -> usize {
    match kind {
        Kind::Struct(fields) => count(fields),
        Kind::List(element) => count_kind(element),
        _ => 0,
    }
}

/// A column name for `key` that no field of `taken` has, whatever the case (Delta's names are case-insensitive), and
/// without the characters that Parquet and Delta refuse.
pub(super) fn column_name(key: &str, taken: &[Field], top: bool) -> String {
    let mut name: String = key
        .chars()
        .map(|c| {
            if c.is_control() || matches!(c, ' ' | ',' | ';' | '{' | '}' | '(' | ')' | '=' | '.' | '`') {
                '_'
            } else {
                c
            }
        })
        .collect();
    if name.is_empty() {
        name.push('_');
    }
    let taken: HashSet<String> = taken.iter().map(|field| field.column.to_lowercase()).collect();
    loop {
        let lower = name.to_lowercase();
        let system = top && SYSTEM_COLUMNS.contains(&lower.as_str());
        if !system && !taken.contains(&lower) {
            return name;
        }
        name.push('_');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colliding_and_refused_names_get_a_name_of_their_own() {
        let mut fields: Vec<Field> = Vec::new();
        let mut name = |key: &str| {
            let column = column_name(key, &fields, true);
            fields.push(Field { key: key.into(), column: column.clone(), kind: Kind::Text });
            column
        };
        assert_eq!(name("voltage"), "voltage");
        assert_eq!(name("Voltage"), "Voltage_");
        assert_eq!(name("_offset"), "_offset_");
        assert_eq!(name("_Date"), "_Date_");
        assert_eq!(name("energy(kWh/hh)"), "energy_kWh/hh_");
        assert_eq!(name(""), "_");
    }
}
