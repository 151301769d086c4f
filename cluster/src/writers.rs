//! Writers whose successors have been told what they wrote: nothing of theirs may come late into a partition that this node leads.
//!
//! A connection that takes a session over looks in the log for what the one before it was appending. What is not there by then, but
//! still on its way (in a socket behind a cut, in a process that stands still), would be stored behind its repetition. So an append
//! names its writer and the leadership that it is meant for. Whoever looks fences the writer at the leader first: that one refuses it
//! from then on. Later leaders refuse it by the leadership that it names, so this is remembered in memory alone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_log::{AppendError, Epoch, NodeId};
use tokio::sync::Notify;

use crate::codec::{Malformed, Reader, Writer as Out};

/// Fenced writers that a node remembers; the oldest are forgotten first. What may still come of one was sent before it was fenced.
const MAX_FENCED: usize = 16_384;
/// Most writers that are fenced at once.
pub(crate) const MAX_AT_ONCE: usize = 4096;

/// A source of appends that has a successor one day, such as a connection that has a session. None is there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Writer {
    pub node: NodeId,
    /// Of the node's start.
    pub incarnation: u64,
    pub number: u64,
}

/// Whose an append is, and for which leadership alone it is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub by: Writer,
    pub epoch: Epoch,
}

impl Writer {
    pub(crate) fn write(self, out: &mut Out) {
        out.i32(self.node.0).u64(self.incarnation).u64(self.number);
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<Writer, Malformed> {
        Ok(Writer { node: NodeId(reader.i32()?), incarnation: reader.u64()?, number: reader.u64()? })
    }
}

#[derive(Default)]
struct State {
    /// How many appends of each are under way here.
    under_way: HashMap<Writer, usize>,
    fenced: HashSet<Writer>,
    /// Those in the order in which they came.
    order: VecDeque<Writer>,
}

/// The writers that a leader knows of.
#[derive(Default)]
pub(crate) struct Writers {
    state: Mutex<State>,
    ended: Notify,
}

/// An append that is under way; over when dropped.
pub(crate) struct Writing {
    writers: Arc<Writers>,
    by: Writer,
}

impl Writers {
    /// # Errors
    /// The writer is fenced.
    pub(crate) fn begin(self: &Arc<Self>, by: Writer) -> Result<Writing, AppendError> {
        let mut state = self.lock();
        if state.fenced.contains(&by) {
            return Err(AppendError::ProducerFenced);
        }
        *state.under_way.entry(by).or_default() += 1;
        Ok(Writing { writers: Arc::clone(self), by })
    }

    /// On return all that came of these writers is kept or refused, and nothing more comes.
    pub(crate) async fn fence(&self, writers: &[Writer]) {
        {
            let mut state = self.lock();
            for by in writers {
                if state.fenced.insert(*by) {
                    state.order.push_back(*by);
                }
            }
            while state.order.len() > MAX_FENCED {
                let oldest = state.order.pop_front();
                oldest.map(|oldest| state.fenced.remove(&oldest));
            }
        }
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if !writers.iter().any(|by| self.lock().under_way.contains_key(by)) {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut state = self.writers.lock();
        if let Some(count) = state.under_way.get_mut(&self.by) {
            *count -= 1;
            if *count == 0 {
                state.under_way.remove(&self.by);
                self.writers.ended.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn writer(number: u64) -> Writer {
        Writer { node: NodeId(2), incarnation: 7, number }
    }

    #[tokio::test]
    async fn a_fence_waits_for_what_came_and_lets_nothing_more_in() {
        let writers = Arc::new(Writers::default());
        let (first, second) = (writers.begin(writer(1)).unwrap(), writers.begin(writer(1)).unwrap());
        let _other = writers.begin(writer(2)).unwrap();
        let fenced = [writer(1), writer(3)];
        let mut fence = Box::pin(writers.fence(&fenced));
        assert_eq!(fence.as_mut().now_or_never(), None);
        assert_eq!(writers.begin(writer(1)).err(), Some(AppendError::ProducerFenced));
        drop(first);
        assert_eq!(fence.as_mut().now_or_never(), None);
        drop(second);
        fence.await;
        assert_eq!(writers.begin(writer(3)).err(), Some(AppendError::ProducerFenced));
        assert!(writers.begin(writer(2)).is_ok(), "another one writes on");
    }

    #[tokio::test]
    async fn the_oldest_fences_are_forgotten() {
        let writers = Arc::new(Writers::default());
        for number in 0..=MAX_FENCED as u64 {
            writers.fence(&[writer(number)]).await;
        }
        assert!(writers.begin(writer(0)).is_ok());
        assert!(writers.begin(writer(1)).is_err());
    }
}
