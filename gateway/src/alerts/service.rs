//! What all tasks of the alert service share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use forebay_cluster::{Log, LogError};
use forebay_log::Millis;
use forebay_sinks::RuleSet;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::around::Around;
use super::board::Board;
use super::journal::Journal;
use super::kept::RuleStamp;
use super::limits::RETRY_PAUSE;
use super::standing::{Opening, Standing};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::mqtt::Broker;
use crate::reader::Reader;
use crate::state::StateTopic;

/// Checkpoints and cursors.
pub(crate) const STATE_TOPIC: &str = "_alert_state";

/// Where the rules in force come from, for `/api/v1/rules`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RuleOrigin {
    /// The set that the controller holds; none: they are this node's own files.
    #[serde(flatten)]
    pub stamp: Option<RuleStamp>,
    /// Why the rules that the cluster should evaluate are not in force here, if so.
    pub problem: Option<String>,
    /// No rules are known yet: none are evaluated, and what others had found stays.
    #[serde(skip)]
    waits: bool,
}

impl RuleOrigin {
    /// This node's own files; or `held`, which are still to be taken up.
    pub(super) fn at_start(held: bool) -> RuleOrigin {
        RuleOrigin { waits: held, ..RuleOrigin::default() }
    }
}

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
    pub(super) origin: Arc<watch::Sender<RuleOrigin>>,
}

impl Service {
    /// While the origin says that no rules are known, nothing is evaluated.
    pub(super) async fn open(
        log: Log,
        reader: Reader,
        broker: Arc<Broker>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        (rules, origin): (Arc<watch::Sender<Arc<RuleSet>>>, Arc<watch::Sender<RuleOrigin>>),
    ) -> Result<Service, LogError> {
        let state = StateTopic::open(&log, STATE_TOPIC).await?;
        // From an older checkpoint records are evaluated again, from an older cursor alerts are sent again: both are allowed.
        state.go_on_damaged();
        let journal = Journal::open(&log).await?;
        let (board, around) = (Board::default(), Around::default());
        let (opening, receivers) = (Opening::default(), Mutex::default());
        Ok(Service {
            log,
            reader,
            broker,
            config,
            metrics,
            state,
            journal,
            board,
            around,
            opening,
            receivers,
            rules,
            origin,
        })
    }

    /// These rules hold from now on; with a stamp they are the cluster's.
    pub(super) fn put_in_force(&self, rules: RuleSet, stamp: Option<RuleStamp>) {
        self.metrics.alerts.rules_taken_up(stamp.as_ref().map_or(0, |stamp| stamp.revision));
        self.rules.send_replace(Arc::new(rules));
        self.origin.send_replace(RuleOrigin { stamp, problem: None, waits: false });
    }

    /// Says why the rules in force are not those that the cluster should evaluate.
    pub(super) fn say(&self, problem: String) {
        self.metrics.alerts.rules_not_taken_up.set(1);
        self.origin.send_modify(|origin| origin.problem = Some(problem));
    }

    pub(super) fn knows_rules(&self) -> bool {
        !self.origin.borrow().waits
    }

    /// Waits until there are rules to evaluate, be it none. `false`: told to stop before.
    pub(super) async fn rules_known(&self, stop: &CancellationToken) -> bool {
        let mut origin = self.origin.subscribe();
        let known = origin.wait_for(|origin| !origin.waits);
        tokio::select! {
            known = known => known.is_ok(),
            () = stop.cancelled() => false,
        }
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
