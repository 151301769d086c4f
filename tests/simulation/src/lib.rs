//! A whole cluster in one thread, made of the program's own state machines and log: simulated time, disks, network and clients, all drawn
//! from one seed. The same seed gives the same run, down to the bytes on every disk.
//!
//! What is real: partitions, replication, the controller and its image, the log on its (simulated) disk with recovery. What is not:
//! sockets, threads, and the consensus library, of which only the promise is kept ([`quorum`]). The small drivers in [`node`] are
//! what the program has around these machines.

pub mod check;
pub mod clients;
pub mod faults;
pub mod message;
pub mod network;
pub mod node;
pub mod options;
pub mod queue;
pub mod quorum;
pub mod services;
pub mod trace;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use forebay_log::flaws::Flaw;
pub use options::{Options, Profile};
pub use world::{Report, World};

/// Runs one seed.
///
/// # Errors
/// What did not hold, and when.
pub fn run(options: &Options) -> Result<Report, String> {
    forebay_log::flaws::plant(options.flaw);
    let result = catch_unwind(AssertUnwindSafe(|| World::new(options).run()));
    forebay_log::flaws::plant(None);
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}
