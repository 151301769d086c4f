//! `forebay serve`: runs one node until it is told to stop, and reloads what can be reloaded.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::StartArgs;
use crate::node::{Node, open_data_dir};

/// How long a drain may take before the process ends without it; everything acknowledged is durable before that.
const DRAIN: Duration = Duration::from_secs(9);

/// Arguments of `forebay serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    start: StartArgs,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
enum Asked {
    Stop,
    Reload,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    async fn stop(&mut self) {
        while matches!(self.next().await, Asked::Reload) {}
    }
}

/// Runs the command.
///
/// # Errors
/// A bad configuration, a listener that cannot be bound, a data directory that cannot be used.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let config = args.start.load()?;
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let files = open_data_dir(&config)?;
    let node = tokio::select! {
        started = Node::start(config, files) => started?,
        () = signals.stop() => return Ok(()),
    };
    println!("{}", node.ready_line());
    std::io::stdout().flush().context("cannot write the ready line")?;
    loop {
        match signals.next().await {
            Asked::Stop => break,
            // A reload may wait on a log that stalls; a stop does not wait for it.
            Asked::Reload => tokio::select! {
                () = node.reload() => {}
                () = signals.stop() => break,
            },
        }
    }
    tracing::info!("draining; a second signal exits at once");
    tokio::select! {
        drained = tokio::time::timeout(DRAIN, node.drain()) => {
            if drained.is_err() {
                tracing::warn!("not everything drained within {DRAIN:?}; what was acknowledged is safe");
            }
            Ok(())
        }
        () = signals.stop() => Err(anyhow::anyhow!("stopped by a second signal before everything was drained")),
    }
}
