//! Delta's schema JSON: ours from Arrow types, and widened by what the table has.

use arrow_schema::{DataType, Field};
use serde_json::{Value, json};

use super::TableError;
use crate::shape::{Field as ShapeField, Kind, NumberStyle, Shape, TimeStyle, Zone};

/// A shape whose columns have the types that they have in the table: another writer has settled them first.
pub(super) fn conformed(shape: &Shape, table: &Value) -> Shape {
    let mut conformed = shape.clone();
    conform_fields(&mut conformed.fields, table);
    conformed
}

fn conform_fields(fields: &mut [ShapeField], table: &Value) {
    for field in fields {
        let columns = table.get("fields").and_then(Value::as_array).into_iter().flatten();
        let mut columns = columns.filter(|column| column["name"].as_str().is_some());
        let same = |column: &&Value| {
            column["name"].as_str().is_some_and(|name| name.to_lowercase() == field.column.to_lowercase())
        };
        if let Some(column) = columns.find(same) {
            conform(&mut field.kind, &column["type"]);
        }
    }
}

fn conform(kind: &mut Kind, table: &Value) {
    if !kind.has_column() {
        return;
    }
    match kind {
        Kind::Struct(fields) if table["type"] == "struct" => conform_fields(fields, table),
        Kind::List(element) if table["type"] == "array" => conform(element, &table["elementType"]),
        _ if type_json(&kind.data_type()) == *table => {}
        _ => *kind = kind_of(table),
    }
}

/// What a column of the table takes.
fn kind_of(table: &Value) -> Kind {
    match (table.as_str(), table["type"].as_str()) {
        (Some("long"), _) => Kind::Bigint,
        (Some("double"), _) => Kind::Double(NumberStyle::Shortest),
        (Some("boolean"), _) => Kind::Bool,
        (Some("string"), _) => Kind::Text,
        (Some("timestamp"), _) => Kind::Time(TimeStyle { t: true, digits: 0, zone: Zone::Zulu }),
        (_, Some("array")) => Kind::List(Box::new(kind_of(&table["elementType"]))),
        (_, Some("struct")) => {
            let columns = table["fields"].as_array().into_iter().flatten();
            let field = |column: &Value| {
                let name = column["name"].as_str()?.to_owned();
                Some(ShapeField { key: name.clone(), column: name, kind: kind_of(&column["type"]) })
            };
            Kind::Struct(columns.filter_map(field).collect())
        }
        _ => Kind::Opaque,
    }
}

/// The table's schema for a shape: its columns and the partition column.
pub(super) fn of_shape(shape: &Shape) -> Value {
    let schema = shape.schema();
    let mut fields: Vec<Value> = schema.fields().iter().map(|field| field_json(field)).collect();
    fields.push(json!({"name": "_date", "type": "date", "nullable": true, "metadata": {}}));
    json!({"type": "struct", "fields": fields})
}

fn field_json(field: &Field) -> Value {
    json!({"name": field.name(), "type": type_json(field.data_type()), "nullable": true, "metadata": {}})
}

fn type_json(data_type: &DataType) -> Value {
    match data_type {
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float64 => json!("double"),
        DataType::Boolean => json!("boolean"),
        DataType::Binary => json!("binary"),
        DataType::Timestamp(..) => json!("timestamp"),
        DataType::List(element) => {
            json!({"type": "array", "elementType": type_json(element.data_type()), "containsNull": true})
        }
        DataType::Struct(fields) => {
            json!({"type": "struct", "fields": fields.iter().map(|field| field_json(field)).collect::<Vec<_>>()})
        }
        _ => json!("string"),
    }
}

/// Adds the columns of `ours` that `table` has not; `true` if there were any.
///
/// # Errors
/// A column has another type in the table.
pub(super) fn widen(table: &mut Value, ours: &Value, path: &str) -> Result<bool, TableError> {
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).map(str::to_owned);
    match (kind(table).as_deref(), kind(ours).as_deref()) {
        (Some("array"), Some("array")) => match (table.get_mut("elementType"), ours.get("elementType")) {
            (Some(table), Some(ours)) => widen(table, ours, path),
            _ => Ok(false),
        },
        (Some("struct"), Some("struct")) => {
            let (Some(fields), Some(wanted)) =
                (table.get_mut("fields").and_then(Value::as_array_mut), ours.get("fields").and_then(Value::as_array))
            else {
                return Ok(false);
            };
            let mut widened = false;
            for field in wanted {
                let name = field["name"].as_str().unwrap_or_default();
                let same =
                    |other: &Value| other["name"].as_str().is_some_and(|n| n.to_lowercase() == name.to_lowercase());
                match fields.iter_mut().find(|other| same(other)) {
                    Some(existing) => {
                        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                        widened |= widen(&mut existing["type"], &field["type"], &path)?;
                    }
                    None => {
                        fields.push(field.clone());
                        widened = true;
                    }
                }
            }
            Ok(widened)
        }
        _ if table == ours => Ok(false),
        _ => Err(TableError::ColumnType { column: path.to_owned(), table: table.to_string(), ours: ours.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Inference;

    fn schema(payloads: &[&str]) -> Value {
        let mut inference = Inference::new(Shape::default());
        payloads.iter().for_each(|payload| inference.observe(payload.as_bytes()));
        of_shape(&inference.finish())
    }

    #[test]
    fn new_columns_and_new_nested_fields_widen_a_table_once() {
        let mut table = schema(&[r#"{"a":1,"o":{"x":"s"},"l":[{"p":1}]}"#]);
        let ours = schema(&[r#"{"a":1,"o":{"x":"s","y":2.5},"l":[{"q":true}],"b":"new"}"#]);
        assert!(widen(&mut table, &ours, "").expect("fits"));
        assert!(!widen(&mut table, &ours, "").expect("fits"));
        assert!(table.to_string().contains(r#""name":"y","type":"double""#), "{table}");
    }

    #[test]
    fn a_shape_takes_the_types_that_the_table_has_and_fits_then() {
        let shape = |payload: &str| {
            let mut inference = Inference::new(Shape::default());
            inference.observe(payload.as_bytes());
            inference.finish()
        };
        let ours = shape(r#"{"v":1.5,"t":"2013-01-01 00:00:00","o":{"x":"s","y":1},"l":[1],"s":{"a":1},"b":true}"#);
        let mut table = of_shape(&shape(r#"{"V":1,"t":"x","o":{"x":1},"l":["a"],"s":2,"n":[{"p":1}]}"#));
        assert!(widen(&mut table.clone(), &of_shape(&ours), "").is_err());
        let fitting = conformed(&ours, &table);
        assert!(widen(&mut table, &of_shape(&fitting), "").expect("fits"), "what is new there is new still");
        assert_eq!(conformed(&fitting, &table), fitting);
    }

    #[test]
    fn a_column_of_another_type_is_named() {
        let mut table = schema(&[r#"{"o":{"x":"s"}}"#]);
        let error = widen(&mut table, &schema(&[r#"{"o":{"x":1}}"#]), "").expect_err("does not fit");
        assert!(error.to_string().starts_with("column o.x is \"string\" in the table and \"long\""), "{error}");
    }
}
