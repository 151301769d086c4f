//! The tokens with which the shards answer requests, and the machine that carries them.

use forebay_log::AppendError;
use forebay_log::partition::{Appended, Outcome, Partition};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A partition's machine as the shards drive it.
pub(crate) type Machine = Partition<Token>;

/// Whom to answer.
#[derive(Debug)]
pub(crate) enum Token {
    Append {
        reply: oneshot::Sender<Result<Appended, AppendError>>,
        /// The append's share of [`forebay_log::limits::MAX_PENDING_APPEND_BYTES`], given back with the answer.
        _permit: OwnedSemaphorePermit,
    },
    Control(oneshot::Sender<Result<(), AppendError>>),
}

impl Token {
    /// Answers; a caller that no longer waits has its record all the same.
    pub(crate) fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Token::Append { reply, .. }, Outcome::Appended(appended)) => drop(reply.send(Ok(appended))),
            (Token::Append { reply, .. }, Outcome::Refused(error)) => drop(reply.send(Err(error))),
            (Token::Control(reply), Outcome::Applied) => drop(reply.send(Ok(()))),
            (Token::Control(reply), Outcome::Refused(error)) => drop(reply.send(Err(error))),
            (Token::Append { .. }, Outcome::Applied) | (Token::Control(_), Outcome::Appended(_)) => {
                debug_assert!(false, "an append is answered with its offsets, a control request without");
            }
        }
    }
}
