//! Delivery moves with the leadership of `_alerts`: one node tells the receivers, from where the one before it got.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::courier::Couriers;
use super::entry::encode;
use super::service::{Service, pause};
use crate::leadership::Term;
use crate::log_limit::FaultLog;

/// What the node that begins to deliver writes: behind it, it sees how far the one before got.
const DELIVERS: &str = "delivers";

impl Service {
    /// Whether this node leads `_alerts`, and delivers.
    pub(super) fn keeps(&self) -> bool {
        Term::of(&self.log, &self.journal.partition).is_some()
    }
}

/// Starts and ends deliveries until the shutdown. `term`: in which they were started already.
pub(super) async fn keep(
    service: Arc<Service>,
    couriers: Arc<Mutex<Couriers>>,
    mut term: Option<Term>,
    shutdown: CancellationToken,
) {
    if !service.rules_known(&shutdown).await {
        return;
    }
    let mut placed = service.log.topics_changed();
    while !shutdown.is_cancelled() {
        if let Some(present) = &term {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = present.ended() => {}
            }
            let _ = couriers.lock().await.end().await;
            service.set_receivers(Vec::new());
            term = None;
        }
        match Term::of(&service.log, &service.journal.partition) {
            Some(next) => {
                begin(&service, &couriers, &next, &shutdown).await;
                term = Some(next);
            }
            None => tokio::select! {
                () = shutdown.cancelled() => break,
                changed = placed.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
            },
        }
    }
    let _ = couriers.lock().await.end().await;
}

/// Serves the receivers of the present rules, trying again while that cannot be.
async fn begin(service: &Arc<Service>, couriers: &Mutex<Couriers>, term: &Term, shutdown: &CancellationToken) {
    static FAULTS: FaultLog = FaultLog::new();
    while term.lasts() {
        let mut serving = couriers.lock().await;
        let receivers = service.rules.borrow().receivers.clone();
        let noted = service.state.put(DELIVERS, Some(encode(&term.epoch().0))).await;
        let begun = match noted {
            Ok(()) => serving.replace(&receivers).await,
            Err(error) => Err(error.into()),
        };
        drop(serving);
        let Err(error) = begun else { return };
        if let Some(suppressed) = FAULTS.admit(&error) {
            tracing::error!(%error, suppressed, "deliveries of alerts cannot be taken over; trying again");
        }
        if pause(shutdown).await {
            return;
        }
    }
}
