//! The coordinators of the partitions of `__consumer_offsets` that this node leads: each from when it has read its partition until
//! another node leads it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_cluster::{Partition, Term};
use forebay_log::group::Limits;
use forebay_log::group::consumer::Catalog;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::Command;
use super::coordinator::Coordinator;
use super::held::{Held, Share};
use crate::kafka::limits::{GROUP_QUEUE, LOG_LINES};
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::state::StateTopic;

/// How soon a partition that could not be read is tried again.
const LOAD_AGAIN: Duration = Duration::from_millis(500);
/// The key of a group without a name, which there is none of: see [`StateTopic::lead`].
const NO_GROUP: &[u8] = &[0, 2, 0, 0];

static NOT_READ: LogLimit = LogLimit::new(LOG_LINES);

/// How far a coordinator is.
#[derive(Clone)]
pub(super) enum Stage {
    Loading,
    /// The partition cannot be read, for this reason; it is tried again.
    Failed(String),
    Ready(Arc<Ready>),
}

/// A coordinator that can be asked.
pub(super) struct Ready {
    pub(super) state: Arc<StateTopic>,
    pub(super) commands: mpsc::Sender<(Arc<Catalog>, Command)>,
}

/// One partition's coordinator; dropped, nothing more of it gets into the log.
struct Slot {
    partition: Arc<Partition>,
    term: Term,
    stage: watch::Receiver<Stage>,
    task: AbortOnDropHandle<()>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.term.end();
    }
}

impl Slot {
    /// Whether it is the coordinator still, or about to be.
    fn holds(&self, partition: &Arc<Partition>) -> bool {
        Arc::ptr_eq(&self.partition, partition)
            && partition.led_in() == Some(self.term.epoch())
            && !self.task.is_finished()
    }
}

#[derive(Default)]
struct Slots {
    by_index: HashMap<u32, Slot>,
    /// Partitions that have had one: what it wrote may still be on its way.
    before: HashSet<u32>,
}

pub(super) struct Led {
    slots: Mutex<Slots>,
    held: Arc<Held>,
    metrics: Arc<Metrics>,
    limits: Limits,
}

impl Led {
    pub(super) fn new(metrics: Arc<Metrics>, limits: Limits) -> Led {
        Led { slots: Mutex::default(), held: Arc::default(), metrics, limits }
    }

    /// The coordinator of a partition, which begins to load here if this node has begun to lead. `None`: it does not lead; one
    /// that was here has ended, and whoever waits for it hears so.
    pub(super) fn of(
        &self,
        partition: &Arc<Partition>,
        catalog: impl FnOnce() -> Arc<Catalog>,
    ) -> Option<watch::Receiver<Stage>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let index = partition.index();
        if let Some(slot) = slots.by_index.get(&index).filter(|slot| slot.holds(partition)) {
            return Some(slot.stage.clone());
        }
        slots.by_index.remove(&index);
        let term = Term::new(partition.led_in()?);
        let after = (!slots.before.insert(index)).then_some(NO_GROUP);
        let (shows, stage) = watch::channel(Stage::Loading);
        let load = Load { partition: Arc::clone(partition), term: term.clone(), after, shows };
        let (share, metrics, limits) = (Share::new(Arc::clone(&self.held)), Arc::clone(&self.metrics), self.limits);
        let catalog = catalog();
        let task = tokio::spawn(async move {
            let Some((state, shows)) = load.run().await else { return };
            let (commands, asked) = mpsc::channel(GROUP_QUEUE);
            let coordinator = Coordinator::load(Arc::clone(&state), catalog, metrics, limits, share);
            // Not to be held here: the coordinator ends when nobody can ask it any more.
            drop(shows.send_replace(Stage::Ready(Arc::new(Ready { state, commands }))));
            drop(shows);
            coordinator.run(asked).await;
        });
        let slot =
            Slot { partition: Arc::clone(partition), term, stage: stage.clone(), task: AbortOnDropHandle::new(task) };
        slots.by_index.insert(index, slot);
        Some(stage)
    }
}

/// A partition to be read.
struct Load {
    partition: Arc<Partition>,
    term: Term,
    after: Option<&'static [u8]>,
    shows: watch::Sender<Stage>,
}

impl Load {
    /// Until it is read; `None` when this node has ceased to lead it before.
    async fn run(self) -> Option<(Arc<StateTopic>, watch::Sender<Stage>)> {
        let Load { partition, term, after, shows } = self;
        loop {
            match StateTopic::lead(Arc::clone(&partition), term.clone(), after).await {
                Ok(state) => {
                    // From an older offset a group reads records again, as after any crash of its own.
                    state.go_on_damaged();
                    return Some((state, shows));
                }
                Err(_) if partition.led_in() != Some(term.epoch()) => return None,
                Err(error) => {
                    if let Some(suppressed) = NOT_READ.admit() {
                        let index = partition.index();
                        tracing::warn!(partition = index, %error, suppressed, "consumer groups cannot be read now");
                    }
                    shows.send_replace(Stage::Failed(error.to_string()));
                }
            }
            tokio::time::sleep(LOAD_AGAIN).await;
        }
    }
}
