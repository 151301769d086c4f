//! Producing over Kafka's protocol: batches made ahead of time, several requests in flight on each connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use bytes::BytesMut;
use forebay_log::record::{BatchBuilder, Compression};
use forebay_log::{Epoch, Millis, Offset};
use kafka_protocol::messages::ProduceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fleet::{self, Account, Generator, Shared, Times};
use super::pace::{Limits, Pace, Turn};
use super::payload::{Deck, NAME_BYTES};
use super::progress::{Progress, Show};
use super::readback::Readback;
use super::report::{Facts, Report};
use super::tally::Reason;
use super::{Load, Names, Payload, Verify};
use crate::client::kafka::{
    Bootstrap, Client, PRODUCE, Reader, Refused, Stream, Writer, answer, frame, produce_request, read_frame,
};

/// Requests made ahead of time for each client.
const PREPARED: u64 = 4;
/// What a record takes besides key and value, about.
const RECORD_OVERHEAD: usize = 10;
/// Where a request has its correlation id.
const CORRELATION: std::ops::Range<usize> = 8..12;

/// What an acknowledgement waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KafkaAcks {
    None,
    Leader,
    All,
}

impl KafkaAcks {
    fn code(self) -> i16 {
        match self {
            KafkaAcks::None => 0,
            KafkaAcks::Leader => 1,
            KafkaAcks::All => -1,
        }
    }
}

/// A benchmark that produces.
#[derive(Debug, Clone)]
pub(crate) struct KafkaBench {
    pub(crate) bootstrap: Bootstrap,
    pub(crate) topic: String,
    pub(crate) acks: KafkaAcks,
    /// Of a batch before compression.
    pub(crate) batch_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) load: Load,
    pub(crate) payload: Payload,
    pub(crate) verify: bool,
    pub(crate) show: Show,
}

impl KafkaBench {
    /// Connects, produces, reads back if that is asked for, and sums up.
    ///
    /// # Errors
    /// The broker cannot be reached, or what was sent cannot be read back.
    pub(crate) async fn run(self) -> anyhow::Result<Report> {
        let deck = Arc::new(self.payload.deck()?);
        let verify = Verify { bootstrap: self.bootstrap.clone(), topic: self.topic.clone() };
        let readback = if self.verify { Some(Readback::begin(&verify, &deck).await?) } else { None };
        let names = Names::new();
        let facts = Facts {
            protocol: "kafka produce",
            clients: self.load.clients,
            inflight: self.load.inflight,
            acks: match self.acks {
                KafkaAcks::None => "acks=0",
                KafkaAcks::Leader => "acks=1",
                KafkaAcks::All => "acks=all",
            },
            rate: self.load.rate,
        };
        let (load, show, promised) = (self.load.clone(), self.show, self.acks != KafkaAcks::None);
        let producer = Producer { bench: self, deck: deck.clone(), names: names.clone() };
        let done = fleet::run(producer, &load, Progress::new(show)).await?;
        let verdict = match readback {
            Some(readback) => Some(readback.end(&deck, &names, &done.accounts, promised).await?),
            None => None,
        };
        Ok(Report::new(facts, done.tally, verdict))
    }
}

struct Producer {
    bench: KafkaBench,
    deck: Arc<Deck>,
    names: Names,
}

impl Generator for Producer {
    type Road = ();
    type Client = Connection;

    fn road(&self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn connect(&self, _road: &(), number: usize) -> anyhow::Result<Connection> {
        let bench = &self.bench;
        let mut client = Client::connect(&bench.bootstrap).await?;
        let topic = client.topic(&bench.topic, true).await?;
        let partition = topic.partitions.get(number % topic.partitions.len().max(1));
        let partition = partition.with_context(|| format!("topic {} has no partitions", topic.name))?;
        let (stream, version) = client.raw::<ProduceRequest>(partition.leader, PRODUCE).await?;
        let per_record = self.deck.average() + NAME_BYTES + RECORD_OVERHEAD;
        let source = Source {
            deck: self.deck.clone(),
            name: self.names.name(number),
            number,
            topic: topic.name,
            partition: partition.index,
            version,
            acks: bench.acks.code(),
            compression: bench.compression,
            records: (bench.batch_bytes / per_record).max(1) as u64,
            total: bench.load.count_of(number),
            is_read_back: bench.verify,
            prepared: Vec::new(),
        };
        Ok(Connection { stream, source: source.prepare()? })
    }

    async fn drive(&self, client: Connection, number: usize, times: Times, shared: Shared) -> Account {
        let load = &self.bench.load;
        let records = client.source.records;
        let limits = Limits { end: times.end, count: client.source.total.div_ceil(records) };
        #[expect(clippy::cast_precision_loss, reason = "records of a batch")]
        let rate = load.rate.map(|rate| rate / records as f64);
        let pace = Pace::new(rate, number, load.clients, limits);
        client.run(pace, usize::from(load.inflight), times, &shared).await
    }
}

/// Makes a client's requests.
struct Source {
    deck: Arc<Deck>,
    name: [u8; NAME_BYTES],
    number: usize,
    topic: String,
    partition: i32,
    version: i16,
    acks: i16,
    compression: Compression,
    /// Of a full batch.
    records: u64,
    /// Messages that are to be sent in all.
    total: u64,
    /// Each message must have its own number: nothing is used twice.
    is_read_back: bool,
    prepared: Vec<Request>,
}

#[derive(Clone)]
struct Request {
    frame: BytesMut,
    records: u64,
    /// Of the values.
    bytes: u64,
}

impl Source {
    fn prepare(mut self) -> anyhow::Result<Source> {
        if !self.is_read_back {
            let prepared = (0..PREPARED).map(|batch| self.make(batch * self.records, self.records));
            self.prepared = prepared.collect::<anyhow::Result<_>>()?;
        }
        Ok(self)
    }

    /// The request with the messages from `seq` on.
    fn request(&mut self, seq: u64, correlation: i32) -> anyhow::Result<Request> {
        let records = self.records.min(self.total - seq);
        let batch = usize::try_from(seq / self.records % PREPARED)?;
        if let Some(prepared) = self.prepared.get_mut(batch).filter(|request| request.records == records) {
            // Taken out to be written, and put back by `recycle`.
            let mut request = Request { frame: std::mem::take(&mut prepared.frame), ..*prepared };
            request.frame[CORRELATION].copy_from_slice(&correlation.to_be_bytes());
            return Ok(request);
        }
        let mut request = self.make(seq, records)?;
        request.frame[CORRELATION].copy_from_slice(&correlation.to_be_bytes());
        Ok(request)
    }

    fn recycle(&mut self, seq: u64, request: Request) {
        let batch = usize::try_from(seq / self.records % PREPARED).unwrap_or(0);
        if let Some(place) = self.prepared.get_mut(batch).filter(|place| place.frame.is_empty()) {
            *place = request;
        }
    }

    fn make(&self, seq: u64, records: u64) -> anyhow::Result<Request> {
        let now = Millis::from_system(SystemTime::now());
        let mut time = super::payload::TimeText::default();
        let mut builder = BatchBuilder::new(self.compression);
        let mut value = Vec::new();
        let mut bytes = 0;
        for (delta, seq) in (seq..seq + records).enumerate() {
            value.clear();
            value.extend_from_slice(self.deck.card(self.number, seq));
            self.deck.fill(&mut value, &self.name, seq, time.text(now));
            bytes += value.len() as u64;
            builder.push(i32::try_from(delta)?, now, Some(&self.name), Some(&value), &[]);
        }
        let batch = builder.build(Offset::ZERO, Epoch(-1)).context("a batch without records")?;
        let request = produce_request(&self.topic, self.partition, batch, self.acks);
        Ok(Request { frame: frame(&request, self.version, 0)?, records, bytes })
    }
}

struct Connection {
    stream: Stream,
    source: Source,
}

/// Sent, and not yet answered.
struct Open {
    correlation: i32,
    seq: u64,
    records: u64,
    bytes: u64,
    due: u64,
}

/// What both halves of a connection know.
struct Window {
    permits: Semaphore,
    size: u32,
    open: Mutex<VecDeque<Open>>,
    refused: Mutex<Vec<(u64, u64)>>,
}

impl Connection {
    async fn run(self, pace: Pace, inflight: usize, times: Times, shared: &Shared) -> Account {
        let window = Window {
            permits: Semaphore::new(inflight),
            size: u32::try_from(inflight).unwrap_or(u32::MAX),
            open: Mutex::default(),
            refused: Mutex::default(),
        };
        let (version, has_acks) = (self.source.version, self.source.acks != 0);
        let (reader, writer) = self.stream.into_split();
        let mut sent = 0;
        let ended = tokio::select! {
            ended = send(writer, self.source, pace, &window, times, shared, &mut sent) => ended,
            error = receive(reader, version, has_acks, &window, times, shared) => error,
        };
        let tally = &mut shared.lock().tally;
        if let Err(error) = ended {
            tally.error(Reason::Other(format!("{error:#}")), 1);
        }
        let mut unacked: Vec<u64> = Vec::new();
        for open in lock(&window.open).drain(..) {
            tally.missing += open.records;
            unacked.extend(open.seq..open.seq + open.records);
        }
        unacked.extend(lock(&window.refused).drain(..).flat_map(|(seq, records)| seq..seq + records));
        unacked.sort_unstable();
        Account { sent, unacked }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends until the schedule is over and all is answered.
async fn send(
    mut writer: Writer,
    mut source: Source,
    mut pace: Pace,
    window: &Window,
    times: Times,
    shared: &Shared,
    sent: &mut u64,
) -> anyhow::Result<()> {
    let drain = Duration::from_nanos(times.drain);
    let silent = || anyhow!("the broker did not answer for {} s", drain.as_secs());
    let has_acks = source.acks != 0;
    let mut correlation = 0i32;
    loop {
        let permit = timeout(drain, window.permits.acquire()).await.map_err(|_| silent())??;
        let due = match pace.turn(times.now()) {
            Turn::Over => break,
            Turn::Wait { until } => {
                tokio::time::sleep_until(times.at(until)).await;
                continue;
            }
            Turn::Send { due } => due,
        };
        correlation = correlation.wrapping_add(1);
        let (seq, request) = (*sent, source.request(*sent, correlation)?);
        let (records, bytes) = (request.records, request.bytes);
        if has_acks {
            permit.forget();
            lock(&window.open).push_back(Open { correlation, seq, records, bytes, due });
        }
        shared.lock().tally.sent(records, due, times.now());
        *sent += records;
        pace.sent();
        timeout(drain, writer.write_all(&request.frame))
            .await
            .map_err(|_| silent())?
            .context("the connection was lost")?;
        source.recycle(seq, request);
        if !has_acks {
            shared.lock().tally.done(records, bytes, times.now());
        }
    }
    if has_acks {
        // All permits are back when everything is answered.
        drop(timeout(drain, window.permits.acquire_many(window.size)).await.map_err(|_| silent())??);
        return Ok(());
    }
    // The broker closes when it has read everything; then `receive` ends.
    writer.shutdown().await.context("the connection was lost")?;
    tokio::time::sleep(drain).await;
    bail!("the broker did not close for {} s", drain.as_secs())
}

/// Takes answers until the broker closes, which is right only where no answers are due.
async fn receive(
    mut reader: Reader,
    version: i16,
    has_acks: bool,
    window: &Window,
    times: Times,
    shared: &Shared,
) -> anyhow::Result<()> {
    if !has_acks {
        let mut byte = [0];
        let read = reader.read(&mut byte).await.context("the connection was lost")?;
        anyhow::ensure!(read == 0, "the broker answered where no answer is due");
        shared.lock().tally.done(0, 0, times.now());
        return Ok(());
    }
    let mut buffer = BytesMut::new();
    loop {
        let frame = read_frame(&mut reader, &mut buffer).await.context("the connection was lost")?;
        let now = times.now();
        let (correlation, answer) =
            answer::<ProduceRequest>(frame, version).context("an answer that cannot be read")?;
        let open = lock(&window.open).pop_front().filter(|open| open.correlation == correlation);
        let open = open.context("an answer to a request that nobody made")?;
        let parts = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        let code = parts.map(|part| part.error_code).next().context("an answer that tells of no partition")?;
        if code == 0 {
            shared.lock().tally.acked(open.records, open.bytes, open.due, now);
        } else {
            let reason = Refused::new("refused", code).to_string();
            shared.lock().tally.error(Reason::Other(reason), open.records);
            lock(&window.refused).push((open.seq, open.records));
        }
        window.permits.add_permits(1);
    }
}
