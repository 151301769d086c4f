//! Quotas: how many bytes a second clients may produce and fetch, kept in `_client_quotas` (KIP-13, KIP-219, KIP-546).

mod bucket;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_cluster::{Log, LogError};
use forebay_log::AppendError;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use bucket::Buckets;
pub(crate) use table::{Entity, Limited, Rates, Side, Table};

use super::limits::MAX_QUOTAS;
use crate::state::StateTopic;

/// The topic that keeps them.
const TOPIC: &str = "_client_quotas";

/// The node's quotas.
#[derive(Default)]
pub(crate) struct Quotas {
    /// Whether there is any: without, nothing is looked up.
    any: AtomicBool,
    table: ArcSwap<Table>,
    buckets: Mutex<Buckets>,
    /// Opened at the first change: who has no quotas has no topic for them.
    state: AsyncMutex<Option<Arc<StateTopic>>>,
}

/// A throttle as responses have it.
pub(crate) fn millis(throttle: Duration) -> i32 {
    i32::try_from(throttle.as_millis()).unwrap_or(i32::MAX)
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuotaRefused {
    #[error("there may be {MAX_QUOTAS} quotas at most")]
    TooMany,
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Quotas {
    /// Loads what was set in earlier lives of the node.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub(crate) async fn load(&self, log: &Log) -> Result<(), LogError> {
        if log.topic(TOPIC).is_none() {
            return Ok(());
        }
        let state = StateTopic::open(log, TOPIC).await?;
        let mut table = Table::default();
        let mut strange = 0;
        for (key, value) in state.scan(b"") {
            match (serde_json::from_slice(&key), serde_json::from_slice(&value)) {
                (Ok(entity), Ok(rates)) => drop(table.entries.insert(entity, rates)),
                _ => strange += 1,
            }
        }
        if strange > 0 {
            tracing::error!(topic = TOPIC, records = strange, "quotas of another version are passed over");
        }
        *self.state.lock().await = Some(state);
        self.publish(table);
        Ok(())
    }

    fn publish(&self, table: Table) {
        self.any.store(!table.entries.is_empty(), Ordering::Release);
        self.table.store(Arc::new(table));
    }

    /// All quotas.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Gives an entity these rates instead of those that it had; none takes it out. Durable on return.
    ///
    /// # Errors
    /// Why that was not done.
    pub(crate) async fn set(&self, log: &Log, entity: Entity, rates: Rates) -> Result<(), QuotaRefused> {
        let mut state = self.state.lock().await;
        let mut table = Table::clone(&self.table.load());
        if rates.is_empty() {
            if table.entries.remove(&entity).is_none() {
                return Ok(());
            }
        } else {
            table.entries.insert(entity.clone(), rates.clone());
        }
        if table.entries.len() > MAX_QUOTAS {
            return Err(QuotaRefused::TooMany);
        }
        let opened = match state.take() {
            Some(opened) => opened,
            None => StateTopic::open(log, TOPIC).await?,
        };
        let opened = state.insert(opened);
        let key = serde_json::to_vec(&entity).unwrap_or_default();
        let value = (!rates.is_empty()).then(|| serde_json::to_vec(&rates).unwrap_or_default().into());
        opened.put(key, value).await?;
        self.publish(table);
        Ok(())
    }

    /// How many bytes a client may take at once, where it has a quota: what it may have in a second.
    pub(crate) fn most_at_once(&self, limited: Limited, user: &str, client: &str) -> Option<usize> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.table.load().find(limited, user, client).map(|(rate, _)| rate.max(1.0) as usize)
    }

    /// Notes that a client has produced or fetched so many bytes; returns how long it must wait before its next request.
    pub(crate) fn take(&self, limited: Limited, user: &str, client: &str, bytes: usize) -> Duration {
        if !self.any.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let Some((rate, sharers)) = self.table.load().find(limited, user, client) else { return Duration::ZERO };
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).take(sharers, rate, bytes, Instant::now())
    }
}
