//! Appends of one source that stay in order also while the leaders of their partitions change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_disk::Appended;
use forebay_log::AppendError;
use forebay_log::replication::PartitionId;

/// A chain of appends from one source that sends on without waiting for answers. Once one of them is refused, all later ones are too:
/// else what the source sends again would stand behind what it sent after. The same holds between leaders: while an append to a
/// partition is under way, the next one goes the same way to the same leader, or breaks the chain. It stays broken; the source begins
/// a new one. Clones are the same chain.
#[derive(Clone, Default)]
pub struct Chain {
    here: forebay_disk::Chain,
    under_way: Arc<Mutex<HashMap<PartitionId, (Way, usize)>>>,
}

/// Where an append of a chain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To the replica on this node.
    Here,
    /// Over the connection of this number: appends keep their order on one, and none from one to the next.
    Over(u64),
}

/// An append of a chain that is under way. Whoever gives up on it without knowing that it is kept breaks the chain.
pub(super) struct UnderWay {
    chain: Chain,
    partition: PartitionId,
    kept: bool,
}

impl Chain {
    #[must_use]
    pub fn new() -> Chain {
        Chain::default()
    }

    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.here.is_broken()
    }

    /// Something of this source was refused, here or elsewhere.
    pub fn break_off(&self) {
        self.here.break_off();
    }

    /// # Errors
    /// [`AppendError::Storage`] once it is broken.
    pub fn check(&self) -> Result<(), AppendError> {
        self.here.check()
    }

    /// As the log on this node's disk knows it.
    pub(super) fn here(&self) -> &forebay_disk::Chain {
        &self.here
    }

    /// An append to `partition` goes this way.
    ///
    /// # Errors
    /// The chain is broken, or is now because another append to the partition is still on another way.
    pub(super) fn begin(&self, partition: PartitionId, way: Way) -> Result<UnderWay, AppendError> {
        {
            let mut under_way = self.under_way();
            let (taken, count) = under_way.entry(partition).or_insert((way, 0));
            if *taken != way {
                self.break_off();
                return Err(AppendError::NotLeader);
            }
            *count += 1;
        }
        let begun = UnderWay { chain: self.clone(), partition, kept: false };
        // One that was refused has broken the chain before it went off the list.
        self.check().map(|()| begun)
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<PartitionId, (Way, usize)>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    pub(super) fn answered(mut self, answer: &Result<Appended, AppendError>) {
        self.kept = answer.is_ok();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.kept {
            self.chain.break_off();
        }
        let mut under_way = self.chain.under_way();
        if let Some((_, count)) = under_way.get_mut(&self.partition) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.partition);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::Offset;
    use uuid::Uuid;

    use super::*;

    const PARTITION: PartitionId = PartitionId { topic: Uuid::from_u128(7), index: 0 };
    const OTHER: PartitionId = PartitionId { topic: Uuid::from_u128(7), index: 1 };

    fn kept() -> Result<Appended, AppendError> {
        Ok(Appended { base_offset: Offset(1), last_offset: Offset(1), append_time: None })
    }

    #[test]
    fn an_append_goes_the_way_of_those_before_it_or_breaks_the_chain() {
        let chain = Chain::new();
        let first = chain.begin(PARTITION, Way::Over(1)).unwrap();
        let second = chain.begin(PARTITION, Way::Over(1)).unwrap();
        chain.begin(OTHER, Way::Here).unwrap().answered(&kept());
        first.answered(&kept());
        second.answered(&kept());
        // Nothing is under way: another leader may take the next.
        let third = chain.begin(PARTITION, Way::Over(2)).unwrap();
        assert!(!chain.is_broken());
        assert_eq!(chain.begin(PARTITION, Way::Here).err(), Some(AppendError::NotLeader));
        assert!(chain.is_broken());
        third.answered(&kept());
        assert!(matches!(chain.begin(PARTITION, Way::Over(2)), Err(AppendError::Storage(_))));
    }

    #[test]
    fn an_append_whose_fate_is_unknown_breaks_the_chain() {
        let chain = Chain::new();
        drop(chain.begin(PARTITION, Way::Here).unwrap());
        assert!(chain.is_broken() && chain.under_way().is_empty());
    }
}
