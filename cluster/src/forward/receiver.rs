//! The leader's side: takes appends of other nodes in the order in which they come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use forebay_disk::{AppendData, Appended, Chain};
use forebay_log::{AppendError, Incarnation, NodeId};
use tokio::sync::watch;

use super::sender::Append;
use super::wire;
use crate::codec::Malformed;
use crate::fence::Fences;
use crate::link::{Body, Rest};
use crate::metadata::Metadata;
use crate::replication::Replicas;

/// Broken chains that are remembered; more are forgotten, the oldest numbers first: their sources have gone.
const MAX_CHAINS: usize = 100_000;

/// A chain of one start of another node.
type ChainId = (NodeId, Incarnation, u64);

/// Takes forwarded appends, and those that are made in the name of leaders of other partitions.
pub(crate) struct Receiver {
    replicas: Arc<Replicas>,
    pub(crate) fences: Fences,
    /// Chains that have appends under way, and those that are broken.
    chains: Mutex<HashMap<ChainId, (Chain, usize)>>,
}

impl Receiver {
    pub(crate) fn new(here: NodeId, metadata: watch::Receiver<Metadata>, replicas: Arc<Replicas>) -> Arc<Receiver> {
        let fences = Fences::new(here, metadata, Arc::clone(&replicas));
        Arc::new(Receiver { replicas, fences, chains: Mutex::default() })
    }

    /// Hands an append to its partition's log; what is returned waits for it.
    ///
    /// # Errors
    /// The message cannot be read.
    pub(crate) fn read(message: Bytes) -> Result<(Append, AppendData), Malformed> {
        wire::read_append(message)
    }

    pub(crate) async fn begin(
        self: Arc<Self>,
        (from, incarnation): (NodeId, Incarnation),
        append: Append,
        data: AppendData,
    ) -> Rest {
        let id = (from, incarnation, append.chain);
        let chain = self.join(id);
        let begun = self.submit(append, chain.as_ref(), data).await;
        Rest::new(async move {
            let answer = match begun {
                Ok(ticket) => ticket.await,
                Err(error) => Err(error),
            };
            self.leave(id);
            let body: Body = wire::write_answer(&answer);
            Ok(body)
        })
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
            Some(chain) => partition.submit_chained(chain, data).await,
            None if append.all => partition.submit(data).await,
            None => partition.submit_to_leader(data).await,
        }
    }

    fn join(&self, id: ChainId) -> Option<Chain> {
        if id.2 == 0 {
            return None;
        }
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if chains.len() >= MAX_CHAINS {
            let mut idle: Vec<ChainId> =
                chains.iter().filter(|(_, (_, under_way))| *under_way == 0).map(|(id, _)| *id).collect();
            idle.sort_unstable_by_key(|(node, incarnation, number)| (*incarnation, *number, *node));
            idle.truncate(MAX_CHAINS / 2);
            idle.iter().for_each(|id| drop(chains.remove(id)));
        }
        let (chain, under_way) = chains.entry(id).or_default();
        *under_way += 1;
        Some(chain.clone())
    }

    fn leave(&self, id: ChainId) {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((chain, under_way)) = chains.get_mut(&id) {
            *under_way = under_way.saturating_sub(1);
            if *under_way == 0 && !chain.is_broken() {
                chains.remove(&id);
            }
        }
    }
}
