//! `forebay topic`: lists, makes, describes, alters and removes topics over the Kafka protocol.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Context;

use super::bootstrap::BootstrapArgs;
use crate::client::kafka::{At, Client, ConfigChange, Partition};

/// Arguments of `forebay topic`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the names of all topics
    List {
        /// Leave out the topics that hold the node's own state
        #[arg(long)]
        exclude_internal: bool,
    },
    /// Make a topic
    Create {
        /// Its name
        topic: String,
        /// Number of partitions [default: the node's num.partitions]
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// Number of replicas [default: the node's default.replication.factor]
        #[arg(long, value_parser = clap::value_parser!(i16).range(1..))]
        replication_factor: Option<i16>,
        /// A topic config, such as retention.ms=86400000; may be repeated
        #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
        configs: Vec<(String, String)>,
        /// Do nothing if the topic exists
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Show partitions, leaders, offsets and configs
    Describe {
        /// Topics; none means all
        topics: Vec<String>,
    },
    /// Change the configs of a topic, or give it more partitions
    Alter {
        /// Its name
        topic: String,
        /// Set a config; may be repeated
        #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
        configs: Vec<(String, String)>,
        /// Take a config back to its default; may be repeated
        #[arg(long = "delete-config", value_name = "KEY")]
        resets: Vec<String>,
        /// Number of partitions that it is to have in all; keys may then go to others than before
        #[arg(long, required_unless_present_any = ["configs", "resets"], value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
    },
    /// Remove a topic and its records
    Delete {
        /// Their names
        #[arg(required = true)]
        topics: Vec<String>,
    },
}

/// Kafka's code for a topic that exists.
const TOPIC_ALREADY_EXISTS: i16 = 36;

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Runs the command.
///
/// # Errors
/// The node cannot be reached, or refuses.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.bootstrap.read()?).await?;
    let text = match args.command {
        Command::List { exclude_internal } => {
            let topics = client.topics().await?;
            let shown = topics.iter().filter(|topic| !(exclude_internal && topic.internal));
            shown.fold(String::new(), |text, topic| text + &topic.name + "\n")
        }
        Command::Create { topic, partitions, replication_factor, configs, if_not_exists } => {
            match client.create_topic(&topic, partitions, replication_factor, &configs).await {
                Err(error) if if_not_exists && is_refusal(&error, TOPIC_ALREADY_EXISTS) => {
                    format!("topic {topic} exists\n")
                }
                made => made.map(|()| format!("created topic {topic}\n"))?,
            }
        }
        Command::Describe { topics } => describe(&mut client, topics).await?,
        Command::Alter { topic, configs, resets, partitions } => {
            let sets = configs.into_iter().map(|(key, value)| ConfigChange::Set(key, value));
            let changes: Vec<ConfigChange> = sets.chain(resets.into_iter().map(ConfigChange::Reset)).collect();
            if !changes.is_empty() {
                client.alter_topic(&topic, &changes).await?;
            }
            if let Some(count) = partitions {
                client.create_partitions(&topic, count).await?;
            }
            format!("altered topic {topic}\n")
        }
        Command::Delete { topics } => {
            let mut text = String::new();
            for topic in topics {
                client.delete_topic(&topic).await?;
                let _ = writeln!(text, "deleted topic {topic}");
            }
            text
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}

fn is_refusal(error: &anyhow::Error, code: i16) -> bool {
    error.downcast_ref::<crate::client::kafka::Refused>().is_some_and(|refused| refused.code == code)
}

async fn describe(client: &mut Client, names: Vec<String>) -> anyhow::Result<String> {
    let topics = if names.is_empty() {
        client.topics().await?
    } else {
        let mut topics = Vec::new();
        for name in &names {
            topics.push(client.topic(name, false).await?);
        }
        topics
    };
    let mut text = String::new();
    for topic in topics {
        let configs = client.topic_configs(&topic.name).await?;
        let own: Vec<String> = configs.iter().filter(|c| c.own).map(|c| format!("{}={}", c.name, c.value)).collect();
        let replicas = topic.partitions.iter().map(|p| p.replicas.len()).min().unwrap_or(0);
        let _ = writeln!(
            text,
            "Topic: {}\tTopicId: {}\tPartitionCount: {}\tReplicationFactor: {replicas}\tConfigs: {}",
            topic.name,
            topic.id,
            topic.partitions.len(),
            own.join(",")
        );
        for partition in &topic.partitions {
            describe_partition(client, &topic.name, partition, &mut text).await?;
        }
    }
    Ok(text)
}

async fn describe_partition(
    client: &mut Client,
    topic: &str,
    partition: &Partition,
    text: &mut String,
) -> anyhow::Result<()> {
    let leader = partition.leader;
    let start = client.offset(leader, topic, partition.index, At::Beginning).await?;
    let end = client.offset(leader, topic, partition.index, At::End).await?;
    let _ = writeln!(
        text,
        "\tTopic: {topic}\tPartition: {}\tLeader: {leader}\tReplicas: {}\tIsr: {}\tStart: {start}\tEnd: {end}",
        partition.index,
        join(&partition.replicas),
        join(&partition.in_sync),
    );
    Ok(())
}

fn join(ids: &[i32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
