//! Delta's per-file statistics from Parquet's: readers skip files by them.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use parquet::basic::LogicalType;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use serde_json::{Value, json};

/// The least and greatest of one column so far.
struct Extent {
    min: Value,
    max: Value,
    nulls: u64,
    /// A row group had no usable extent: none can be claimed for the file.
    unknown: bool,
}

/// The `stats` JSON of an Add action: row count, and extents of the top-level numbers and timestamps.
pub(super) fn delta_stats(metadata: &ParquetMetaData) -> String {
    let mut columns: BTreeMap<String, Extent> = BTreeMap::new();
    for group in metadata.row_groups() {
        for chunk in group.columns() {
            let [name] = chunk.column_path().parts() else { continue };
            let timestamp = matches!(chunk.column_descr().logical_type_ref(), Some(LogicalType::Timestamp { .. }));
            let (Some(stats), rows) = (chunk.statistics(), chunk.num_values()) else { continue };
            let nulls = stats.null_count_opt().unwrap_or(0);
            let extent = columns.entry(name.clone()).or_insert(Extent {
                min: Value::Null,
                max: Value::Null,
                nulls: 0,
                unknown: false,
            });
            extent.nulls += nulls;
            let all_null = i64::try_from(nulls).is_ok_and(|nulls| nulls == rows);
            match bounds(stats, timestamp) {
                Some((min, max)) => {
                    if extent.min.is_null() || less(&min, &extent.min) {
                        extent.min = min;
                    }
                    if extent.max.is_null() || less(&extent.max, &max) {
                        extent.max = max;
                    }
                }
                None => extent.unknown |= !all_null,
            }
        }
    }
    let (mut mins, mut maxs, mut nulls) = (serde_json::Map::new(), serde_json::Map::new(), serde_json::Map::new());
    for (name, extent) in columns {
        nulls.insert(name.clone(), json!(extent.nulls));
        if !extent.unknown && !extent.min.is_null() {
            mins.insert(name.clone(), extent.min);
            maxs.insert(name, extent.max);
        }
    }
    json!({
        "numRecords": metadata.file_metadata().num_rows(),
        "minValues": mins,
        "maxValues": maxs,
        "nullCount": nulls,
    })
    .to_string()
}

fn bounds(stats: &Statistics, timestamp: bool) -> Option<(Value, Value)> {
    match stats {
        Statistics::Int32(s) => Some((json!(s.min_opt()?), json!(s.max_opt()?))),
        Statistics::Int64(s) if timestamp => {
            let (min, max) = (*s.min_opt()?, *s.max_opt()?);
            Some((json!(time(min, 0)?), json!(time(max, 999)?)))
        }
        Statistics::Int64(s) => Some((json!(s.min_opt()?), json!(s.max_opt()?))),
        Statistics::Double(s) => Some((json!(s.min_opt()?), json!(s.max_opt()?))),
        _ => None,
    }
}

/// Delta's statistics carry milliseconds: the least is rounded down, the greatest up.
fn time(micros: i64, round: i64) -> Option<String> {
    let millis = micros.checked_add(round)?.div_euclid(1000);
    let time = DateTime::from_timestamp_millis(millis)?;
    // Years outside these four digits are not comparable as text.
    (0..=9999).contains(&chrono::Datelike::year(&time)).then(|| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn less(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a < b,
        _ => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a < b,
            _ => a.as_f64() < b.as_f64(),
        },
    }
}
