//! The cluster simulation over a bounded number of seeds, and the bugs that it must find.

use forebay_simulation::{Flaw, Options, run};

/// How many seeds are tried for a planted bug.
const MOST_SEEDS: u64 = 1000;

fn seeds() -> u64 {
    std::env::var("FOREBAY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200)
}

fn seed(seed: u64) -> Options {
    Options { seed, ..Options::default() }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for number in 0..10 {
        let (first, second) = (run(&seed(number)), run(&seed(number)));
        assert!(first == second, "seed {number} ends in two ways");
        let report = first.unwrap_or_else(|what| panic!("seed {number}: {what}"));
        assert!(report.disks.iter().any(|(_, bytes)| !bytes.is_empty()), "there is something on the disks");
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_the_cluster_becomes_whole() {
    let mut acked = 0;
    for number in 0..seeds() {
        match run(&seed(number)) {
            Ok(report) => acked += report.acked,
            Err(what) => panic!("seed {number}: {what}\nagain: simulate --seed {number} --trace"),
        }
    }
    println!("{} seeds, {acked} acknowledged records", seeds());
    assert!(acked > 0);
}

/// The bug is found, and without it the same seed is well.
fn is_found(flaw: Flaw) {
    let found = (0..MOST_SEEDS).find_map(|number| {
        let what = run(&Options { flaw: Some(flaw), ..seed(number) }).err()?;
        Some((number, what))
    });
    let Some((number, what)) = found else { panic!("{flaw:?} is not found in {MOST_SEEDS} seeds") };
    println!("{flaw:?} is found by seed {number}: {what}");
    if let Err(what) = run(&seed(number)) {
        panic!("seed {number} fails without it: {what}");
    }
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    is_found(Flaw::AckBeforeSync);
}

#[test]
fn a_cut_to_the_high_watermark_is_found() {
    is_found(Flaw::TruncateToHighWatermark);
}

#[test]
fn a_missing_check_of_epochs_is_found() {
    is_found(Flaw::NoEpochCheck);
}

#[test]
fn a_commit_without_a_look_at_the_tables_end_is_found() {
    is_found(Flaw::CommitWithoutOffsetCheck);
}

#[test]
fn a_high_watermark_that_moves_before_the_shrink_is_committed_is_found() {
    is_found(Flaw::ShrinkBeforeCommit);
}
