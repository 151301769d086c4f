//! `forebay group`: lists, describes, moves and removes consumer groups over the Kafka protocol.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, bail};
use forebay_log::Offset;

use super::bootstrap::BootstrapArgs;
use super::place::Place;
use super::table::table;
use crate::client::kafka::{At, Client};

/// Arguments of `forebay group`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print all groups with their state, members and lag
    List,
    /// Show how far a group has read in each partition, how far it is behind, and which member reads it
    Describe {
        /// Groups; none means all
        groups: Vec<String>,
    },
    /// Move a group without members to another place in a topic
    Seek {
        /// Its name
        group: String,
        /// Topic in which it moves
        #[arg(long)]
        topic: String,
        /// Only this partition
        #[arg(long)]
        partition: Option<i32>,
        /// Where to: beginning, end, an offset, an age such as 1h, or a time such as 2024-01-31T00:00:00Z
        #[arg(long, value_name = "WHERE")]
        to: Place,
    },
    /// Remove groups without members, with their offsets
    Delete {
        /// Their names
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// The node cannot be reached, or refuses.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.bootstrap.read()?).await?;
    let text = match args.command {
        Command::List => list(&mut client).await?,
        Command::Describe { groups } => describe(&mut client, groups).await?,
        Command::Seek { group, topic, partition, to } => seek(&mut client, &group, &topic, partition, to).await?,
        Command::Delete { groups } => {
            let mut text = String::new();
            for group in groups {
                client.delete_group(&group).await?;
                let _ = writeln!(text, "deleted group {group}");
            }
            text
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}

/// How far a group is in one partition.
struct Progress {
    topic: String,
    partition: i32,
    committed: Offset,
    /// `None` where the topic is gone.
    end: Option<Offset>,
}

impl Progress {
    fn lag(&self) -> Option<i64> {
        Some((self.end?.0 - self.committed.0).max(0))
    }
}

async fn progress(client: &mut Client, group: &str) -> anyhow::Result<Vec<Progress>> {
    let mut leaders: BTreeMap<String, BTreeMap<i32, i32>> = BTreeMap::new();
    let mut all = Vec::new();
    for ((topic, partition), committed) in client.group_offsets(group).await? {
        if !leaders.contains_key(&topic) {
            // One that is gone has no leaders, and its offsets no end.
            let found = client.topic(&topic, false).await;
            let partitions = found.map(|topic| topic.partitions).unwrap_or_default();
            leaders.insert(topic.clone(), partitions.iter().map(|part| (part.index, part.leader)).collect());
        }
        let end = match leaders.get(&topic).and_then(|leaders| leaders.get(&partition)) {
            Some(leader) => Some(client.offset(*leader, &topic, partition, At::End).await?),
            None => None,
        };
        all.push(Progress { topic, partition, committed, end });
    }
    Ok(all)
}

async fn list(client: &mut Client) -> anyhow::Result<String> {
    let mut rows = vec![["GROUP", "TYPE", "STATE", "MEMBERS", "LAG"].map(str::to_owned).to_vec()];
    for name in client.groups().await? {
        let group = client.group(&name).await?;
        let lag: i64 = progress(client, &name).await?.iter().filter_map(Progress::lag).sum();
        rows.push(vec![
            name,
            group.kind.name().to_owned(),
            group.state,
            group.members.len().to_string(),
            lag.to_string(),
        ]);
    }
    Ok(table(&rows))
}

async fn describe(client: &mut Client, names: Vec<String>) -> anyhow::Result<String> {
    let names = if names.is_empty() { client.groups().await? } else { names };
    let mut text = String::new();
    for name in names {
        let group = client.group(&name).await?;
        if group.state == "Dead" {
            bail!("group {name} does not exist\n`forebay group list` shows those that do");
        }
        let protocol = if group.protocol.is_empty() { "-" } else { &group.protocol };
        let _ = write!(
            text,
            "Group: {name}\tType: {}\tState: {}\tProtocol: {protocol}\tMembers: {}",
            group.kind.name(),
            group.state,
            group.members.len()
        );
        if let Some((group, target)) = group.epochs {
            let _ = write!(text, "\tEpoch: {group}\tTarget epoch: {target}");
        }
        text.push('\n');
        let mut owners = BTreeMap::new();
        for member in &group.members {
            let epoch = member.epoch.map_or_else(String::new, |epoch| format!(" epoch {epoch}"));
            let owner = format!("{} {}{epoch}", member.client_id, member.host);
            owners.extend(member.partitions.iter().map(|partition| (partition.clone(), owner.clone())));
        }
        let heads = ["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "MEMBER"].map(str::to_owned).to_vec();
        let mut rows = vec![heads];
        for at in progress(client, &name).await? {
            let number = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            let (end, lag) = (number(at.end.map(|end| end.0)), number(at.lag()));
            let owner = owners.remove(&(at.topic.clone(), at.partition)).unwrap_or_else(|| "-".to_owned());
            rows.push(vec![at.topic, at.partition.to_string(), at.committed.to_string(), end, lag, owner]);
        }
        // Owned, but nothing committed yet.
        for ((topic, partition), owner) in owners {
            rows.push(vec![topic, partition.to_string(), "-".into(), "-".into(), "-".into(), owner]);
        }
        text += &table(&rows);
    }
    Ok(text)
}

async fn seek(
    client: &mut Client,
    group: &str,
    topic: &str,
    partition: Option<i32>,
    to: Place,
) -> anyhow::Result<String> {
    let found = client.topic(topic, false).await?;
    let mut places = Vec::new();
    for part in found.partitions.iter().filter(|part| partition.is_none_or(|only| only == part.index)) {
        places.push((part.index, to.find(client, part.leader, topic, part.index).await?));
    }
    if places.is_empty() {
        bail!("topic {topic} has no partition {}", partition.unwrap_or_default());
    }
    let state = client.group(group).await?.state;
    if !matches!(state.as_str(), "Empty" | "Dead") {
        bail!("group {group} has members ({state})\nstop its consumers first: they would go on where they are");
    }
    client.seek_group(group, topic, &places).await?;
    let line = |text: String, (index, offset): &(i32, Offset)| text + &format!("{topic}-{index} {offset}\n");
    Ok(places.iter().fold(String::new(), line))
}
