//! The Delta table of a topic: files that we wrote, committed with the end offset of each partition.
//!
//! Each commit carries a Delta `txn` per partition (application id `TOPIC-PARTITION`, version = end offset), read back
//! before the next: that makes a range appear once however often its commit is tried. Commits are put-if-absent, so
//! other writers (OPTIMIZE, for one) are seen and their conflicts resolved.
//!
//! Others' OPTIMIZE replaces our files in the table but not in the manifest; the objects stay readable for cold reads as long
//! as VACUUM keeps them: `delta.deletedFileRetentionDuration` asks it to, for [`KEEP_REMOVED_DAYS`]. `delta.appendOnly` is not
//! set, because retention removes files.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, Metadata, MetadataExt, Protocol, StructType, Transaction, new_metadata};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use forebay_log::Millis;
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::{Ends, Settled, Table, TableContents, TableError, TableFile, schema};
use crate::manifest::{Entry, date_text};
use crate::shape::Shape;

/// How long a VACUUM must keep files that an OPTIMIZE removed: cold reads still use them.
pub(super) const KEEP_REMOVED_DAYS: u32 = 400;
/// Commits of others that one commit of ours follows before the wait after a failure begins.
const CONFLICT_RETRIES: usize = 12;
const TOPIC_ID: &str = "forebay.topic.id";

/// The Delta table at `TOPIC/` of an object store.
pub struct DeltaLake {
    topic: String,
    topic_id: Uuid,
    log_store: LogStoreRef,
    /// As of the last look; looked at again before each commit.
    table: Option<DeltaTable>,
}

impl DeltaLake {
    /// Nothing is read yet: the store may be out of reach.
    pub fn new(store: Arc<dyn ObjectStore>, topic: &str, topic_id: Uuid) -> DeltaLake {
        // The store is rooted already; only the path of this location matters.
        let mut location = Url::parse("memory:///").unwrap_or_else(|_| unreachable!("a constant URL"));
        location.set_path(&format!("/{topic}/"));
        let prefixed = Arc::new(PrefixStore::new(store.clone(), topic));
        let log_store = default_logstore(prefixed, store, &location, &StorageConfig::default());
        DeltaLake { topic: topic.to_owned(), topic_id, log_store, table: None }
    }

    fn application(&self, partition: u32) -> String {
        format!("{}-{partition}", self.topic)
    }

    /// The table's latest state; `None` if there is no table.
    async fn latest(&mut self) -> Result<Option<DeltaTableState>, TableError> {
        // Taken out, so that a failure leaves nothing half updated behind.
        let table = match self.table.take() {
            Some(mut table) => {
                table.update_incremental(None).await?;
                table
            }
            None => {
                let mut table = DeltaTable::new(self.log_store.clone());
                if !table.verify_deltatable_existence().await? {
                    return Ok(None);
                }
                table.load().await?;
                table
            }
        };
        let state = table.snapshot()?.clone();
        self.table = Some(table);
        let found = state.metadata().configuration().get(TOPIC_ID).cloned().unwrap_or_else(|| "not set".to_owned());
        if found != self.topic_id.to_string() {
            let (url, expected) = (self.topic.clone(), self.topic_id.to_string());
            return Err(TableError::Foreign { url, found, expected });
        }
        Ok(Some(state))
    }

    /// One try on what the table was at the last look.
    async fn try_commit(
        &mut self,
        state: Option<DeltaTableState>,
        adds: &[Entry],
        removes: &[Entry],
        shape: &Shape,
        held: &Ends,
        at: Millis,
    ) -> Result<(), TableError> {
        let mut actions = Vec::new();
        let mut ends: BTreeMap<u32, i64> = BTreeMap::new();
        let mut new = Vec::new();
        for entry in adds {
            if let Slot::Vacant(slot) = ends.entry(entry.partition) {
                let known = match &state {
                    Some(state) => {
                        state.transaction_version(&self.log_store, self.application(entry.partition)).await?
                    }
                    None => None,
                };
                if let Some((table_end, held)) = known.zip(held.get(&entry.partition).copied())
                    && table_end < held.0
                {
                    let (partition, base, end) = (entry.partition, entry.base.0, entry.end.0);
                    return Err(TableError::Gap { partition, table_end, held, base, end });
                }
                slot.insert(known.unwrap_or(0));
            }
            let table_end = ends.get(&entry.partition).copied().unwrap_or(0);
            let (partition, base, end) = (entry.partition, entry.base.0, entry.end.0);
            if end <= table_end {
                continue;
            }
            if base < table_end {
                return Err(TableError::Overlap { partition, table_end, base, end });
            }
            actions.push(Action::Add(self.add(entry)));
            new.push(entry.id);
            ends.insert(partition, end);
        }
        let added: Vec<u32> = adds.iter().map(|entry| entry.partition).collect();
        let transactions = |moved: &[Action]| -> Vec<Transaction> {
            if moved.is_empty() {
                return Vec::new();
            }
            let ends = ends.iter().filter(|(partition, _)| added.contains(partition));
            ends.map(|(partition, end)| {
                Transaction::new_with_last_update(self.application(*partition), *end, Some(at.0))
            })
            .collect()
        };
        let transactions = transactions(&actions);
        let adding = !actions.is_empty();
        if let Some(state) = &state {
            let wanted: Vec<&str> = removes.iter().map(|entry| self.relative(&entry.path)).collect();
            if !wanted.is_empty() {
                let gone =
                    state.log_data().iter().filter(|file| wanted.contains(&file.path().as_ref())).collect::<Vec<_>>();
                actions.extend(gone.iter().map(|file| Action::Remove(file.remove_action(true))));
            }
        }
        if actions.is_empty() {
            return Ok(());
        }
        let ours = schema::of_shape(shape);
        let operation = match &state {
            None => {
                let metadata = self.first_metadata(&serde_json::from_value(ours)?)?;
                let protocol: Protocol = serde_json::from_value(json!({"minReaderVersion": 1, "minWriterVersion": 2}))?;
                actions.insert(0, Action::Protocol(protocol.clone()));
                actions.insert(1, Action::Metadata(metadata.clone()));
                let location = self.log_store.config().location().clone();
                DeltaOperation::Create { mode: SaveMode::ErrorIfExists, location, protocol, metadata }
            }
            Some(state) => {
                let mut schema = serde_json::to_value(state.schema().as_ref())?;
                let there = schema.clone();
                if adding && schema::widen(&mut schema, &ours, "").map_err(|error| misfit(error, shape, &there, new))? {
                    let schema: StructType = serde_json::from_value(schema)?;
                    actions.push(Action::Metadata(
                        state.metadata().clone().with_schema(&schema).map_err(DeltaTableError::from)?,
                    ));
                }
                if adding {
                    let partition_by = Some(vec!["_date".to_owned()]);
                    DeltaOperation::Write { mode: SaveMode::Append, partition_by, predicate: None }
                } else {
                    DeltaOperation::Delete { predicate: None }
                }
            }
        };
        let properties = CommitProperties::default().with_application_transactions(transactions);
        let reference = state.as_ref().map(|state| state as &dyn deltalake_core::kernel::transaction::TableReference);
        let builder = CommitBuilder::from(properties).with_actions(actions);
        // Boxed: deltalake's commit future is large.
        let commit = Box::pin(builder.build(reference, self.log_store.clone(), operation).into_future());
        let done = commit.await?;
        let mut table = DeltaTable::new(self.log_store.clone());
        table.state = Some(done.snapshot());
        self.table = Some(table);
        Ok(())
    }

    fn relative<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.topic.as_str()).map_or(path, |rest| rest.trim_start_matches('/'))
    }

    fn add(&self, entry: &Entry) -> Add {
        let facts = entry.facts.as_ref();
        Add {
            path: self.relative(&entry.path).to_owned(),
            partition_values: HashMap::from([("_date".to_owned(), Some(date_text(entry.append_day)))]),
            size: facts.and_then(|facts| i64::try_from(facts.bytes).ok()).unwrap_or(0),
            modification_time: facts.map_or(0, |facts| facts.finished_at.0),
            data_change: true,
            stats: facts.and_then(|facts| facts.stats.clone()),
            ..Add::default()
        }
    }

    fn first_metadata(&self, schema: &StructType) -> Result<Metadata, TableError> {
        let keep = format!("interval {KEEP_REMOVED_DAYS} days");
        let configuration = [(TOPIC_ID, self.topic_id.to_string()), ("delta.deletedFileRetentionDuration", keep)];
        Ok(new_metadata(schema, ["_date"], configuration).map_err(DeltaTableError::from)?)
    }
}

/// Of columns that do not fit: how what was written has to be written again so that it does, where that is possible.
fn misfit(error: TableError, shape: &Shape, table: &serde_json::Value, misfits: Vec<Uuid>) -> TableError {
    let fitting = schema::conformed(shape, table);
    match error {
        TableError::ColumnType { .. } if fitting != *shape => {
            TableError::Settled(Box::new(Settled { why: error.to_string(), shape: fitting, misfits }))
        }
        error => error,
    }
}

/// Whether another writer came first, so that a look at its commit and another try are worth while.
fn is_conflict(error: &TableError) -> bool {
    matches!(
        error,
        TableError::Delta(
            DeltaTableError::VersionAlreadyExists(_)
                | DeltaTableError::Transaction {
                    source: TransactionError::CommitConflict(_) | TransactionError::VersionAlreadyExists(_)
                }
        )
    )
}

#[async_trait]
impl Table for DeltaLake {
    async fn commit(
        &mut self,
        adds: &[Entry],
        removes: &[Entry],
        shape: &Shape,
        held: &Ends,
        at: Millis,
    ) -> Result<(), TableError> {
        let mut tries = 0;
        loop {
            let state = self.latest().await?;
            match self.try_commit(state, adds, removes, shape, held, at).await {
                Err(error) if is_conflict(&error) && tries < CONFLICT_RETRIES => tries += 1,
                result => return result,
            }
        }
    }

    async fn committed_end(&mut self, partition: u32) -> Result<Option<i64>, TableError> {
        let application = self.application(partition);
        match self.latest().await? {
            Some(state) => Ok(state.transaction_version(&self.log_store, application).await?),
            None => Ok(None),
        }
    }

    async fn contents(&mut self) -> Result<TableContents, TableError> {
        let Some(state) = self.latest().await? else { return Ok(TableContents::default()) };
        let data = state.log_data();
        let files = data.iter().map(|file| TableFile {
            path: format!("{}/{}", self.topic, file.path()),
            bytes: u64::try_from(file.size()).unwrap_or(0),
            rows: file.num_records().map(|rows| rows as u64),
        });
        Ok(TableContents { version: self.version(), files: files.collect() })
    }

    fn version(&self) -> Option<i64> {
        self.table.as_ref()?.version().and_then(|version| i64::try_from(version).ok())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
