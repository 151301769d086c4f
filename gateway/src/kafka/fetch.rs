//! Fetch (1), v4-17: stored batches from an offset on, waiting for new ones when there are too few.
//!
//! There are no transactions, so both isolation levels read up to the high watermark.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::{Partition, Watermarks};
use forebay_log::{AppendError, Offset, ReadError};
use futures_util::future::select_all;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::api::Api;
use super::dispatch::Caller;
use super::errors::Refusal;
use super::fetch_cold::{ColdReads, ColdTarget};
use super::fetch_compacted::read_records;
use super::fetch_replica::Reader;
use super::fetch_response::{Frame, PartitionAnswer, TopicAnswer};
use super::fetch_targets::{TopicTargets, elsewhere, targets};
use super::guard::{Field, INT8, INT32, INT64, Kind, Struct, Tag, UUID};
use super::limits::{
    COLD_FETCH_WAIT, COLD_GRACE, FETCH_MEMORY_WAIT, FETCH_RECHECK, MAX_FETCH_BYTES, MAX_FETCH_WAIT, MEMORY_UNIT,
};
use super::quotas::{Limited, millis};

pub(crate) static API: Api = Api {
    key: ApiKey::Fetch,
    name: "Fetch",
    advertised_from: 4,
    from: 4,
    to: 17,
    flexible_from: 12,
    request: &Struct {
        fields: &[
            Field::new(INT32).to(14),
            Field::new(INT32),
            Field::new(INT32),
            Field::new(INT32),
            Field::new(INT8),
            Field::new(INT32).from(7),
            Field::new(INT32).from(7),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String).to(12),
                    Field::new(UUID).from(13),
                    Field::new(Kind::Array(&Kind::Struct(&PARTITION))),
                ],
                tags: &[],
            }))),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(Kind::String).to(12), Field::new(UUID).from(13), Field::new(Kind::Array(&INT32))],
                tags: &[],
            })))
            .from(7),
            Field::new(Kind::String).from(11),
        ],
        tags: &[
            Tag(0, 12, Kind::String),
            Tag(1, 15, Kind::Struct(&Struct { fields: &[Field::new(INT32), Field::new(INT64)], tags: &[] })),
        ],
    },
};

static PARTITION: Struct = Struct {
    fields: &[
        Field::new(INT32),
        Field::new(INT32).from(9),
        Field::new(INT64),
        Field::new(INT32).from(12),
        Field::new(INT64).from(5),
        Field::new(INT32),
    ],
    tags: &[Tag(0, 17, UUID)],
};

/// A finished answer; the memory of its records is given back when it is dropped, after the write.
pub(crate) struct Answer {
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) memory: Vec<OwnedSemaphorePermit>,
}

/// Answers once `min_bytes` are there, the cold tier has given what it is asked for, an error is to be told, or `max_wait_ms`
/// are over. The cold tier alone may take longer.
pub(crate) async fn handle(
    shared: Arc<Shared>,
    caller: Caller,
    version: i16,
    correlation_id: i32,
    request: FetchRequest,
) -> Answer {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_FETCH_WAIT);
    let began = Instant::now();
    let deadline = began + wait;
    let limit = usize::try_from(request.max_bytes).unwrap_or(0).clamp(1, MAX_FETCH_BYTES);
    let limit = caller.most_at_once(&shared, Limited::Fetch).map_or(limit, |most| limit.min(most));
    let enough = usize::try_from(request.min_bytes).unwrap_or(0).min(limit);
    let reader = Reader::of(&shared, version, &request);
    let mut turn = match shared.fetch_sessions.begin(version, request, began) {
        Ok(turn) => turn,
        Err(error) => {
            let pieces =
                Frame { api: &API, version, correlation_id, error: error.code(), throttle_ms: 0, session_id: 0 }
                    .encode(&[]);
            return Answer { pieces, memory: Vec::new() };
        }
    };
    let asked = std::mem::take(&mut turn.topics);
    let topics: Vec<TopicTargets> =
        asked.into_iter().map(|topic| targets(&shared, &caller.session, &reader, version, topic)).collect();
    let mut watches: Vec<watch::Receiver<Watermarks>> = topics
        .iter()
        .flat_map(|topic| &topic.targets)
        .filter_map(|t| Some(t.partition.as_ref().ok()?.watch()))
        .collect();

    let mut cold: Option<ColdReads> = None;
    loop {
        for watch in &mut watches {
            watch.mark_unchanged();
        }
        let over = Instant::now() >= deadline || shared.shutdown.is_cancelled();
        let memory = match wants_read(&topics) {
            true => reserve(&shared, limit, deadline.max(began + FETCH_MEMORY_WAIT)).await,
            false => None,
        };
        let Look { mut answers, total, told, cold: targets } = read_all(&topics, limit, memory.is_some());
        let memory = keep(memory, total);
        if cold.is_none() && !targets.is_empty() {
            cold = Some(ColdReads::new(&shared, targets, limit));
        }
        let enough = told || ((over || total >= enough) && (total > 0 || cold.is_none()));
        let patience = if cold.is_some() && total == 0 { deadline.max(began + COLD_FETCH_WAIT) } else { deadline };
        if let Some(cold) = cold.as_mut().filter(|_| enough) {
            let _ = timeout_at(began + COLD_GRACE, cold.advance()).await;
        }
        let no_more = Instant::now() >= patience || shared.shutdown.is_cancelled();
        if enough || no_more || cold.as_ref().is_some_and(ColdReads::done) {
            let cold_memory = cold.and_then(|cold| cold.put_into(&mut answers, total, limit));
            shared.fetch_sessions.finish(&turn, &mut answers);
            let bytes = answers.iter().flat_map(|topic| &topic.partitions).map(|part| part.records.len()).sum();
            let throttle_ms = millis(caller.take(&shared, Limited::Fetch, bytes));
            let session_id = turn.session_id;
            let frame = Frame { api: &API, version, correlation_id, error: 0, throttle_ms, session_id };
            let pieces = frame.encode(&answers);
            return Answer { pieces, memory: memory.into_iter().chain(cold_memory).collect() };
        }
        // The records read so far are dropped: holding them through the wait would hold memory for idle clients.
        drop((answers, memory));
        let not_at_once = total > 0 || cold.is_some();
        let tiered = async {
            match &mut cold {
                Some(cold) => cold.advance().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tiered => {}
            () = changed(&shared, &topics, &mut watches, patience) => {
                if not_at_once {
                    tokio::time::sleep(FETCH_RECHECK).await;
                }
            }
        }
    }
}

/// Whether the local log of any partition has records for the client.
fn wants_read(topics: &[TopicTargets]) -> bool {
    topics.iter().flat_map(|topic| &topic.targets).any(|target| {
        target.readable().is_ok_and(|partition| {
            let marks = partition.watermarks();
            (marks.local_start.0..marks.high_watermark.0).contains(&target.asked.fetch_offset)
        })
    })
}

/// Waits until a partition moves or cannot be read here any more, the deadline passes or the node drains.
async fn changed(
    shared: &Shared,
    topics: &[TopicTargets],
    watches: &mut [watch::Receiver<Watermarks>],
    deadline: Instant,
) {
    let moved = async {
        let partitions = || topics.iter().flat_map(|topic| &topic.targets).filter_map(|t| t.partition.as_ref().ok());
        let readable = || topics.iter().flat_map(|topic| &topic.targets).all(|target| target.readable().is_ok());
        loop {
            // Taken before the look, so that no move is missed.
            let moves: Vec<_> = partitions().map(|partition| Box::pin(partition.moved())).collect();
            if !readable() {
                return;
            }
            if moves.is_empty() {
                return std::future::pending().await;
            }
            select_all(moves).await;
        }
    };
    let any = async {
        if watches.is_empty() {
            return std::future::pending().await;
        }
        if let (Err(_), _, _) = select_all(watches.iter_mut().map(|watch| Box::pin(watch.changed()))).await {
            // A partition that went away, or its replica did and another came: the next look tells, but not again and again.
            tokio::time::sleep(FETCH_RECHECK).await;
        }
    };
    tokio::select! {
        () = any => {}
        () = moved => {}
        () = tokio::time::sleep_until(deadline) => {}
        () = shared.shutdown.cancelled() => {}
    }
}

/// What the local log has for a fetch.
struct Look {
    answers: Vec<TopicAnswer>,
    /// Bytes of records.
    total: usize,
    /// Whether there is an error to tell.
    told: bool,
    /// What only the cold tier has; answered as empty so far.
    cold: Vec<ColdTarget>,
}

/// Reads every partition once. Without memory for them no records are read, also not those that have just come: the watches
/// tell of them, and the next look has memory.
fn read_all(topics: &[TopicTargets], limit: usize, has_memory: bool) -> Look {
    let limit = if has_memory { limit } else { 0 };
    let mut look = Look { answers: Vec::with_capacity(topics.len()), total: 0, told: false, cold: Vec::new() };
    for (at, topic) in topics.iter().enumerate() {
        let mut partitions = Vec::with_capacity(topic.targets.len());
        for (target_at, target) in topic.targets.iter().enumerate() {
            let left = limit.saturating_sub(look.total);
            let read = target.readable().and_then(|partition| {
                if let Some(answer) = elsewhere(partition, target) {
                    return Ok(answer);
                }
                let (answer, cold) = read_one(partition, &target.asked, left, has_memory && look.total == 0)?;
                look.cold.extend(cold.then(|| ColdTarget {
                    place: (at, target_at),
                    partition: Arc::clone(partition),
                    from: Offset(target.asked.fetch_offset),
                    most: usize::try_from(target.asked.partition_max_bytes).unwrap_or(0),
                }));
                Ok(answer)
            });
            let answer = read.unwrap_or_else(|refusal| PartitionAnswer {
                error: refusal.code,
                high_watermark: -1,
                log_start: -1,
                ..PartitionAnswer::default()
            });
            look.total += answer.records.len();
            look.told |= answer.error != 0 || answer.preferred.is_some();
            partitions.push(PartitionAnswer { index: target.asked.partition, ..answer });
        }
        look.answers.push(TopicAnswer { name: topic.name.clone(), id: topic.id, partitions });
    }
    look
}

/// The answer, and whether only the cold tier has what is asked for. `first`: nothing was read before, so one batch is served
/// even if it is larger than allowed (KIP-74).
fn read_one(
    partition: &Partition,
    asked: &FetchPartition,
    left: usize,
    first: bool,
) -> Result<(PartitionAnswer, bool), Refusal> {
    // Not "out of range", at which consumers would reset to another offset.
    if let Some(why) = partition.unopened() {
        return Err(ReadError::Offline(why).into());
    }
    let marks = partition.watermarks();
    let answer = |marks: Watermarks, records: Bytes| PartitionAnswer {
        high_watermark: marks.high_watermark.0,
        log_start: marks.log_start.0,
        records,
        ..PartitionAnswer::default()
    };
    let from = Offset(asked.fetch_offset);
    // Also what it has in the cold tier only: replicas let go of their local logs at different times.
    let here = marks.log_start..=marks.log_end;
    if !partition.leads() && !here.contains(&from) {
        // Only the leader knows whether there is such an offset: "out of range" would reset the consumer.
        return Err(AppendError::NotLeader.into());
    }
    if from < marks.log_start || from > marks.log_end {
        let out = ReadError::OutOfRange { asked: from, start: marks.log_start, end: marks.log_end };
        return Err(out.into());
    }
    if from < marks.local_start {
        return Ok((answer(marks, Bytes::new()), true));
    }
    let take = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
    if from >= marks.high_watermark || (take == 0 && !first) {
        return Ok((answer(marks, Bytes::new()), false));
    }
    let fetched = match read_records(partition, from, take.max(1)) {
        // It has just left the local log.
        Err(ReadError::Tiered { .. }) => return Ok((answer(marks, Bytes::new()), true)),
        read => read?,
    };
    let fits = first || fetched.batches.len() <= take;
    Ok((answer(fetched.watermarks, if fits { fetched.batches } else { Bytes::new() }), false))
}

/// Waits until the door has memory for a whole answer, but not for ever: then the answer has no records.
async fn reserve(shared: &Shared, limit: usize, until: Instant) -> Option<OwnedSemaphorePermit> {
    let memory = Arc::clone(&shared.fetch_memory).acquire_many_owned(units(limit));
    timeout_at(until, memory).await.ok()?.ok()
}

/// Gives back what the answer did not need.
pub(super) fn keep(memory: Option<OwnedSemaphorePermit>, total: usize) -> Option<OwnedSemaphorePermit> {
    let mut memory = memory?;
    let needed = (units(total) as usize).min(memory.num_permits());
    memory.split(needed)
}

pub(super) fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use forebay_cluster::{AppendData, Log, LogOptions, RealFiles};
    use forebay_log::record::RecordChunk;
    use forebay_log::{Millis, TopicConfig};

    use super::super::tests::{anybody, shared};
    use kafka_protocol::messages::fetch_request::FetchTopic;

    use super::super::topics::topic_name;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn records_that_come_after_no_memory_was_taken_for_them_are_left_for_the_next_look() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(RealFiles::open(dir.path()).unwrap(), LogOptions { shards: 1, fsync: false, alone: true })
            .unwrap();
        let topic = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
        let shared = shared(log, crate::reader::Reader::new(None));
        let asked = FetchPartition::default().with_partition_max_bytes(1 << 20);
        let asked = FetchTopic::default().with_topic(topic_name("readings")).with_partitions(vec![asked]);
        let shared = Arc::new(shared);
        let session = anybody(&shared);
        let reader = Reader::of(&shared, 12, &FetchRequest::default());
        let topics = [targets(&shared, &session, &reader, 12, asked)];
        assert!(!wants_read(&topics));
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(1), None, Some(b"just in between"), &[]);
        topic.partitions[0].append(AppendData::Chunk(chunk)).await.unwrap();
        let look = read_all(&topics, 1 << 20, false);
        assert_eq!((look.total, look.told, look.answers[0].partitions[0].high_watermark), (0, false, 1));
        assert!(read_all(&topics, 1 << 20, true).total > 0);
    }
}
