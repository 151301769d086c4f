//! The leader's side: takes appends of other nodes in the order in which they come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use forebay_disk::{AppendData, Appended, Chain, Partition};
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Incarnation, NodeId};
use tokio::sync::watch;

use super::sender::Append;
use super::wire;
use crate::codec::Malformed;
use crate::fence::Fences;
use crate::link::Rest;
use crate::metadata::Metadata;
use crate::replication::Replicas;
use crate::writers::Writers;

/// Broken chains that are remembered; more are forgotten, the oldest numbers first: their sources have gone.
const MAX_CHAINS: usize = 100_000;

/// A chain of one start of another node.
type ChainId = (NodeId, Incarnation, u64);

/// Takes forwarded appends, and those that are made in the name of leaders of other partitions.
pub(crate) struct Receiver {
    replicas: Arc<Replicas>,
    pub(crate) fences: Fences,
    pub(crate) writers: Arc<Writers>,
    /// Chains that have appends under way, and those that are broken.
    chains: Mutex<HashMap<ChainId, (Chain, usize)>>,
}

impl Receiver {
    pub(crate) fn new(here: NodeId, metadata: watch::Receiver<Metadata>, replicas: Arc<Replicas>) -> Arc<Receiver> {
        let fences = Fences::new(here, metadata, Arc::clone(&replicas));
        Arc::new(Receiver { replicas, fences, writers: Arc::default(), chains: Mutex::default() })
    }

    /// # Errors
    /// The message cannot be read.
    pub(crate) fn read(message: Bytes, version: u16) -> Result<Vec<(Append, AppendData)>, Malformed> {
        wire::read_appends(message, version)
    }

    /// Hands appends to their partitions' logs, in order; what is returned waits for them.
    pub(crate) async fn begin(
        self: Arc<Self>,
        (from, incarnation): (NodeId, Incarnation),
        appends: Vec<(Append, AppendData)>,
    ) -> Rest {
        let mut begun = Vec::with_capacity(appends.len());
        for (append, data) in appends {
            let joined = (append.chain != 0).then(|| self.join((from, incarnation, append.chain)));
            let chain = joined.as_ref().map(|joined| &joined.chain);
            let writing = append.writer.map(|writer| self.writers.begin(writer)).transpose();
            let ticket = match &writing {
                Ok(_) => self.submit(append, chain, data).await,
                Err(fenced) => {
                    chain.inspect(|chain| chain.break_off());
                    Err(fenced.clone())
                }
            };
            begun.push(async move {
                let answer = match ticket {
                    Ok(ticket) => ticket.await,
                    Err(error) => Err(error),
                };
                drop((joined, writing));
                answer
            });
        }
        Rest::new(async move {
            // Each is answered by its partition's log, whether it is asked in turn or not.
            let mut answers = Vec::with_capacity(begun.len());
            for answer in begun {
                answers.push(answer.await);
            }
            Ok(wire::write_answers(&answers))
        })
    }

    /// A partition that has a replica on this node.
    pub(crate) fn partition(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.replicas.get(id).map(|replica| replica.partition)
    }

    async fn submit(
        &self,
        append: Append,
        chain: Option<&Chain>,
        data: AppendData,
    ) -> Result<impl Future<Output = Result<Appended, AppendError>> + use<>, AppendError> {
        let refused = |error: AppendError| {
            chain.inspect(|chain| chain.break_off());
            error
        };
        let replica = self.replicas.get(append.partition).ok_or_else(|| refused(AppendError::NotLeader))?;
        let partition = replica.partition;
        if !partition.leads() || partition.leader_epoch() != append.epoch {
            return Err(refused(AppendError::NotLeader));
        }
        match chain {
            Some(chain) => partition.submit_chained(chain, append.all, data).await,
            None if append.all => partition.submit(data).await,
            None => partition.submit_to_leader(data).await,
        }
    }

    fn join(self: &Arc<Self>, id: ChainId) -> Joined {
        let mut chains = self.chains();
        if chains.len() >= MAX_CHAINS {
            let mut idle: Vec<ChainId> =
                chains.iter().filter(|(_, (_, under_way))| *under_way == 0).map(|(id, _)| *id).collect();
            idle.sort_unstable_by_key(|(node, incarnation, number)| (*incarnation, *number, *node));
            idle.truncate(MAX_CHAINS / 2);
            idle.iter().for_each(|id| drop(chains.remove(id)));
        }
        let (chain, under_way) = chains.entry(id).or_default();
        *under_way += 1;
        Joined { receiver: Arc::clone(self), id, chain: chain.clone() }
    }

    fn chains(&self) -> MutexGuard<'_, HashMap<ChainId, (Chain, usize)>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An append of a chain that is under way.
struct Joined {
    receiver: Arc<Receiver>,
    id: ChainId,
    chain: Chain,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut chains = self.receiver.chains();
        if let Some((chain, under_way)) = chains.get_mut(&self.id) {
            *under_way = under_way.saturating_sub(1);
            if *under_way == 0 && !chain.is_broken() {
                chains.remove(&self.id);
            }
        }
    }
}
