//! `forebay demo`: the main job in front of the user, on real readings, with counts that must add up.

mod alert_book;
mod fleet;
mod place;
pub(crate) mod readings;
mod screen;
mod stage;
mod summary;
mod tally;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Sources};
use crate::node::{Node, open_data_dir};

use readings::Readings;
use stage::Stage;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub data_dir: PathBuf,
    /// A CSV file of the user's own; `None`: the real readings in the binary.
    pub readings: Option<PathBuf>,
    /// Seconds of the meters' time in each of ours.
    pub speedup: u32,
    /// Replay for this long, round after round if need be, then exit.
    pub duration: Option<Duration>,
    /// Exit when all readings have been replayed once, stored, tiered and checked.
    pub once: bool,
}

/// Runs the demo.
///
/// # Errors
/// A directory that cannot be used, a node that does not start, and counts that do not add up.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let stop = stop_on_signals()?;
    let file = options.readings.clone();
    let readings = tokio::task::spawn_blocking(move || match file {
        Some(file) => Readings::from_file(&file),
        None => Readings::embedded(),
    });
    let place = place::prepare(&options.data_dir)?;
    let config = Config::load(&Sources { file: Some(place.config.clone()), ..Sources::default() })?;
    let files = open_data_dir(&config)?;
    let node = Node::start(config, files).await?;
    let stage = Stage::new(node.gateway.clone(), place.dir, readings.await??);
    let outcome = stage.play(&options, &stop).await;
    node.drain().await;
    outcome
}

/// Cancelled by the first SIGINT or SIGTERM; the second ends the process on the spot.
fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if last {
                std::process::exit(1);
            }
            cancel.cancel();
        }
    });
    Ok(stop)
}
