//! `forebay lake`: how far the offload is, and whether manifest, objects, table and log agree.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::bail;
use indicatif::ProgressBar;
use serde::Deserialize;

use super::api::{Api, ApiArgs, pretty, print};
use super::table;
use crate::lake::{TopicStatus, VerifyReport};

/// How often a running progress bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Arguments of `forebay lake`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    api: ApiArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show each topic's table: version, files, rows, bytes, the records that are not in it yet, and how many partitions this node leads
    Status {
        /// Only this topic
        topic: Option<String>,
    },
    /// Read manifest, objects, table log and local log and compare them; exits with 1 if they do not agree
    Verify {
        /// Only this topic
        topic: Option<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// The node cannot be reached, or what was verified does not agree.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let json = args.api.json;
    match args.command {
        Command::Status { topic } => {
            let topics = topics(&args.api.api()?, topic.as_deref()).await?;
            print(&if json { pretty(&topics)? } else { text(&topics) })
        }
        Command::Verify { topic } => {
            let mut reports = Vec::new();
            let api = args.api.patient_api()?;
            for topic in topics(&args.api.api()?, topic.as_deref()).await? {
                let bar = spinner(&topic.topic);
                let answer = api.get("/api/v1/lake/verify", &[("topic", &topic.topic)]).await;
                bar.finish_and_clear();
                let Listing::<VerifyReport> { topics } = answer?;
                if !json {
                    print(&topics.iter().map(summary).collect::<String>())?;
                }
                reports.extend(topics);
            }
            if json {
                print(&pretty(&reports)?)?;
            }
            let problems: usize = reports.iter().map(|report| report.problems.len()).sum();
            if problems > 0 {
                bail!("the lake does not agree with itself: {problems} problems");
            }
            Ok(())
        }
    }
}

/// What the lake's pages of the API answer with.
#[derive(Deserialize)]
struct Listing<T> {
    topics: Vec<T>,
}

async fn topics(api: &Api, only: Option<&str>) -> anyhow::Result<Vec<TopicStatus>> {
    let Listing { mut topics } = api.get::<Listing<TopicStatus>>("/api/v1/lake", &[]).await?;
    if let Some(only) = only {
        topics.retain(|topic| topic.topic == only);
        if topics.is_empty() {
            bail!("topic {only} is not offloaded: it does not exist or has remote.storage.enable=false");
        }
    }
    Ok(topics)
}

fn spinner(topic: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(format!("reading the lake of {topic}"));
    bar.enable_steady_tick(TICK);
    bar
}

fn text(topics: &[TopicStatus]) -> String {
    let mut rows =
        vec![["TOPIC", "VERSION", "FILES", "ROWS", "BYTES", "LAG", "LEADS", "URL"].map(str::to_owned).to_vec()];
    for topic in topics {
        let version = topic.table_version.map_or("-".to_owned(), |version| version.to_string());
        let [files, size, bytes] = [topic.files, topic.rows, topic.bytes].map(|count| count.to_string());
        let (lag, leads) = (topic.lag_records.to_string(), topic.leads.len().to_string());
        rows.push(vec![topic.topic.clone(), version, files, size, bytes, lag, leads, topic.url.clone()]);
    }
    let mut out = table::with_numbers(&rows, 1..7);
    for topic in topics {
        if topic.lost_records > 0 {
            let lost = topic.lost_records;
            let _ = writeln!(out, "{}: {lost} records were lost to damage before they were offloaded", topic.topic);
        }
        if let Some(error) = &topic.error {
            let _ = writeln!(out, "{}: the offload waits: {error}", topic.topic);
        }
    }
    out
}

fn summary(report: &VerifyReport) -> String {
    let VerifyReport { topic, files, rows, problems, lost } = report;
    let mut out = if problems.is_empty() {
        format!("{topic}: ok: manifest, objects, table and log agree on {files} files, {rows} rows\n")
    } else {
        format!("{topic}: {} problems in {files} files, {rows} rows\n", problems.len())
    };
    for problem in problems {
        let _ = writeln!(out, "  {problem}");
    }
    for gap in lost {
        let _ = writeln!(out, "  lost before it was offloaded: {gap}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_a_table_with_the_reason_of_a_failure_below() {
        let topic = TopicStatus {
            topic: "readings".into(),
            url: "file:lake/readings".into(),
            table_version: None,
            files: 0,
            rows: 12,
            bytes: 345,
            leads: vec![0, 2],
            lag_records: 6,
            lost_records: 3,
            error: Some("no space".into()),
            failing_since: None,
        };
        let text = text(&[topic]);
        assert!(
            text.starts_with(
                "TOPIC     VERSION  FILES  ROWS  BYTES  LAG  LEADS  URL\nreadings        -      0    12    345    6      2  file:"
            ),
            "{text}"
        );
        let below = "readings: 3 records were lost to damage before they were offloaded\n\
                     readings: the offload waits: no space\n";
        assert!(text.ends_with(below), "{text}");
    }
}
