//! Long work with what the others leave of the machine: a thread of low priority that rests while they are busy.

use std::thread;
use std::time::{Duration, Instant};

use forebay_log::Offset;

use crate::parquet::{SegmentSource, SourceError, Stretch};

/// The nice value of such a thread: it weighs a tenth of another, enough to never stand still.
const NICE: i32 = 10;
/// The program is busy when its other threads use more than this share of all cores.
const BUSY: f64 = 0.25;
/// The share of one core that the work takes while the program is busy. Priority alone does not keep it down: a copy that runs
/// whenever a core is free for an instant cost ingest a third of its rate (BENCHMARKS.md).
const SHARE: f64 = 0.04;
/// The longest rest, after which the machine is looked at again.
const LONGEST_REST: Duration = Duration::from_secs(1);

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

/// A source whose reader rests between stretches while the rest of the program is busy.
pub(super) struct Unhurried {
    source: Box<dyn SegmentSource>,
    since: Instant,
    /// CPU time of this thread and of the whole program at `since`.
    used: (Duration, Duration),
    cores: usize,
}

impl Unhurried {
    /// To be made on the thread that reads.
    pub(super) fn new(source: Box<dyn SegmentSource>) -> Unhurried {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Unhurried { source, since: Instant::now(), used: cpu_time(), cores }
    }
}

impl SegmentSource for Unhurried {
    fn read(&mut self, from: Offset) -> Result<Stretch, SourceError> {
        let (own, program) = cpu_time();
        let own = own.saturating_sub(self.used.0);
        let others = program.saturating_sub(self.used.1).saturating_sub(own);
        thread::sleep(rest(self.since.elapsed(), own, others, self.cores));
        (self.since, self.used) = (Instant::now(), cpu_time());
        self.source.read(from)
    }
}

/// How long to rest after `wall`, in which this thread worked for `own` and the others for `others`.
fn rest(wall: Duration, own: Duration, others: Duration, cores: usize) -> Duration {
    if others.as_secs_f64() <= BUSY * wall.as_secs_f64() * cores as f64 {
        return Duration::ZERO;
    }
    own.div_f64(SHARE).saturating_sub(wall).min(LONGEST_REST)
}

/// CPU time of this thread and of the whole program.
#[cfg(target_os = "linux")]
fn cpu_time() -> (Duration, Duration) {
    use rustix::time::{ClockId, clock_gettime};
    let of = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    (of(ClockId::ThreadCPUTime), of(ClockId::ProcessCPUTime))
}

/// Not known: the work never rests.
#[cfg(not(target_os = "linux"))]
fn cpu_time() -> (Duration, Duration) {
    (Duration::ZERO, Duration::ZERO)
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

    #[test]
    fn a_copy_goes_on_at_once_when_nobody_else_works_and_rests_when_others_do() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(10), ms(10), ms(0), 2), ms(0));
        assert_eq!(rest(ms(10), ms(10), ms(5), 2), ms(0), "a quarter of two cores is not busy");
        assert_eq!(rest(ms(10), ms(10), ms(6), 2), ms(240), "10 ms of 250 are its share");
        assert_eq!(rest(ms(300), ms(10), ms(500), 2), ms(0), "it has had less than its share");
        assert_eq!(rest(ms(500), ms(500), ms(500), 2), LONGEST_REST);
    }

    #[test]
    fn a_busy_thread_is_seen() {
        let (own, program) = cpu_time();
        let until = Instant::now() + Duration::from_millis(20);
        while Instant::now() < until {}
        let (own_after, program_after) = cpu_time();
        assert!(own_after > own && program_after - program >= own_after - own);
    }
}
