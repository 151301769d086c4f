//! `forebay config`: checks the configuration, shows what is in force, documents every key.

use std::io::Write;
use std::path::PathBuf;

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
    Check(FileArgs),
    /// Print the settings in force, and where each was set
    Show(FileArgs),
    /// Print every key with type, unit and default
    Docs,
}

/// The arguments of `serve`, and the file without `--config` before it.
#[derive(Debug, clap::Args)]
struct FileArgs {
    /// Configuration file (TOML), as --config FILE
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    #[command(flatten)]
    start: StartArgs,
}

impl FileArgs {
    fn start(self) -> StartArgs {
        StartArgs { config: self.file.or(self.start.config), ..self.start }
    }
}

/// Runs the command.
///
/// # Errors
/// Mistakes in the configuration, in the rule files and certificates that it names.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let text = match args.command {
        Command::Check(args) => {
            let start = args.start();
            let config = start.load()?;
            crate::node::tls::check(&config)?;
            config.cluster.tls.as_ref().map(crate::cluster_tls::LinkTls::load).transpose()?;
            forebay_sinks::rules::load(&config.alerts.rules)?;
            match start.config {
                Some(file) => format!("{}: ok\n", file.display()),
                None => "ok: no config file given, the defaults and the environment are fine\n".to_owned(),
            }
        }
        Command::Show(args) => show(&Settings::read(&args.start().sources())?)?,
        Command::Docs => docs(),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: FileArgs,
    }

    #[test]
    fn the_file_is_named_with_or_without_its_option() {
        for words in [&["check", "a.toml"][..], &["check", "--config", "a.toml"]] {
            let start = Cli::try_parse_from(words).unwrap().args.start();
            assert_eq!(start.config, Some(PathBuf::from("a.toml")), "{words:?}");
        }
        assert!(Cli::try_parse_from(["check", "a.toml", "--config", "b.toml"]).is_err());
    }
}
