//! What all tasks of the alert service share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use forebay_cluster::{Log, LogError};
use forebay_log::Millis;
use forebay_sinks::RuleSet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::around::Around;
use super::board::Board;
use super::journal::Journal;
use super::limits::RETRY_PAUSE;
use super::standing::{Opening, Standing};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::mqtt::Broker;
use crate::reader::Reader;
use crate::state::StateTopic;

/// Checkpoints and cursors.
pub(crate) const STATE_TOPIC: &str = "_alert_state";

/// The parts of the node that alerts use, and their own.
pub(super) struct Service {
    pub(super) log: Log,
    pub(super) reader: Reader,
    pub(super) broker: Arc<Broker>,
    pub(super) config: Arc<Config>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) state: Arc<StateTopic>,
    pub(super) journal: Journal,
    pub(super) board: Board,
    pub(super) around: Around,
    /// What must be done before what is shown is all there is.
    pub(super) opening: Opening,
    /// The receivers that are served.
    receivers: Mutex<Vec<Arc<Standing>>>,
    /// The rules in force; followers take up a change before the next record.
    pub(super) rules: Arc<watch::Sender<Arc<RuleSet>>>,
}

impl Service {
    pub(super) async fn open(
        log: Log,
        reader: Reader,
        broker: Arc<Broker>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        rules: Arc<watch::Sender<Arc<RuleSet>>>,
    ) -> Result<Service, LogError> {
        let state = StateTopic::open(&log, STATE_TOPIC).await?;
        // From an older checkpoint records are evaluated again, from an older cursor alerts are sent again: both are allowed.
        state.go_on_damaged();
        let journal = Journal::open(&log).await?;
        let (board, around) = (Board::default(), Around::default());
        let (opening, receivers) = (Opening::default(), Mutex::default());
        Ok(Service { log, reader, broker, config, metrics, state, journal, board, around, opening, receivers, rules })
    }

    pub(super) fn receivers(&self) -> Vec<Arc<Standing>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_receivers(&self, receivers: Vec<Arc<Standing>>) {
        *self.receivers.lock().unwrap_or_else(PoisonError::into_inner) = receivers;
    }
}

/// Waits a little before the next attempt; whether it was told to stop.
pub(super) async fn pause(stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(RETRY_PAUSE) => false,
    }
}

pub(super) fn now() -> Millis {
    Millis::from_system(SystemTime::now())
}
