//! Gathers the publishes of one socket read into one chunk per partition and submits them together.

use std::sync::Arc;

use forebay_cluster::{AppendData, Chain, Log, Partition, Ticket, Topic, Writer, Written};
use forebay_log::limits::{BATCH_HEADER_BYTES, GATHER_BATCH_BYTES, GATHER_BATCH_RECORDS};
use forebay_log::partitioner::partition_for_key;
use forebay_log::record::RecordChunk;
use forebay_log::{AppendError, Epoch, Millis};
use tokio::sync::watch;

use super::Router;
use super::publish::{Publish, record_bytes, with_headers};

/// Collects publishes; one per connection, reused.
pub struct Gather {
    log: Log,
    router: Arc<Router>,
    changes: watch::Receiver<u64>,
    topics: Vec<CachedTopic>,
    /// Chunks in the order in which they were begun; a partition has several when one grows full.
    slots: Vec<Slot>,
    by_publish: Vec<u32>,
    bytes: usize,
    /// Publishes and bytes that are likely to come: the first chunk begins with room for them.
    expected: (usize, usize),
    /// For a client that cannot be told of one refused publish: what it sent after goes the same way.
    chain: Option<Chain>,
    /// Whether every in-sync replica has to have it; else the leader is enough.
    all: bool,
    /// Of a client that leaves marks of what it publishes: they are looked for at the leaders that there were.
    writer: Option<Writer>,
}

/// A topic that was looked up, and the open slot of each of its partitions.
struct CachedTopic {
    name: Arc<str>,
    topic: Arc<Topic>,
    max_message_bytes: usize,
    open: Vec<Option<u32>>,
}

struct Slot {
    partition: Arc<Partition>,
    /// The leader that it had when the slot was opened.
    epoch: Epoch,
    chunk: RecordChunk,
}

/// Which ticket covers the n-th publish of a gather (several share one).
pub struct Tickets {
    /// In the order of first use; `by_publish[i]` indexes into this.
    pub tickets: Vec<Result<Ticket, AppendError>>,
    pub by_publish: Vec<u32>,
}

impl Gather {
    pub fn new(log: Log, router: Arc<Router>) -> Gather {
        let changes = log.topics_changed();
        Gather {
            log,
            router,
            changes,
            topics: Vec::new(),
            slots: Vec::new(),
            by_publish: Vec::new(),
            bytes: 0,
            expected: (0, 0),
            chain: None,
            all: true,
            writer: None,
        }
    }

    /// What is submitted is settled when the partition's leader has it (`durability.acks = leader`).
    #[must_use]
    pub fn content_with_leader(self) -> Gather {
        Gather { all: false, ..self }
    }

    /// From now on what is submitted belongs to `chain`.
    #[must_use]
    pub fn chained(self, chain: Option<Chain>) -> Gather {
        Gather { chain, ..self }
    }

    /// What was gathered until it is submitted is `writer`'s, and meant for the leaders that its partitions had when it came.
    pub fn written_by(&mut self, writer: Option<Writer>) {
        self.writer = writer;
    }

    /// Makes room for as much as the last gather of the connection held: buffers that grow step by step are copied each time.
    pub fn expect(&mut self, publishes: usize, bytes: usize) {
        self.by_publish.reserve(publishes);
        self.expected = (publishes, bytes);
    }

    /// Adds a publish that arrived at `now`; returns its partition (log topic, index) for those who must know. One that is
    /// refused here is not part of the gather: `Tickets::by_publish` does not count it.
    ///
    /// # Errors
    /// [`AppendError::TooLarge`], and [`AppendError::Offline`] when the log has no such topic.
    pub fn push(&mut self, now: Millis, publish: &Publish<'_>) -> Result<(Arc<str>, u32), AppendError> {
        let routed = self.router.route(publish.topic, publish.client_id, publish.payload);
        let bytes = record_bytes(publish, routed.key.len());
        if self.slots.is_empty() && self.changes.has_changed().unwrap_or(false) {
            self.changes.mark_unchanged();
            self.topics.clear();
        }
        let topic = find_topic(&mut self.topics, &self.log, routed.topic)?;
        if bytes + BATCH_HEADER_BYTES > topic.max_message_bytes {
            return Err(AppendError::TooLarge { bytes, limit: topic.max_message_bytes });
        }
        let partitions = u32::try_from(topic.open.len()).unwrap_or(u32::MAX);
        let index = partition_for_key(&routed.key, partitions);
        let slot = open_slot(&mut self.slots, topic, index, bytes, &mut self.expected)?;
        let chunk = &mut self.slots[slot as usize].chunk;
        let timestamp = routed.timestamp.unwrap_or(now);
        with_headers(publish, |headers| chunk.push(timestamp, Some(&routed.key), Some(publish.payload), headers));
        self.by_publish.push(slot);
        self.bytes += bytes;
        Ok((topic.name.clone(), index))
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes gathered, encoding included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Submits all that was gathered, waiting under back-pressure. Order within a partition is kept.
    pub async fn submit(&mut self) -> Tickets {
        for topic in &mut self.topics {
            topic.open.fill(None);
        }
        self.bytes = 0;
        let mut tickets = Vec::with_capacity(self.slots.len());
        for slot in self.slots.drain(..) {
            let (data, all) = (AppendData::Chunk(slot.chunk), self.all);
            let written = self.writer.map(|by| Written { by, epoch: slot.epoch });
            tickets.push(match (written, &self.chain) {
                (Some(written), chain) => slot.partition.submit_written(written, chain.as_ref(), all, data).await,
                (None, Some(chain)) => slot.partition.submit_chained(chain, all, data).await,
                (None, None) if all => slot.partition.submit(data).await,
                (None, None) => slot.partition.submit_to_leader(data).await,
            });
        }
        self.writer = None;
        Tickets { tickets, by_publish: std::mem::take(&mut self.by_publish) }
    }
}

fn find_topic<'c>(cache: &'c mut Vec<CachedTopic>, log: &Log, name: &str) -> Result<&'c mut CachedTopic, AppendError> {
    // Few topics take MQTT messages, so a walk beats a hash.
    let index = match cache.iter().position(|cached| &*cached.name == name) {
        Some(index) => index,
        None => {
            let topic = log.topic(name).ok_or_else(|| AppendError::Offline(format!("topic {name} does not exist")))?;
            cache.push(CachedTopic {
                name: name.into(),
                max_message_bytes: topic.config().max_message_bytes,
                open: vec![None; topic.partitions.len()],
                topic,
            });
            cache.len() - 1
        }
    };
    Ok(&mut cache[index])
}

/// The slot that takes `bytes` more for a partition: its open one, or a new one when that is full. The first new one has room for
/// what is `expected`.
fn open_slot(
    slots: &mut Vec<Slot>,
    topic: &mut CachedTopic,
    index: u32,
    bytes: usize,
    expected: &mut (usize, usize),
) -> Result<u32, AppendError> {
    let missing = || AppendError::Offline(format!("topic {} has no partition {index}", topic.name));
    let partition = topic.topic.partitions.get(index as usize).ok_or_else(missing)?;
    let open = topic.open.get_mut(index as usize).ok_or_else(missing)?;
    if let Some(slot) = *open {
        let chunk = &slots[slot as usize].chunk;
        // A chunk is stored whole, in one batch, or not at all.
        let limit = GATHER_BATCH_BYTES.min(topic.max_message_bytes.saturating_sub(BATCH_HEADER_BYTES));
        if chunk.bytes() + bytes <= limit && chunk.len() < GATHER_BATCH_RECORDS {
            return Ok(slot);
        }
    }
    let slot = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    let (records, room) = std::mem::take(expected);
    let (epoch, chunk) = (partition.leader_epoch(), RecordChunk::with_capacity(records, room));
    slots.push(Slot { partition: partition.clone(), epoch, chunk });
    *open = Some(slot);
    Ok(slot)
}

#[cfg(test)]
mod tests {
    use forebay_cluster::{LogOptions, RealFiles};
    use forebay_log::record::{Batches, Record, RecordReader};
    use forebay_log::{Offset, TopicConfig};

    use super::*;
    use crate::config::RouteConfig;

    fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
        let headers: &[(&'static str, &[u8])] = &[];
        Publish {
            topic,
            payload,
            client_id: "c",
            qos: 1,
            user_properties: &[],
            content_type: None,
            packet_id: None,
            headers,
        }
    }

    async fn gather(dir: &tempfile::TempDir, partitions: u32) -> (Log, Gather) {
        gather_into(dir, partitions, TopicConfig::default()).await
    }

    async fn gather_into(dir: &tempfile::TempDir, partitions: u32, config: TopicConfig) -> (Log, Gather) {
        let route = RouteConfig {
            filter: "meters/+/readings".into(),
            topic: "readings".into(),
            key: Some("{1}".into()),
            timestamp: Some("/ts".into()),
        };
        let router = Router::new(&[route]).unwrap_or_else(|error| panic!("{error}"));
        let files = RealFiles::open(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        let log = Log::open(files, LogOptions { shards: 2, fsync: false, alone: true })
            .unwrap_or_else(|error| panic!("{error}"));
        let made = log.create_topic("readings", partitions, config).await;
        assert!(made.is_ok());
        (log.clone(), Gather::new(log, Arc::new(router)))
    }

    fn read(log: &Log, partition: u32) -> Vec<Record> {
        let topic = log.topic("readings").unwrap_or_else(|| panic!("made"));
        let fetched = topic.partitions[partition as usize].read(Offset(0), 8 << 20).unwrap_or_else(|e| panic!("{e}"));
        let batches = Batches::new(fetched.batches).flatten();
        batches.flat_map(|(header, batch)| RecordReader::new(&header, &batch)).flatten().flatten().collect()
    }

    #[tokio::test]
    async fn each_meter_stays_in_its_partition_in_order_and_every_publish_has_its_ticket() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let (log, mut gather) = gather(&dir, 4).await;
        let mut partitions = Vec::new();
        for round in 0..3 {
            for meter in 0..10 {
                let topic = format!("meters/m{meter}/readings");
                let payload = format!("{{\"ts\":{},\"round\":{round}}}", 1_357_000_200 + round);
                let placed = gather.push(Millis(5), &publish(&topic, payload.as_bytes()));
                partitions.push(placed.map(|(topic, index)| (topic.to_string(), index)));
            }
        }
        assert!(!gather.is_empty() && gather.bytes() > 0);
        let tickets = gather.submit().await;
        assert!(gather.is_empty() && gather.bytes() == 0);
        assert_eq!(tickets.by_publish.len(), 30);
        assert!(tickets.tickets.len() <= 4, "one ticket a partition");
        for ticket in tickets.tickets {
            assert!(ticket.unwrap_or_else(|error| panic!("{error}")).await.is_ok());
        }
        for meter in 0..10usize {
            let key = format!("m{meter}");
            let index = partition_for_key(key.as_bytes(), 4);
            assert!(partitions.iter().skip(meter).step_by(10).all(|p| *p == Ok(("readings".to_owned(), index))));
            let records: Vec<Record> =
                read(&log, index).into_iter().filter(|r| r.key.as_deref() == Some(key.as_bytes())).collect();
            let times: Vec<i64> = records.iter().map(|record| record.timestamp.0).collect();
            assert_eq!(times, [1_357_000_200_000, 1_357_000_201_000, 1_357_000_202_000]);
            assert_eq!(records[0].header("mqtt.qos").map(|qos| &qos[..]), Some(&b"1"[..]));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_refused_alone() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let (_log, mut gather) = gather(&dir, 1).await;
        let large = vec![0u8; 2 << 20];
        let topic = "meters/m1/readings";
        assert!(matches!(gather.push(Millis(0), &publish(topic, &large)), Err(AppendError::TooLarge { .. })));
        assert!(matches!(gather.push(Millis(0), &publish("unrouted", b"x")), Err(AppendError::Offline(_))));
        assert!(gather.is_empty());
        // Several full chunks of one partition keep their order.
        let full = vec![b'x'; 300 << 10];
        for _ in 0..4 {
            assert!(gather.push(Millis(0), &publish(topic, &full)).is_ok());
        }
        let tickets = gather.submit().await;
        assert_eq!(tickets.by_publish, [0, 1, 2, 3]);
        let mut offsets = Vec::new();
        for ticket in tickets.tickets {
            let appended = ticket.unwrap_or_else(|error| panic!("{error}")).await;
            offsets.push(appended.map(|appended| appended.base_offset.0));
        }
        assert_eq!(offsets, [Ok(0), Ok(1), Ok(2), Ok(3)]);
    }

    #[tokio::test]
    async fn records_that_each_fit_max_message_bytes_are_not_refused_for_their_number() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let compression_type = forebay_log::topic::CompressionType::None;
        let config = TopicConfig { max_message_bytes: 4096, compression_type, ..TopicConfig::default() };
        let (_log, mut gather) = gather_into(&dir, 1, config).await;
        for size in (0..400).map(|n| n % 97) {
            assert!(gather.push(Millis(0), &publish("meters/m1/readings", &vec![b'x'; size])).is_ok());
        }
        for ticket in gather.submit().await.tickets {
            assert!(ticket.unwrap_or_else(|error| panic!("{error}")).await.is_ok());
        }
    }
}
