//! Fetching over Kafka's protocol: each client reads its partitions from their beginning, again and again.

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use forebay_log::Offset;
use forebay_log::record::Batches;
use kafka_protocol::messages::FetchRequest;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::Load;
use super::fleet::{self, Account, Generator, Shared, Times};
use super::pace::{Limits, Pace, Turn};
use super::progress::{Progress, Show};
use super::report::{Facts, Report};
use super::tally::Reason;
use crate::client::kafka::{At, Bootstrap, Client, FETCH, Refused, Stream, answer, fetch_request, frame, read_frame};

/// Bytes asked for in one fetch.
const FETCH_BYTES: usize = 4 << 20;
/// How long the broker may wait for a first record: everything asked for is there.
const WAIT: Duration = Duration::from_millis(500);

/// A benchmark that fetches.
#[derive(Debug, Clone)]
pub(crate) struct FetchBench {
    pub(crate) bootstrap: Bootstrap,
    pub(crate) topic: String,
    pub(crate) load: Load,
    pub(crate) show: Show,
}

impl FetchBench {
    /// Connects, reads and sums up.
    ///
    /// # Errors
    /// The broker cannot be reached, or there is no such topic.
    pub(crate) async fn run(self) -> anyhow::Result<Report> {
        let load = self.load.clone();
        let facts = Facts { protocol: "kafka fetch", clients: load.clients, inflight: 1, acks: "reading", rate: None };
        let progress = Progress::new(self.show);
        let done = fleet::run(self, &load, progress).await?;
        Ok(Report::new(facts, done.tally, None))
    }
}

/// A connection and the partition that it reads.
pub(crate) struct Reading {
    stream: Stream,
    version: i16,
    topic: String,
    partition: i32,
    start: Offset,
    end: Offset,
}

impl Generator for FetchBench {
    type Road = ();
    type Client = Reading;

    fn road(&self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn connect(&self, _road: &(), number: usize) -> anyhow::Result<Reading> {
        let mut client = Client::connect(&self.bootstrap).await?;
        let topic = client.topic(&self.topic, false).await?;
        // The partitions with records, shared out among the clients.
        let mut full = Vec::new();
        for partition in &topic.partitions {
            let start = client.offset(partition.leader, &topic.name, partition.index, At::Beginning).await?;
            let end = client.offset(partition.leader, &topic.name, partition.index, At::End).await?;
            full.extend((start < end).then_some((partition.leader, partition.index, start, end)));
        }
        let chosen = full.get(number % full.len().max(1)).copied();
        let (leader, partition, start, end) =
            chosen.with_context(|| format!("topic {} has no records to fetch", topic.name))?;
        let (stream, version) = client.raw::<FetchRequest>(leader, FETCH).await?;
        Ok(Reading { stream, version, topic: topic.name, partition, start, end })
    }

    async fn drive(&self, mut client: Reading, number: usize, times: Times, shared: Shared) -> Account {
        let limits = Limits { end: times.end, count: u64::MAX };
        let pace = Pace::new(None, number, self.load.clients, limits);
        if let Err(error) = client.read(&pace, self.load.count_of(number), times, &shared).await {
            shared.lock().tally.error(Reason::Other(format!("{error:#}")), 1);
        }
        Account::default()
    }
}

impl Reading {
    async fn read(&mut self, pace: &Pace, count: u64, times: Times, shared: &Shared) -> anyhow::Result<()> {
        let (mut buffer, mut next, mut total) = (BytesMut::new(), self.start, 0);
        let mut correlation = 0;
        while let Turn::Send { due } = pace.turn(times.now())
            && total < count
        {
            correlation += 1;
            let request = fetch_request(&self.topic, &[(self.partition, next)], FETCH_BYTES, WAIT);
            let request = frame(&request, self.version, correlation)?;
            let exchange = async {
                self.stream.write_all(&request).await?;
                read_frame(&mut self.stream, &mut buffer).await
            };
            let limit = Duration::from_nanos(times.drain);
            let got = timeout(limit, exchange).await;
            let got = got.map_err(|_| anyhow::anyhow!("the broker did not answer for {} s", limit.as_secs()))?;
            let (_, answer) = answer::<FetchRequest>(got.context("the connection was lost")?, self.version)?;
            let part = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
            let part = part.context("an answer that tells of no partition")?;
            if part.error_code != 0 {
                return Err(Refused::new("refused", part.error_code).into());
            }
            let records = part.records.unwrap_or_default();
            let bytes = records.len() as u64;
            let (messages, after) = count_records(records, next)?;
            let mut counts = shared.lock();
            counts.tally.sent(messages, due, due);
            counts.tally.acked(messages, bytes, due, times.now());
            drop(counts);
            total += messages;
            next = if after >= self.end { self.start } else { after };
        }
        Ok(())
    }
}

/// Records in whole batches, and the offset behind the last of them.
fn count_records(batches: Bytes, from: Offset) -> anyhow::Result<(u64, Offset)> {
    let (mut records, mut next) = (0, from);
    // Kafka may cut the last batch off; the next fetch begins with it.
    for (header, _) in Batches::new(batches).map_while(Result::ok) {
        records += u64::try_from(header.record_count)?;
        next = next.max(header.next_offset());
    }
    anyhow::ensure!(next > from, "nothing could be read from offset {from} on");
    Ok((records, next))
}
