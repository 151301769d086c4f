//! The alert rules of this node: follows the source topics, keeps state, records transitions and tells receivers.
//!
//! ```text
//! source partition ─> follower (engine) ─> _alerts ─> courier ─> receiver
//!                        │ checkpoint                    │ cursor
//!                        └────────> _alert_state <───────┘
//! ```

mod board;
mod checkpoint;
mod courier;
mod entry;
mod follower;
mod journal;
mod limits;
mod receiver;
mod service;
mod supervisor;

use std::path::PathBuf;
use std::sync::Arc;

use forebay_disk::Log;
use forebay_log::Offset;
use forebay_sinks::{Diagnostics, RuleSet};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::mqtt::Broker;
use crate::reader::Reader;

use courier::Couriers;
use service::Service;
use supervisor::Supervisor;

/// The alert service of a node.
pub struct Alerts {
    service: Arc<Service>,
    couriers: Arc<Mutex<Couriers>>,
    tasks: TaskTracker,
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
    ///
    /// # Errors
    /// [`Diagnostics`] for bad rules; what kept the topics of the service from being opened or read.
    pub async fn start(
        log: Log,
        reader: Reader,
        broker: Arc<Broker>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Alerts>> {
        let rules = load(config.alerts.rules.clone()).await?;
        let receivers = rules.receivers.clone();
        let service = Arc::new(Service::open(log, reader, broker, config, metrics, rules).await?);
        let mut couriers = Couriers::new(service.clone(), shutdown.clone());
        couriers.replace(&receivers).await?;
        let couriers = Arc::new(Mutex::new(couriers));
        let supervisor = Supervisor::start(service.clone(), shutdown.clone()).await?;
        let tasks = TaskTracker::new();
        tasks.spawn(supervisor.run());
        let ending = couriers.clone();
        tasks.spawn(async move {
            shutdown.cancelled().await;
            let _ = ending.lock().await.end().await;
        });
        tasks.close();
        Ok(Arc::new(Alerts { service, couriers, tasks }))
    }

    /// Pending and firing alerts, the longest active first.
    pub fn active(&self) -> Vec<ActiveAlert> {
        let json = |transition| serde_json::to_value(transition).unwrap_or_default();
        self.service.board.active().iter().map(|transition| ActiveAlert(json(transition))).collect()
    }

    /// The rules in force and how their alerts stand.
    pub fn rules(&self) -> Vec<RuleStatus> {
        let rules = self.service.rules.borrow().clone();
        let sums = self.service.board.sums();
        let mut all = Vec::new();
        for group in &rules.groups {
            for rule in &group.rules {
                let sum = sums.get(&(group.name.clone(), rule.alert.clone())).copied().unwrap_or_default();
                all.push(RuleStatus {
                    file: group.file.clone(),
                    group: group.name.clone(),
                    alert: rule.alert.clone(),
                    pending: sum.pending,
                    firing: sum.firing,
                    evaluation_errors: sum.errors,
                });
            }
        }
        all
    }

    /// Loads the rule files again (SIGHUP, `POST /rules/reload`); on an error the old rules stay. Keeps the state of
    /// alerts whose rule still exists and resolves the others.
    ///
    /// # Errors
    /// [`Diagnostics`] for bad rules; a receiver that cannot be set up.
    pub async fn reload(&self) -> anyhow::Result<()> {
        let mut couriers = self.couriers.lock().await;
        let rules = load(self.service.config.alerts.rules.clone()).await?;
        couriers.replace(&rules.receivers).await?;
        self.service.rules.send_replace(Arc::new(rules));
        Ok(())
    }

    /// Whether everything in the source topics up to their present end has been evaluated and delivered (demo, tests).
    pub async fn settled(&self) -> bool {
        let rules = self.service.rules.borrow().clone();
        for topic in rules.sources().into_iter().filter_map(|name| self.service.log.topic(name)) {
            for partition in &topic.partitions {
                let id = (topic.name.clone(), topic.id, partition.index());
                let position = self.service.board.position(&id).map(Offset);
                if position.is_none_or(|position| position < partition.watermarks().high_watermark) {
                    return false;
                }
            }
        }
        self.couriers.lock().await.reached(self.service.journal.end())
    }

    /// Waits, after the shutdown was told, until the last state is saved.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

/// Reads the rule files on a thread for blocking work.
async fn load(patterns: Vec<PathBuf>) -> anyhow::Result<RuleSet> {
    let loaded: Result<RuleSet, Diagnostics> =
        tokio::task::spawn_blocking(move || forebay_sinks::rules::load(&patterns)).await?;
    Ok(loaded?)
}

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;
