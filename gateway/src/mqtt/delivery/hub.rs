//! The meeting point of subscribers and partitions: who gets what is published, and where each stands in the log.
//!
//! Locks are held for memory work only and taken in one order: the trie, then a partition's position, then a subscriber's
//! lanes. A tailer moves its position under the trie's read lock, so whoever holds the write lock sees positions stand still.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use forebay_cluster::{Log, Partition};
use forebay_log::Offset;
use forebay_log::record::Record;
use tokio_util::sync::CancellationToken;

use super::subscriber::{Lane, Offered, Rest};
use super::trie::{Route, Trie};
use super::trouble::Trouble;
use super::{Delivery, PartId, Place, Receiving, Subscriber, tailer};
use crate::clock::Clock;
use crate::ingest::Router;
use crate::metrics::Metrics;
use crate::mqtt::limits::MAX_SUBSCRIPTIONS;
use crate::mqtt::packet::{Qos, Text};
use crate::mqtt::record;
use crate::mqtt::session::{CursorKey, Cursors, Subscription};
use crate::reader::Reader;

/// The node has as many subscriptions as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HubFull;

/// One partition that delivery reads.
pub(super) struct Part {
    pub(super) id: PartId,
    key: CursorKey,
    pub(super) partition: Arc<Partition>,
    /// Cancelled when the node stops or the partition's topic is deleted.
    pub(super) followed: CancellationToken,
    /// Messages below this have been offered to all who were subscribed. Of a partition without a replica here it is not known
    /// where "now" is before its leader has answered: until then there is none.
    pub(super) position: Mutex<Option<Offset>>,
    /// Of subscribers that read it for themselves.
    pub(super) trouble: Mutex<Trouble>,
}

impl Part {
    pub(super) fn position(&self) -> std::sync::MutexGuard<'_, Option<Offset>> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn high_watermark(&self) -> Offset {
        self.partition.watermarks().high_watermark
    }
}

/// Delivery of one node.
pub(crate) struct Hub {
    log: Log,
    pub(super) reader: Reader,
    router: Arc<Router>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<Clock>,
    trie: RwLock<Trie>,
    parts: RwLock<BTreeMap<PartId, Arc<Part>>>,
    /// Ids are not used again.
    next_part: AtomicU32,
    next_subscriber: AtomicU64,
    shutdown: CancellationToken,
}

impl Hub {
    /// Starts to follow every partition that routes can reach.
    pub(crate) fn start(
        log: Log,
        reader: Reader,
        router: Arc<Router>,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
        shutdown: CancellationToken,
    ) -> Arc<Hub> {
        let hub = Arc::new(Hub {
            log,
            reader,
            router,
            metrics,
            clock,
            trie: RwLock::default(),
            parts: RwLock::default(),
            next_part: AtomicU32::new(0),
            next_subscriber: AtomicU64::new(1),
            shutdown,
        });
        hub.find_partitions();
        let watching = hub.clone();
        tokio::spawn(async move {
            let mut changed = watching.log.topics_changed();
            while let Some(Ok(())) = watching.shutdown.run_until_cancelled(changed.changed()).await {
                watching.find_partitions();
            }
        });
        hub
    }

    /// Lets go of partitions whose topic was deleted, and follows those that were made since, from their beginning.
    fn find_partitions(self: &Arc<Self>) {
        let begun = !self.read_trie().is_empty();
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|_, part| {
            let topic = self.log.topic(part.partition.topic());
            let current = topic.as_ref().and_then(|topic| topic.partitions.get(part.partition.index() as usize));
            let stays = current.is_some_and(|partition| Arc::ptr_eq(partition, &part.partition));
            if !stays {
                part.followed.cancel();
            }
            stays
        });
        for name in self.router.topics() {
            let Some(topic) = self.log.topic(name) else { continue };
            for partition in &topic.partitions {
                if parts.values().any(|part| Arc::ptr_eq(&part.partition, partition)) {
                    continue;
                }
                let marks = partition.watermarks();
                let from = match (begun, partition.is_here()) {
                    (true, _) => Some(marks.log_start),
                    (false, true) => Some(marks.high_watermark),
                    (false, false) => None,
                };
                let id = PartId(self.next_part.fetch_add(1, Ordering::Relaxed));
                let part = Arc::new(Part {
                    id,
                    key: CursorKey { topic: Arc::from(name), id: topic.id, partition: partition.index() },
                    partition: partition.clone(),
                    followed: self.shutdown.child_token(),
                    position: Mutex::new(from),
                    trouble: Mutex::default(),
                });
                parts.insert(id, part.clone());
                tokio::spawn(tailer::run(self.clone(), part));
            }
        }
    }

    fn parts(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<PartId, Arc<Part>>> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn part(&self, id: PartId) -> Option<Arc<Part>> {
        self.parts().get(&id).cloned()
    }

    fn read_trie(&self) -> std::sync::RwLockReadGuard<'_, Trie> {
        self.trie.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a subscriber. With `cursors` it first reads what it missed since; otherwise it gets what comes from now on.
    pub(crate) fn join(self: &Arc<Self>, client_id: Text, capacity: usize, cursors: Option<&Cursors>) -> Receiving {
        self.find_partitions();
        let id = self.next_subscriber.fetch_add(1, Ordering::Relaxed);
        let (subscriber, queue) = Subscriber::new(id, client_id, capacity);
        for part in self.parts().values() {
            let stands = match cursors {
                None => Lane::live(part.high_watermark()),
                Some(cursors) => {
                    // A partition without a cursor was made after the session went.
                    let next = cursors.0.get(&part.key).copied().unwrap_or(Offset::ZERO);
                    Lane::behind(next.max(part.partition.watermarks().log_start))
                }
            };
            subscriber.lane(part.id, |lane| *lane = stands);
        }
        Receiving::new(subscriber, queue)
    }

    /// # Errors
    /// When the node has no room for another subscription.
    pub(crate) fn subscribe(&self, receiving: &Receiving, subscription: &Subscription) -> Result<(), HubFull> {
        let mut trie = self.trie.write().unwrap_or_else(PoisonError::into_inner);
        if trie.len() >= MAX_SUBSCRIPTIONS {
            return Err(HubFull);
        }
        if trie.is_empty() {
            // Nobody was there: tailers did not read on.
            for part in self.parts().values() {
                if let Some(position) = &mut *part.position() {
                    *position = part.high_watermark().max(*position);
                }
            }
        }
        trie.insert(
            subscription.filter.as_str(),
            Route {
                subscriber: receiving.subscriber.clone(),
                qos: subscription.qos,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                identifier: subscription.identifier,
            },
        );
        self.metrics.mqtt.subscriptions.set(trie.len() as i64);
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, receiving: &Receiving, filter: &str) {
        let mut trie = self.trie.write().unwrap_or_else(PoisonError::into_inner);
        trie.remove(filter, receiving.subscriber.id);
        self.metrics.mqtt.subscriptions.set(trie.len() as i64);
    }

    /// Ends a subscriber; returns where a later one of the same session goes on. What was queued is left to the log.
    pub(crate) fn leave<'a>(&self, receiving: Receiving, filters: impl Iterator<Item = &'a str>) -> Cursors {
        let mut next: BTreeMap<PartId, Offset> = BTreeMap::new();
        {
            let mut trie = self.trie.write().unwrap_or_else(PoisonError::into_inner);
            for filter in filters {
                trie.remove(filter, receiving.subscriber.id);
            }
            self.metrics.mqtt.subscriptions.set(trie.len() as i64);
            for part in self.parts().values() {
                let position = *part.position();
                let at = receiving.subscriber.lane(part.id, |lane| match lane.behind {
                    Some(behind) => behind.next,
                    // Rather all that there is than nothing of what came since.
                    None => position.unwrap_or(Offset::ZERO).max(lane.from),
                });
                next.insert(part.id, at);
            }
        }
        for (part, offset) in receiving.into_untaken() {
            next.entry(part).and_modify(|at| *at = offset.min(*at)).or_insert(offset);
        }
        self.named(next)
    }

    /// A lower bound of where a connected subscriber stands, as `leave` would say it.
    pub(crate) fn standing(&self, receiving: &Receiving) -> Cursors {
        let mut next = BTreeMap::new();
        for part in self.parts().values() {
            let Some(position) = *part.position() else { continue };
            let lane = receiving.subscriber.lane(part.id, |lane| *lane);
            if receiving.is_drained() {
                next.insert(part.id, lane.behind.map_or(position.max(lane.from), |behind| behind.next));
            } else if let Some(taken) = receiving.taken().get(&part.id) {
                next.insert(part.id, *taken);
            }
        }
        self.named(next)
    }

    /// Where each partition ends now.
    pub(crate) fn ends(&self) -> Cursors {
        Cursors(self.parts().values().map(|part| (part.key.clone(), part.high_watermark())).collect())
    }

    fn named(&self, next: BTreeMap<PartId, Offset>) -> Cursors {
        let parts = self.parts();
        Cursors(next.into_iter().filter_map(|(id, offset)| Some((parts.get(&id)?.key.clone(), offset))).collect())
    }

    /// Lowers cursors so that they do not pass messages the client has not acknowledged.
    pub(crate) fn hold_back(&self, cursors: &mut Cursors, unacknowledged: impl Iterator<Item = Place>) {
        let parts = self.parts();
        for place in unacknowledged {
            let Some(part) = parts.get(&place.partition) else { continue };
            cursors.0.entry(part.key.clone()).and_modify(|at| *at = place.offset.min(*at)).or_insert(place.offset);
        }
    }

    /// Whether nobody is subscribed to anything.
    pub(super) fn is_idle(&self) -> bool {
        self.read_trie().is_empty()
    }

    /// A partition that this node knew nothing of ends there: what comes from now on is offered.
    pub(super) fn begin(&self, part: &Part, end: Offset) {
        part.position().get_or_insert(end);
    }

    /// Where a tailer has to read on; `None` when it has nothing to do.
    pub(super) fn tailer_from(&self, part: &Part) -> Option<Offset> {
        let trie = self.read_trie();
        let mut position = part.position();
        let position = position.as_mut()?;
        let high_watermark = part.high_watermark();
        if trie.is_empty() {
            *position = high_watermark.max(*position);
        }
        (*position < high_watermark).then_some(*position)
    }

    /// Offers records to all who subscribed to their topics, and moves the partition's position to `next`.
    pub(super) fn fan_out(&self, part: &Part, records: &[Record], next: Offset) {
        let trie = self.read_trie();
        let mut position = part.position();
        let mut found: Vec<&Route> = Vec::new();
        for record in records {
            let Some(topic) = record::topic(record) else { continue };
            found.clear();
            trie.matching(topic, &mut found);
            if !found.is_empty() {
                self.offer(part.id, record, &found);
            }
        }
        *position = position.max(Some(next));
    }

    fn offer(&self, part: PartId, record: &Record, found: &[&Route]) {
        let Some(published) = record::published(record, &self.clock) else { return };
        let published = Arc::new(published);
        let place = Place { partition: part, offset: record.offset };
        let mut merged: HashMap<u64, (&Route, Delivery)> = HashMap::with_capacity(found.len());
        for route in found {
            if route.no_local && published.client_id == route.subscriber.client_id {
                continue;
            }
            // One copy for overlapping filters, at the highest QoS, with all identifiers (section 3.3.4).
            let (_, delivery) = merged.entry(route.subscriber.id).or_insert_with(|| {
                let delivery = Delivery {
                    published: published.clone(),
                    qos: Qos::AtMostOnce,
                    retain: false,
                    identifiers: Vec::new(),
                    place: Some(place),
                };
                (*route, delivery)
            });
            delivery.qos = delivery.qos.max(route.qos.min(published.message.qos));
            delivery.retain |= route.retain_as_published && published.message.retain;
            delivery.identifiers.extend(route.identifier);
        }
        for (route, delivery) in merged.into_values() {
            if route.subscriber.offer(place, delivery) == Offered::Dropped {
                self.metrics.mqtt.deliveries_dropped.inc();
            }
        }
    }

    /// As if there were no replicas here, and nothing had been heard of their leaders.
    #[cfg(test)]
    pub(crate) fn forget_positions(&self) {
        self.parts().values().for_each(|part| *part.position() = None);
    }

    /// Notes how far a subscriber has read for itself; once it is where the tailer is, the queue takes over.
    /// `got_on`: it did read; else it rests before it tries again.
    pub(super) fn caught_up_to(&self, receiving: &Receiving, part: &Part, next: Offset, got_on: bool) {
        let position = part.position();
        receiving.subscriber.lane(part.id, |lane| {
            if position.is_some_and(|position| next >= position) {
                *lane = Lane::live(next);
            } else if let Some(behind) = &mut lane.behind {
                behind.next = next;
                behind.rest = if got_on { None } else { Some(Rest::after(behind.rest)) };
            }
        });
    }
}
