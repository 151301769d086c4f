//! ListOffsets (2), v1-10: offsets by time, and the borders of the log and of its hot and cold parts.
//!
//! The special times: -1 the end, -2 the start of the whole log, -3 the record with the largest timestamp (KIP-734),
//! -4 the start of the local part (KIP-405), -5 the last offset of the cold part (KIP-1005).

use std::sync::Arc;

use forebay_cluster::{Partition, Watermarks};
use forebay_log::record::Batches;
use forebay_log::{Millis, ReadError};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{Field, INT8, INT32, INT64, Kind, Struct};
use super::leadership::check_leader;
use super::session::Session;
use super::topics::partition;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::ListOffsets,
    name: "ListOffsets",
    advertised_from: 0,
    from: 1,
    to: 10,
    flexible_from: 6,
    request: &Struct {
        fields: &[
            Field::new(INT32),
            Field::new(INT8).from(2),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(INT32), Field::new(INT32).from(4), Field::new(INT64)],
                        tags: &[],
                    }))),
                ],
                tags: &[],
            }))),
            Field::new(INT32).from(10),
        ],
        tags: &[],
    },
};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Bytes read at a time while looking for the largest timestamp of the active segment.
const SCAN_BYTES: usize = 1 << 20;

/// An offset and the timestamp of its record; -1 for a border, and both -1 when there is no such record.
type Found = (i64, i64);
const NONE: Found = (-1, -1);

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let allowed = session.topic(Operation::Describe, &asked.name);
        let topic = shared.door.log.topic(&asked.name).filter(|_| allowed.is_ok());
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for part in asked.partitions {
            let partition = topic.as_deref().and_then(|topic| partition(topic, part.partition_index));
            let answer = match (allowed, partition) {
                (Err(denied), _) => Err(denied.into()),
                (_, Some(partition)) => find(shared, version, partition, &part).await,
                (_, None) => Err(ResponseError::UnknownTopicOrPartition.into()),
            };
            let response = ListOffsetsPartitionResponse::default().with_partition_index(part.partition_index);
            partitions.push(match answer {
                Ok((offset, timestamp)) => {
                    let response = response.with_offset(offset).with_timestamp(timestamp);
                    match partition {
                        Some(partition) if version >= 4 => response.with_leader_epoch(partition.leader_epoch().0),
                        _ => response,
                    }
                }
                Err(refusal) => response.with_error_code(refusal.code).with_offset(-1).with_timestamp(-1),
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn find(
    shared: &Shared,
    version: i16,
    partition: &Arc<Partition>,
    asked: &ListOffsetsPartition,
) -> Result<Found, Refusal> {
    check_leader(partition, asked.current_leader_epoch)?;
    if let Some(why) = partition.unopened() {
        return Err(ReadError::Offline(why).into());
    }
    let Watermarks { log_start, local_start, high_watermark, .. } = partition.watermarks();
    match asked.timestamp {
        // A new leader does not know yet what of the log before it was read as replicated (KIP-207).
        LATEST if partition.led_from().is_some_and(|from| high_watermark < from) => {
            Err(if version >= 5 { ResponseError::OffsetNotAvailable } else { ResponseError::LeaderNotAvailable }.into())
        }
        LATEST => Ok((high_watermark.0, -1)),
        EARLIEST => Ok((log_start.0, -1)),
        EARLIEST_LOCAL => Ok((local_start.0, -1)),
        LATEST_TIERED if log_start < local_start => Ok((local_start.0 - 1, -1)),
        LATEST_TIERED => Ok(NONE),
        MAX_TIMESTAMP => Ok(newest(shared, partition).await?),
        at if at >= 0 => {
            let found = shared.door.reader.offset_for_time(partition, Millis(at)).await?;
            Ok(found.map_or(NONE, |(offset, timestamp)| (offset.0, timestamp.0)))
        }
        _ => Err(ResponseError::UnsupportedVersion.into()),
    }
}

/// The record with the largest timestamp, hot and cold alike.
async fn newest(shared: &Shared, partition: &Arc<Partition>) -> Result<Found, Refusal> {
    let scanned = Arc::clone(partition);
    let local = tokio::task::spawn_blocking(move || largest_timestamp(&scanned))
        .await
        .map_err(|_| Refusal::from(ResponseError::UnknownServerError))??;
    let Some(largest) = local.max(shared.door.reader.largest_cold_timestamp(partition)) else { return Ok(NONE) };
    let found = shared.door.reader.offset_for_time(partition, largest).await?;
    Ok(found.map_or(NONE, |(offset, timestamp)| (offset.0, timestamp.0)))
}

/// Of the local log. Closed segments know theirs; the active one is read, batch headers only.
fn largest_timestamp(partition: &Partition) -> Result<Option<Millis>, ReadError> {
    let closed = partition.closed_segments();
    let mut largest = closed.iter().map(|segment| segment.max_timestamp).max();
    let mut at = closed.last().map_or(partition.watermarks().local_start, |segment| segment.end_offset);
    loop {
        let batches = partition.read(at, SCAN_BYTES)?.batches;
        if batches.is_empty() {
            return Ok(largest);
        }
        for batch in Batches::new(batches) {
            let Ok((header, _)) = batch else { return Ok(largest) };
            largest = largest.max(Some(header.max_timestamp));
            at = at.max(header.next_offset());
        }
    }
}
