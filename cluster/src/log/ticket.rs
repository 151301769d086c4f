//! What an append waits for, whichever node it went to.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use forebay_disk::Appended;
use forebay_log::AppendError;

use super::chain::UnderWay;
use crate::forward::Remote;

/// Completes when the append is durable, or refused.
pub struct Ticket {
    waiting: Waiting,
    /// Of an append of a chain.
    under_way: Option<UnderWay>,
}

enum Waiting {
    Here(forebay_disk::Ticket),
    There(Remote),
}

impl Ticket {
    pub(super) fn here(ticket: forebay_disk::Ticket, under_way: Option<UnderWay>) -> Ticket {
        Ticket { waiting: Waiting::Here(ticket), under_way }
    }

    pub(super) fn there(remote: Remote, under_way: Option<UnderWay>) -> Ticket {
        Ticket { waiting: Waiting::There(remote), under_way }
    }
}

impl Future for Ticket {
    type Output = Result<Appended, AppendError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = match &mut self.waiting {
            Waiting::Here(ticket) => Pin::new(ticket).poll(cx),
            Waiting::There(remote) => Pin::new(remote).poll(cx),
        };
        if let (Poll::Ready(answer), Some(under_way)) = (&polled, self.under_way.take_if(|_| polled.is_ready())) {
            under_way.answered(answer);
        }
        polled
    }
}
