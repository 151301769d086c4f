//! Appends in the name of partitions' leaders: refused once those have successors, in the order of the log that they go to.
//!
//! A service that runs beside the leader of a partition keeps its state in another partition, and that one's leader decides: on one
//! and the same metadata both the source's leader epoch and its own leadership must be those that the append names. The metadata
//! has all leaderships in one order, so what was let through in a later epoch of the source, by this leader of the state or by one
//! before it, is never followed by anything of an earlier epoch. Of one epoch the last beginning counts. That is remembered in memory
//! alone: what comes late of an earlier beginning names the leadership of the state that it was sent to, and is refused by the next.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_disk::{AppendData, Appended, Term};
use forebay_log::cluster::Image;
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, NodeId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};
use uuid::Uuid;

use crate::metadata::Metadata;
use crate::replication::Replicas;

/// Remembered beginnings above which those of deleted topics are looked for.
const LOOK_ABOVE: usize = 1024;

/// Whose append it is: a service's, as the leader of these partitions of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Tells services with state in the same partition from each other.
    pub service: u8,
    pub topic: Uuid,
    pub leads: BTreeMap<u32, Epoch>,
    /// Which beginning of the service it is: higher for each later one of this process.
    serial: u64,
}

impl Claim {
    /// A beginning later than all before.
    #[must_use]
    pub fn new(service: u8, topic: Uuid, leads: BTreeMap<u32, Epoch>) -> Claim {
        Claim { service, topic, leads, serial: next_serial() }
    }

    /// Begins anew, after an append of which it is not known what became: it is there by the time of the next one, or never.
    pub fn renew(&mut self) {
        self.serial = next_serial();
    }

    /// The same for some of its partitions.
    #[must_use]
    pub fn only(&self, partitions: impl IntoIterator<Item = u32>) -> Claim {
        let leads = partitions.into_iter().filter_map(|index| Some((index, *self.leads.get(&index)?))).collect();
        Claim { leads, ..self.clone() }
    }

    pub(crate) fn from_parts(service: u8, topic: Uuid, leads: BTreeMap<u32, Epoch>, serial: u64) -> Claim {
        Claim { service, topic, leads, serial }
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether its leaderships are those of the metadata, and `here` leads `to` in `term`.
    fn check(&self, image: &Image, here: NodeId, (to, term): (PartitionId, Epoch)) -> Result<(), AppendError> {
        let state = image.partition(to.topic, to.index).ok_or(AppendError::NotLeader)?;
        if state.leader != Some(here) || state.leader_epoch != term {
            return Err(AppendError::NotLeader);
        }
        for (index, epoch) in &self.leads {
            match image.partition(self.topic, *index) {
                Some(source) if source.leader_epoch > *epoch => return Err(AppendError::ProducerFenced),
                Some(source) if source.leader_epoch == *epoch => {}
                // Not heard of yet: tried again.
                _ => return Err(AppendError::NotLeader),
            }
        }
        Ok(())
    }
}

fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The partition that is written to, the service, and the partition in whose leader's name.
type Key = (PartitionId, u8, PartitionId);

/// The last beginning that was let through.
#[derive(Debug, Default, Clone, Copy)]
struct Last {
    /// Of the partition that is written to.
    term: Epoch,
    epoch: Epoch,
    serial: u64,
}

#[derive(Default)]
struct Lasts {
    by_key: HashMap<Key, Arc<AsyncMutex<Last>>>,
    look_at: usize,
}

/// What a leader knows of those who write in others' names.
pub(crate) struct Fences {
    here: NodeId,
    metadata: watch::Receiver<Metadata>,
    replicas: Arc<Replicas>,
    lasts: Mutex<Lasts>,
}

impl Fences {
    pub(crate) fn new(here: NodeId, metadata: watch::Receiver<Metadata>, replicas: Arc<Replicas>) -> Fences {
        Fences { here, metadata, replicas, lasts: Mutex::default() }
    }

    /// Appends to a partition that this node leads in `term`. On return everything that was let through of earlier beginnings is in
    /// the log or refused, and nothing of them comes any more. Without `data` that is all: the offset is the log end.
    ///
    /// To be run to its end: whoever comes next waits for it.
    ///
    /// # Errors
    /// [`AppendError::ProducerFenced`] if there is a later leader or beginning; what keeps the records from being kept.
    pub(crate) async fn append(
        &self,
        to: PartitionId,
        term: Epoch,
        claim: &Claim,
        data: Option<AppendData>,
    ) -> Result<Appended, AppendError> {
        // In the order of the partitions, so that two never wait for each other.
        let mut held = Vec::with_capacity(claim.leads.len());
        for index in claim.leads.keys() {
            held.push(
                self.last((to, claim.service, PartitionId { topic: claim.topic, index: *index })).lock_owned().await,
            );
        }
        claim.check(&self.metadata.borrow().image, self.here, (to, term))?;
        let replica = self.replicas.get(to).ok_or(AppendError::NotLeader)?.partition;
        begin(&mut held, term, claim)?;
        let Some(data) = data else {
            let end = replica.watermarks().log_end;
            let leads = replica.leads() && replica.leader_epoch() == term;
            let at = Appended { base_offset: end, last_offset: end, append_time: None };
            return if leads { Ok(at) } else { Err(AppendError::NotLeader) };
        };
        // The partition itself looks at the term again.
        replica.submit_in(&Term::new(term), data).await?.await
    }

    fn last(&self, key: Key) -> Arc<AsyncMutex<Last>> {
        let mut lasts = self.lasts.lock().unwrap_or_else(PoisonError::into_inner);
        if lasts.by_key.len() > lasts.look_at.max(LOOK_ABOVE) {
            let image = self.metadata.borrow().image.clone();
            let exists = |id: &PartitionId| image.partition(id.topic, id.index).is_some();
            lasts.by_key.retain(|(to, _, source), last| Arc::strong_count(last) > 1 || (exists(to) && exists(source)));
            lasts.look_at = lasts.by_key.len() * 2;
        }
        Arc::clone(lasts.by_key.entry(key).or_default())
    }
}

/// Notes a beginning, unless there was a later one.
fn begin(held: &mut [OwnedMutexGuard<Last>], term: Epoch, claim: &Claim) -> Result<(), AppendError> {
    for (last, epoch) in held.iter().zip(claim.leads.values()) {
        if last.term == term && (last.epoch, last.serial) > (*epoch, claim.serial) {
            return Err(AppendError::ProducerFenced);
        }
    }
    for (last, epoch) in held.iter_mut().zip(claim.leads.values()) {
        **last = Last { term, epoch: *epoch, serial: claim.serial };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_comes_next_waits_for_what_was_let_through_before() {
        let (_image, metadata) = watch::channel(Metadata::default());
        let fences = Fences::new(NodeId(1), metadata, Arc::default());
        let [to, source] = [1, 2].map(|id| PartitionId { topic: Uuid::from_u128(id), index: 0 });
        let under_way = fences.last((to, 7, source)).lock_owned().await;
        let claim = Claim::new(7, source.topic, BTreeMap::from([(0, Epoch(3))]));
        let mut next = std::pin::pin!(fences.append(to, Epoch(1), &claim, None));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut next).await.is_err());
        drop(under_way);
        assert_eq!(next.await.err(), Some(AppendError::NotLeader), "of an image without the partition");
    }

    #[tokio::test]
    async fn of_one_leadership_the_last_beginning_counts() {
        let (_image, metadata) = watch::channel(Metadata::default());
        let fences = Fences::new(NodeId(1), metadata, Arc::default());
        let to = PartitionId { topic: Uuid::from_u128(1), index: 0 };
        let first = Claim::new(7, Uuid::from_u128(2), BTreeMap::from([(0, Epoch(3))]));
        let mut second = first.clone();
        second.renew();
        let begun = async |term, claim: &Claim| {
            let source = PartitionId { topic: claim.topic, index: 0 };
            let mut held = [fences.last((to, 7, source)).lock_owned().await];
            begin(&mut held, Epoch(term), claim).is_ok()
        };
        assert!(begun(1, &first).await && begun(1, &first).await && begun(1, &second).await);
        assert!(!begun(1, &first).await);
        // The next leader of the state has heard of none; what was meant for the one before does not come to it.
        assert!(begun(2, &first).await);
        let later = Claim { leads: BTreeMap::from([(0, Epoch(4))]), ..first };
        assert!(begun(2, &later).await && !begun(2, &second).await);
    }
}
