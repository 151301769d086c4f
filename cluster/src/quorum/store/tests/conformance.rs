//! openraft's suite for storages, on real files and on simulated ones.

use std::path::Path;
use std::sync::Arc;

use forebay_disk::sim::SimFiles;
use forebay_disk::{Files, RealFiles};
use openraft::testing::{StoreBuilder, Suite};

use super::LogStore;
use crate::quorum::disk::Disk;
use crate::quorum::raft::{StorageError, Types};
use crate::quorum::state_machine::StateMachine;
use crate::quorum::store::SnapshotFile;
use crate::quorum::tests::Recorder;

fn build(files: Arc<dyn Files>) -> (LogStore, StateMachine) {
    let log = super::open(Arc::clone(&files)).unwrap();
    let snapshot = SnapshotFile::new(Disk::new(files, |write| write()), Path::new("quorum"));
    (log, StateMachine::open(Box::new(Recorder::default()), snapshot).unwrap())
}

struct Simulated;

impl StoreBuilder<Types, LogStore, StateMachine> for Simulated {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError> {
        let (log, machine) = build(Arc::new(SimFiles::new(1)));
        Ok(((), log, machine))
    }
}

struct Real;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for Real {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = build(RealFiles::open(dir.path()).unwrap());
        Ok((dir, log, machine))
    }
}

#[test]
fn simulated_files_pass_openrafts_suite() {
    Suite::test_all(Simulated).unwrap();
}

#[test]
fn real_files_pass_openrafts_suite() {
    Suite::test_all(Real).unwrap();
}
