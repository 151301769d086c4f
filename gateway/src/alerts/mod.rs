//! The alert rules of this node: follows the source topics, keeps state, records transitions and tells receivers.

use std::sync::Arc;

use forebay_disk::Log;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::mqtt::Broker;
use crate::reader::Reader;

/// The alert service of a node.
pub struct Alerts {
    _private: (),
}

/// A pending or firing alert as `/api/v1/alerts` and the console show it: the JSON of `_alerts`.
#[derive(Debug, Clone, Serialize)]
pub struct ActiveAlert(pub serde_json::Value);

/// Loaded rules and their health, for `/api/v1/rules`.
#[derive(Debug, Clone, Serialize)]
pub struct RuleStatus {
    pub file: String,
    pub group: String,
    pub alert: String,
    pub pending: usize,
    pub firing: usize,
    pub evaluation_errors: u64,
}

impl Alerts {
    /// Loads the rules (bad ones are an error that names file, line and column), restores state and starts to follow.
    pub async fn start(
        log: Log,
        reader: Reader,
        broker: Arc<Broker>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Alerts>> {
        let _ = (log, reader, broker, config, metrics, shutdown);
        todo!()
    }
    /// Pending and firing alerts.
    pub fn active(&self) -> Vec<ActiveAlert> {
        todo!()
    }
    pub fn rules(&self) -> Vec<RuleStatus> {
        todo!()
    }
    /// Loads the rule files again (SIGHUP, `POST /rules/reload`); on an error the old rules stay. Keeps the state of
    /// alerts whose rule still exists.
    pub async fn reload(&self) -> anyhow::Result<()> {
        todo!()
    }
    /// Whether everything in the source topics up to their present end has been evaluated and delivered (demo, tests).
    pub async fn settled(&self) -> bool {
        todo!()
    }
}
