//! A shard: a thread that owns partitions. While it syncs one turn's writes, the next turn's requests gather in its mailbox.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use forebay_log::limits::{SHARD_QUEUE, TICK_MS};
use forebay_log::partition::Event;
use forebay_log::{AppendError, Millis};
use tokio::sync::{mpsc, oneshot};

use crate::clock::StepWatch;
use crate::engine::{Driver, Engine, PartitionKey};
use crate::machine::Token;

/// What a shard is asked.
pub(crate) enum Request {
    Event(PartitionKey, Event<Token>),
    Add(PartitionKey, Box<Driver>),
    /// Lets a partition go and tells when nothing of it is touched any more.
    Remove(PartitionKey, oneshot::Sender<()>),
    Stop,
}

/// The way to a shard.
#[derive(Clone)]
pub(crate) struct Mailbox {
    requests: mpsc::Sender<Request>,
}

impl Mailbox {
    pub(crate) fn to(requests: mpsc::Sender<Request>) -> Mailbox {
        Mailbox { requests }
    }

    /// The way to a shard that has stopped.
    #[cfg(test)]
    pub(crate) fn closed() -> Mailbox {
        Mailbox { requests: mpsc::channel(1).0 }
    }

    /// Sends, waiting while the mailbox is full.
    pub(crate) async fn send(&self, request: Request) -> Result<(), AppendError> {
        self.requests.send(request).await.map_err(|_| AppendError::Closed)
    }

    /// Sends from a thread that may block, also from inside an async context.
    pub(crate) fn send_blocking(&self, mut request: Request) -> Result<(), AppendError> {
        loop {
            match self.requests.try_send(request) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(AppendError::Closed),
                Err(mpsc::error::TrySendError::Full(back)) => request = back,
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A bug in a shard ends the process: recovery is a tested path, a log that has lost a shard is not.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// A running shard.
pub(crate) struct Shard {
    pub(crate) mailbox: Mailbox,
    pub(crate) thread: thread::JoinHandle<io::Result<()>>,
}

impl Shard {
    /// Starts the thread on `engine`.
    pub(crate) fn start(number: usize, engine: Engine) -> io::Result<Shard> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (requests, waiting) = mpsc::channel(SHARD_QUEUE);
        let thread = thread::Builder::new().name(format!("forebay-log-{number}")).spawn(move || {
            let _guard = AbortOnPanic;
            run(Core::new(engine, waiting), &runtime)
        })?;
        Ok(Shard { mailbox: Mailbox { requests }, thread })
    }
}

fn run(mut core: Core, runtime: &tokio::runtime::Runtime) -> io::Result<()> {
    let now = || Millis::from_system(SystemTime::now());
    let mut ticked = now();
    let mut clock = StepWatch::new(ticked, Instant::now());
    loop {
        let pause = Duration::from_millis(u64::try_from(core.engine.idle_for(now())).unwrap_or(1));
        // Everything that has gathered is one turn, and one commit.
        let received = runtime.block_on(async {
            tokio::time::timeout(pause, core.waiting.recv_many(&mut core.requests, SHARD_QUEUE)).await
        });
        let time = now();
        if let Some(by) = clock.step(time, Instant::now()) {
            core.engine.clock_stepped(time, by);
        }
        let stop = core.turn(now) || received == Ok(0);
        if stop {
            return core.engine.flush();
        }
        let time = now();
        if received.is_err() || (time.0 - ticked.0).abs() >= TICK_MS {
            ticked = time;
            core.engine.tick(time);
        }
    }
}

/// A shard without its thread.
pub(crate) struct Core {
    pub(crate) engine: Engine,
    waiting: mpsc::Receiver<Request>,
    requests: Vec<Request>,
}

impl Core {
    pub(crate) fn new(engine: Engine, waiting: mpsc::Receiver<Request>) -> Core {
        Core { engine, waiting, requests: Vec::new() }
    }

    /// Does what was asked for so far; returns whether anything was.
    pub(crate) fn step(&mut self, now: Millis) -> bool {
        while let Ok(request) = self.waiting.try_recv() {
            self.requests.push(request);
        }
        let any = !self.requests.is_empty();
        self.turn(|| now);
        any
    }

    /// One turn with the requests that have been received; returns whether the shard is to stop.
    fn turn(&mut self, now: impl Fn() -> Millis) -> bool {
        let mut stop = false;
        let mut events = Vec::new();
        for request in self.requests.drain(..) {
            match request {
                Request::Event(key, event) => events.push((key, event)),
                Request::Add(key, driver) => self.engine.add(key, *driver),
                Request::Remove(key, done) => {
                    self.engine.turn(now(), std::mem::take(&mut events));
                    self.engine.remove(key);
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Request::Stop => stop = true,
            }
        }
        self.engine.turn(now(), events);
        stop
    }
}

/// The shard that a partition belongs to.
pub(crate) fn shard_of(key: PartitionKey, shards: &[Mailbox]) -> Option<&Mailbox> {
    let count = u64::try_from(shards.len()).ok().filter(|&count| count > 0)?;
    shards.get(usize::try_from(key % count).ok()?)
}

/// Mailboxes of all shards, shared by the log and its partitions.
pub(crate) type Mailboxes = Arc<[Mailbox]>;
