//! Brings transitions to one receiver, in order and at least once: a durable cursor on `_alerts` moves only behind what was delivered.
//!
//! A receiver that is down, slow or overloaded is tried again for as long as it takes. One that refuses a transition for good (most 4xx)
//! is tried a few times; then the transition is parked: logged, counted, and left in `_alerts` for whoever looks.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use forebay_log::{AppendError, Offset};
use forebay_sinks::limits::REFUSALS_BEFORE_PARKING;
use forebay_sinks::receiver::{Backoff, DeliveryError};
use forebay_sinks::{ReceiverConfig, Transition};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::entry::{decode, encode};
use super::journal::{behind_damage, parse, visit};
use super::limits::{CURSOR_INTERVAL, READ_BYTES};
use super::receiver::Receiver;
use super::service::{Service, pause};
use crate::log_limit::LogLimit;
use crate::state::StateTopic;

/// How far a receiver got.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cursor {
    next: i64,
}

/// The task of one receiver.
struct Courier {
    service: Arc<Service>,
    id: String,
    kind: &'static str,
    receiver: Receiver,
    next: Offset,
    saved: Offset,
    save_at: Instant,
    progress: Arc<AtomicI64>,
    backoff: Backoff,
    stop: CancellationToken,
}

/// The receivers that are served.
pub(super) struct Couriers {
    service: Arc<Service>,
    running: Vec<Running>,
    stop: CancellationToken,
}

struct Running {
    id: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
    progress: Arc<AtomicI64>,
}

fn cursor_key(id: &str) -> Bytes {
    Bytes::from(format!("receiver/{id}"))
}

impl Couriers {
    pub(super) fn new(service: Arc<Service>, stop: CancellationToken) -> Couriers {
        Couriers { service, running: Vec::new(), stop }
    }

    /// Serves these receivers instead of the present ones. One that is new gets what happens from now on; one that stays
    /// goes on where it was.
    ///
    /// # Errors
    /// A receiver cannot be set up, or its cursor not be written; then the present ones stay.
    pub(super) async fn replace(&mut self, configs: &[ReceiverConfig]) -> anyhow::Result<()> {
        let mut receivers = Vec::new();
        for config in configs {
            let (id, receiver) = (config.id(), Receiver::new(config)?);
            let next = self.cursor(&id).await?;
            receivers.push((id, config.kind(), receiver, next));
        }
        let reached = self.end().await;
        for (id, kind, receiver, cursor) in receivers {
            let next = reached.get(&id).map_or(cursor, |next| cursor.max(*next));
            let stop = self.stop.child_token();
            let progress = Arc::new(AtomicI64::new(next.0));
            let seed = RandomState::new().hash_one(&id);
            let courier = Courier {
                service: self.service.clone(),
                id: id.clone(),
                kind,
                receiver,
                next,
                saved: next,
                save_at: Instant::now() + CURSOR_INTERVAL,
                progress: progress.clone(),
                backoff: Backoff::new(seed),
                stop: stop.clone(),
            };
            self.running.push(Running { id, stop, task: tokio::spawn(courier.run()), progress });
        }
        if let Err(error) = self.forget_others(configs).await {
            tracing::warn!(%error, "how far receivers got that are gone stays noted; one that comes back goes on there");
        }
        Ok(())
    }

    /// Whether every receiver has all transitions before `end`.
    pub(super) fn reached(&self, end: Offset) -> bool {
        self.running.iter().all(|running| running.progress.load(Ordering::Acquire) >= end.0)
    }

    /// Ends all deliveries; cursors are saved. Returns how far each receiver got.
    pub(super) async fn end(&mut self) -> HashMap<String, Offset> {
        for running in &self.running {
            running.stop.cancel();
        }
        let mut reached = HashMap::new();
        for running in self.running.drain(..) {
            let _ = running.task.await;
            reached.insert(running.id, Offset(running.progress.load(Ordering::Acquire)));
        }
        reached
    }

    async fn cursor(&self, id: &str) -> Result<Offset, AppendError> {
        let key = cursor_key(id);
        let saved: Option<Cursor> = self.service.state.get(&key).and_then(|bytes| decode(&key, &bytes));
        if let Some(cursor) = saved {
            return Ok(Offset(cursor.next));
        }
        let next = self.service.journal.end();
        save(&self.service.state, id, next).await?;
        Ok(next)
    }

    async fn forget_others(&self, configs: &[ReceiverConfig]) -> Result<(), AppendError> {
        let kept: Vec<Bytes> = configs.iter().map(|config| cursor_key(&config.id())).collect();
        let all = self.service.state.scan(b"receiver/");
        let gone = all.into_iter().filter(|(key, _)| !kept.contains(key)).map(|(key, _)| (key, None)).collect();
        self.service.state.put_all(gone).await
    }
}

async fn save(state: &StateTopic, id: &str, next: Offset) -> Result<(), AppendError> {
    state.put(cursor_key(id), Some(encode(&Cursor { next: next.0 }))).await
}

impl Courier {
    async fn run(mut self) {
        let mut marks = self.service.journal.partition.watch();
        while !self.stop.is_cancelled() {
            marks.borrow_and_update();
            if self.next < self.service.journal.end() {
                if !self.bring().await && pause(&self.stop).await {
                    break;
                }
                continue;
            }
            self.save_cursor().await;
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = marks.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
        self.save_cursor().await;
    }

    /// Delivers some transitions. `false`: they could not be read.
    async fn bring(&mut self) -> bool {
        let journal = &self.service.journal.partition;
        let from = self.next.max(journal.watermarks().log_start);
        let fetched = match self.service.reader.read(journal, from, READ_BYTES).await {
            Ok(fetched) => fetched,
            Err(error) => {
                let Some(behind) = behind_damage(&error, from) else {
                    tracing::error!(%error, receiver = self.id, "alerts cannot be read for delivery; trying again");
                    return false;
                };
                let lost = behind.0 - from.0;
                tracing::error!(%error, receiver = self.id, lost, "alerts are damaged in the log and not delivered");
                self.service.metrics.alerts.skipped_records.inc_by(lost.unsigned_abs());
                self.reach(behind);
                return true;
            }
        };
        let mut end = from;
        let mut found = Vec::new();
        visit(fetched.batches, &mut end, |record| {
            if let Ok(record) = record
                && let Some(transition) = parse(&record)
            {
                found.push((record.offset, transition));
            }
        });
        for (offset, transition) in found {
            if transition.is_delivered() && !self.deliver(&transition).await {
                return true;
            }
            self.reach(offset.next());
            if Instant::now() >= self.save_at {
                self.save_cursor().await;
            }
        }
        let progressed = end > self.next || from > self.next;
        self.reach(end);
        progressed
    }

    fn reach(&mut self, next: Offset) {
        self.next = self.next.max(next);
        self.progress.store(self.next.0, Ordering::Release);
    }

    /// Delivers one transition, however long that takes. `false`: told to stop before.
    async fn deliver(&mut self, transition: &Transition) -> bool {
        static LIMIT: LogLimit = LogLimit::new(2);
        let mut refusals = 0;
        loop {
            let attempt = self.receiver.deliver(&self.service, transition);
            let result = tokio::select! {
                () = self.stop.cancelled() => return false,
                result = attempt => result,
            };
            let metrics = &self.service.metrics.alerts;
            let (error, asked) = match result {
                Ok(()) => {
                    metrics.delivery(self.kind, "delivered");
                    self.backoff.reset();
                    return true;
                }
                Err(DeliveryError::Refused { what }) => {
                    refusals += 1;
                    if refusals >= REFUSALS_BEFORE_PARKING {
                        metrics.delivery(self.kind, "parked");
                        tracing::error!(
                            receiver = self.id,
                            id = transition.id,
                            alert = transition.alert,
                            reason = what,
                            "the receiver refuses an alert; it stays in _alerts and is not sent again"
                        );
                        self.backoff.reset();
                        return true;
                    }
                    (what, None)
                }
                Err(DeliveryError::Unavailable { what, retry_after }) => (what, retry_after),
            };
            metrics.delivery(self.kind, "failed");
            let wait = self.backoff.next_pause(asked);
            if let Some(suppressed) = LIMIT.admit() {
                tracing::warn!(
                    receiver = self.id,
                    reason = error,
                    attempts = self.backoff.failures(),
                    next_in = ?wait,
                    suppressed,
                    "an alert could not be delivered; trying again"
                );
            }
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn save_cursor(&mut self) {
        self.save_at = Instant::now() + CURSOR_INTERVAL;
        if self.saved == self.next {
            return;
        }
        match save(&self.service.state, &self.id, self.next).await {
            Ok(()) => self.saved = self.next,
            Err(error) => {
                tracing::warn!(%error, receiver = self.id, "how far a receiver got is not saved; after a restart it may be told again");
            }
        }
    }
}
