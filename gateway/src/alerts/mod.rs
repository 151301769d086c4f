//! The alert rules of this node: follows the source topics, keeps state, records transitions and tells receivers.
//!
//! ```text
//! source partition ─> follower (engine) ─> _alerts ─> courier ─> receiver
//!                        │ checkpoint                    │ cursor
//!                        └────────> _alert_state <───────┘
//! ```
//! A partition's follower runs where its leader is, the couriers where that of `_alerts` is, and both move with it.

mod around;
mod board;
mod checkpoint;
mod courier;
mod cursor;
mod entry;
mod follower;
mod journal;
mod keeper;
mod limits;
mod receiver;
mod recent;
mod recorder;
mod service;
mod standing;
mod supervisor;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay_cluster::Log;
use forebay_log::Offset;
use forebay_sinks::{Diagnostics, RuleSet};
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::leadership::{self, Term};
use crate::metrics::Metrics;
use crate::mqtt::Broker;
use crate::reader::Reader;

use courier::Couriers;
pub(crate) use journal::{TOPIC as JOURNAL_TOPIC, config as journal_config};
use limits::MEASURE_INTERVAL;
pub(crate) use service::STATE_TOPIC;
use service::Service;
use standing::Standing;
use supervisor::Supervisor;

/// How long a start waits for the state to be readable; then it is read when it can be.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// The alert service of a node.
pub struct Alerts {
    patterns: Vec<PathBuf>,
    /// In force, from the start on or as soon as it has begun.
    rules: Arc<watch::Sender<Arc<RuleSet>>>,
    /// Not there before its state was read, which other nodes may have.
    begun: OnceLock<Begun>,
    tasks: TaskTracker,
}

/// The service at work.
struct Begun {
    service: Arc<Service>,
    couriers: Arc<Mutex<Couriers>>,
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

/// A receiver and what waits for it, for `/api/v1/status`.
#[derive(Debug, Clone, Serialize)]
pub struct ReceiverStatus {
    /// Kind and address, without what may be secret.
    pub receiver: String,
    pub kind: &'static str,
    /// Records of `_alerts` that it has not been told yet.
    pub backlog: i64,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
}

impl Alerts {
    /// Loads the rules (bad ones are an error that names file, line and column), restores state and starts to follow. State that lies
    /// on other nodes and cannot be read for a while is read when it can be.
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
        let patterns = config.alerts.rules.clone();
        let rules = load(patterns.clone()).await?;
        courier::check(&rules.receivers)?;
        let rules = Arc::new(watch::channel(Arc::new(rules)).0);
        let tasks = TaskTracker::new();
        let alerts = Arc::new(Alerts { patterns, rules: rules.clone(), begun: OnceLock::new(), tasks });
        let (beginning, end) = (alerts.clone(), shutdown.clone());
        let mut begun = alerts.tasks.spawn(async move {
            let begin = async {
                let service = Service::open(log, reader, broker, config, metrics, rules).await?;
                beginning.begin(Arc::new(service), shutdown).await
            };
            let result = end.run_until_cancelled(begin).await.unwrap_or(Ok(()));
            result.inspect_err(|error| tracing::error!("alert rules are not evaluated: {error:#}"))
        });
        alerts.tasks.close();
        match tokio::time::timeout(START_PATIENCE, &mut begun).await {
            Ok(begun) => begun??,
            Err(_) => tracing::error!("alert rules wait for their state ({STATE_TOPIC}), which cannot be read yet"),
        }
        Ok(alerts)
    }

    async fn begin(&self, service: Arc<Service>, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut couriers = Couriers::new(service.clone(), shutdown.clone());
        let receivers = service.rules.borrow().receivers.clone();
        let term = Term::of(&service.log, &service.journal.partition);
        if term.is_some() {
            couriers.start(&receivers).await?;
        }
        let couriers = Arc::new(Mutex::new(couriers));
        let supervisor = Supervisor::start(service.clone(), shutdown.clone()).await;
        self.tasks.spawn(supervisor.run());
        let (measured, end) = (service.clone(), shutdown.clone());
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(MEASURE_INTERVAL);
            while end.run_until_cancelled(ticks.tick()).await.is_some() {
                measured.measure();
            }
        });
        self.tasks.spawn(keeper::keep(service.clone(), couriers.clone(), term, shutdown));
        // Begun once.
        let _ = self.begun.set(Begun { service, couriers });
        Ok(())
    }

    fn service(&self) -> Option<&Arc<Service>> {
        self.begun.get().map(|begun| &begun.service)
    }

    /// Pending and firing alerts, the longest active first.
    pub fn active(&self) -> Vec<ActiveAlert> {
        let json = |transition| serde_json::to_value(transition).unwrap_or_default();
        let active = self.service().map(|service| service.active()).unwrap_or_default();
        active.iter().map(|transition| ActiveAlert(json(transition))).collect()
    }

    /// The rules in force and how their alerts stand.
    pub fn rules(&self) -> Vec<RuleStatus> {
        let rules = self.rules.borrow().clone();
        let sums = self.service().map(|service| service.sums()).unwrap_or_default();
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

    /// The receivers and what waits for them.
    pub fn receivers(&self) -> Vec<ReceiverStatus> {
        let Some(service) = self.service() else { return Vec::new() };
        let end = service.journal.end();
        let status = |standing: &Arc<Standing>| ReceiverStatus {
            receiver: standing.name.clone(),
            kind: standing.kind,
            backlog: standing.backlog(end),
            last_error: standing.error(),
        };
        let here = service.receivers();
        if !here.is_empty() || service.keeps() {
            return here.iter().map(status).collect();
        }
        // Another node delivers: what it has noted.
        let rules = self.rules.borrow().clone();
        let noted = rules.receivers.iter().map(|config| {
            let next = cursor::saved(&service.state, &config.id()).unwrap_or(end);
            status(&Arc::new(Standing::new(config.name(), config.kind(), next)))
        });
        noted.collect()
    }

    /// Loads the rule files again (SIGHUP, `POST /rules/reload`); on an error the old rules stay. Keeps the state of
    /// alerts whose rule still exists and resolves the others.
    ///
    /// # Errors
    /// [`Diagnostics`] for bad rules; a receiver that cannot be set up.
    pub async fn reload(&self) -> anyhow::Result<()> {
        let mut couriers = match self.begun.get() {
            Some(begun) => Some((&begun.service, begun.couriers.lock().await)),
            None => None,
        };
        let rules = load(self.patterns.clone()).await?;
        courier::check(&rules.receivers)?;
        if let Some((service, couriers)) = &mut couriers
            && service.keeps()
        {
            couriers.replace(&rules.receivers).await?;
        }
        self.rules.send_replace(Arc::new(rules));
        Ok(())
    }

    /// Whether all that this node has to evaluate and deliver, up to its present end, has been (demo, tests).
    pub async fn settled(&self) -> bool {
        let Some(Begun { service, couriers }) = self.begun.get() else { return false };
        if !service.opening.none() {
            return false;
        }
        let rules = self.rules.borrow().clone();
        for topic in rules.sources().into_iter().filter_map(|name| service.log.topic(name)) {
            for partition in topic.partitions.iter().filter(|p| leadership::led(&service.log, p).is_some()) {
                let id = (topic.name.clone(), topic.id, partition.index());
                let position = service.board.position(&id).map(Offset);
                if position.is_none_or(|position| position < partition.watermarks().high_watermark) {
                    return false;
                }
            }
        }
        // Not before: a reload may be replacing them.
        let _couriers = couriers.lock().await;
        let end = service.journal.end();
        service.receivers().iter().all(|standing| standing.next() >= end)
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
mod alertmanager_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod zombie_tests;
