//! Quotas: how many bytes a second clients may produce and fetch (KIP-13, KIP-219, KIP-546); settings of the cluster.

mod bucket;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use forebay_cluster::{Log, LogError};
use kafka_protocol::ResponseError;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use bucket::Buckets;
pub(crate) use table::{Entity, Limited, Rates, Side, Table};

use super::errors::Refusal;
use super::limits::MAX_QUOTAS;
use crate::settings::{Legacy, Settings, SettingsError, key_of};

/// The settings' namespace.
const NAMESPACE: &str = "quotas";
/// How often a change is decided again that others were faster than.
const TRIES: usize = 20;

/// The quotas, as this node knows them.
#[derive(Default)]
pub(crate) struct Quotas {
    /// Whether there is any: without, nothing is looked up.
    any: AtomicBool,
    table: ArcSwap<Table>,
    buckets: Mutex<Buckets>,
}

/// A quota as it is kept.
#[derive(Serialize, Deserialize)]
struct Stored {
    entity: Entity,
    rates: Rates,
}

/// A throttle as responses have it.
pub(crate) fn millis(throttle: Duration) -> i32 {
    i32::try_from(throttle.as_millis()).unwrap_or(i32::MAX)
}

/// The setting that a record of the topic becomes which held quotas before there were clusters.
pub(crate) fn legacy_quota(key: &Bytes, value: &Bytes) -> Option<Legacy> {
    let (entity, rates) = (serde_json::from_slice(key).ok()?, serde_json::from_slice(value).ok()?);
    Some((NAMESPACE, (key_for(&entity), Some(text(entity, rates)))))
}

fn key_for(entity: &Entity) -> String {
    // Options of strings always can be written.
    key_of(&[&serde_json::to_string(entity).unwrap_or_default()])
}

fn text(entity: Entity, rates: Rates) -> String {
    serde_json::to_string(&Stored { entity, rates }).unwrap_or_default()
}

impl Quotas {
    /// Shows what is set now; what is returned shows it again whenever it changes. A log without a cluster has no quotas.
    pub(crate) fn follow(self: &Arc<Self>, log: &Log) -> impl Future<Output = ()> + Send + use<> {
        let (settings, quotas) = (Settings::new(log.clone()), Arc::clone(self));
        let watched = settings.watch(&[NAMESPACE]).and_then(|watched| quotas.show(&settings).map(|()| watched));
        async move {
            let Ok(mut watched) = watched else { return };
            while watched.changed().await.is_some() && quotas.show(&settings).is_ok() {}
        }
    }

    fn show(&self, settings: &Settings) -> Result<(), LogError> {
        let (mut table, mut strange) = (Table::default(), 0);
        for value in settings.values(NAMESPACE)? {
            match serde_json::from_str(&value) {
                Ok(Stored { entity, rates }) => drop(table.entries.insert(entity, rates)),
                Err(_) => strange += 1,
            }
        }
        if strange > 0 {
            tracing::error!(settings = strange, "quotas of another version are passed over");
        }
        self.any.store(!table.entries.is_empty(), Ordering::Release);
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// All quotas.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Has `change` make an entity's rates of those that it has; without any it is taken out. Committed on return. `change` is
    /// called again when another client was faster.
    ///
    /// # Errors
    /// What `change` refuses, and why nothing was changed.
    pub(crate) async fn alter(
        &self,
        log: &Log,
        entity: &Entity,
        change: impl Fn(&mut Rates) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let (settings, key) = (Settings::new(log.clone()), key_for(entity));
        for _ in 0..TRIES {
            let before = settings.get(NAMESPACE, &key)?;
            let stored: Option<Stored> = before.as_deref().and_then(|text| serde_json::from_str(text).ok());
            let had = stored.map(|stored| stored.rates).unwrap_or_default();
            let mut rates = had.clone();
            change(&mut rates)?;
            if rates == had {
                return Ok(());
            }
            if before.is_none() && settings.values(NAMESPACE)?.len() >= MAX_QUOTAS {
                let why = format!("there may be {MAX_QUOTAS} quotas at most");
                return Err(Refusal::new(ResponseError::PolicyViolation, why));
            }
            let after = (!rates.is_empty()).then(|| text(entity.clone(), rates));
            match settings.put(NAMESPACE, vec![(key.clone(), before)], vec![(key.clone(), after)]).await {
                Ok(()) => return Ok(self.show(&settings)?),
                // This node hears of the other change in a moment.
                Err(SettingsError::Changed) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(SettingsError::Changed.into())
    }

    /// How many bytes a client may take at once, where it has a quota: what it may have in a second.
    pub(crate) fn most_at_once(&self, limited: Limited, user: &str, client: &[u8]) -> Option<usize> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.table.load().find(limited, user, &String::from_utf8_lossy(client)).map(|(rate, _)| rate.max(1.0) as usize)
    }

    /// Notes that a client has produced or fetched so many bytes; returns how long it must wait before its next request.
    pub(crate) fn take(&self, limited: Limited, user: &str, client: &[u8], bytes: usize) -> Duration {
        if !self.any.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let client = String::from_utf8_lossy(client);
        let Some((rate, sharers)) = self.table.load().find(limited, user, &client) else { return Duration::ZERO };
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).take(sharers, rate, bytes, Instant::now())
    }
}
