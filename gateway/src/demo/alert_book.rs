//! Follows the topic of alert transitions and keeps the books: what fired, what was resolved, what still fires.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::{Log, Partition};
use forebay_log::Offset;
use forebay_log::record::{Batches, RecordReader};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::reader::Reader;

/// The topic of transitions.
const TOPIC: &str = "_alerts";
/// How often a topic that is not there yet is looked for, and a reader that failed tries again.
const RETRY: Duration = Duration::from_millis(200);
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// A record of the topic, as far as the demo needs it.
#[derive(Debug, Deserialize)]
struct Transition {
    alert: String,
    state: State,
    #[serde(default)]
    labels: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    annotations: serde_json::Map<String, serde_json::Value>,
    active_at: Option<String>,
    starts_at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Pending,
    Firing,
    Resolved,
}

/// The books.
#[derive(Debug, Default)]
pub(super) struct AlertBook {
    /// Alerts that became firing.
    pub(super) fired: u64,
    /// Alerts that fired and were resolved.
    pub(super) resolved: u64,
    /// Those that fire now, by their fingerprints.
    firing: BTreeSet<Bytes>,
    /// Records of the topic up to which the books are kept, over its partitions.
    pub(super) records: i64,
}

impl AlertBook {
    pub(super) fn firing(&self) -> u64 {
        self.firing.len() as u64
    }

    /// Enters a transition of the alert with this fingerprint (the record's key); returns a line about it when an alert began to fire.
    fn enter(&mut self, alert: &Bytes, json: &[u8]) -> Option<String> {
        let transition: Transition = serde_json::from_slice(json).ok()?;
        match transition.state {
            State::Pending => None,
            State::Firing => {
                let new = self.firing.insert(alert.clone());
                self.fired += u64::from(new);
                new.then(|| describe(&transition))
            }
            State::Resolved => {
                self.resolved += u64::from(self.firing.remove(alert));
                None
            }
        }
    }
}

fn describe(transition: &Transition) -> String {
    let text = |map: &serde_json::Map<String, serde_json::Value>, key: &str| {
        map.get(key).and_then(|value| value.as_str()).map(str::to_owned)
    };
    let what = text(&transition.annotations, "summary").or_else(|| text(&transition.labels, "meter"));
    let since = transition.starts_at.as_deref().or(transition.active_at.as_deref()).unwrap_or_default();
    format!("{} firing: {} ({since})", transition.alert, what.unwrap_or_default())
}

/// The books, and the task that keeps them.
pub(super) struct Follower {
    book: Arc<Mutex<AlertBook>>,
    task: tokio::task::JoinHandle<()>,
}

impl Follower {
    /// Starts to follow; a line about each alert that begins to fire goes to `lines` as long as there is room.
    pub(super) fn start(log: Log, reader: Reader, lines: mpsc::Sender<String>) -> Follower {
        let book = Arc::new(Mutex::new(AlertBook::default()));
        let task = tokio::spawn(follow(log, reader, book.clone(), lines));
        Follower { book, task }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, AlertBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Transitions in the topic now.
pub(super) fn transitions(log: &Log) -> i64 {
    log.topic(TOPIC).map_or(0, |topic| topic.partitions.iter().map(|p| p.watermarks().high_watermark.0).sum())
}

async fn follow(log: Log, reader: Reader, book: Arc<Mutex<AlertBook>>, lines: mpsc::Sender<String>) {
    let topic = loop {
        match log.topic(TOPIC) {
            Some(topic) => break topic,
            None => tokio::time::sleep(RETRY).await,
        }
    };
    let mut next: Vec<(Arc<Partition>, Offset)> = topic.partitions.iter().map(|p| (p.clone(), Offset::ZERO)).collect();
    loop {
        let mut moved = false;
        for (partition, offset) in &mut next {
            moved |= read_on(&reader, partition, offset, &book, &lines).await;
        }
        if !moved {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Enters what one read gives; whether there was anything.
async fn read_on(
    reader: &Reader,
    partition: &Arc<Partition>,
    offset: &mut Offset,
    book: &Mutex<AlertBook>,
    lines: &mpsc::Sender<String>,
) -> bool {
    let Ok(fetched) = reader.read(partition, *offset, READ_BYTES).await else { return false };
    let before = *offset;
    for (header, batch) in Batches::new(fetched.batches).flatten() {
        let mut fired = Vec::new();
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        for record in RecordReader::new(&header, &batch).into_iter().flatten().flatten() {
            if let (Some(alert), Some(value)) = (&record.key, &record.value)
                && record.offset >= before
            {
                fired.extend(book.enter(alert, value));
            }
        }
        *offset = header.next_offset();
        book.records += offset.0 - header.base_offset.0.max(before.0);
        for line in fired {
            // A full queue means that there is more to tell than anyone reads.
            let _ = lines.try_send(line);
        }
    }
    *offset > before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(book: &mut AlertBook, alert: &'static str, state: &str) -> Option<String> {
        let json = serde_json::json!({
            "id": format!("{alert}-{state}"), "alert": "Overvoltage", "state": state, "labels": {"meter": "m1"},
            "annotations": {"summary": "m1 at 251 V"}, "active_at": "2009-02-01T04:05:00Z",
            "starts_at": "2009-02-01T04:08:00Z", "ends_at": null, "value": 251.0
        });
        book.enter(&Bytes::from(alert), json.to_string().as_bytes())
    }

    #[test]
    fn what_fired_is_what_was_resolved_and_what_still_fires() {
        let mut book = AlertBook::default();
        assert_eq!(enter(&mut book, "a", "pending"), None);
        let line = enter(&mut book, "a", "firing");
        assert_eq!(line.as_deref(), Some("Overvoltage firing: m1 at 251 V (2009-02-01T04:08:00Z)"));
        enter(&mut book, "b", "firing");
        enter(&mut book, "a", "resolved");
        enter(&mut book, "c", "pending");
        enter(&mut book, "c", "resolved");
        assert_eq!((book.fired, book.resolved, book.firing()), (2, 1, 1));
    }

    #[test]
    fn a_record_told_twice_counts_once() {
        let mut book = AlertBook::default();
        assert!(enter(&mut book, "a", "firing").is_some());
        assert_eq!(enter(&mut book, "a", "firing"), None);
        assert_eq!(book.fired, 1);
    }
}
