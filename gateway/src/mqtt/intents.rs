//! Exactly once across a crash: the marks of publishes whose packet ids are in use, and what a start makes of them.
//!
//! A mark is durable before its publish is appended, and says where the log ended then. After a crash the record is either
//! behind that place, so that the client only has to be told PUBREC again, or it was never appended and the mark goes.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use forebay_cluster::{Log, Writer};
use forebay_log::record::{Batches, RecordReader};
use forebay_log::{Epoch, Offset, ReadError};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::ownership::{client_of, state_of};
use super::record;
use super::session::parse_intent_key;
use super::session::stored::{self, EntryProblem};
use crate::reader::Reader;
use crate::state::StateTopic;

/// Bytes of the log read at once in the search.
const SEARCH_BYTES: usize = 1 << 20;
/// How long the searches wait for partitions to have a leader, and for what it has to be committed.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Pause before a partition without a leader is tried again.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

/// The stored value of a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The record, if it was appended, is at or behind `from`, by the leader of `epoch` or one before.
    Intent { topic: String, partition: u32, from: Offset, epoch: Epoch },
    /// It was appended.
    Received,
}

impl Mark {
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        stored::put_format(stored::FORMAT, &mut out);
        match self {
            Mark::Received => out.put_u8(1),
            Mark::Intent { topic, partition, from, epoch } => {
                out.put_u8(0);
                stored::put_text(topic, &mut out);
                out.put_u32(*partition);
                out.put_i64(from.0);
                out.put_i32(epoch.0);
            }
        }
        out.freeze()
    }

    fn decode(mut value: Bytes) -> Result<Mark, EntryProblem> {
        stored::expect_format(stored::FORMAT, &mut value)?;
        match value.try_get_u8() {
            Ok(1) => Ok(Mark::Received),
            Ok(0) => {
                let topic = stored::take_text(&mut value)?.as_str().to_owned();
                let partition = value.try_get_u32().map_err(|_| EntryProblem::Damaged)?;
                let from = value.try_get_i64().map_err(|_| EntryProblem::Damaged)?;
                // Marks of before end here.
                let epoch = if value.is_empty() { Ok(0) } else { value.try_get_i32() };
                let epoch = Epoch(epoch.map_err(|_| EntryProblem::Damaged)?);
                Ok(Mark::Intent { topic, partition, from: Offset(from), epoch })
            }
            _ => Err(EntryProblem::Damaged),
        }
    }
}

/// Stream and packet id of a publish that was received.
pub(crate) type Receipt = (u64, u16);

/// The exactly-once publishes of one client whose packet ids are in use.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    pub(crate) received: Vec<Receipt>,
    /// The log could not be searched for them. Their marks stay: when the client connects again, or at the next start, they are
    /// looked for again.
    pub(crate) unsettled: Vec<Receipt>,
}

/// A mark whose record is looked for: client, stream and packet id.
type Wanted = (String, u64, u16);

/// The marks of one partition whose records are looked for.
struct Open {
    from: Offset,
    /// The latest leadership that any of them was meant for.
    epoch: Epoch,
    wanted: HashSet<Wanted>,
}

impl Open {
    /// Who was to append them.
    fn writers(&self) -> Vec<Writer> {
        let owners: HashSet<Writer> =
            self.wanted.iter().filter_map(|(name, _, _)| state_of(name)).map(Writer::from).collect();
        owners.into_iter().collect()
    }
}

/// Resolves the stored marks of the sessions whose name begins with `prefix` and is wanted: the receipts of each name. Should what
/// is found not be stored, the marks are resolved again another time.
pub(crate) async fn resolve(
    sessions: &StateTopic,
    log: &Log,
    reader: &Reader,
    prefix: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> BTreeMap<String, Receipts> {
    let deadline = Instant::now() + COMMIT_PATIENCE;
    let mut receipts: BTreeMap<String, Receipts> = BTreeMap::new();
    let mut open: BTreeMap<(String, u32), Open> = BTreeMap::new();
    let mut changes = Vec::new();
    let mut keys = BTreeMap::new();
    for (key, value) in sessions.scan(format!("q2/{prefix}").as_bytes()) {
        let Some((client, stream, packet_id)) = parse_intent_key(&key) else { continue };
        if !is_wanted(client) {
            continue;
        }
        match Mark::decode(value) {
            Ok(Mark::Received) => {
                receipts.entry(client.to_owned()).or_default().received.push((stream, packet_id));
            }
            Ok(Mark::Intent { topic, partition, from, epoch }) => {
                let wanted = (client.to_owned(), stream, packet_id);
                keys.insert(wanted.clone(), key.clone());
                let open =
                    open.entry((topic, partition)).or_insert_with(|| Open { from, epoch, wanted: HashSet::new() });
                open.from = from.min(open.from);
                open.epoch = epoch.max(open.epoch);
                open.wanted.insert(wanted);
            }
            Err(problem) => warn!(client, packet_id, %problem, "cannot read the mark of an exactly-once publish"),
        }
    }
    for ((topic, partition), open) in open {
        let (found, failed) = search(log, reader, (&topic, partition), &open, deadline).await;
        let Open { from, wanted, .. } = open;
        let client = wanted.iter().next().map(|(name, _, _)| client_of(name)).unwrap_or_default();
        info!(
            topic,
            partition,
            from = from.0,
            client,
            marks = wanted.len(),
            found = found.len(),
            "looked for exactly-once publishes that were on their way when their connection or node went"
        );
        if let Some(error) = &failed {
            error!(
                topic,
                partition,
                %error,
                client,
                unsettled = wanted.len() - found.len(),
                "cannot read the log to look for exactly-once publishes that were on their way: a client that sends one \
                 again is disconnected, and it is looked for again whenever the client connects"
            );
        }
        for mark in wanted {
            let received = found.contains(&mark);
            if !received && failed.is_some() {
                receipts.entry(mark.0).or_default().unsettled.push((mark.1, mark.2));
                continue;
            }
            if let Some(key) = keys.remove(&mark) {
                changes.push((key, received.then(|| Mark::Received.encode())));
            }
            if received {
                receipts.entry(mark.0).or_default().received.push((mark.1, mark.2));
            }
        }
    }
    if let Err(error) = sessions.put_all(changes).await {
        warn!(%error, "what became of exactly-once publishes is not stored: it will be looked for again");
    }
    receipts
}

/// Which of those that are wanted are in the partition, and what kept it from being read to its end. Ends as soon as all are found;
/// they lie close behind the first offset. What is not found does not come any more.
async fn search(
    log: &Log,
    reader: &Reader,
    (topic, partition): (&str, u32),
    open: &Open,
    deadline: Instant,
) -> (HashSet<Wanted>, Option<ReadError>) {
    let Open { from, epoch, wanted } = open;
    let writers = open.writers();
    let mut fenced = false;
    let mut found = HashSet::new();
    // A topic that was deleted has taken its records along.
    let Some(topic) = log.topic(topic) else { return (found, None) };
    let Some(partition) = topic.partitions.get(partition as usize) else { return (found, None) };
    let mut next = (*from).max(partition.watermarks().log_start);
    // What the leader had at the beginning is looked through when it is committed.
    let mut end = None;
    while found.len() < wanted.len() {
        let read = async {
            if !fenced {
                partition.fence_writers(&writers, *epoch).await?;
                fenced = true;
            }
            reader.read_at_leader(partition, next, SEARCH_BYTES).await
        };
        let batches = match read.await {
            Ok(fetched) => {
                let end = *end.get_or_insert(fetched.watermarks.log_end);
                if fetched.batches.is_empty() && next < end {
                    if Instant::now() >= deadline {
                        let why = format!("the records up to offset {end} are not committed yet");
                        return (found, Some(ReadError::Offline(why)));
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
                fetched.batches
            }
            // The topic was deleted and made again, and is shorter now.
            Err(ReadError::OutOfRange { end, .. }) if end < next => break,
            // Retention has moved the log start meanwhile.
            Err(ReadError::OutOfRange { start, .. }) if start > next => {
                next = start;
                continue;
            }
            // Without a leader that may speak for a while; what is wrong with a replica that leads here does not pass.
            Err(ReadError::Offline(_))
                if !(partition.leads() && partition.unopened().is_some()) && Instant::now() < deadline =>
            {
                tokio::time::sleep(LEADER_PAUSE).await;
                continue;
            }
            Err(error) => return (found, Some(error)),
        };
        let before = next;
        for batch in Batches::new(batches) {
            let Ok((header, batch)) = batch else { break };
            next = header.next_offset();
            let Ok(records) = RecordReader::new(&header, &batch) else { continue };
            for record in records.map_while(Result::ok).filter(|record| record.offset >= before) {
                if let Some((client, stream, packet_id)) = record::exactly_once_id(&record) {
                    let is_it =
                        |mark: &&Wanted| client_of(&mark.0) == client && (mark.1, mark.2) == (stream, packet_id);
                    found.extend(wanted.iter().find(is_it).cloned());
                }
            }
        }
        if next <= before {
            break;
        }
    }
    (found, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_back_as_they_were_written_and_damage_is_refused() {
        let intent = Mark::Intent { topic: "readings".into(), partition: 3, from: Offset(77), epoch: Epoch(5) };
        let before = intent.encode();
        assert!(matches!(Mark::decode(before.slice(..before.len() - 4)), Ok(Mark::Intent { epoch: Epoch(0), .. })));
        for mark in [Mark::Received, intent] {
            let value = mark.encode();
            assert_eq!(Mark::decode(value.clone()), Ok(mark));
            assert_eq!(Mark::decode(value.slice(..value.len() - 1)), Err(EntryProblem::Damaged));
        }
        assert_eq!(Mark::decode(Bytes::from_static(&[9, 1])), Err(EntryProblem::Format(9)));
    }
}
