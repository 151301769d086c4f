//! Writes a segment's records to a Parquet object in bounded memory.

use std::sync::Arc;

use forebay_log::{Millis, Offset};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::segment::Walk;
use super::{
    ObjectError, ROW_GROUP_BYTES, ROW_GROUP_CELLS, ROW_GROUP_ROWS, SHAPE_BYTES, SHAPE_CELLS, SegmentSource,
    UPLOAD_PART_BYTES, footer, stats,
};
use crate::manifest::Lost;
use crate::shape::{Inference, Shape, Shaper};

/// A finished object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub rows: u64,
    /// Rows with an `_error`.
    pub errors: u64,
    /// Size of the object.
    pub bytes: u64,
    pub min_timestamp: Millis,
    pub max_timestamp: Millis,
    /// Delta's statistics of the file, JSON.
    pub stats: String,
    /// What of the range is damaged in the local log.
    pub lost: Lost,
}

/// Widens `shape` by the payloads of a range.
///
/// # Errors
/// The local log cannot be read.
pub fn infer_segment(
    source: &mut dyn SegmentSource,
    base: Offset,
    end: Offset,
    shape: Shape,
) -> Result<Shape, ObjectError> {
    let mut inference = Inference::new(shape);
    let mut walk = Walk::new(source, base, end);
    while let Some(record) = walk.next_record()? {
        if let Some(payload) = record.value {
            inference.observe(&payload);
        }
    }
    Ok(inference.finish())
}

fn properties(shape: &Shape) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(None)
        .set_created_by(concat!("forebay ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(footer::entries(shape)));
    for raw in ["_key", "_value", "_error"] {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(raw), EnabledStatistics::None);
    }
    builder.build()
}

/// Writes the records of `base..end` as an object at `path`; it is there whole or not at all. Damaged records
/// are left out and told of.
///
/// # Errors
/// The local log cannot be read or the object not be written.
pub async fn write_segment(
    store: Arc<dyn ObjectStore>,
    path: &Path,
    source: &mut dyn SegmentSource,
    partition: u32,
    (base, end): (Offset, Offset),
    shape: Arc<Shape>,
) -> Result<Written, ObjectError> {
    let problem = |what: &dyn std::fmt::Display| ObjectError::format(path, what);
    let schema = shape.schema();
    let output = BufWriter::with_capacity(store, path.clone(), UPLOAD_PART_BYTES).with_max_concurrency(1);
    let mut writer =
        AsyncArrowWriter::try_new(output, schema.clone(), Some(properties(&shape))).map_err(|e| problem(&e))?;
    let new_shaper = || Shaper::new(shape.clone(), schema.clone(), partition);
    let mut shaper = new_shaper();
    let mut walk = Walk::new(source, base, end);
    let full = |shaper: &Shaper| shaper.bytes() >= SHAPE_BYTES || shaper.cells() >= SHAPE_CELLS;
    let (mut errors, mut group_bytes, mut group_rows, mut group_cells) = (0, 0, 0, 0);
    let (mut min_timestamp, mut max_timestamp) = (Millis(i64::MAX), Millis(i64::MIN));
    loop {
        let record = walk.next_record()?;
        let last = record.is_none();
        if let Some(record) = record {
            min_timestamp = min_timestamp.min(record.timestamp);
            max_timestamp = max_timestamp.max(record.timestamp);
            shaper.push(record);
        }
        if full(&shaper) || (last && !shaper.is_empty()) {
            group_bytes += shaper.bytes();
            group_rows += shaper.len();
            group_cells += shaper.cells();
            let shaped = std::mem::replace(&mut shaper, new_shaper()).finish().map_err(|e| problem(&e))?;
            errors += shaped.errors;
            writer.write(&shaped.batch).await.map_err(|e| problem(&e))?;
            if group_bytes >= ROW_GROUP_BYTES || group_rows >= ROW_GROUP_ROWS || group_cells >= ROW_GROUP_CELLS {
                (group_bytes, group_rows, group_cells) = (0, 0, 0);
                writer.flush().await.map_err(|e| problem(&e))?;
            }
        }
        if last {
            break;
        }
    }
    let metadata: ParquetMetaData = writer.finish().await.map_err(|e| problem(&e))?;
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let bytes = writer.bytes_written() as u64;
    let stats = stats::delta_stats(&metadata);
    Ok(Written { rows, errors, bytes, min_timestamp, max_timestamp, stats, lost: walk.lost })
}
