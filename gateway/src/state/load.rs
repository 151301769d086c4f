//! Loads the live set of a state topic from its log: what is damaged there is passed over, loudly, and what is whole holds.

use bytes::Bytes;
use forebay_cluster::{LogError, Partition};
use forebay_log::record::{BatchHeader, BatchProblem, Batches, RecordReader};
use forebay_log::{Offset, ReadError};

use super::live::Live;
use super::require_open;

/// Bytes read at once.
const LOAD_BYTES: usize = 4 << 20;
/// Damaged stretches that are told apart in the description; further ones are counted.
const TOLD_STRETCHES: usize = 8;

/// A live set, and what of its log could not be read.
pub(super) struct Loaded {
    pub(super) live: Live,
    /// In words; `None`: all of it was read.
    pub(super) damaged: Option<String>,
}

/// Replays the topic from its log start.
///
/// # Errors
/// The partition could not be opened, or its disk not be read: that may pass, so nothing is taken for lost.
pub(super) fn load(partition: &Partition) -> Result<Loaded, LogError> {
    // Taken for empty, it would be made empty by the next compaction.
    require_open(partition)?;
    let marks = partition.watermarks();
    let mut live = Live::default();
    let mut damage = Damage::new(partition);
    let mut next = marks.log_start;
    while next < marks.high_watermark {
        let before = next;
        match partition.read(next, LOAD_BYTES) {
            Ok(fetched) => replay(fetched.batches, marks.log_start, &mut next, &mut live, &mut damage),
            Err(ReadError::Corrupt { file, position, what, next: whole }) => {
                next = whole.max(before.next()).min(marks.high_watermark);
                damage.note(before, next, &format!("{file} at byte {position}: {what}"));
            }
            Err(error) => {
                let path = format!("{}-{} at offset {before}", partition.topic(), partition.index());
                return Err(LogError::Format { path, what: error.to_string() });
            }
        }
        if next <= before {
            next = marks.high_watermark;
            damage.note(before, next, "no batch where the log says there is one");
        }
    }
    Ok(Loaded { live, damaged: damage.told() })
}

/// Replays whole batches; `next` moves behind them.
fn replay(batches: Bytes, log_start: Offset, next: &mut Offset, live: &mut Live, damage: &mut Damage) {
    for batch in Batches::new(batches) {
        // The header was checked by the read; if it is wrong now, the caller sees that `next` stays.
        let Ok((header, batch)) = batch else { return };
        let from = *next;
        *next = header.next_offset();
        if !header.is_control()
            && let Err(problem) = replay_batch(&header, &batch, log_start, live)
        {
            damage.note(from, *next, &problem.to_string());
        }
    }
}

/// Replays one batch, all of it or nothing: changes that were made together hold together.
fn replay_batch(header: &BatchHeader, batch: &Bytes, log_start: Offset, live: &mut Live) -> Result<(), BatchProblem> {
    let records = RecordReader::new(header, batch)?.collect::<Result<Vec<_>, _>>()?;
    for record in records {
        // The log start may lie inside a batch.
        if let Some(key) = record.key.filter(|_| record.offset >= log_start) {
            live.replay(&key, record.value.as_deref());
        }
    }
    Ok(())
}

/// The stretches that were passed over.
struct Damage<'a> {
    partition: &'a Partition,
    stretches: Vec<String>,
    count: usize,
}

impl Damage<'_> {
    fn new(partition: &Partition) -> Damage<'_> {
        Damage { partition, stretches: Vec::new(), count: 0 }
    }

    fn note(&mut self, from: Offset, next: Offset, what: &str) {
        self.count += 1;
        if self.stretches.len() < TOLD_STRETCHES {
            tracing::error!(topic = self.partition.topic(), %from, up_to = %next, what, "damaged state is passed over");
            self.stretches.push(format!("offsets {from} up to {next} ({what})"));
        }
    }

    fn told(self) -> Option<String> {
        if self.count == 0 {
            return None;
        }
        let topic = self.partition.topic();
        let further = match self.count - self.stretches.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let told = format!("{topic}: {}{further}", self.stretches.join(", "));
        tracing::error!(
            topic,
            stretches = self.count,
            "changes of the node's own state are lost: what they set has its older value again or is missing, what they \
             removed is back; to have them, stop the node and put a whole copy of the partition's directory in its place"
        );
        Some(told)
    }
}
