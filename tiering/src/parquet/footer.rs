//! What stands in an object's footer beside Parquet's own: the shape, and where offsets and times lie by row group.

use std::sync::Arc;

use forebay_log::{Millis, Offset};
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use super::ObjectError;
use crate::shape::Shape;

const SHAPE_KEY: &str = "forebay.shape";

/// The footer entries of an object of this shape.
pub(super) fn entries(shape: &Shape) -> Vec<KeyValue> {
    let json = serde_json::to_string(shape).unwrap_or_default();
    vec![KeyValue::new(SHAPE_KEY.to_owned(), json)]
}

/// The extent of a row group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) last: Offset,
    pub(super) max_timestamp: Millis,
    pub(super) rows: u64,
}

/// A parsed footer.
pub(super) struct Footer {
    /// Bytes of the object.
    pub(super) size: u64,
    pub(super) arrow: ArrowReaderMetadata,
    pub(super) shape: Shape,
    pub(super) groups: Vec<Group>,
}

/// Least and greatest of an INT64 column of a row group.
pub(super) fn int64_extent(group: &RowGroupMetaData, column: &str) -> Option<(i64, i64)> {
    let chunk = group.columns().iter().find(|chunk| matches!(chunk.column_path().parts(), [name] if name == column))?;
    match chunk.statistics()? {
        Statistics::Int64(stats) => Some((*stats.min_opt()?, *stats.max_opt()?)),
        _ => None,
    }
}

impl Footer {
    pub(super) fn new(path: &Path, size: u64, arrow: ArrowReaderMetadata) -> Result<Arc<Footer>, ObjectError> {
        let metadata = arrow.metadata();
        let shape = metadata
            .file_metadata()
            .key_value_metadata()
            .and_then(|entries| entries.iter().find(|entry| entry.key == SHAPE_KEY))
            .and_then(|entry| entry.value.as_deref())
            .ok_or_else(|| ObjectError::format(path, "no shape in the footer"))?;
        let shape = serde_json::from_str(shape).map_err(|error| ObjectError::format(path, error))?;
        let mut groups = Vec::new();
        for group in metadata.row_groups() {
            let (_, last) =
                int64_extent(group, "_offset").ok_or_else(|| ObjectError::format(path, "no statistics of _offset"))?;
            let max = int64_extent(group, "_timestamp").map_or(i64::MAX, |(_, max)| max);
            groups.push(Group {
                last: Offset(last),
                max_timestamp: Millis(max.div_euclid(1000)),
                rows: u64::try_from(group.num_rows()).unwrap_or(0),
            });
        }
        Ok(Arc::new(Footer { size, arrow, shape, groups }))
    }
}
