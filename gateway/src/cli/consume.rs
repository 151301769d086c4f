//! `forebay consume`: prints records of a topic, hot and cold alike, from any place on, alone or in a consumer group.

mod group;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use forebay_log::Offset;
use forebay_log::record::{BatchProblem, Batches, Record, RecordReader};
use serde_json::{Map, Value, json};

use super::bootstrap::BootstrapArgs;
use super::place::Place;
use crate::client::kafka::{At, Client, Fetched};

/// Bytes asked for in one fetch.
const FETCH_BYTES: usize = 8 << 20;
/// How long one fetch waits for new records: alone, and where several leaders take turns.
const WAIT: Duration = Duration::from_millis(500);
const WAIT_IN_TURN: Duration = Duration::from_millis(50);

/// Arguments of `forebay consume`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Topic to read
    topic: String,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    /// Where to begin: beginning, end, an offset, an age such as 1h, or a time such as 2024-01-31T00:00:00Z
    #[arg(long, default_value = "end", value_name = "WHERE")]
    from: Place,
    /// Share the topic with the other members of this consumer group, go on where the group is and commit what was printed;
    /// --from is for partitions in which it has committed nothing
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["partition", "until_end"])]
    group: Option<String>,
    /// Read only this partition
    #[arg(long)]
    partition: Option<i32>,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Stop at the end that each partition had when reading began
    #[arg(long)]
    until_end: bool,
    /// One JSON object a line: topic, partition, offset, timestamp, key, value, headers
    #[arg(long)]
    json: bool,
    /// Print the key too, with this between key and value
    #[arg(long, value_name = "TEXT", conflicts_with = "json")]
    key_separator: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The node cannot be reached or refuses, or a stored batch cannot be read.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let done = match &args.group {
        Some(group) => group::run(group, &args).await,
        None => alone(&args).await,
    };
    match done {
        // Whoever reads our output has had enough.
        Err(error) if output_closed(&error) => Ok(()),
        done => done,
    }
}

fn output_closed(error: &anyhow::Error) -> bool {
    let group = error.downcast_ref::<group::Unwritten>().map(|unwritten| &unwritten.0);
    error.downcast_ref::<io::Error>().or(group).is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn alone(args: &Args) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.bootstrap.read()?).await?;
    let mut consumer = Consumer::open(&mut client, args).await?;
    let reading = consumer.run(&mut client, args);
    tokio::select! {
        done = reading => done,
        // Ctrl-C is how a consumer that follows the end is stopped.
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// One partition that is read.
struct Position {
    leader: i32,
    next: Offset,
    /// Where `--until-end` stops.
    end: Option<Offset>,
}

struct Consumer {
    topic: String,
    positions: BTreeMap<i32, Position>,
    left: Option<u64>,
}

impl Consumer {
    async fn open(client: &mut Client, args: &Args) -> anyhow::Result<Consumer> {
        let topic = client.topic(&args.topic, false).await?;
        let mut positions = BTreeMap::new();
        for partition in &topic.partitions {
            if args.partition.is_some_and(|only| only != partition.index) {
                continue;
            }
            let (leader, index) = (partition.leader, partition.index);
            let next = args.from.find(client, leader, &topic.name, index).await?;
            let end = match args.until_end {
                true => Some(client.offset(leader, &topic.name, index, At::End).await?),
                false => None,
            };
            positions.insert(index, Position { leader, next, end });
        }
        if positions.is_empty() {
            bail!("topic {} has no partition {}", topic.name, args.partition.unwrap_or_default());
        }
        Ok(Consumer { topic: topic.name, positions, left: args.max })
    }

    async fn run(&mut self, client: &mut Client, args: &Args) -> anyhow::Result<()> {
        let mut out = io::BufWriter::new(io::stdout());
        loop {
            self.positions.retain(|_, at| at.end.is_none_or(|end| at.next < end));
            if self.positions.is_empty() || self.left == Some(0) {
                return Ok(out.flush()?);
            }
            for fetched in self.fetch(client).await? {
                self.print(fetched, args, &mut out)?;
            }
            out.flush()?;
        }
    }

    /// What there is behind the positions; waits a little if there is nothing.
    async fn fetch(&self, client: &mut Client) -> anyhow::Result<Vec<Fetched>> {
        let mut leaders: BTreeMap<i32, Vec<(i32, Offset)>> = BTreeMap::new();
        for (index, at) in &self.positions {
            leaders.entry(at.leader).or_default().push((*index, at.next));
        }
        let wait = if leaders.len() == 1 { WAIT } else { WAIT_IN_TURN };
        let mut all = Vec::new();
        for (leader, from) in leaders {
            all.extend(client.fetch(leader, &self.topic, &from, FETCH_BYTES, wait).await?);
        }
        Ok(all)
    }

    fn print(&mut self, fetched: Fetched, args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
        let Some(position) = self.positions.get_mut(&fetched.partition) else { return Ok(()) };
        for batch in Batches::new(fetched.batches) {
            let (header, batch) = match batch {
                Ok(batch) => batch,
                // Kafka may cut the last batch off; the next fetch begins with it.
                Err(BatchProblem::Incomplete) => break,
                Err(problem) => bail!("{}-{} after offset {}: {problem}", self.topic, fetched.partition, position.next),
            };
            let context = || format!("{}-{} at offset {}", self.topic, fetched.partition, header.base_offset);
            header.check_crc(&batch).with_context(context)?;
            if !header.is_control() {
                for record in RecordReader::new(&header, &batch).with_context(context)? {
                    let record = record.with_context(context)?;
                    let wanted = record.offset >= position.next && position.end.is_none_or(|end| record.offset < end);
                    if !wanted {
                        continue;
                    }
                    if self.left == Some(0) {
                        // A group goes on with it.
                        return Ok(());
                    }
                    write_record(out, &self.topic, fetched.partition, &record, args)?;
                    position.next = record.offset.next();
                    self.left = self.left.map(|left| left - 1);
                }
            }
            position.next = position.next.max(header.next_offset());
        }
        Ok(())
    }
}

fn write_record(out: &mut impl Write, topic: &str, partition: i32, record: &Record, args: &Args) -> io::Result<()> {
    if args.json {
        let mut object = Map::new();
        object.insert("topic".into(), topic.into());
        object.insert("partition".into(), partition.into());
        object.insert("offset".into(), record.offset.0.into());
        object.insert("timestamp".into(), record.timestamp.0.into());
        put(&mut object, "key", record.key.as_deref());
        put(&mut object, "value", record.value.as_deref());
        let headers = record.headers.iter().map(|header| {
            let value = header.value.as_deref().map(String::from_utf8_lossy);
            json!([String::from_utf8_lossy(&header.name), value])
        });
        object.insert("headers".into(), headers.collect());
        return writeln!(out, "{}", Value::Object(object));
    }
    if let Some(separator) = &args.key_separator {
        out.write_all(record.key.as_deref().unwrap_or_default())?;
        out.write_all(separator.as_bytes())?;
    }
    out.write_all(record.value.as_deref().unwrap_or_default())?;
    out.write_all(b"\n")
}

/// Text as it is; bytes that are no text as hex under `NAME_hex`.
fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.to_owned(), text.into()),
        Some((bytes, Err(_))) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            object.insert(format!("{name}_hex"), hex.into())
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_as_hex() {
        let mut object = Map::new();
        put(&mut object, "key", None);
        put(&mut object, "value", Some(&[0xff, 0x01]));
        assert_eq!(Value::Object(object), json!({"key": null, "value_hex": "ff01"}));
    }
}
