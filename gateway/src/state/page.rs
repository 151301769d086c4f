//! Reads a state topic's log page by page: what is damaged there is passed over, loudly, and what is whole holds.

use std::sync::Arc;

use bytes::Bytes;
use forebay_cluster::{Fetched, Partition};
use forebay_log::record::{BatchHeader, BatchProblem, Batches, RecordReader};
use forebay_log::{Offset, ReadError};

use super::Change;

/// Bytes read at once.
const PAGE_BYTES: usize = 4 << 20;
/// Damaged stretches that are told apart in the description; further ones are counted.
const TOLD_STRETCHES: usize = 8;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// The replica here, or the leader where there is none.
    Nearest,
    Leader,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) changes: Vec<Change>,
    /// What follows begins here.
    pub(super) next: Offset,
}

/// Reads from `next` on. An empty page whose `next` is the one asked for: there is nothing more now.
///
/// # Errors
/// The log cannot be read now: that may pass, so nothing is taken for lost.
pub(super) async fn read(
    partition: &Arc<Partition>,
    from: From,
    next: Offset,
    damage: &mut Damage,
) -> Result<Page, ReadError> {
    let fetched = if from == From::Nearest && partition.is_here() {
        let reading = Arc::clone(partition);
        let read = tokio::task::spawn_blocking(move || reading.read(next, PAGE_BYTES)).await;
        read.unwrap_or_else(|_| Err(ReadError::Offline("the node stops".to_owned())))
    } else {
        partition.fetch_from_leader(next, PAGE_BYTES).await
    };
    match fetched {
        Ok(fetched) => Ok(decode(fetched, next, damage)),
        Err(ReadError::Corrupt { file, position, what, next: whole }) => {
            let marks = partition.watermarks();
            let page = Page { next: whole.max(next.next()).min(marks.high_watermark.max(next)), ..Page::default() };
            damage.note(next, page.next, &format!("{file} at byte {position}: {what}"));
            Ok(page)
        }
        // The log begins later by now, or whoever was asked does not have as much yet as is known to be committed.
        Err(ReadError::OutOfRange { start, .. }) => Ok(Page { next: next.max(start), ..Page::default() }),
        Err(error) => Err(error),
    }
}

fn decode(fetched: Fetched, asked: Offset, damage: &mut Damage) -> Page {
    let Fetched { batches, watermarks } = fetched;
    let mut page = Page { changes: Vec::new(), next: asked };
    for batch in Batches::new(batches) {
        // The header was checked by the read; if it is wrong now, what follows `next` is damaged.
        let Ok((header, batch)) = batch else { break };
        let from = page.next;
        page.next = header.next_offset().max(from);
        if header.is_control() {
            continue;
        }
        match decode_batch(&header, &batch, from) {
            Ok(changes) => page.changes.extend(changes),
            Err(problem) => damage.note(from, page.next, &problem.to_string()),
        }
    }
    if page.next == asked && asked < watermarks.high_watermark {
        page.next = watermarks.high_watermark;
        damage.note(asked, page.next, "no batch where the log says there is one");
    }
    page
}

/// The changes of one batch from an offset on, all of them or nothing: changes that were made together hold together. Copies,
/// so that a small entry does not keep its whole batch in memory.
fn decode_batch(header: &BatchHeader, batch: &Bytes, from: Offset) -> Result<Vec<Change>, BatchProblem> {
    let records = RecordReader::new(header, batch)?.collect::<Result<Vec<_>, _>>()?;
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let changes = records.iter().filter(|record| record.offset >= from);
    Ok(changes.filter_map(|record| Some((copy(record.key.as_ref()?), record.value.as_ref().map(copy)))).collect())
}

/// The stretches that were passed over.
pub(super) struct Damage {
    topic: String,
    stretches: Vec<String>,
    count: usize,
}

impl Damage {
    pub(super) fn new(topic: &str) -> Damage {
        Damage { topic: topic.to_owned(), stretches: Vec::new(), count: 0 }
    }

    fn note(&mut self, from: Offset, next: Offset, what: &str) {
        self.count += 1;
        if self.stretches.len() < TOLD_STRETCHES {
            tracing::error!(topic = self.topic, %from, up_to = %next, what, "damaged state is passed over");
            self.stretches.push(format!("offsets {from} up to {next} ({what})"));
        }
    }

    /// In words; `None`: all of it was read.
    pub(super) fn told(&self) -> Option<String> {
        if self.count == 0 {
            return None;
        }
        let topic = &self.topic;
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
