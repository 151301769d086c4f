//! A lookup table: a CSV file with a header line, found by the value of its key column.

use std::collections::HashMap;

/// What a column holds: numbers if every filled cell is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Number,
    Text,
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Number(f64),
    Text(Box<str>),
    /// Nothing between the commas: as if the row were not there.
    Empty,
}

/// Why a file is not a table; the line counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TableError {
    pub line: u64,
    pub what: String,
}

/// A table in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: Vec<(String, ColumnType)>,
    rows: HashMap<Box<str>, Box<[Cell]>>,
}

impl Table {
    /// Reads CSV (RFC 4180) whose column `key` identifies the row. Spaces around values are dropped.
    ///
    /// # Errors
    /// The line that is no CSV, lacks cells, or repeats a key; a key column that is not in the header.
    pub fn parse(csv: &[u8], key: &str) -> Result<Table, TableError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(csv);
        let header = reader.headers().map_err(|error| problem(&error))?.clone();
        let Some(key_index) = header.iter().position(|name| name == key) else {
            let names: Vec<&str> = header.iter().collect();
            return Err(TableError { line: 1, what: format!("no column `{key}` (there are: {})", names.join(", ")) });
        };
        let mut texts: Vec<csv::StringRecord> = Vec::new();
        for record in reader.records() {
            texts.push(record.map_err(|error| problem(&error))?);
        }
        let numeric: Vec<bool> = (0..header.len())
            .map(|column| {
                let mut filled =
                    texts.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty()).peekable();
                filled.peek().is_some() && filled.all(|cell| number(cell).is_some())
            })
            .collect();
        let mut rows = HashMap::with_capacity(texts.len());
        for row in &texts {
            let cells = row.iter().zip(&numeric).map(|(text, numeric)| cell(text, *numeric)).collect();
            if let Some(key) = row.get(key_index)
                && rows.insert(key.into(), cells).is_some()
            {
                let line = row.position().map_or(0, csv::Position::line);
                return Err(TableError { line, what: format!("key `{key}` is there twice") });
            }
        }
        let types = numeric.iter().map(|numeric| if *numeric { ColumnType::Number } else { ColumnType::Text });
        Ok(Table { columns: header.iter().map(str::to_owned).zip(types).collect(), rows })
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(column, _)| column == name)
    }
    pub fn column_type(&self, name: &str) -> Option<ColumnType> {
        self.columns.iter().find(|(column, _)| column == name).map(|(_, kind)| *kind)
    }
    pub fn columns(&self) -> impl Iterator<Item = &str> + Clone {
        self.columns.iter().map(|(name, _)| name.as_str())
    }
    pub fn get(&self, key: &str, column: usize) -> Option<&Cell> {
        self.rows.get(key)?.get(column)
    }
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

fn problem(error: &csv::Error) -> TableError {
    TableError { line: error.position().map_or(1, csv::Position::line), what: error.to_string() }
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

fn cell(text: &str, numeric: bool) -> Cell {
    match number(text) {
        _ if text.is_empty() => Cell::Empty,
        Some(value) if numeric => Cell::Number(value),
        _ => Cell::Text(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_numbers_are_numbers_and_empty_cells_are_missing() {
        let table = Table::parse(b"meter,v_max,feeder\nm1, 250.5 ,F1\nm2,,7\n", "meter").unwrap();
        assert_eq!(table.column_type("v_max"), Some(ColumnType::Number));
        assert_eq!(table.column_type("feeder"), Some(ColumnType::Text));
        assert_eq!(table.get("m1", 1), Some(&Cell::Number(250.5)));
        assert_eq!(table.get("m2", 1), Some(&Cell::Empty));
        assert_eq!(table.get("m2", 2), Some(&Cell::Text("7".into())));
        assert_eq!(table.get("m3", 1), None);
    }

    #[test]
    fn a_bad_table_names_the_line() {
        assert_eq!(Table::parse(b"a,b\n1,2\n1,3\n", "a").unwrap_err().line, 3);
        assert_eq!(Table::parse(b"a,b\n1,2\n1\n", "a").unwrap_err().line, 3);
        assert!(Table::parse(b"a,b\n1,2\n", "meter").unwrap_err().what.contains("there are: a, b"));
    }
}
