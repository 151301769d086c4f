//! The command line: one file for each command, and what they share: help, logs, runtime, exit codes.

mod bench;
mod bootstrap;
mod config;
mod consume;
mod demo;
mod failure;
mod group;
mod lake;
mod place;
mod produce;
mod rules;
mod serve;
mod start;
mod topic;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

pub use failure::Usage;
pub use start::StartArgs;

/// How long leftover blocking work may hold up the exit.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(500);

/// Forebay takes in the readings of smart meters over MQTT, MQTT over QUIC, Kafka and HTTP, keeps them in a durable log,
/// turns the log into a lake of Delta tables, and raises alerts from rules.
///
/// `forebay serve` runs a node and needs no configuration. `forebay demo` shows the whole of it on real readings.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 the work failed, 2 wrong usage or bad config.\n\
    RUST_LOG sets what is logged to stderr, such as RUST_LOG=debug or RUST_LOG=forebay::mqtt=trace.")]
struct Cli {
    /// How log lines are written to stderr
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(serve::Args),
    /// Replay real meter readings through a node and check that everything adds up
    Demo(demo::Args),
    /// List, make, describe, alter and delete topics
    Topic(topic::Args),
    /// Write lines from stdin as records
    Produce(produce::Args),
    /// Print the records of a topic, hot and cold alike
    Consume(consume::Args),
    /// List, describe, move and delete consumer groups
    Group(group::Args),
    /// Show how far the lake is, and verify that it agrees with the log
    Lake(lake::Args),
    /// Check and test alert rules
    Rules(rules::Args),
    /// Load a broker, this program or another, and measure it
    Bench(Box<bench::Args>),
    /// Check, show and document the configuration
    Config(config::Args),
}

impl Command {
    /// What is logged when `RUST_LOG` does not say.
    fn default_log(&self) -> &'static str {
        match self {
            Command::Serve(_) => {
                "info,quinn=warn,quinn_proto=warn,delta_kernel=warn,deltalake_core=warn,buoyant_kernel=warn"
            }
            _ => "error",
        }
    }

    async fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Serve(args) => serve::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Topic(args) => topic::run(args).await,
            Command::Produce(args) => produce::run(args).await,
            Command::Consume(args) => consume::run(args).await,
            Command::Group(args) => group::run(args).await,
            Command::Lake(args) => lake::run(args).await,
            Command::Rules(args) => rules::run(args).await,
            Command::Bench(args) => bench::run(*args).await,
            Command::Config(args) => config::run(args).await,
        }
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    // The first thing of all: whoever makes a TLS config needs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(usage) => {
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    start_logging(cli.log_format, cli.command.default_log());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2)))
        .thread_name("forebay")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let result = runtime.block_on(cli.command.run());
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn start_logging(format: LogFormat, default: &str) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("{default},openraft=off")));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).try_init()
        }
    };
    if let Err(error) = started {
        eprintln!("warning: no log lines: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_documents_every_argument() {
        Cli::command().debug_assert();
        fn documented(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no help");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name} {} has no help", argument.get_id());
            }
            command.get_subcommands().for_each(documented);
        }
        documented(&Cli::command());
    }
}
