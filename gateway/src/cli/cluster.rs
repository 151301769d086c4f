//! `forebay cluster`: shows the cluster's nodes and partitions, adds, drains and removes nodes, moves replicas and leaderships.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, ApiArgs, pretty, print};
use super::cluster_text::{moving, text};
use super::failure::Usage;
use crate::cluster::{ClusterStatus, Move, MoveOutcome, Place};

/// Arguments of `forebay cluster`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    api: ApiArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the nodes, and each partition's leader, replicas, in-sync replicas and followers that are behind
    Status {
        /// Only partitions that are under-replicated, offline, moving, or have a follower that is behind
        #[arg(long)]
        troubled: bool,
    },
    /// Let a node into the cluster: it can then be started with the peers of the others
    Add {
        /// Its node.id
        #[arg(value_parser = clap::value_parser!(i32).range(0..))]
        node: i32,
        /// It shall vote in the controller quorum, once it runs and follows that
        #[arg(long)]
        voter: bool,
    },
    /// Take an empty, stopped node out of the cluster, and out of the controller quorum
    Remove {
        /// Its node.id
        node: i32,
    },
    /// Move all replicas of a node to others; status shows how many are left
    Drain {
        /// Its node.id
        node: i32,
        /// Stop draining it: it may get replicas again
        #[arg(long)]
        cancel: bool,
    },
    /// Move replicas of partitions to other nodes
    Reassign {
        /// Partitions and where their replicas go, the preferred leader first; only TOPIC:PARTITION for --cancel and --status
        #[arg(value_name = "TOPIC:PARTITION=1,2,3")]
        moves: Vec<String>,
        /// The same in a file, as kafka-reassign-partitions reads it
        #[arg(long, value_name = "JSON", conflicts_with = "moves")]
        file: Option<PathBuf>,
        /// Cancel what is under way, for these partitions or for all
        #[arg(long, conflicts_with = "status")]
        cancel: bool,
        /// Show what is under way
        #[arg(long)]
        status: bool,
    },
    /// Give leaderships back to the preferred leaders
    Elect {
        /// Partitions; none means all
        #[arg(value_name = "TOPIC:PARTITION")]
        partitions: Vec<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// The node cannot be reached, or refuses.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let (api, json) = (args.api.api()?, args.api.json);
    match args.command {
        Command::Status { troubled } => {
            let status = status(&api, troubled).await?;
            print(&if json { pretty(&status)? } else { text(&status) })
        }
        Command::Add { node, voter } => {
            let done = api.post("/api/v1/cluster/add", &json!({ "node": node, "voter": voter })).await?;
            let next =
                if voter { "it votes in the controller quorum" } else { "start it with the peers of the others" };
            tell(json, &done, &format!("node {node} is in the cluster: {next}\n"))
        }
        Command::Remove { node } => {
            let done = api.post("/api/v1/cluster/remove", &json!({ "node": node })).await?;
            tell(json, &done, &format!("node {node} is not in the cluster any more\n"))
        }
        Command::Drain { node, cancel } => {
            let done = api.post("/api/v1/cluster/drain", &json!({ "node": node, "cancel": cancel })).await?;
            let what = if cancel {
                format!("node {node} is not drained any more\n")
            } else {
                format!("node {node} is being drained; `forebay cluster status` shows how many replicas are left\n")
            };
            tell(json, &done, &what)
        }
        Command::Reassign { moves, file, cancel, status: show } => {
            let mut moves = match file {
                Some(file) => read_file(&file)?,
                None => moves.iter().map(|text| parse_move(text)).collect::<Result<_, _>>()?,
            };
            if show || (cancel && moves.is_empty()) {
                let mut status = status(&api, true).await?;
                status.partitions.retain(|one| !one.adding.is_empty() || !one.removing.is_empty());
                if !moves.is_empty() {
                    status.partitions.retain(|one| {
                        moves.iter().any(|asked| asked.topic == one.topic && asked.partition == one.partition)
                    });
                }
                if show || status.partitions.is_empty() {
                    let all = &status.partitions;
                    return print(&if json { pretty(&json!({ "partitions": all }))? } else { moving(all) });
                }
                let under_way = status.partitions.into_iter();
                moves =
                    under_way.map(|one| Move { topic: one.topic, partition: one.partition, replicas: None }).collect();
            } else if moves.is_empty() {
                bail!(Usage("say which partitions go where: TOPIC:PARTITION=1,2,3 or --file".to_owned()));
            }
            check(&moves, cancel)?;
            if cancel {
                moves.iter_mut().for_each(|one| one.replicas = None);
            }
            let done = api.post::<Outcomes>("/api/v1/cluster/reassign", &json!({ "partitions": moves })).await?;
            outcomes(json, &done.partitions, if cancel { "cancelled" } else { "being reassigned" })
        }
        Command::Elect { partitions } => {
            let places = partitions.iter().map(|text| parse_place(text)).collect::<Result<Vec<Place>, _>>()?;
            let body = if places.is_empty() { json!({}) } else { json!({ "partitions": places }) };
            let done = api.post::<Outcomes>("/api/v1/cluster/elect", &body).await?;
            outcomes(json, &done.partitions, "led by the preferred leader")
        }
    }
}

async fn status(api: &Api, troubled: bool) -> anyhow::Result<ClusterStatus> {
    let shown: &[(&str, &str)] = if troubled { &[("partitions", "troubled")] } else { &[] };
    api.get("/api/v1/cluster", shown).await
}

/// What an answer says of each partition.
#[derive(Deserialize)]
struct Outcomes {
    partitions: Vec<MoveOutcome>,
}

fn outcomes(json: bool, all: &[MoveOutcome], done: &str) -> anyhow::Result<()> {
    let failed = all.iter().filter(|one| one.error.is_some()).count();
    if json {
        print(&pretty(&json!({ "partitions": all }))?)?;
    } else {
        let line = |one: &MoveOutcome| {
            let what = one.error.as_deref().unwrap_or(done);
            format!("{}:{} {what}\n", one.topic, one.partition)
        };
        print(&all.iter().map(line).collect::<String>())?;
    }
    if failed > 0 {
        bail!("{failed} of {} partitions stay as they were", all.len());
    }
    Ok(())
}

fn read_file(file: &PathBuf) -> anyhow::Result<Vec<Move>> {
    // Kafka's files have more in them.
    #[derive(Deserialize)]
    struct Planned {
        topic: String,
        partition: u32,
        #[serde(default)]
        replicas: Option<Vec<i32>>,
    }
    #[derive(Deserialize)]
    struct Plan {
        partitions: Vec<Planned>,
    }
    let text = std::fs::read(file).with_context(|| format!("--file {}", file.display()))?;
    let plan: Result<Plan, _> = serde_json::from_slice(&text);
    let plan = plan.map_err(|error| {
        let form = r#"{"partitions": [{"topic": "readings", "partition": 0, "replicas": [1, 2, 3]}]}"#;
        Usage(format!("--file {}: {error}\nexpected {form}", file.display()))
    });
    let moves = plan?.partitions.into_iter();
    Ok(moves.map(|Planned { topic, partition, replicas }| Move { topic, partition, replicas }).collect())
}

fn check(moves: &[Move], cancel: bool) -> Result<(), Usage> {
    match moves.iter().find(|one| one.replicas.is_none() && !cancel) {
        Some(one) => Err(Usage(format!("{}:{} goes to which nodes? {0}:{1}=1,2,3", one.topic, one.partition))),
        None => Ok(()),
    }
}

fn parse_move(text: &str) -> Result<Move, Usage> {
    let (place, replicas) = text.split_once('=').map_or((text, None), |(place, replicas)| (place, Some(replicas)));
    let Place { topic, partition } = parse_place(place)?;
    let wrong = |_| Usage(format!("{text}: expected TOPIC:PARTITION=1,2,3"));
    let ids = |replicas: &str| replicas.split(',').map(|id| id.trim().parse()).collect::<Result<Vec<i32>, _>>();
    Ok(Move { topic, partition, replicas: replicas.map(ids).transpose().map_err(wrong)? })
}

fn parse_place(text: &str) -> Result<Place, Usage> {
    let parsed = text.rsplit_once(':').and_then(|(topic, partition)| Some((topic, partition.parse().ok()?)));
    let (topic, partition) = parsed.ok_or_else(|| Usage(format!("{text}: expected TOPIC:PARTITION")))?;
    Ok(Place { topic: topic.to_owned(), partition })
}

fn tell(json: bool, done: &Value, text: &str) -> anyhow::Result<()> {
    print(&if json { pretty(done)? } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_read_as_they_are_written() {
        let to = |replicas: Option<Vec<i32>>| Move { topic: "a:b".to_owned(), partition: 3, replicas };
        assert_eq!(parse_move("a:b:3=2,1").unwrap(), to(Some(vec![2, 1])));
        assert_eq!(parse_move("a:b:3").unwrap(), to(None));
        for wrong in ["readings", "readings:x=1", "readings:0=one", "readings:0="] {
            assert!(parse_move(wrong).is_err(), "{wrong}");
        }
        assert!(check(&[to(None)], false).is_err());
        assert!(check(&[to(None)], true).is_ok());
    }

    #[test]
    fn kafkas_files_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let plan =
            r#"{"version":1,"partitions":[{"topic":"t","partition":1,"replicas":[3,1],"log_dirs":["any","any"]}]}"#;
        std::fs::write(file.path(), plan).unwrap();
        let moves = read_file(&file.path().to_path_buf()).unwrap();
        assert_eq!(moves, [Move { topic: "t".to_owned(), partition: 1, replicas: Some(vec![3, 1]) }]);
        std::fs::write(file.path(), "{}").unwrap();
        assert!(read_file(&file.path().to_path_buf()).unwrap_err().is::<Usage>());
    }
}
