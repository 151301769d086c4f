//! The part of a fetch that only the cold tier has, read apart: what is in the local log never waits for the object store.
//!
//! A store that does not answer costs a client its cold partitions alone. A read that the answer had to leave without goes on
//! in the lake all the same, so that the client's next fetch finds it done.

use std::sync::Arc;

use bytes::Bytes;
use forebay_cluster::Partition;
use forebay_log::Offset;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use kafka_protocol::ResponseError;
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::errors::Refusal;
use super::fetch::{keep, units};
use super::fetch_response::TopicAnswer;
use super::limits::COLD_FETCH_BYTES;

/// Where in the request a partition is: number of its topic, and number within the topic.
pub(super) type Place = (usize, usize);

/// A partition whose next record is in the cold tier.
pub(super) struct ColdTarget {
    pub(super) place: Place,
    pub(super) partition: Arc<Partition>,
    pub(super) from: Offset,
    /// Bytes wanted at most.
    pub(super) most: usize,
}

enum Step {
    Memory(OwnedSemaphorePermit),
    Read(Place, Result<Bytes, Refusal>),
}

/// The cold reads of one fetch, one after the other.
pub(super) struct ColdReads {
    steps: BoxStream<'static, Step>,
    places: Vec<Place>,
    found: Vec<(Place, Result<Bytes, Refusal>)>,
    memory: Option<OwnedSemaphorePermit>,
    done: bool,
}

impl ColdReads {
    /// Nothing is read before [`ColdReads::advance`].
    pub(super) fn new(shared: &Arc<Shared>, targets: Vec<ColdTarget>, limit: usize) -> ColdReads {
        let limit = limit.min(COLD_FETCH_BYTES);
        let places = targets.iter().map(|target| target.place).collect();
        let memory = Arc::clone(&shared.cold_fetch_memory).acquire_many_owned(units(limit));
        let memory = stream::once(memory).filter_map(async |memory| memory.ok().map(Step::Memory));
        let state = (Arc::clone(shared), targets.into_iter(), limit);
        let reads = stream::unfold(state, async |(shared, mut targets, left)| {
            let ColdTarget { place, partition, from, most } = targets.next().filter(|_| left > 0)?;
            let read = shared.door.reader.read(&partition, from, most.min(left).max(1)).await;
            let read = read.map(|fetched| fetched.batches).map_err(Refusal::from);
            let left = left.saturating_sub(read.as_ref().map_or(0, Bytes::len));
            Some((Step::Read(place, read), (shared, targets, left)))
        });
        let steps = memory.chain(reads).boxed();
        ColdReads { steps, places, found: Vec::new(), memory: None, done: false }
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn done(&self) -> bool {
        self.done
    }

    /// Reads on to the end. Whoever stops waiting loses nothing.
    pub(super) async fn advance(&mut self) {
        while !self.done {
            match self.steps.next().await {
                Some(Step::Memory(memory)) => self.memory = Some(memory),
                Some(Step::Read(place, read)) => self.found.push((place, read)),
                None => self.done = true,
            }
        }
    }

    /// Puts what was found into an answer of `total` bytes so far, which may grow to `limit`, and hands the memory on. Where
    /// nothing was found in time that is no error as long as there is something else to tell.
    pub(super) fn put_into(
        self,
        answers: &mut [TopicAnswer],
        mut total: usize,
        limit: usize,
    ) -> Option<OwnedSemaphorePermit> {
        let before = total;
        let mut told = answers.iter().flat_map(|topic| &topic.partitions).any(|partition| partition.error != 0);
        for ((topic, target), read) in self.found {
            let Some(answer) = answers.get_mut(topic).and_then(|topic| topic.partitions.get_mut(target)) else {
                continue;
            };
            match read {
                Ok(records) if total == 0 || total + records.len() <= limit => {
                    total += records.len();
                    answer.records = records;
                }
                Ok(_) => {}
                Err(refusal) => {
                    answer.error = refusal.code;
                    told = true;
                }
            }
        }
        if total == 0 && !told && !self.done {
            for (topic, target) in self.places {
                let answer = answers.get_mut(topic).and_then(|topic| topic.partitions.get_mut(target));
                answer.into_iter().for_each(|answer| answer.error = ResponseError::KafkaStorageError.code());
            }
        }
        keep(self.memory, total - before)
    }
}
