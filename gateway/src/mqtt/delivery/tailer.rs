//! Follows one partition and offers its records to the subscribers, once for all of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::record::{Batches, Record, RecordReader};
use forebay_log::{Offset, ReadError};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::hub::{Hub, Part};
use super::trouble::Trouble;
use crate::log_limit::LogLimit;
use crate::mqtt::limits::DELIVERY_READ_BYTES;

/// Pause after a failed read.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait for a partition to advance before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Pause before a leader that has not said where its partition ends is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often the end of a partition on another node is asked for while nobody is subscribed to anything.
const IDLE: Duration = Duration::from_millis(500);

/// Runs until the partition is followed no more.
pub(super) async fn run(hub: Arc<Hub>, part: Arc<Part>) {
    let mut trouble = Trouble::default();
    let follow = async {
        loop {
            while let Some(from) = hub.tailer_from(&part) {
                match read(&hub, &part, from).await {
                    Ok((records, next)) => {
                        if trouble.over() {
                            let (topic, partition) = (part.partition.topic(), part.partition.index());
                            info!(topic, partition, "can be read for subscribers again");
                        }
                        hub.fan_out(&part, &records, next);
                    }
                    Err(error) => {
                        if let Some(suppressed) = trouble.met(&error.to_string(), Instant::now()) {
                            warn!(topic = part.partition.topic(), partition = part.partition.index(), %error, suppressed,
                                "cannot read for subscribers, trying again each second");
                        }
                        tokio::time::sleep(RETRY).await;
                    }
                }
                tokio::task::yield_now().await;
            }
            let Some(position) = *part.position() else {
                // Where there is no replica, only the leader knows where it ends.
                match part.partition.fetch_from_leader(Offset::ZERO, 0).await {
                    Ok(fetched) => hub.begin(&part, fetched.watermarks.high_watermark),
                    Err(_) if part.partition.is_here() => hub.begin(&part, part.partition.watermarks().high_watermark),
                    Err(_) => tokio::time::sleep(ASK_AGAIN).await,
                }
                continue;
            };
            part.partition.advanced(position, LOOK_AGAIN).await;
            if !part.partition.is_here() && hub.is_idle() {
                // Nobody waits for what is asked of another node.
                tokio::time::sleep(IDLE).await;
            }
        }
    };
    let _ = part.followed.run_until_cancelled(follow).await;
}

/// The records from `from` on, and the offset after them. Retention and damage take readers on: there is nothing to wait for.
pub(super) async fn read(hub: &Hub, part: &Part, from: Offset) -> Result<(Vec<Record>, Offset), ReadError> {
    match hub.reader.read(&part.partition, from, DELIVERY_READ_BYTES).await {
        Ok(fetched) => Ok(decode(fetched.batches, from)),
        Err(ReadError::OutOfRange { start, .. }) if start > from => Ok((Vec::new(), start)),
        // The session has been told more on another node than the replica here has by now.
        Err(ReadError::OutOfRange { end, .. }) if end < from => Ok((Vec::new(), from)),
        Err(ReadError::Corrupt { file, position, what, next }) if next > from => {
            static LIMIT: LogLimit = LogLimit::new(10);
            hub.metrics.mqtt.delivery_gaps.inc();
            if let Some(suppressed) = LIMIT.admit() {
                let (topic, partition) = (part.partition.topic(), part.partition.index());
                error!(
                    topic,
                    partition,
                    from = from.0,
                    next = next.0,
                    file,
                    position,
                    suppressed,
                    "damaged records ({what}): subscribers do not get the offsets from `from` to below `next`"
                );
            }
            Ok((Vec::new(), next))
        }
        Err(error) => Err(error),
    }
}

/// A batch that cannot be decoded is passed over: whoever reads it by the Kafka door gets the error.
fn decode(batches: Bytes, from: Offset) -> (Vec<Record>, Offset) {
    let mut records = Vec::new();
    let mut next = from;
    for batch in Batches::new(batches) {
        let Ok((header, batch)) = batch else { break };
        next = header.next_offset().max(next);
        if header.is_control() {
            continue;
        }
        match RecordReader::new(&header, &batch) {
            Ok(reader) => records.extend(reader.map_while(Result::ok).filter(|record| record.offset >= from)),
            Err(problem) => warn!(offset = header.base_offset.0, %problem, "cannot decode a batch for subscribers"),
        }
    }
    (records, next)
}
