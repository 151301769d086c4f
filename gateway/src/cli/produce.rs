//! `forebay produce`: each line of stdin becomes a record, acknowledged when it is durable.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::ValueEnum;
use forebay_log::limits::GATHER_BATCH_BYTES;
use forebay_log::partitioner::partition_for_key;
use forebay_log::record::{BatchBuilder, Compression};
use forebay_log::{Epoch, Millis, Offset};
use tokio::sync::mpsc;

use super::bootstrap::BootstrapArgs;
use crate::client::kafka::{Acks, Client, Refused, Topic};

/// Lines read ahead of what is sent.
const LINES_AHEAD: usize = 4096;
/// The longest line, in bytes.
const MAX_LINE: u64 = 64 << 20;
/// How often a batch is sent again that a broker refused for now, and how long between.
const ATTEMPTS: u32 = 10;
const BACKOFF: Duration = Duration::from_millis(200);

/// Arguments of `forebay produce`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Topic to write to; made with the node's defaults if it is missing
    topic: String,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    /// What separates key and value in a line; without it lines are values without key
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Write to this partition [default: by the key, as Kafka's clients do]
    #[arg(long)]
    partition: Option<i32>,
    /// What an acknowledgement waits for: all in-sync replicas, or the leader
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// Codec of the batches
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    All,
    Leader,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Compression {
        match codec {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The node cannot be reached or refuses, or a line has no key where one is asked for.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.bootstrap.read()?).await?;
    let topic = client.topic(&args.topic, true).await?;
    if let Some(partition) = args.partition
        && !topic.partitions.iter().any(|p| p.index == partition)
    {
        bail!("topic {} has no partition {partition}, only 0 to {}", topic.name, topic.partitions.len() - 1);
    }
    let mut producer = Producer { client, topic, args, sticky: 0, line: 0 };
    // Reading stdin blocks, and must not hold up the exit: a thread of its own, not of the runtime.
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || read_lines(&sender));
    let mut gathered = Vec::new();
    while lines.recv_many(&mut gathered, LINES_AHEAD).await > 0 {
        producer.send(gathered.drain(..)).await?;
    }
    Ok(())
}

fn read_lines(sender: &mpsc::Sender<anyhow::Result<Vec<u8>>>) {
    let mut stdin = std::io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = (&mut stdin).take(MAX_LINE).read_until(b'\n', &mut line);
        let item = match read {
            Ok(0) => return,
            Ok(n) if n as u64 == MAX_LINE => Err(anyhow::anyhow!("a line is longer than {MAX_LINE} bytes")),
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                Ok(line)
            }
            Err(error) => Err(anyhow::Error::new(error).context("cannot read stdin")),
        };
        let failed = item.is_err();
        if sender.blocking_send(item).is_err() || failed {
            return;
        }
    }
}

struct Producer {
    client: Client,
    topic: Topic,
    args: Args,
    /// The partition of records without key; moves on with every send.
    sticky: usize,
    line: u64,
}

impl Producer {
    /// Sends the lines that have come, in batches by partition, and waits for their acks.
    async fn send(&mut self, lines: impl Iterator<Item = anyhow::Result<Vec<u8>>>) -> anyhow::Result<()> {
        let now = Millis::from_system(SystemTime::now());
        let mut open: HashMap<usize, BatchBuilder> = HashMap::new();
        let mut full: Vec<(usize, BatchBuilder)> = Vec::new();
        for line in lines {
            let line = line?;
            self.line += 1;
            let (key, value) = self.split(&line)?;
            let place = self.place(key);
            let batch = open.entry(place).or_insert_with(|| BatchBuilder::new(self.args.compression.into()));
            let delta = i32::try_from(batch.len()).context("too many records in one batch")?;
            batch.push(delta, now, key, Some(value), &[]);
            if batch.bytes() >= GATHER_BATCH_BYTES
                && let Some(batch) = open.remove(&place)
            {
                full.push((place, batch));
            }
        }
        for (place, batch) in full.into_iter().chain(open) {
            if let Some(bytes) = batch.build(Offset::ZERO, Epoch(-1)) {
                self.deliver(place, bytes).await?;
            }
        }
        self.sticky = (self.sticky + 1) % self.topic.partitions.len().max(1);
        Ok(())
    }

    fn split<'a>(&self, line: &'a [u8]) -> anyhow::Result<(Option<&'a [u8]>, &'a [u8])> {
        let Some(separator) = &self.args.key_separator else { return Ok((None, line)) };
        let separator = separator.as_bytes();
        let at = line.windows(separator.len().max(1)).position(|window| window == separator);
        let at = at.with_context(|| {
            format!(
                "line {} has no key separator\nit must look like KEY{}VALUE",
                self.line,
                String::from_utf8_lossy(separator)
            )
        })?;
        Ok((Some(&line[..at]), &line[at + separator.len()..]))
    }

    /// Index into the topic's partitions.
    fn place(&self, key: Option<&[u8]>) -> usize {
        match (self.args.partition, key) {
            (Some(partition), _) => usize::try_from(partition).unwrap_or(0),
            (None, Some(key)) => {
                let count = u32::try_from(self.topic.partitions.len()).unwrap_or(1).max(1);
                partition_for_key(key, count) as usize
            }
            (None, None) => self.sticky,
        }
    }

    async fn deliver(&mut self, place: usize, batch: Bytes) -> anyhow::Result<()> {
        let acks = if self.args.acks == AcksArg::All { Acks::All } else { Acks::Leader };
        let mut attempt = 1;
        loop {
            let partition = self.topic.partitions.get(place).context("the topic has lost partitions")?;
            let (leader, index) = (partition.leader, partition.index);
            let sent = self.client.produce(leader, &self.topic.name, index, batch.clone(), acks).await;
            let Err(error) = sent else { return Ok(()) };
            if !may_be_sent_again(&error) || attempt == ATTEMPTS {
                return Err(error.context(format!("up to line {}: not all records were acknowledged", self.line)));
            }
            attempt += 1;
            tokio::time::sleep(BACKOFF).await;
            self.topic = self.client.topic(&self.args.topic, false).await?;
        }
    }
}

/// Whether trying again may help and cannot store anything twice: without an answer, or when the broker only stopped waiting,
/// nobody knows what was stored.
fn may_be_sent_again(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.is_retriable() && !refused.may_be_stored())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::ResponseError;

    use super::*;

    #[test]
    fn what_may_be_stored_already_is_not_sent_twice() {
        let again = |error: ResponseError| may_be_sent_again(&Refused::new("the append", error.code()).into());
        assert!(again(ResponseError::NotLeaderOrFollower) && again(ResponseError::KafkaStorageError));
        assert!(!again(ResponseError::RequestTimedOut), "the append may still become durable");
        assert!(!again(ResponseError::NotEnoughReplicasAfterAppend), "the leader has it");
        assert!(!again(ResponseError::MessageTooLarge), "it will not help");
        assert!(!may_be_sent_again(&anyhow::anyhow!("lost the connection")), "the answer was lost, not the records");
    }
}
