//! Runs many seeds of the cluster simulation, or one with all that happens in it.

use std::time::{Duration, Instant};

use clap::Parser;
use forebay_simulation::{Flaw, Options, run};

/// Runs a whole cluster under simulated time, disks, network and clients.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Nodes of the cluster; each seed draws 3 to 5 without it.
    #[arg(long)]
    nodes: Option<usize>,
    /// Runs seeds for this many hours, however many that are.
    #[arg(long)]
    hours: Option<f64>,
    /// A bug to plant, to see it found: ack-before-sync, truncate-to-high-watermark, no-epoch-check, shrink-before-commit,
    /// commit-without-offset-check.
    #[arg(long, value_parser = flaw)]
    flaw: Option<Flaw>,
    /// Tells what happens.
    #[arg(long)]
    trace: bool,
}

fn flaw(name: &str) -> Result<Flaw, String> {
    Ok(match name {
        "ack-before-sync" => Flaw::AckBeforeSync,
        "truncate-to-high-watermark" => Flaw::TruncateToHighWatermark,
        "no-epoch-check" => Flaw::NoEpochCheck,
        "shrink-before-commit" => Flaw::ShrinkBeforeCommit,
        "commit-without-offset-check" => Flaw::CommitWithoutOffsetCheck,
        _ => return Err("no such bug".to_owned()),
    })
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let began = Instant::now();
    let until = args.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    let (mut runs, mut failed, mut events, mut acked) = (0, 0, 0, 0);
    for seed in args.seed.. {
        let enough = until.map_or(runs >= args.seeds, |until| began.elapsed() >= until);
        if enough {
            break;
        }
        runs += 1;
        let options = Options { seed, nodes: args.nodes, flaw: args.flaw, trace: args.trace };
        match run(&options) {
            Ok(report) => {
                events += report.events;
                acked += report.acked;
                if args.trace {
                    println!("seed {seed}: healed in {} ms, {} events", report.healed_in, report.events);
                }
            }
            Err(what) => {
                failed += 1;
                let nodes = args.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
                println!("seed {seed} failed: {what}");
                println!("  again, with all that happens: simulate --seed {seed}{nodes} --trace");
            }
        }
    }
    println!(
        "{runs} seeds, {failed} failed; {events} events, {acked} acknowledged records, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    anyhow::ensure!(failed == 0, "{failed} of {runs} seeds failed");
    Ok(())
}
