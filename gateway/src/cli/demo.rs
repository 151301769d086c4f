//! `forebay demo`: the main job on real meter readings, in front of the user.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{TimeUnit, parse_time};
use crate::demo::{self, Options};

/// Arguments of `forebay demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the demo's node, made anew at each start; one that no demo made is left alone
    #[arg(long, value_name = "DIR", default_value = "forebay-demo")]
    data_dir: PathBuf,
    /// CSV file (or .csv.zst) to replay instead of the readings in the program: a header line, a column for the time (ts),
    /// one for the meter, the others become fields
    #[arg(long, value_name = "FILE")]
    readings: Option<PathBuf>,
    /// Seconds of the meters' time in each second
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1..))]
    speedup: u32,
    /// Replay for this long, such as 30s or 5m, round after round if need be, then check, sum up and exit
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Exit when all readings have been replayed once, stored, tiered and checked
    #[arg(long)]
    once: bool,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_time(text, TimeUnit::Milliseconds)? {
        millis if millis > 0 => Ok(Duration::from_millis(millis.unsigned_abs())),
        _ => Err(format!("\"{text}\" is no time to run for; 30s and 5m are")),
    }
}

/// Runs the command.
///
/// # Errors
/// A demo that could not run, or whose counts do not add up.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let Args { data_dir, readings, speedup, duration, once } = args;
    demo::run(Options { data_dir, readings, speedup, duration, once }).await
}
