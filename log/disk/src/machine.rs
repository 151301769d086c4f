//! The tokens with which the shards answer requests, and the machine that carries them.

use forebay_log::partition::{ActiveProducer, Appended, Follower, Outcome, Partition};
use forebay_log::{AppendError, Epoch};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::chain::Chain;

/// A partition's machine as the shards drive it.
pub(crate) type Machine = Partition<Token>;

/// Whom to answer.
#[derive(Debug)]
pub(crate) enum Token {
    Append {
        reply: oneshot::Sender<Result<Appended, AppendError>>,
        /// The append's share of [`forebay_log::limits::MAX_PENDING_APPEND_BYTES`], given back with the answer, or when its
        /// data is dropped before that.
        permit: Option<OwnedSemaphorePermit>,
        chain: Option<Chain>,
    },
    Control(oneshot::Sender<Result<(), AppendError>>),
    Producers(oneshot::Sender<Vec<ActiveProducer>>),
    Followers(oneshot::Sender<Vec<Follower>>),
}

impl Token {
    /// The data is gone: only the answer is still owed, and others may use the memory.
    pub(crate) fn release(&mut self) {
        if let Token::Append { permit, .. } = self {
            *permit = None;
        }
    }

    /// Refuses at once what follows on a refused append of its chain, and what is of another term than `epoch`, the partition's.
    pub(crate) fn check_chain(&self, epoch: Epoch) -> Result<(), AppendError> {
        match self {
            Token::Append { chain: Some(chain), .. } => chain.check_in(epoch),
            _ => Ok(()),
        }
    }

    /// Answers; a caller that no longer waits has its record all the same.
    pub(crate) fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Token::Append { reply, .. }, Outcome::Appended(appended)) => drop(reply.send(Ok(appended))),
            (Token::Append { reply, chain, .. }, Outcome::Refused(error)) => {
                // Before the answer: who hears of it finds the chain broken.
                chain.iter().for_each(Chain::break_off);
                drop(reply.send(Err(error)));
            }
            (Token::Control(reply), Outcome::Applied) => drop(reply.send(Ok(()))),
            (Token::Control(reply), Outcome::Refused(error)) => drop(reply.send(Err(error))),
            (Token::Producers(reply), Outcome::Producers(active)) => drop(reply.send(active)),
            (Token::Followers(reply), Outcome::Followers(followers)) => drop(reply.send(followers)),
            // A copy of the leader's batches is durable.
            (Token::Control(reply), Outcome::Appended(_)) => drop(reply.send(Ok(()))),
            // Its caller hears of it by the drop.
            (Token::Producers(_) | Token::Followers(_), Outcome::Refused(_)) => {}
            (_, Outcome::Appended(_) | Outcome::Applied | Outcome::Producers(_) | Outcome::Followers(_)) => {
                debug_assert!(false, "each request is answered with what it asked for");
            }
        }
    }
}
