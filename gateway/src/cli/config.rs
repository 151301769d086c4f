//! `forebay config`: checks the configuration, shows what is in force, documents every key.

use std::io::Write;

use anyhow::Context;
use clap::Subcommand;

use super::StartArgs;
use crate::config::{Settings, docs, show};

/// Arguments of `forebay config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and name file, line and key of every mistake
    Check(StartArgs),
    /// Print the settings in force, and where each was set
    Show(StartArgs),
    /// Print every key with type, unit and default
    Docs,
}

/// Runs the command.
///
/// # Errors
/// Mistakes in the configuration, in the rule files and certificates that it names.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let text = match args.command {
        Command::Check(start) => {
            let config = start.load()?;
            crate::node::tls::check(&config)?;
            forebay_sinks::rules::load(&config.alerts.rules)?;
            match start.config {
                Some(file) => format!("{}: ok\n", file.display()),
                None => "ok: no config file given, the defaults and the environment are fine\n".to_owned(),
            }
        }
        Command::Show(start) => show(&Settings::read(&start.sources())?)?,
        Command::Docs => docs(),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}
