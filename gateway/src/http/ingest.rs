//! `POST /api/v1/topics/{t}/records`: ingest over HTTP, answered when every record is durable.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use forebay_cluster::{AppendData, Ticket};
use forebay_log::limits::{BATCH_HEADER_BYTES, MAX_HEADERS, MAX_TIMESTAMP_MS};
use forebay_log::partitioner::partition_for_key;
use forebay_log::record::RecordChunk;
use forebay_log::{AppendError, Millis};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::error::ApiError;
use super::front::{Front, Opened};
use super::limits::{CHUNK_BYTES, HEADER_OVERHEAD_BYTES, MAX_RECORDS_PER_POST, RECORD_OVERHEAD_BYTES};
use crate::base64;

/// One record of the body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostedRecord {
    key: Option<String>,
    key_base64: Option<String>,
    /// A string is stored as it is, other JSON as its compact text, null as no value.
    #[serde(default)]
    value: Value,
    value_base64: Option<String>,
    /// Milliseconds since 1970, or RFC 3339; default: now.
    timestamp: Option<Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Default: by the key.
    partition: Option<u32>,
}

/// A checked record and its place.
struct Ready {
    partition: u32,
    timestamp: Millis,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: BTreeMap<String, String>,
}

/// Records of one request that go into one batch, in order; which of the body they are.
#[derive(Default)]
struct Share {
    chunk: RecordChunk,
    numbers: Vec<usize>,
}

/// The shares of one partition.
struct Shares {
    full: Vec<Share>,
    open: Share,
    /// Largest size of a batch of the topic, header included.
    max_message_bytes: usize,
}

impl Shares {
    fn new(max_message_bytes: usize) -> Shares {
        Shares { full: Vec::new(), open: Share::default(), max_message_bytes }
    }

    fn push(&mut self, number: usize, record: &Ready) {
        let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let lengths = [record.key.as_ref().map_or(0, Vec::len), record.value.as_ref().map_or(0, Vec::len)];
        let of_headers: usize =
            headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD_BYTES).sum();
        // A record that does not fit beside others must not take them with it when it is refused.
        let Share { chunk, numbers } = &self.open;
        let together = chunk.bytes() + lengths.iter().sum::<usize>() + of_headers;
        let overhead = BATCH_HEADER_BYTES + RECORD_OVERHEAD_BYTES;
        if !numbers.is_empty() && (chunk.bytes() >= CHUNK_BYTES || together + overhead > self.max_message_bytes) {
            self.full.push(std::mem::take(&mut self.open));
        }
        let Share { chunk, numbers } = &mut self.open;
        chunk.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
        numbers.push(number);
    }

    fn finish(mut self) -> Vec<Share> {
        if !self.open.numbers.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}

pub(super) async fn append(
    State(front): State<Arc<Front>>,
    Opened(gateway): Opened,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    // Until the answer: the records take as much until they are durable.
    let (body, _memory) = front.budget.take(body).await?;
    if gateway.shutdown.is_cancelled() {
        return Err(ApiError::unavailable("the node is draining"));
    }
    let topic = gateway.log.topic(&name).ok_or_else(|| ApiError::unknown_topic(&name))?;
    if topic.is_internal() {
        return Err(ApiError::forbidden(format!("{name} holds the state of the node itself")));
    }
    let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX).max(1);
    let keyless = front.next_keyless() % partitions;
    let now = Millis::from_system(SystemTime::now());
    let posted = parse(&body)?;
    drop(body);
    let mut shares: BTreeMap<u32, Shares> = BTreeMap::new();
    let max_message_bytes = topic.config().max_message_bytes;
    for (number, posted) in posted.into_iter().enumerate() {
        let record = check(posted, now, partitions, keyless)
            .map_err(|what| ApiError::bad_request(format!("record {number}: {what}")))?;
        shares.entry(record.partition).or_insert_with(|| Shares::new(max_message_bytes)).push(number, &record);
    }
    let mut submitted = Vec::with_capacity(shares.len());
    for (index, shares) in shares {
        let Some(partition) = topic.partitions.get(index as usize) else { continue };
        for share in shares.finish() {
            let ticket = partition.submit(AppendData::Chunk(share.chunk)).await;
            submitted.push((index, share.numbers, ticket));
        }
    }
    answer(submitted).await
}

/// Waits until all are durable. Each record gets its place, or the reason why it has none.
async fn answer(submitted: Vec<(u32, Vec<usize>, Result<Ticket, AppendError>)>) -> Result<Response, ApiError> {
    let total = submitted.iter().map(|(_, numbers, _)| numbers.len()).sum();
    let mut places = vec![Value::Null; total];
    let mut failed: Option<AppendError> = None;
    for (partition, numbers, ticket) in submitted {
        let appended = match ticket {
            Ok(ticket) => ticket.await,
            Err(error) => Err(error),
        };
        for (position, number) in numbers.into_iter().enumerate() {
            places[number] = match &appended {
                Ok(appended) => {
                    json!({ "partition": partition, "offset": appended.base_offset.0 + position as i64 })
                }
                Err(error) => json!({ "partition": partition, "error": error.to_string() }),
            };
        }
        if let Err(error) = appended {
            failed.get_or_insert(error);
        }
    }
    match failed.map(ApiError::from) {
        None => Ok((StatusCode::OK, Json(json!({ "records": places }))).into_response()),
        Some(error) => {
            let body = json!({ "error": error.what, "records": places });
            Ok(error.with(body))
        }
    }
}

/// The body is a JSON array of records, or one record on each line.
fn parse(body: &[u8]) -> Result<Vec<PostedRecord>, ApiError> {
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let records: Vec<PostedRecord> = if is_array {
        match serde_json::from_slice(body) {
            Ok(FewRecords(records)) => records,
            Err(error) if error.to_string().starts_with(TOO_MANY) => return Err(too_many()),
            Err(error) => return Err(ApiError::bad_request(format!("the body: {error}"))),
        }
    } else {
        let mut records = Vec::new();
        for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let record = serde_json::from_slice(line)
                .map_err(|error| ApiError::bad_request(format!("line {}: {error}", number + 1)))?;
            records.push(record);
            if records.len() > MAX_RECORDS_PER_POST {
                break;
            }
        }
        records
    };
    match records.len() {
        0 => Err(ApiError::bad_request("the body holds no record: send a JSON array, or one record on each line")),
        1..=MAX_RECORDS_PER_POST => Ok(records),
        _ => Err(too_many()),
    }
}

const TOO_MANY: &str = "too many records";

fn too_many() -> ApiError {
    let what = format!("a request holds at most {MAX_RECORDS_PER_POST} records");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, what)
}

/// An array of at most [`MAX_RECORDS_PER_POST`] records. It is left at the first one too many: an empty record takes two
/// bytes of a body and two hundred in memory.
struct FewRecords(Vec<PostedRecord>);

impl<'de> Deserialize<'de> for FewRecords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FewRecords, D::Error> {
        struct Few;
        impl<'de> Visitor<'de> for Few {
            type Value = FewRecords;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<FewRecords, A::Error> {
                let mut records = Vec::new();
                while let Some(record) = array.next_element()? {
                    if records.len() == MAX_RECORDS_PER_POST {
                        return Err(de::Error::custom(TOO_MANY));
                    }
                    records.push(record);
                }
                Ok(FewRecords(records))
            }
        }
        deserializer.deserialize_seq(Few)
    }
}

fn check(posted: PostedRecord, now: Millis, partitions: u32, keyless: u32) -> Result<Ready, String> {
    let key = match (posted.key, posted.key_base64) {
        (Some(_), Some(_)) => return Err("give key or key_base64, not both".to_owned()),
        (Some(key), None) => Some(key.into_bytes()),
        (None, Some(coded)) => Some(base64::decode(&coded).ok_or("key_base64 is not Base64")?),
        (None, None) => None,
    };
    let value = match (posted.value, posted.value_base64) {
        (Value::Null, None) => None,
        (Value::Null, Some(coded)) => Some(base64::decode(&coded).ok_or("value_base64 is not Base64")?),
        (_, Some(_)) => return Err("give value or value_base64, not both".to_owned()),
        (Value::String(text), None) => Some(text.into_bytes()),
        (value, None) => Some(value.to_string().into_bytes()),
    };
    if posted.headers.len() > MAX_HEADERS {
        return Err(format!("it has {} headers, at most {MAX_HEADERS} can be stored", posted.headers.len()));
    }
    if key.is_none() && value.is_none() {
        return Err("it has neither key nor value".to_owned());
    }
    let timestamp = match posted.timestamp {
        None => now,
        Some(Value::Number(number)) => Millis(
            number
                .as_i64()
                .filter(|ms| (0..=MAX_TIMESTAMP_MS).contains(ms))
                .ok_or("timestamp is not in milliseconds since 1970")?,
        ),
        Some(Value::String(text)) => chrono::DateTime::parse_from_rfc3339(&text)
            .map(|time| Millis(time.timestamp_millis()))
            .map_err(|error| format!("timestamp is not RFC 3339: {error}"))?,
        Some(_) => return Err("timestamp is neither a number nor text".to_owned()),
    };
    let partition = match (posted.partition, &key) {
        (Some(partition), _) if partition >= partitions => {
            return Err(format!("partition {partition} does not exist: the topic has {partitions}, from 0"));
        }
        (Some(partition), _) => partition,
        (None, Some(key)) => partition_for_key(key, partitions),
        (None, None) => keyless,
    };
    Ok(Ready { partition, timestamp, key, value, headers: posted.headers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str) -> Result<Ready, String> {
        let record = parse(json.as_bytes()).map_err(|error| error.what)?.remove(0);
        check(record, Millis(7), 4, 2)
    }

    #[test]
    fn a_string_is_stored_as_it_is_and_other_json_as_its_text() {
        assert_eq!(checked(r#"{"value":"a b"}"#).unwrap().value.as_deref(), Some(&b"a b"[..]));
        assert_eq!(checked(r#"{"value":{"v": 1.5}}"#).unwrap().value.as_deref(), Some(&br#"{"v":1.5}"#[..]));
        assert_eq!(checked(r#"{"value_base64":"AAE="}"#).unwrap().value.as_deref(), Some(&[0u8, 1][..]));
        assert_eq!(checked(r#"{"key":"m1","value":null}"#).unwrap().value, None);
    }

    #[test]
    fn the_partition_follows_the_key_and_the_time_is_the_records_own() {
        let record = checked(r#"{"key":"m1","value":1,"timestamp":"2013-02-04T00:00:00Z"}"#).unwrap();
        assert_eq!((record.partition, record.timestamp), (partition_for_key(b"m1", 4), Millis(1_359_936_000_000)));
        let record = checked(r#"{"value":1}"#).unwrap();
        assert_eq!((record.partition, record.timestamp), (2, Millis(7)));
    }

    #[test]
    fn what_is_wrong_with_a_record_is_said() {
        for (json, why) in [
            ("[]", "no record"),
            ("{nonsense", "line 1"),
            (r#"[{"valu":1}]"#, "valu"),
            (r#"{"headers":{}}"#, "neither key nor value"),
            (r#"{"value":1,"partition":9}"#, "partition 9"),
            (r#"{"value":1,"timestamp":"noon"}"#, "RFC 3339"),
            (r#"{"value":1,"timestamp":9000000000000001}"#, "milliseconds since 1970"),
            (r#"{"key_base64":"?","value":1}"#, "Base64"),
        ] {
            let error = checked(json).err().unwrap();
            assert!(error.contains(why), "{json}: {error}");
        }
    }

    #[test]
    fn a_record_with_more_headers_than_can_be_read_back_is_refused() {
        let headers = |count: usize| {
            let list: Vec<String> = (0..count).map(|n| format!(r#""h{n}":"""#)).collect();
            format!(r#"{{"value":1,"headers":{{{}}}}}"#, list.join(","))
        };
        assert!(checked(&headers(MAX_HEADERS)).is_ok());
        assert!(checked(&headers(MAX_HEADERS + 1)).err().unwrap().contains("1025 headers"));
    }

    #[test]
    fn an_array_is_left_at_the_first_record_too_many() {
        let body = |tail: &str| format!("[{}{tail}", r#"{"value":1},"#.repeat(MAX_RECORDS_PER_POST));
        // What follows is not looked at: it is not even JSON.
        let error = parse(body(r#"{"value":1},nonsense"#).as_bytes()).err().unwrap();
        assert_eq!(error.status, StatusCode::PAYLOAD_TOO_LARGE);
        let full = body(r#"{"value":1}]"#).replacen(r#"{"value":1},"#, "", 1);
        assert_eq!(parse(full.as_bytes()).map_err(|error| error.what).unwrap().len(), MAX_RECORDS_PER_POST);
        let error = parse(br#"[{"value":1}] x"#).err().unwrap();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
    }
}
