//! Damage of every kind is found where it is, and everything around it is kept.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::record::{BatchBuilder, BatchProblem, Compression};
use crate::units::{Epoch, Millis};

const BATCHES: i64 = 5;
const RECORDS: i32 = 3;

/// Five batches of three records, and where each starts.
fn segment() -> (Vec<u8>, Vec<u64>) {
    let mut file = Vec::new();
    let mut starts = Vec::new();
    for batch in 0..BATCHES {
        let mut builder = BatchBuilder::new(Compression::None);
        for record in 0..RECORDS {
            builder.push(record, Millis(1000 * batch), Some(b"MAC000002"), Some(&[7u8; 2000]), &[]);
        }
        starts.push(file.len() as u64);
        file.extend_from_slice(&builder.build(Offset(10 + batch * i64::from(RECORDS)), Epoch(1)).unwrap_or_default());
    }
    (file, starts)
}

fn run(file: &[u8]) -> Scan {
    // Reads come in small pieces, as from a slow file.
    let read = |position: u64, buffer: &mut [u8]| {
        let rest = file.get(usize::try_from(position).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = rest.len().min(buffer.len()).min(700);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok::<_, Infallible>(count)
    };
    match scan(Offset(10), file.len() as u64, read, |_, _| {}) {
        Ok(scan) => scan,
        Err(never) => match never {},
    }
}

#[test]
fn a_whole_segment_is_one_good_range_with_indexes() {
    let (file, starts) = segment();
    let scan = run(&file);
    assert!(scan.bad.is_empty());
    assert_eq!(scan.good.len(), 1);
    assert_eq!(scan.good_end(), file.len() as u64);
    assert_eq!(scan.next_offset(), Some(Offset(25)));
    assert_eq!(scan.indexes.offsets.lookup(Offset(15)).map(|entry| u64::from(entry.position)), Some(starts[1]));
    assert_eq!(scan.indexes.times.lookup(Millis(1001)), Offset(16));
    assert_eq!(scan.indexes.max_timestamp(), Some(Millis(4000)));
}

#[test]
fn a_torn_tail_ends_at_the_last_whole_batch_wherever_it_is_cut() {
    let (file, starts) = segment();
    let last = usize::try_from(starts[4]).unwrap_or_default();
    for cut in [last + 1, last + 12, last + 60, last + 61, file.len() - 1] {
        let scan = run(&file[..cut]);
        assert_eq!(scan.good_end(), starts[4], "cut at {cut}");
        assert_eq!(scan.bad.len(), 1);
        assert_eq!(scan.bad[0].bytes, starts[4]..cut as u64);
        assert_eq!(scan.next_offset(), Some(Offset(22)));
    }
}

#[test]
fn a_tail_of_zeros_is_torn_too() {
    let (mut file, _) = segment();
    let whole = file.len() as u64;
    file.resize(file.len() + 5000, 0);
    let scan = run(&file);
    assert_eq!(scan.good_end(), whole);
    assert_eq!(scan.bad[0].problem, ScanProblem::Batch(BatchProblem::Magic(0)));
}

#[test]
fn flipped_bytes_lose_only_their_own_batch() {
    let (file, starts) = segment();
    // In the records, in the length, in the magic, and in the base offset.
    for (at, flip) in [(500usize, 0xff), (8, 0x40), (11, 0x01), (16, 0x01), (0, 0x80), (6, 0x01)] {
        let mut damaged = file.clone();
        damaged[usize::try_from(starts[2]).unwrap_or_default() + at] ^= flip;
        let scan = run(&damaged);
        if at == 6 {
            // Offset 16 became 272: good by its checksum, but then the ones that follow go back.
            assert!(!scan.bad.is_empty(), "offset flip is noticed");
            continue;
        }
        assert_eq!(scan.bad.len(), 1, "flip at {at}");
        assert_eq!(scan.bad[0].bytes, starts[2]..starts[3], "flip at {at}");
        assert_eq!(scan.good.len(), 2);
        assert_eq!(scan.good[1].base_offset, Offset(19));
        assert_eq!(scan.next_offset(), Some(Offset(25)));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_scanned_without_panic_and_ranges_cover_the_file(file in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let scan = run(&file);
        let covered: u64 = scan.good.iter().map(|g| &g.bytes).chain(scan.bad.iter().map(|b| &b.bytes))
            .map(|r| r.end - r.start).sum();
        prop_assert_eq!(covered, file.len() as u64);
    }

    #[test]
    fn any_damage_is_either_found_or_harmless(at in 0usize..30_000, value in any::<u8>()) {
        let (mut file, _) = segment();
        let at = at % file.len();
        let harmless = file[at] == value;
        file[at] = value;
        let scan = run(&file);
        let batches: u64 = scan.good.iter().map(|g| g.batches).sum();
        prop_assert!(batches >= 1);
        if harmless {
            prop_assert_eq!(scan.bad.len(), 0);
        }
    }
}

#[test]
fn damage_that_is_full_of_false_beginnings_is_passed_over_in_few_reads() {
    let (mut file, starts) = segment();
    let damage: Vec<u8> = (0..3_000_000).map(|at| if at % 5 == 0 { 2 } else { 0xff }).collect();
    let at = usize::try_from(starts[2]).unwrap_or_default();
    file.splice(at..at, damage);
    let mut reads = 0;
    let read = |position: u64, buffer: &mut [u8]| {
        reads += 1;
        let rest = file.get(usize::try_from(position).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok::<_, Infallible>(count)
    };
    let Ok(scan) = scan(Offset(10), file.len() as u64, read, |_, _| {});
    assert_eq!(scan.good.len(), 2);
    assert_eq!(scan.next_offset(), Some(Offset(25)));
    assert!(reads < 20, "{reads} reads");
}
