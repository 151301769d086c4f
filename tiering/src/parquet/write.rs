//! Writes a segment's records to a Parquet object in bounded memory.

use std::sync::Arc;

use forebay_log::record::RecordRef;
use forebay_log::{Millis, Offset};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::{ArrowSchemaConverter, AsyncArrowWriter};
use parquet::basic::{Compression, Encoding, Type as PhysicalType, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::{ColumnPath, SchemaDescriptor};

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
    let mut observe = |record: RecordRef<'_>| {
        if let Some(payload) = record.value {
            inference.observe(payload);
        }
        true
    };
    while walk.advance(&mut observe)? {}
    Ok(inference.finish())
}

/// How the columns are encoded. Whole numbers and times mostly rise or stay close to each other: their differences take fewer
/// bytes than a dictionary, and no search for each value.
fn properties(shape: &Shape, schema: &SchemaDescriptor) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(None)
        .set_created_by(concat!("forebay ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(footer::entries(shape)));
    for column in schema.columns() {
        if column.physical_type() == PhysicalType::INT64 {
            builder = builder
                .set_column_dictionary_enabled(column.path().clone(), false)
                .set_column_encoding(column.path().clone(), Encoding::DELTA_BINARY_PACKED);
        }
    }
    for raw in ["_key", "_value", "_error"] {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(raw), EnabledStatistics::None);
    }
    builder.build()
}

/// Where the records of a copy come from and go.
pub struct Job<'j> {
    pub store: Arc<dyn ObjectStore>,
    pub path: &'j Path,
    pub source: &'j mut dyn SegmentSource,
    pub partition: u32,
    /// From the first offset to the one after the last.
    pub range: (Offset, Offset),
}

/// Copies a segment in columns of `shape` and of what else its payloads hold; tells the shape that the topic has then.
/// Mostly the table has all fields already, and one pass over the records does; otherwise they are looked through first.
///
/// # Errors
/// The local log cannot be read or the object not be written.
pub async fn copy_segment(mut job: Job<'_>, shape: Shape) -> Result<(Written, Shape), ObjectError> {
    if !shape.fields.is_empty()
        && let Some(done) = attempt(&mut job, Arc::new(shape.clone()), true).await?
    {
        return Ok(done);
    }
    let wide = Arc::new(infer_segment(job.source, job.range.0, job.range.1, shape)?);
    let written = write_segment(job, wide.clone()).await?;
    Ok((written, Arc::unwrap_or_clone(wide)))
}

/// Writes the records of a range as an object with the columns of `shape`; it is there whole or not at all. Damaged records
/// are left out and told of.
///
/// # Errors
/// The local log cannot be read or the object not be written.
pub async fn write_segment(mut job: Job<'_>, shape: Arc<Shape>) -> Result<Written, ObjectError> {
    match attempt(&mut job, shape, false).await? {
        Some((written, _)) => Ok(written),
        None => Err(ObjectError::format(job.path, "given up")),
    }
}

/// Writes the object, and tells the shape with the ways of writing found; `None`, and nothing is written, if the payloads hold
/// fields that the shape has not and `all_fields` are to be there.
async fn attempt(
    job: &mut Job<'_>,
    shape: Arc<Shape>,
    all_fields: bool,
) -> Result<Option<(Written, Shape)>, ObjectError> {
    let path = job.path;
    let problem = |what: &dyn std::fmt::Display| ObjectError::format(path, what);
    let schema = shape.schema();
    let columns = ArrowSchemaConverter::new().convert(&schema).map_err(|e| problem(&e))?;
    let output = BufWriter::with_capacity(job.store.clone(), path.clone(), UPLOAD_PART_BYTES).with_max_concurrency(1);
    let mut writer = AsyncArrowWriter::try_new(output, schema.clone(), Some(properties(&shape, &columns)))
        .map_err(|e| problem(&e))?;
    let mut shaper = Shaper::new(shape, schema, job.partition);
    let mut walk = Walk::new(job.source, job.range.0, job.range.1);
    let (mut errors, mut group_bytes, mut group_rows, mut group_cells) = (0, 0, 0, 0);
    let (mut min_timestamp, mut max_timestamp) = (Millis(i64::MAX), Millis(i64::MIN));
    let full = |shaper: &Shaper| shaper.bytes() >= SHAPE_BYTES || shaper.cells() >= SHAPE_CELLS;
    loop {
        let more = walk.advance(|record| {
            let RecordRef { offset, timestamp, key, value, headers } = record;
            min_timestamp = min_timestamp.min(timestamp);
            max_timestamp = max_timestamp.max(timestamp);
            shaper.push(offset, timestamp, key, value, headers);
            !full(&shaper)
        })?;
        if all_fields && shaper.is_too_narrow() {
            // Parts that were uploaded already would stay for ever.
            writer.into_inner().abort().await?;
            return Ok(None);
        }
        if full(&shaper) || (!more && !shaper.is_empty()) {
            group_bytes += shaper.bytes();
            group_rows += shaper.len();
            group_cells += shaper.cells();
            let shaped = shaper.take().map_err(|e| problem(&e))?;
            errors += shaped.errors;
            writer.write(&shaped.batch).await.map_err(|e| problem(&e))?;
            if group_bytes >= ROW_GROUP_BYTES || group_rows >= ROW_GROUP_ROWS || group_cells >= ROW_GROUP_CELLS {
                (group_bytes, group_rows, group_cells) = (0, 0, 0);
                writer.flush().await.map_err(|e| problem(&e))?;
            }
        }
        if !more {
            break;
        }
    }
    let metadata: ParquetMetaData = writer.finish().await.map_err(|e| problem(&e))?;
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let bytes = writer.bytes_written() as u64;
    let stats = stats::delta_stats(&metadata);
    let written = Written { rows, errors, bytes, min_timestamp, max_timestamp, stats, lost: walk.lost };
    Ok(Some((written, shaper.seen())))
}
