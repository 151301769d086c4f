//! Tests of the storage: openraft's own suite, faults of the disk, and damage.

mod conformance;
mod damage;
mod faults;

use std::path::Path;
use std::sync::Arc;

use forebay_disk::Files;
use openraft::EntryPayload;
use tokio::sync::watch;

use super::{Covered, LogStore};
use crate::quorum::disk::Disk;
use crate::quorum::raft::{Entry, Payload, log_id};

/// Opens the log with small files and without pauses; a snapshot covers everything.
fn open(files: Arc<dyn Files>) -> std::io::Result<LogStore> {
    let all = Covered { last: Some(log_id(u64::MAX, u64::MAX)), ended: false };
    let mut disk = Disk::new(files, |write| write());
    disk.pauses = &[];
    let store = LogStore::open(disk, Path::new("quorum"), false, watch::channel(all).1)?;
    store.journal.lock().unwrap().file_bytes = 4096;
    Ok(store)
}

fn entry(term: u64, index: u64, payload: Vec<u8>) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Payload::from(payload)) }
}
