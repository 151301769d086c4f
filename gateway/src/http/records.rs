//! `GET /api/v1/topics/{t}/records`: a page of records from one partition, hot or cold.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use forebay_log::record::{Batches, Record, RecordReader};
use forebay_log::{Millis, Offset};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::budget;
use super::error::ApiError;
use super::front::{Front, Opened};
use super::limits::{DEFAULT_RECORDS_PER_READ, MAX_READ_BYTES, MAX_RECORDS_PER_READ};
use crate::base64;

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    partition: u32,
    /// Default: the first record there is.
    offset: Option<i64>,
    /// Instead of `offset`: the first record at or after this time, milliseconds since 1970 or RFC 3339.
    timestamp: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn read(
    State(front): State<Arc<Front>>,
    Opened(gateway): Opened,
    Path(name): Path<String>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(page) = page.map_err(|error| ApiError::bad_request(error.body_text()))?;
    if name == crate::security::LEGACY_TOPIC {
        return Err(ApiError::forbidden(format!("{name} holds the keys of users; nobody reads it")));
    }
    let topic = gateway.log.topic(&name).ok_or_else(|| ApiError::unknown_topic(&name))?;
    let Some(partition) = topic.partitions.get(page.partition as usize) else {
        return Err(ApiError::not_found(format!("{name} has {} partitions, from 0", topic.partitions.len())));
    };
    let limit = page.limit.unwrap_or(DEFAULT_RECORDS_PER_READ).min(MAX_RECORDS_PER_READ);
    let memory = front.budget.read().await?;
    let marks = partition.watermarks();
    let from = match (page.offset, page.timestamp.as_deref()) {
        (Some(_), Some(_)) => return Err(ApiError::bad_request("give offset or timestamp, not both")),
        (Some(offset), None) => Offset(offset),
        (None, Some(at)) => {
            let found = gateway.reader.offset_for_time(partition, time(at)?).await?;
            found.map_or(marks.high_watermark, |(at, _)| at)
        }
        (None, None) => marks.log_start,
    };
    let mut records = Vec::new();
    let mut next = from;
    // Of the records in the answer: what a batch decompresses to can be far more than what was read.
    let mut bytes = 0;
    while records.len() < limit && bytes < MAX_READ_BYTES {
        let fetched = gateway.reader.read(partition, next, MAX_READ_BYTES).await?;
        if fetched.batches.is_empty() {
            break;
        }
        let before = next;
        for batch in Batches::new(fetched.batches) {
            let (header, batch) = batch.map_err(corrupt)?;
            for record in RecordReader::new(&header, &batch).map_err(corrupt)? {
                let record = record.map_err(corrupt)?;
                if record.offset >= next && records.len() < limit && bytes < MAX_READ_BYTES {
                    next = record.offset.next();
                    bytes += bytes_of(&record);
                    records.push(record_json(&record));
                }
            }
            if records.len() < limit && bytes < MAX_READ_BYTES {
                next = next.max(header.next_offset());
            }
        }
        if next == before {
            break;
        }
    }
    let answer = json!({
        "topic": name,
        "partition": page.partition,
        "log_start": marks.log_start.0,
        "high_watermark": marks.high_watermark.0,
        "next_offset": next.0,
        "records": records,
    });
    Ok(budget::answer(&answer, memory))
}

/// Of key, value and headers.
fn bytes_of(record: &Record) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|header| header.name.len() + length(&header.value));
    length(&record.key) + length(&record.value) + headers.sum::<usize>()
}

/// A time as it stands in a query, where a `+` that was not escaped has become a space.
fn time(text: &str) -> Result<Millis, ApiError> {
    if let Ok(millis) = text.parse() {
        return Ok(Millis(millis));
    }
    chrono::DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
        .map(|time| Millis(time.timestamp_millis()))
        .map_err(|_| ApiError::bad_request("timestamp is neither milliseconds since 1970 nor RFC 3339"))
}

fn corrupt(problem: forebay_log::record::BatchProblem) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a stored batch cannot be read: {problem}"))
}

/// Bytes that are text stand under `key` and `value`, others as Base64 under `key_base64` and `value_base64`.
fn record_json(record: &Record) -> Value {
    let mut out = Map::new();
    out.insert("offset".to_owned(), record.offset.0.into());
    out.insert("timestamp".to_owned(), record.timestamp.0.into());
    put_bytes(&mut out, "key", record.key.as_deref());
    put_bytes(&mut out, "value", record.value.as_deref());
    let headers = record.headers.iter().map(|header| {
        let mut out = Map::new();
        put_bytes(&mut out, "name", Some(&header.name));
        put_bytes(&mut out, "value", header.value.as_deref());
        Value::Object(out)
    });
    out.insert("headers".to_owned(), headers.collect());
    Value::Object(out)
}

fn put_bytes(out: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => out.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => out.insert(name.to_owned(), text.into()),
        Some((bytes, Err(_))) => out.insert(format!("{name}_base64"), base64::encode(bytes).into()),
    };
}
