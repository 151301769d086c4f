//! The cleaner: a thread of low priority that compacts partitions when a pass is due.

mod pass;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use forebay_log::compaction::plan;
use forebay_log::limits::CLEANER_INTERVAL_MS;
use forebay_log::partition::Event;
use forebay_log::{AppendError, Millis, Offset};
use tokio::sync::oneshot;

use crate::files::Files;
use crate::log::Topics;
use crate::machine::Token;
use crate::partition::Partition;
use crate::shard::Request;
use crate::shared::Shared;

pub(crate) use pass::{Ask, Pass, Stopped};

/// The nice value of the thread: it weighs a tenth of another.
const NICE: i32 = 10;

/// The running cleaner.
pub(crate) struct Cleaner {
    stop: SyncSender<()>,
    thread: thread::JoinHandle<()>,
}

impl Cleaner {
    pub(crate) fn start(files: Arc<dyn Files>, topics: Arc<ArcSwap<Topics>>) -> io::Result<Cleaner> {
        let (stop, stopped) = sync_channel(1);
        let mut work = Work { files, topics, stopped, told: HashMap::new() };
        let thread = thread::Builder::new().name("forebay-cleaner".to_owned()).spawn(move || {
            // On Linux the nice value is the thread's own.
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::debug!(%error, "compaction runs at normal priority");
            }
            work.run();
        })?;
        Ok(Cleaner { stop, thread })
    }

    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the cleaner of the log panicked");
        }
    }
}

struct Work {
    files: Arc<dyn Files>,
    topics: Arc<ArcSwap<Topics>>,
    stopped: Receiver<()>,
    /// Why each partition's last pass failed: told once.
    told: HashMap<u64, String>,
}

impl Work {
    fn run(&mut self) {
        let interval = Duration::from_millis(CLEANER_INTERVAL_MS);
        while self.stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let topics = self.topics.load_full();
            for topic in topics.values().filter(|topic| topic.config().compact) {
                for partition in &topic.partitions {
                    match self.look_at(partition) {
                        Ok(()) => drop(self.told.remove(&partition.key)),
                        Err(Stopped::Shutdown) => return,
                        Err(error) => self.tell(partition, error.to_string()),
                    }
                }
            }
        }
    }

    fn look_at(&self, partition: &Partition) -> Result<(), Stopped> {
        let (shared, config) = (&partition.shared, partition.config.load_full());
        let now = Millis::from_system(SystemTime::now());
        let Some(due) = plan(&config, &shared.closed.load(), compacted_to(shared), now) else { return Ok(()) };
        let mut pass = Pass {
            files: self.files.as_ref(),
            shared,
            config: &config,
            now,
            ask: &mut |what| ask(partition, what),
            is_stopped: &|| self.stopped.try_recv() == Err(TryRecvError::Disconnected),
        };
        pass.run(&due)
    }

    fn tell(&mut self, partition: &Partition, error: String) {
        if self.told.get(&partition.key) != Some(&error) {
            let (topic, index) = (partition.topic(), partition.index());
            tracing::warn!(topic, partition = index, error, "not compacted: its log keeps growing; tried again");
            self.told.insert(partition.key, error);
        }
    }
}

/// Below which offset the log is compacted.
pub(crate) fn compacted_to(shared: &Shared) -> Offset {
    Offset(shared.compacted.load(Ordering::Acquire))
}

/// Has the partition's shard do something, and waits until it is durable.
fn ask(partition: &Partition, what: Ask) -> Result<(), AppendError> {
    let (reply, answer) = oneshot::channel();
    let event = what.event(Token::Control(reply));
    partition.mailbox.send_blocking(Request::Event(partition.key, event))?;
    answer.blocking_recv().unwrap_or(Err(AppendError::Closed))
}

impl Ask {
    pub(crate) fn event(self, token: Token) -> Event<Token> {
        match self {
            Ask::Compact(compacted) => Event::Compact(Box::new(compacted), token),
            Ask::SetCompacted(end) => Event::SetCompacted(end, token),
        }
    }
}
