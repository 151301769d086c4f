//! `forebay rules`: checks rule files and runs their unit tests, without a node.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use forebay_sinks::{duration, rules, testing};

/// Arguments of `forebay rules`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check rule files and name file, line and column of every mistake
    Check {
        /// Rule files (YAML)
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Run unit tests of rules, written in promtool's notation
    Test {
        /// Test files (YAML)
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Runs the command.
///
/// # Errors
/// Mistakes in the files (exit code 2), or tests that failed.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match args.command {
        Command::Check { files } => {
            let set = rules::load(&files)?;
            out.write_all(summary(&set).as_bytes()).context("cannot write to stdout")
        }
        Command::Test { files } => {
            let mut failures = 0;
            for file in &files {
                let report = testing::run_file(file)?;
                failures += report.failures.len();
                let mut text =
                    format!("{}: {} checks, {} failed\n", file.display(), report.checks, report.failures.len());
                for failure in &report.failures {
                    text.push_str(&format!("{failure}\n"));
                }
                out.write_all(text.as_bytes()).context("cannot write to stdout")?;
            }
            anyhow::ensure!(failures == 0, "{failures} of the rules' tests failed");
            Ok(())
        }
    }
}

/// What the files hold, for a person.
fn summary(set: &rules::RuleSet) -> String {
    let mut text = String::new();
    for file in &set.files {
        let groups: Vec<_> = set.groups.iter().filter(|group| group.file == *file).collect();
        let count: usize = groups.iter().map(|group| group.rules.len()).sum();
        text.push_str(&format!("{file}: ok, {} in {}\n", counted(count, "rule"), counted(groups.len(), "group")));
        for group in groups {
            for rule in &group.rules {
                let hold =
                    if rule.for_ms > 0 { format!(" for {}", duration::print(rule.for_ms)) } else { String::new() };
                text.push_str(&format!(
                    "  {} / {}: {}{hold} (topic {})\n",
                    group.name, rule.alert, rule.expr, group.source
                ));
            }
        }
    }
    for receiver in &set.receivers {
        text.push_str(&format!("receiver {}\n", receiver.id()));
    }
    text
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
