//! Reads a Delta table as its protocol says, from the JSON log and the Parquet files, without any Delta library.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

/// One row of the table: its system columns and the rest as a map.
#[derive(Debug, Clone)]
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    /// `_value`: set when the typed columns do not reproduce the payload
    pub value: Option<Vec<u8>>,
    pub error: Option<String>,
    pub columns: BTreeMap<String, Field>,
}

impl Row {
    /// The test's own sequence number, from the typed column or the kept payload.
    pub fn seq(&self) -> Result<u64> {
        match self.columns.get("seq") {
            Some(Field::Long(seq)) => Ok(*seq as u64),
            Some(Field::Double(seq)) => Ok(*seq as u64),
            _ => {
                let value = self.value.as_ref().context("a row has neither seq nor _value")?;
                let json: Value = serde_json::from_slice(value)?;
                json["seq"].as_u64().context("no seq in _value")
            }
        }
    }
}

/// The live files of the table and its version: the log replayed in order.
pub fn files(table: &Path) -> Result<(i64, Vec<String>)> {
    let log = table.join("_delta_log");
    let mut commits: Vec<_> = fs::read_dir(&log)
        .with_context(|| log.display().to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')))
        .collect();
    commits.sort();
    let mut live: Vec<String> = Vec::new();
    let mut version = -1;
    for commit in commits {
        let stem = commit.file_stem().and_then(|stem| stem.to_str()).context("commit name")?;
        let number: i64 = stem.parse().with_context(|| format!("commit {stem}"))?;
        ensure!(number == version + 1, "commit {number} after {version}");
        version = number;
        for line in fs::read_to_string(&commit)?.lines() {
            let action: Value = serde_json::from_str(line)?;
            if let Some(path) = action.pointer("/add/path").and_then(Value::as_str) {
                ensure!(!live.iter().any(|file| file == path), "{path} is added twice");
                live.push(path.to_owned());
            }
            if let Some(path) = action.pointer("/remove/path").and_then(Value::as_str) {
                live.retain(|file| file != path);
            }
        }
    }
    Ok((version, live))
}

/// All rows of the table.
pub fn rows(table: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file in files(table)?.1 {
        let path = table.join(file.replace("%3D", "=").replace("%2D", "-"));
        let reader = SerializedFileReader::new(fs::File::open(&path).with_context(|| path.display().to_string())?)?;
        for row in reader.get_row_iter(None)? {
            let columns: BTreeMap<String, Field> = row?.into_columns().into_iter().collect();
            let (Some(Field::Int(partition)), Some(Field::Long(offset))) =
                (columns.get("_partition"), columns.get("_offset"))
            else {
                anyhow::bail!("{}: system columns are missing: {:?}", path.display(), columns.keys());
            };
            let value = match columns.get("_value") {
                Some(Field::Bytes(bytes)) => Some(bytes.data().to_vec()),
                _ => None,
            };
            let error = match columns.get("_error") {
                Some(Field::Str(error)) => Some(error.clone()),
                _ => None,
            };
            rows.push(Row { partition: *partition, offset: *offset, value, error, columns });
        }
    }
    Ok(rows)
}

/// Checks that each offset of each partition below `ends` is in the table exactly once, and nothing else.
pub fn check_complete(rows: &[Row], ends: &BTreeMap<i32, i64>) -> Result<()> {
    let mut seen: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    rows.iter().for_each(|row| seen.entry(row.partition).or_default().push(row.offset));
    for (partition, end) in ends {
        let mut offsets = seen.remove(partition).unwrap_or_default();
        offsets.sort_unstable();
        for (expected, offset) in (0..*end).zip(&offsets) {
            ensure!(*offset == expected, "partition {partition}: offset {offset} where {expected} belongs");
        }
        ensure!(offsets.len() as i64 == *end, "partition {partition}: {} rows for {end} records", offsets.len());
    }
    ensure!(seen.is_empty(), "rows of unknown partitions {:?}", seen.keys());
    Ok(())
}
