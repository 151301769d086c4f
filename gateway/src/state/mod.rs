//! Key-value state kept as records of an internal topic: sessions, retained messages, lake manifest, alert state.
//!
//! One mechanism for all that the program must remember: a `put` is durable by the same commit as any reading. The
//! live set is held in memory; when the log of a state topic has grown to several times its live set, the live
//! set is written again at the tail and the log start moves up to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_disk::{Log, LogError};
use forebay_log::AppendError;

/// A map of keys to values whose every change is a record.
pub struct StateTopic {
    #[allow(dead_code)]
    live: std::sync::Mutex<BTreeMap<Bytes, Bytes>>,
}

impl StateTopic {
    /// Opens (or makes) the internal topic `name`, with one partition, and loads its live set.
    pub async fn open(log: &Log, name: &str) -> Result<Arc<StateTopic>, LogError> {
        let _ = (log, name);
        todo!()
    }
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        let _ = key;
        todo!()
    }
    /// All entries whose key starts with `prefix`, in key order.
    pub fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let _ = prefix;
        todo!()
    }
    /// Sets (or with `None` removes) a key; returns when that is durable. Reads see it from then on.
    pub async fn put(&self, key: impl Into<Bytes>, value: Option<Bytes>) -> Result<(), AppendError> {
        self.put_all(vec![(key.into(), value)]).await
    }
    /// Changes several keys in one batch: after a crash all of them hold or none does.
    pub async fn put_all(&self, changes: Vec<(Bytes, Option<Bytes>)>) -> Result<(), AppendError> {
        let _ = changes;
        todo!()
    }
}
