//! Reads back by Kafka what a run has sent: from the ends that the partitions had before it to those that they have after it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use forebay_log::Offset;
use forebay_log::record::{BatchProblem, Batches, RecordReader};

use super::fleet::Account;
use super::payload::Deck;
use super::verify::{Check, Verdict};
use super::{Names, Verify};
use crate::cli::Usage;
use crate::client::kafka::{At, Client, Topic};

const FETCH_BYTES: usize = 8 << 20;
/// How long one fetch may wait; everything asked for is there already.
const WAIT: Duration = Duration::from_millis(500);
/// Fetches of one partition that bring nothing before it is given up.
const EMPTY_FETCHES: u32 = 10;
/// How long what was sent without acks may take to get into the log.
const SETTLE: Duration = Duration::from_secs(1);
/// Header in which the node names the publishing client; a Kafka producer's is the key.
const CLIENT_HEADER: &str = "mqtt.client";

/// The topic to be read back, as it was before the run.
pub(super) struct Readback {
    client: Client,
    topic: Topic,
    /// By partition.
    from: BTreeMap<i32, Offset>,
}

impl Readback {
    /// Notes where the topic ends before the run.
    ///
    /// # Errors
    /// The payloads cannot be told apart, or the topic cannot be reached.
    pub(super) async fn begin(verify: &Verify, deck: &Deck) -> anyhow::Result<Readback> {
        if !deck.is_numbered() {
            bail!(Usage("--verify needs a payload with {seq}, to tell the messages apart".to_owned()));
        }
        let mut client = Client::connect(&verify.bootstrap).await.context("--verify reads back by Kafka")?;
        let topic = client.topic(&verify.topic, true).await?;
        let from = ends(&mut client, &topic).await?;
        Ok(Readback { client, topic, from })
    }

    /// Reads what has come since and compares.
    ///
    /// # Errors
    /// A partition cannot be read.
    pub(super) async fn end(
        mut self,
        deck: &Deck,
        names: &Names,
        accounts: &[Account],
        promised: bool,
    ) -> anyhow::Result<Verdict> {
        let mut check = Check::new(deck, names, accounts);
        if !promised {
            // Without acks nobody says when the last message is in the log.
            tokio::time::sleep(SETTLE).await;
        }
        let ends = ends(&mut self.client, &self.topic).await?;
        for partition in self.topic.partitions.clone() {
            let index = partition.index;
            let mut next = self.from.get(&index).copied().unwrap_or(Offset::ZERO);
            let end = ends.get(&index).copied().unwrap_or(next);
            let mut empty = 0;
            while next < end {
                let from = [(index, next)];
                let fetched = self.client.fetch(partition.leader, &self.topic.name, &from, FETCH_BYTES, WAIT).await?;
                let before = next;
                for part in fetched {
                    next = take(&mut check, index, next, end, part.batches)
                        .with_context(|| format!("{}-{index} after offset {before}", self.topic.name))?;
                }
                empty = if next > before { 0 } else { empty + 1 };
                if empty == EMPTY_FETCHES {
                    bail!("{}-{index} ends at {end}, but nothing can be read from {next} on", self.topic.name);
                }
            }
        }
        Ok(check.end(promised))
    }
}

async fn ends(client: &mut Client, topic: &Topic) -> anyhow::Result<BTreeMap<i32, Offset>> {
    let mut ends = BTreeMap::new();
    for partition in &topic.partitions {
        ends.insert(partition.index, client.offset(partition.leader, &topic.name, partition.index, At::End).await?);
    }
    Ok(ends)
}

/// Checks the records of one fetch; returns the offset of the next.
fn take(check: &mut Check, partition: i32, from: Offset, end: Offset, batches: Bytes) -> anyhow::Result<Offset> {
    let mut next = from;
    for batch in Batches::new(batches) {
        let (header, batch) = match batch {
            Ok(batch) => batch,
            // Kafka may cut the last batch off; the next fetch begins with it.
            Err(BatchProblem::Incomplete) => break,
            Err(problem) => return Err(problem.into()),
        };
        header.check_crc(&batch)?;
        if !header.is_control() {
            for record in RecordReader::new(&header, &batch)? {
                let record = record?;
                let client = record.header(CLIENT_HEADER).or(record.key.as_ref());
                if let Some(client) = client.filter(|_| record.offset >= from && record.offset < end) {
                    check.record(partition, client, record.value.as_deref().unwrap_or_default());
                }
            }
        }
        next = next.max(header.next_offset());
    }
    Ok(next)
}
