//! Reads an object back: record batches from any offset, the first record at or after a time, a check of all rows.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use forebay_log::record::{BatchBuilder, Compression};
use forebay_log::{Millis, Offset};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use tokio::sync::Semaphore;

use super::cache::{Cache, ColdBatch, DecodedGroup};
use super::fetch::Fetch;
use super::footer::Footer;
use super::{COLD_BATCH_BYTES, CONCURRENT_DECODES, ObjectError};
use crate::manifest::NO_EPOCH;
use crate::shape::Restorer;

/// Rows decoded at once.
const DECODE_ROWS: usize = 4096;

/// What an object holds, counted row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectCheck {
    pub rows: u64,
    pub first: Option<Offset>,
    pub last: Option<Offset>,
    /// Every offset is greater than the one before it.
    pub ascending: bool,
}

/// Serves the cold tier from Parquet objects, fetching only the row groups asked for.
pub struct ColdReader {
    store: Arc<dyn ObjectStore>,
    cache: Cache,
    decodes: Semaphore,
}

impl ColdReader {
    pub fn new(store: Arc<dyn ObjectStore>) -> ColdReader {
        ColdReader { store, cache: Cache::new(), decodes: Semaphore::new(CONCURRENT_DECODES) }
    }

    /// Record batches from the one that holds the first record at or after `from`, up to `max_bytes` but at least one;
    /// empty if the object has no such record.
    ///
    /// # Errors
    /// The object cannot be fetched or is not one of ours.
    pub async fn read(&self, path: &Path, from: Offset, max_bytes: usize) -> Result<Bytes, ObjectError> {
        let footer = self.footer(path).await?;
        let mut out = BytesMut::new();
        let start = footer.groups.partition_point(|group| group.last < from);
        for at in start..footer.groups.len() {
            let group = self.group(path, &footer, at).await?;
            for batch in group.iter().filter(|batch| batch.last >= from) {
                if !out.is_empty() && out.len() + batch.bytes.len() > max_bytes {
                    return Ok(out.freeze());
                }
                if out.is_empty() && batch.bytes.len() >= max_bytes {
                    return Ok(batch.bytes.clone());
                }
                out.extend_from_slice(&batch.bytes);
            }
            if !out.is_empty() {
                break;
            }
        }
        Ok(out.freeze())
    }

    /// The first record with a timestamp at or after `at`.
    ///
    /// # Errors
    /// As for `read`.
    pub async fn offset_for_time(&self, path: &Path, at: Millis) -> Result<Option<(Offset, Millis)>, ObjectError> {
        let footer = self.footer(path).await?;
        for group in 0..footer.groups.len() {
            if footer.groups[group].max_timestamp < at {
                continue;
            }
            let mut stream = self.stream(path, &footer, Some(group), Some(&["_offset", "_timestamp"]))?;
            while let Some(batch) = stream.try_next().await.map_err(|e| ObjectError::format(path, e))? {
                let found = times(&batch).and_then(|mut rows| rows.find(|(_, timestamp)| *timestamp >= at));
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// Reads every row's offset.
    ///
    /// # Errors
    /// As for `read`.
    pub async fn check(&self, path: &Path) -> Result<ObjectCheck, ObjectError> {
        let footer = self.footer(path).await?;
        let mut check = ObjectCheck { rows: 0, first: None, last: None, ascending: true };
        let mut stream = self.stream(path, &footer, None, Some(&["_offset", "_timestamp"]))?;
        while let Some(batch) = stream.try_next().await.map_err(|e| ObjectError::format(path, e))? {
            for (offset, _) in times(&batch).into_iter().flatten() {
                check.ascending &= check.last.is_none_or(|last| last < offset);
                check.first.get_or_insert(offset);
                check.last = Some(offset);
                check.rows += 1;
            }
        }
        let promised: u64 = footer.groups.iter().map(|group| group.rows).sum();
        if promised != check.rows {
            return Err(ObjectError::format(path, format!("{} rows, the footer says {promised}", check.rows)));
        }
        Ok(check)
    }

    pub(super) async fn footer(&self, path: &Path) -> Result<Arc<Footer>, ObjectError> {
        if let Some(footer) = self.cache.footer(path) {
            return Ok(footer);
        }
        // Asked first, so that a missing object is told from a damaged one.
        let size = self.store.head(path).await?.size;
        let mut reader = Fetch { store: self.store.clone(), path: path.clone(), size };
        let arrow = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new())
            .await
            .map_err(|e| ObjectError::format(path, e))?;
        let footer = Footer::new(path, size, arrow)?;
        self.cache.put_footer(path, footer.clone());
        Ok(footer)
    }

    fn stream(
        &self,
        path: &Path,
        footer: &Footer,
        group: Option<usize>,
        columns: Option<&[&str]>,
    ) -> Result<ParquetRecordBatchStream<Fetch>, ObjectError> {
        let reader = Fetch { store: self.store.clone(), path: path.clone(), size: footer.size };
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, footer.arrow.clone())
            .with_batch_size(DECODE_ROWS);
        if let Some(group) = group {
            builder = builder.with_row_groups(vec![group]);
        }
        if let Some(columns) = columns {
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
            builder = builder.with_projection(mask);
        }
        builder.build().map_err(|e| ObjectError::format(path, e))
    }

    async fn group(&self, path: &Path, footer: &Footer, at: usize) -> Result<DecodedGroup, ObjectError> {
        if let Some(group) = self.cache.group(path, at) {
            return Ok(group);
        }
        // The semaphore is never closed, so a permit always comes.
        let _permit = self.decodes.acquire().await;
        if let Some(group) = self.cache.group(path, at) {
            return Ok(group);
        }
        let mut batches = Vec::new();
        let mut stream = self.stream(path, footer, Some(at), None)?;
        while let Some(rows) = stream.try_next().await.map_err(|e| ObjectError::format(path, e))? {
            let restorer = Restorer::new(&footer.shape, &rows)
                .ok_or_else(|| ObjectError::format(path, "the columns are not those of the shape"))?;
            encode(restorer, &mut batches);
        }
        let group = Arc::new(batches);
        self.cache.put_group(path, at, group.clone());
        Ok(group)
    }
}

fn times(batch: &arrow_array::RecordBatch) -> Option<impl Iterator<Item = (Offset, Millis)>> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int64Type, TimestampMicrosecondType};
    let offsets = batch.column_by_name("_offset")?.as_primitive_opt::<Int64Type>()?;
    let times = batch.column_by_name("_timestamp")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some(
        offsets
            .values()
            .iter()
            .zip(times.values())
            .map(|(offset, micros)| (Offset(*offset), Millis(micros.div_euclid(1000)))),
    )
}

/// Rows as record batches; gaps between offsets stay gaps. Which leader took them is not in the object, and a wrong epoch would be worse
/// than none: after the next change of the leader a client would hold it against where that epoch ended, and take the log for cut
/// (KIP-320).
fn encode(mut rows: Restorer<'_>, batches: &mut Vec<ColdBatch>) {
    let mut builder = BatchBuilder::new(Compression::None);
    let mut base: Option<Offset> = None;
    let mut last = Offset::ZERO;
    let close = |builder: BatchBuilder, base: Option<Offset>, last, batches: &mut Vec<ColdBatch>| {
        if let Some(bytes) = base.and_then(|base| builder.build(base, NO_EPOCH)) {
            batches.push(ColdBatch { last, bytes });
        }
    };
    for row in 0..rows.len() {
        let record = rows.record(row);
        let delta = base.and_then(|base| i32::try_from(record.offset.0 - base.0).ok());
        let delta = match delta.filter(|_| builder.bytes() < COLD_BATCH_BYTES) {
            Some(delta) => delta,
            None => {
                let full = std::mem::replace(&mut builder, BatchBuilder::new(Compression::None));
                close(full, base, last, batches);
                base = Some(record.offset);
                0
            }
        };
        builder.push(delta, record.timestamp, record.key, record.value, &record.headers);
        last = record.offset;
    }
    close(builder, base, last, batches);
}
