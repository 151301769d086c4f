//! Ids of idempotent producers that nobody else in the cluster gets: taken in blocks from the controller (KIP-98, KIP-730).

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use forebay_cluster::{AskError, Log};
use forebay_log::cluster::{Reply, Request};
use uuid::Uuid;

/// Ids taken at once, as in Kafka.
const BLOCK: u32 = 1000;
/// How long the controller may take to give them.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is left of the blocks of this node.
#[derive(Default)]
pub(super) struct ProducerIds {
    left: Mutex<Vec<Range<i64>>>,
}

impl ProducerIds {
    fn take(&self) -> Option<i64> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match left.last_mut()?.next() {
                Some(id) => return Some(id),
                None => drop(left.pop()),
            }
        }
    }

    /// An id that was never given out.
    ///
    /// # Errors
    /// The controller gives none.
    pub(super) async fn next(&self, log: &Log) -> Result<i64, AskError> {
        let Some(cluster) = log.cluster() else { return Ok(random()) };
        if let Some(id) = self.take() {
            return Ok(id);
        }
        // Who comes here at once with others takes a block as well: there are enough.
        match cluster.ask(Request::AllocateProducerIds { count: BLOCK }, PATIENCE).await? {
            Reply::ProducerIds { first, count } => {
                self.left.lock().unwrap_or_else(PoisonError::into_inner).push(first + 1..first + i64::from(count));
                Ok(first)
            }
            other => Err(AskError::Unavailable(format!("it answered {other:?}"))),
        }
    }
}

/// One of 2^63, for a log that nobody else knows.
fn random() -> i64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // The version and variant bits of a UUID are fixed: fold the halves so that every bit is random.
    ((high ^ low.rotate_left(32)) >> 1) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_of_a_block_is_given_once() {
        let ids = ProducerIds { left: Mutex::new(vec![5..7, 20..21]) };
        let given: Vec<i64> = std::iter::from_fn(|| ids.take()).collect();
        assert_eq!(given, [20, 5, 6]);
    }
}
