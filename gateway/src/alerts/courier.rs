//! Brings transitions to one receiver, in order and at least once: a durable cursor on `_alerts` moves only behind what was delivered.
//!
//! A receiver that is down, slow, overloaded or behind a proxy that lets nothing through is tried again for as long as it takes.
//! One that refuses a transition itself (400, 413, 422) is tried a few times; then the transition is parked: logged, counted, and
//! left in `_alerts` for whoever looks. Receivers that forget are reminded of what fires.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use forebay_log::{AppendError, Millis, Offset};
use forebay_sinks::limits::{ALERTMANAGER_POST_ALERTS, REFUSALS_BEFORE_PARKING};
use forebay_sinks::receiver::{Backoff, DeliveryError};
use forebay_sinks::{ReceiverConfig, State, Transition};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cursor::{cursor_key, save, saved};
use super::journal::{behind_damage, parse, visit};
use super::limits::{CURSOR_INTERVAL, READ_BYTES, REMIND_INTERVAL, REMIND_SOON, TOLD_FAILURES};
use super::receiver::Receiver;
use super::recent::Recent;
use super::service::{Service, now, pause};
use super::standing::Standing;
use crate::log_limit::FaultLog;

/// The task of one receiver.
struct Courier {
    service: Arc<Service>,
    id: String,
    standing: Arc<Standing>,
    receiver: Receiver,
    next: Offset,
    saved: Offset,
    save_at: Instant,
    remind_at: Instant,
    /// Alerts (fingerprint and beginning) that were resolved here since the last reminder: the board may show them a little
    /// longer.
    resolved: HashSet<(String, Millis)>,
    /// Transitions that two leaders have recorded, one of which did not know yet that it was none, are delivered once.
    recent: Recent,
    backoff: Backoff,
    faults: FaultLog,
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
    standing: Arc<Standing>,
}

/// Whether receivers can be set up.
///
/// # Errors
/// Which cannot, and why.
pub(super) fn check(configs: &[ReceiverConfig]) -> anyhow::Result<()> {
    configs.iter().try_for_each(|config| Receiver::new(config).map(drop))
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
        let mut places = Vec::new();
        for config in configs {
            let next = self.cursor(&config.id()).await?;
            places.push((next, next));
        }
        self.serve(configs, places).await
    }

    /// As [`Couriers::replace`] for those of a node that starts, which nothing keeps from opening its doors: a place that
    /// cannot be noted now is noted later.
    ///
    /// # Errors
    /// A receiver cannot be set up.
    pub(super) async fn start(&mut self, configs: &[ReceiverConfig]) -> anyhow::Result<()> {
        let mut places = Vec::new();
        for config in configs {
            places.push(match self.cursor(&config.id()).await {
                Ok(next) => (next, next),
                Err(error) => {
                    tracing::error!(%error, receiver = config.name(), "where a new receiver begins cannot be noted yet");
                    (self.service.journal.end(), Offset(-1))
                }
            });
        }
        self.serve(configs, places).await
    }

    /// Serves receivers from their places on: the next offset, and what is noted durably.
    async fn serve(&mut self, configs: &[ReceiverConfig], places: Vec<(Offset, Offset)>) -> anyhow::Result<()> {
        let mut receivers = Vec::new();
        for config in configs {
            receivers.push(Receiver::new(config)?);
        }
        let reached = self.end().await;
        let mut standings: Vec<Arc<Standing>> = Vec::new();
        for ((config, receiver), (cursor, saved)) in configs.iter().zip(receivers).zip(places) {
            let id = config.id();
            let next = reached.get(&id).map_or(cursor, |next| cursor.max(*next));
            let stop = self.stop.child_token();
            let mut name = config.name();
            for number in 2.. {
                if standings.iter().all(|other| other.name != name) {
                    break;
                }
                name = format!("{}#{number}", config.name());
            }
            let standing = Arc::new(Standing::new(name, config.kind(), next));
            standings.push(standing.clone());
            let seed = RandomState::new().hash_one(&id);
            let courier = Courier {
                service: self.service.clone(),
                id: id.clone(),
                standing: standing.clone(),
                receiver,
                next,
                saved,
                save_at: Instant::now() + CURSOR_INTERVAL,
                remind_at: Instant::now() + REMIND_SOON,
                resolved: HashSet::new(),
                recent: Recent::default(),
                backoff: Backoff::new(seed),
                faults: FaultLog::new(),
                stop: stop.clone(),
            };
            self.running.push(Running { id, stop, task: tokio::spawn(courier.run()), standing });
        }
        self.service.set_receivers(standings);
        if let Err(error) = self.forget_others(configs).await {
            tracing::warn!(%error, "how far receivers got that are gone stays noted; one that comes back goes on there");
        }
        Ok(())
    }

    /// Ends all deliveries; cursors are saved. Returns how far each receiver got.
    pub(super) async fn end(&mut self) -> HashMap<String, Offset> {
        for running in &self.running {
            running.stop.cancel();
        }
        let mut reached = HashMap::new();
        for running in self.running.drain(..) {
            let _ = running.task.await;
            reached.insert(running.id, running.standing.next());
        }
        reached
    }

    async fn cursor(&self, id: &str) -> Result<Offset, AppendError> {
        if let Some(cursor) = saved(&self.service.state, id) {
            return Ok(cursor);
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

impl Courier {
    async fn run(mut self) {
        let mut marks = self.service.journal.partition.watch();
        self.recent = Recent::before(&self.service.journal, self.next).await;
        while !self.stop.is_cancelled() {
            marks.borrow_and_update();
            self.remind().await;
            if self.next < self.service.journal.end() {
                if !self.bring().await && pause(&self.stop).await {
                    break;
                }
                continue;
            }
            self.save_cursor().await;
            let reminds = self.reminds();
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = marks.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                () = tokio::time::sleep_until(self.remind_at), if reminds => {}
                () = tokio::time::sleep_until(self.save_at), if self.saved != self.next => {}
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
                    if let Some(suppressed) = self.faults.admit(&error) {
                        let receiver = &self.standing.name;
                        tracing::error!(%error, receiver, suppressed, "alerts cannot be read for delivery; trying again");
                    }
                    self.standing.set_error(Some(format!("_alerts cannot be read: {error}")));
                    return false;
                };
                let lost = behind.0 - from.0;
                tracing::error!(%error, receiver = self.standing.name, lost, "alerts are damaged in the log and not delivered");
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
            let again = self.recent.contains(&transition.id);
            if transition.is_delivered() && !again && !self.deliver(&transition).await {
                return true;
            }
            self.recent.note(transition.id);
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
        self.standing.reach(self.next);
    }

    /// Delivers one transition, however long that takes. `false`: told to stop before.
    async fn deliver(&mut self, transition: &Transition) -> bool {
        let mut refusals = 0;
        let (standing, kind) = (self.standing.clone(), self.standing.kind);
        loop {
            let attempt = self.receiver.deliver(&self.service, transition);
            let result = tokio::select! {
                () = self.stop.cancelled() => return false,
                result = attempt => result,
            };
            let metrics = &self.service.metrics.alerts;
            let (error, asked) = match result {
                Ok(()) => {
                    metrics.delivery(kind, "delivered");
                    standing.set_error(None);
                    if self.backoff.failures() >= TOLD_FAILURES {
                        tracing::info!(receiver = standing.name, attempts = self.backoff.failures(), "delivered again");
                    }
                    self.backoff.reset();
                    if transition.state == State::Resolved && self.reminds() {
                        self.resolved.insert((transition.fingerprint.clone(), transition.active_at));
                    }
                    return true;
                }
                Err(DeliveryError::Refused { what }) => {
                    refusals += 1;
                    if refusals >= REFUSALS_BEFORE_PARKING {
                        metrics.delivery(kind, "parked");
                        standing.set_error(Some(what.clone()));
                        tracing::error!(
                            receiver = standing.name,
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
            metrics.delivery(kind, "failed");
            standing.set_error(Some(error.clone()));
            let wait = self.backoff.next_pause(asked);
            if let Some(suppressed) = self.faults.admit(&error) {
                tracing::warn!(
                    receiver = standing.name,
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

    fn reminds(&self) -> bool {
        matches!(self.receiver, Receiver::Alertmanager(_))
    }

    /// Posts all that fires again to an Alertmanager when it is time: it ends what is not posted again, and forgets all
    /// when it is restarted.
    async fn remind(&mut self) {
        let Receiver::Alertmanager(alertmanager) = &self.receiver else { return };
        if Instant::now() < self.remind_at {
            return;
        }
        let resolved = std::mem::take(&mut self.resolved);
        let mut firing = self.service.active();
        firing.retain(|alert| {
            alert.state == State::Firing && !resolved.contains(&(alert.fingerprint.clone(), alert.active_at))
        });
        self.remind_at = Instant::now() + REMIND_INTERVAL;
        for alerts in firing.chunks(ALERTMANAGER_POST_ALERTS) {
            let result = tokio::select! {
                () = self.stop.cancelled() => return,
                result = alertmanager.post(alerts, now()) => result,
            };
            let Err(error) = result else {
                self.service.metrics.alerts.delivery(self.standing.kind, "repeated");
                self.standing.set_error(None);
                continue;
            };
            self.service.metrics.alerts.delivery(self.standing.kind, "failed");
            if let Some(suppressed) = self.faults.admit(&error) {
                let (receiver, alerts) = (&self.standing.name, alerts.len());
                tracing::warn!(%error, receiver, alerts, suppressed, "alerts that fire could not be posted again");
            }
            self.remind_at = Instant::now() + REMIND_SOON;
            // Of a POST that is refused the good alerts are taken; what cannot be reached is not asked again now.
            if matches!(error, DeliveryError::Unavailable { .. }) {
                self.standing.set_error(Some(error.to_string()));
                return;
            }
        }
    }

    async fn save_cursor(&mut self) {
        self.save_at = Instant::now() + CURSOR_INTERVAL;
        // The next leader may have got further by now.
        let further = saved(&self.service.state, &self.id).is_some_and(|noted| noted > self.next);
        if self.saved == self.next || further {
            return;
        }
        match save(&self.service.state, &self.id, self.next).await {
            Ok(()) => self.saved = self.next,
            Err(error) => {
                if let Some(suppressed) = self.faults.admit(&error) {
                    let what = "how far a receiver got is not saved; after a restart it may be told again";
                    tracing::warn!(%error, receiver = self.standing.name, suppressed, "{what}");
                }
            }
        }
    }
}
