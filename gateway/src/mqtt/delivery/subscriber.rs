//! One connected session as delivery sees it: a bounded queue, and for each partition whether the queue is followed or the
//! session reads the log for itself until it has caught up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_log::Offset;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::{Delivery, PartId, Place};
use crate::mqtt::limits::MAX_QUEUED_BYTES;
use crate::mqtt::packet::{Qos, Text};

/// Pause after a partition could not be read; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The pause doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How a subscriber stands in one partition.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lane {
    /// Messages before this are not for the queue: they are older than the subscription, or were read in catching up.
    pub(super) from: Offset,
    pub(super) behind: Option<Behind>,
}

/// A partition in which the session reads for itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    pub(super) next: Offset,
    /// Queue items that were sent before, and so come first.
    after: u64,
    /// It could not be read.
    pub(super) rest: Option<Rest>,
}

/// A pause before a partition is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest {
    until: Instant,
    pause: Duration,
}

impl Rest {
    /// The first pause, or one twice as long as the one before.
    pub(super) fn after(before: Option<Rest>) -> Rest {
        let pause = before.map_or(FIRST_PAUSE, |rest| (rest.pause * 2).min(LONGEST_PAUSE));
        Rest { until: Instant::now() + pause, pause }
    }
}

/// What a session has to read for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lag {
    None,
    At(PartId, Offset),
    /// Only partitions that could not be read; they are tried again then.
    Until(Instant),
}

impl Lane {
    pub(super) fn live(from: Offset) -> Lane {
        Lane { from, behind: None }
    }
    pub(super) fn behind(next: Offset) -> Lane {
        Lane { from: Offset::ZERO, behind: Some(Behind { next, after: 0, rest: None }) }
    }
}

/// What happened to an offered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    Queued,
    /// The subscriber reads it for itself, or has.
    Left,
    Dropped,
}

/// The side that tailers push to.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(super) id: u64,
    pub(super) client_id: Text,
    queue: mpsc::Sender<Delivery>,
    queued_bytes: AtomicUsize,
    sent: AtomicU64,
    lanes: Mutex<Vec<Lane>>,
}

impl Subscriber {
    pub(super) fn new(id: u64, client_id: Text, capacity: usize) -> (Arc<Subscriber>, mpsc::Receiver<Delivery>) {
        let (queue, receiver) = mpsc::channel(capacity.max(1));
        let subscriber = Subscriber {
            id,
            client_id,
            queue,
            queued_bytes: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            lanes: Mutex::default(),
        };
        (Arc::new(subscriber), receiver)
    }

    pub(super) fn lane<T>(&self, part: PartId, use_lane: impl FnOnce(&mut Lane) -> T) -> T {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let at = part.0 as usize;
        if lanes.len() <= at {
            lanes.resize(at + 1, Lane::default());
        }
        use_lane(&mut lanes[at])
    }

    /// Queues a message of the log, or notes that the session has to read from here for itself. QoS 0 is dropped instead.
    pub(super) fn offer(&self, place: Place, delivery: Delivery) -> Offered {
        self.lane(place.partition, |lane| {
            if place.offset < lane.from {
                return Offered::Left;
            }
            if delivery.qos == Qos::AtMostOnce {
                return if self.push(delivery) { Offered::Queued } else { Offered::Dropped };
            }
            if lane.behind.is_some() {
                return Offered::Left;
            }
            if self.push(delivery) {
                return Offered::Queued;
            }
            let after = self.sent.load(Ordering::Acquire);
            lane.behind = Some(Behind { next: place.offset, after, rest: None });
            Offered::Left
        })
    }

    fn push(&self, delivery: Delivery) -> bool {
        let bytes = delivery.bytes();
        let queued = self.queued_bytes.load(Ordering::Acquire);
        if queued > 0 && queued + bytes > MAX_QUEUED_BYTES {
            return false;
        }
        self.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        if self.queue.try_send(delivery).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return false;
        }
        self.sent.fetch_add(1, Ordering::AcqRel);
        true
    }
}

/// The session's side.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(super) subscriber: Arc<Subscriber>,
    queue: mpsc::Receiver<Delivery>,
    received: u64,
    /// The partition that was last read in catching up.
    last_read: usize,
    /// Messages read in catching up, or retained ones: they go first.
    backlog: VecDeque<Delivery>,
    /// The offset after the last message at QoS 1 taken of each partition.
    taken: BTreeMap<PartId, Offset>,
}

impl Receiving {
    pub(super) fn new(subscriber: Arc<Subscriber>, queue: mpsc::Receiver<Delivery>) -> Receiving {
        Receiving { subscriber, queue, received: 0, last_read: 0, backlog: VecDeque::new(), taken: BTreeMap::new() }
    }

    /// The next message; cancel-safe. Pends while there is none.
    pub(crate) async fn next(&mut self) -> Delivery {
        let delivery = match self.backlog.pop_front() {
            Some(delivery) => delivery,
            None => match self.queue.recv().await {
                Some(delivery) => self.dequeued(delivery),
                None => std::future::pending().await,
            },
        };
        self.note(&delivery);
        delivery
    }

    /// The next message, if there is one now.
    pub(crate) fn try_next(&mut self) -> Option<Delivery> {
        let delivery = match self.backlog.pop_front() {
            Some(delivery) => delivery,
            None => {
                let delivery = self.queue.try_recv().ok()?;
                self.dequeued(delivery)
            }
        };
        self.note(&delivery);
        Some(delivery)
    }

    fn dequeued(&mut self, delivery: Delivery) -> Delivery {
        self.received += 1;
        self.subscriber.queued_bytes.fetch_sub(delivery.bytes(), Ordering::AcqRel);
        delivery
    }

    /// QoS 0 says nothing: it passes by messages that wait in the log to be read in catching up.
    fn note(&mut self, delivery: &Delivery) {
        if let Some(place) = delivery.place.filter(|_| delivery.qos != Qos::AtMostOnce) {
            self.taken.insert(place.partition, place.offset.next());
        }
    }

    /// Puts messages in front of the queue.
    pub(crate) fn put_first(&mut self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.backlog.extend(deliveries);
    }

    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// A partition that the session has to read for itself now, and from where. Queue items sent before come first; partitions
    /// take turns.
    pub(crate) fn lagging(&mut self) -> Lag {
        if self.has_backlog() {
            return Lag::None;
        }
        let lanes = self.subscriber.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = None;
        let mut until: Option<Instant> = None;
        for step in 1..=lanes.len() {
            let at = (self.last_read + step) % lanes.len();
            let Some(behind) = lanes[at].behind.filter(|behind| behind.after <= self.received) else { continue };
            match behind.rest {
                Some(rest) if rest.until > *now.get_or_insert_with(Instant::now) => {
                    until = Some(until.map_or(rest.until, |until| until.min(rest.until)));
                }
                _ => {
                    self.last_read = at;
                    return Lag::At(PartId(at as u32), behind.next);
                }
            }
        }
        until.map_or(Lag::None, Lag::Until)
    }

    /// How far the messages taken reach, for cursors while connected; `None`: nothing taken yet.
    pub(super) fn taken(&self) -> &BTreeMap<PartId, Offset> {
        &self.taken
    }

    /// Whether everything that was queued has been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.received == self.subscriber.sent.load(Ordering::Acquire)
    }

    /// The first messages never taken, by partition; they are left to the log.
    pub(super) fn into_untaken(mut self) -> BTreeMap<PartId, Offset> {
        let mut first = BTreeMap::new();
        let mut note = |delivery: &Delivery| {
            if let Some(place) = delivery.place.filter(|_| delivery.qos != Qos::AtMostOnce) {
                let at = first.entry(place.partition).or_insert(place.offset);
                *at = place.offset.min(*at);
            }
        };
        self.backlog.iter().for_each(&mut note);
        while let Ok(delivery) = self.queue.try_recv() {
            note(&delivery);
        }
        first
    }
}
