//! A thread that does long work with what the others leave of the machine.

use std::thread;

/// The nice value of such a thread: it weighs a tenth of another, enough to never stand still. 19 and `SCHED_IDLE` took as much from
/// ingest when they were measured (BENCHMARKS.md).
const NICE: i32 = 10;

/// Runs `work` on a thread of its own at low priority, and waits for it: the nice value of a pool's thread could not be raised
/// again.
///
/// # Errors
/// There can be no further thread, or the work panicked.
pub(super) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    let start = || {
        lower_priority();
        work()
    };
    thread::scope(|scope| {
        let named = thread::Builder::new().name("forebay-offload".to_owned());
        let running = named.spawn_scoped(scope, start).map_err(|error| format!("no thread for the copy: {error}"))?;
        running.join().map_err(|_| "the copy panicked".to_owned())
    })
}

/// On Linux the nice value is the calling thread's own.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the offload runs at normal priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_copy_yields_to_everyone_else_and_nobody_else_does() {
        let nice = || rustix::process::getpriority_process(None).expect("a nice value");
        let before = nice();
        assert_eq!(run(nice), Ok(NICE.max(before)));
        assert_eq!(nice(), before);
    }

    #[test]
    fn a_copy_that_panics_is_an_error_like_any_other() {
        assert!(run(|| panic!("on purpose")).is_err());
    }
}
