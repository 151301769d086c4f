//! Records transitions in the name of the leader of their source: none twice, and none once there is a later leader.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use forebay_cluster::Claim;
use forebay_log::{AppendError, Epoch, Offset};
use forebay_sinks::Transition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::board::SourceId;
use super::limits::{CATCH_UP, HEAR_AGAIN};
use super::service::{Service, now, pause};
use crate::log_limit::FaultLog;

/// In the name of the leader of the source.
const FOLLOWER: u8 = 1;
/// In that of the leader of `_alerts`, for sources that are gone.
const KEEPER: u8 = 2;

/// One source partition's way into `_alerts`.
pub(super) struct Recorder {
    service: Arc<Service>,
    claim: Claim,
    source: SourceId,
}

impl Recorder {
    pub(super) fn new(service: Arc<Service>, source: SourceId, epoch: Epoch) -> Recorder {
        let claim = Claim::new(FOLLOWER, source.1, [(source.2, epoch)].into());
        Recorder { service, claim, source }
    }

    /// Of a source that nobody leads any more, for the leader of `_alerts` in this epoch.
    pub(super) fn of_keeper(service: Arc<Service>, source: SourceId, epoch: Epoch) -> Recorder {
        let claim = Claim::new(KEEPER, service.journal.topic_id, [(0, epoch)].into());
        Recorder { service, claim, source }
    }

    /// Waits until all that was recorded of the source before can be read here, and nothing of that can follow any more; trying again
    /// while that cannot be had. `None`: told to stop before.
    pub(super) async fn begin(&mut self, stop: &CancellationToken) -> Option<()> {
        static FAULTS: FaultLog = FaultLog::new();
        while let Err(error) = self.fence().await {
            if let Some(suppressed) = FAULTS.admit(&error) {
                tracing::error!(%error, suppressed, "alert transitions cannot be recorded now; trying again");
            }
            if pause(stop).await {
                return None;
            }
        }
        Some(())
    }

    async fn fence(&mut self) -> Result<(), AppendError> {
        let journal = &self.service.journal;
        let deadline = Instant::now() + CATCH_UP;
        self.claim.renew();
        let end = loop {
            match journal.partition.fence(&self.claim).await {
                // Who leads `_alerts` has not heard of this leadership yet.
                Err(AppendError::NotLeader) if Instant::now() < deadline => tokio::time::sleep(HEAR_AGAIN).await,
                answer => break answer?,
            }
        };
        journal.reaches(end).await
    }

    /// The ids of the source's transitions in `_alerts` from `from` on, trying again while it cannot be read. `None`: told to stop
    /// before.
    pub(super) async fn emitted_since(&self, from: Offset, stop: &CancellationToken) -> Option<HashSet<String>> {
        static FAULTS: FaultLog = FaultLog::new();
        loop {
            let error = match self.service.journal.emitted_since(from, &self.source.0, self.source.2).await {
                Ok(emitted) => return Some(emitted),
                Err(error) => error,
            };
            if let Some(suppressed) = FAULTS.admit(&error) {
                tracing::error!(%error, suppressed, "_alerts cannot be read back; trying again");
            }
            if pause(stop).await {
                return None;
            }
        }
    }

    /// Makes transitions durable in `_alerts`, trying again while the log refuses them (a full disk). `false`: told to stop before
    /// that succeeded, or there is a later leader.
    pub(super) async fn record(&mut self, transitions: &[Transition], stop: &CancellationToken) -> bool {
        static FAULTS: FaultLog = FaultLog::new();
        let from = self.service.journal.end();
        let mut rest = Cow::Borrowed(transitions);
        while let Err((durable, error)) = self.service.journal.append(now(), &self.claim, &rest).await {
            if error == AppendError::ProducerFenced {
                return false;
            }
            rest.to_mut().drain(..durable);
            if let Some(suppressed) = FAULTS.admit(&error) {
                tracing::error!(%error, suppressed, "alert transitions cannot be recorded; trying again");
            }
            // What became of them is not known for certain.
            if pause(stop).await || self.begin(stop).await.is_none() {
                return false;
            }
            let Some(emitted) = self.emitted_since(from, stop).await else { return false };
            rest.to_mut().retain(|transition| !emitted.contains(&transition.id));
        }
        for transition in transitions {
            self.service.metrics.alerts.changed(transition.state);
            tracing::debug!(
                alert = transition.alert,
                state = transition.state.name(),
                labels = ?transition.labels,
                "alert changed"
            );
        }
        true
    }
}
