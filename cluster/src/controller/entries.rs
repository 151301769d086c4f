//! Which records go into one entry of the quorum's log.

use forebay_log::cluster::Record;
use forebay_log::limits::MAX_SETTINGS_CHANGE_BYTES;

use super::limits::ENTRY_BYTES;
use crate::quorum::limits::MAX_ENTRY;

const _: () = assert!(ENTRY_BYTES + 1024 <= MAX_ENTRY);
const _: () = assert!(MAX_SETTINGS_CHANGE_BYTES <= ENTRY_BYTES);

/// What was decided as entries, in order. Each decision is whole in one of them, unless it is too large for any: then a controller
/// that ends in between leaves a part of it, which the next one completes ([`Controller::take_over`]).
///
/// [`Controller::take_over`]: forebay_log::cluster::Controller::take_over
pub(super) fn entries(decisions: Vec<Vec<Record>>) -> Vec<Vec<Record>> {
    let mut entries: Vec<Vec<Record>> = vec![Vec::new()];
    let mut room = ENTRY_BYTES;
    for decision in decisions {
        let sizes: Vec<usize> = decision.iter().map(encoded).collect();
        let mut begin = sizes.iter().sum::<usize>() > room;
        for (record, size) in decision.into_iter().zip(sizes) {
            if begin || size > room {
                entries.push(Vec::new());
                room = ENTRY_BYTES;
                begin = false;
            }
            room = room.saturating_sub(size);
            if let Some(entry) = entries.last_mut() {
                entry.push(record);
            }
        }
    }
    entries.retain(|entry| !entry.is_empty());
    entries
}

/// With the comma behind it.
fn encoded(record: &Record) -> usize {
    serde_json::to_vec(record).map_or(0, |bytes| bytes.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Entry;

    fn setting(bytes: usize) -> Record {
        Record::Setting { namespace: "rules".to_owned(), key: "k".to_owned(), value: Some("x".repeat(bytes)) }
    }

    fn shape(decisions: &[&[usize]]) -> Vec<usize> {
        let decided = |decision: &&[usize]| decision.iter().map(|bytes| setting(*bytes)).collect();
        let entries = entries(decisions.iter().map(decided).collect());
        for records in &entries {
            let entry = serde_json::to_vec(&Entry { base: u64::MAX, records: records.clone() }).unwrap();
            assert!(entry.len() <= MAX_ENTRY, "{} bytes", entry.len());
        }
        entries.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_decision_is_whole_in_one_entry_and_no_entry_is_too_large() {
        const MOST: usize = ENTRY_BYTES;
        assert_eq!(shape(&[]), [0usize; 0]);
        assert_eq!(shape(&[&[], &[1, 2], &[], &[3]]), [3]);
        assert_eq!(
            shape(&[&[MOST / 2], &[MOST / 3, MOST / 3]]),
            [1, 2],
            "not split only because others were before it"
        );
        assert_eq!(shape(&[&[MOST - 100; 3]]), [1, 1, 1], "what fits in none is split");
        assert_eq!(shape(&[&[10], &[MOST / 2, MOST / 3, MOST / 3, 10], &[10]]), [1, 2, 3]);
    }
}
