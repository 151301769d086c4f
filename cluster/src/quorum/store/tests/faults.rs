//! Whatever the disk does, what was acknowledged is there after a crash, and nothing else but the change in progress.

use std::sync::Arc;

use forebay_disk::sim::{Faults, Random, SimFiles};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};

use super::{LogStore, entry, open};
use crate::quorum::raft::{Entry, LogId, Vote, log_id};

/// What a log holds: vote (term and node), purged, entries.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    vote: Option<(u64, Option<u64>)>,
    purged: Option<LogId>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
enum Change {
    Vote(Vote),
    Append(Vec<Entry>),
    Truncate(LogId),
    Purge(LogId),
}

impl Model {
    fn of(store: &LogStore) -> Model {
        let memory = store.memory();
        let vote = memory.vote.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for));
        Model { vote, purged: memory.purged, entries: memory.get(.., usize::MAX) }
    }

    fn next(&self) -> u64 {
        self.entries.last().map(|entry| entry.log_id).or(self.purged).map_or(0, |id| id.index + 1)
    }

    fn after(mut self, change: &Change) -> Model {
        match change {
            Change::Vote(vote) => self.vote = Some((vote.leader_id.term, vote.leader_id.voted_for)),
            Change::Append(entries) => self.entries.extend(entries.clone()),
            Change::Truncate(since) => self.entries.retain(|entry| entry.log_id.index < since.index),
            Change::Purge(upto) => {
                self.entries.retain(|entry| entry.log_id.index > upto.index);
                self.purged = Some(*upto);
            }
        }
        self
    }

    /// A change that Raft could ask for.
    fn random_change(&self, random: &mut Random, term: &mut u64) -> Change {
        let any = |random: &mut Random| {
            let at = random.below(self.entries.len() as u64);
            self.entries.get(usize::try_from(at).unwrap()).map(|entry| entry.log_id)
        };
        match (random.below(10), any(random)) {
            (0, _) => {
                *term += 1;
                Change::Vote(Vote::new(*term, random.below(3)))
            }
            (1, Some(id)) => {
                *term += 1;
                Change::Truncate(id)
            }
            (2, Some(id)) => Change::Purge(id),
            (3, _) if random.chance(100) => Change::Purge(log_id(*term, self.next() + random.below(3))),
            _ => {
                let count = 1 + random.below(4);
                let fill = |random: &mut Random| vec![random.below(256) as u8; random.below(900) as usize];
                Change::Append((0..count).map(|i| entry(*term, self.next() + i, fill(random))).collect())
            }
        }
    }
}

async fn perform(store: &mut LogStore, change: &Change) -> bool {
    match change.clone() {
        Change::Vote(vote) => store.save_vote(&vote).await.is_ok(),
        Change::Append(entries) => store.blocking_append(entries).await.is_ok(),
        Change::Truncate(since) => store.truncate(since).await.is_ok(),
        Change::Purge(upto) => store.purge(upto).await.is_ok(),
    }
}

/// Runs changes on a disk that fails in a seeded way, crashes, and looks; several times.
async fn run(seed: u64, faults: impl Fn(&mut Random) -> Faults) {
    let mut random = Random::new(seed);
    let files = SimFiles::new(seed);
    let (mut durable, mut term) = (Model::default(), 1);
    let mut pending: Option<Change> = None;
    for round in 0..5 {
        files.set_faults(faults(&mut random));
        // Opening may fail too: then the machine crashes once more.
        let mut store = match open(Arc::new(files.clone())) {
            Ok(store) => store,
            Err(_) => {
                files.crash();
                open(Arc::new(files.clone())).unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"))
            }
        };
        let found = Model::of(&store);
        let with_pending = pending.take().map(|change| durable.clone().after(&change));
        assert!(
            found == durable || Some(&found) == with_pending.as_ref(),
            "seed {seed}, round {round}: found {found:?}\nacknowledged {durable:?}\nor {with_pending:?}"
        );
        durable = found;
        for _ in 0..40 {
            let change = durable.random_change(&mut random, &mut term);
            if perform(&mut store, &change).await {
                durable = durable.after(&change);
                assert_eq!(Model::of(&store), durable, "seed {seed}: memory follows the disk");
            } else if store.journal.lock().unwrap().broken.is_some() {
                pending = Some(change);
                break;
            } else {
                assert_eq!(Model::of(&store), durable, "seed {seed}: what failed is not in memory");
            }
        }
        files.crash();
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

#[test]
fn a_crash_at_any_step_loses_nothing_that_was_acknowledged() {
    block_on(async {
        for seed in 0..300 {
            let stop = |random: &mut Random| Faults { stop_after: Some(random.below(150)), ..Faults::default() };
            run(seed, stop).await;
        }
    });
}

#[test]
fn failed_writes_and_syncs_leave_nothing_behind() {
    block_on(async {
        for seed in 0..300 {
            run(seed, |_| Faults { write_per_mille: 80, sync_per_mille: 80, ..Faults::default() }).await;
        }
    });
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    block_on(async {
        for seed in 0..100 {
            run(seed, |random| Faults { capacity: Some(2000 + random.below(20_000)), ..Faults::default() }).await;
        }
    });
}
