//! A tiny executor: futures of one node, polled in their order until none gets further.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use forebay_disk::Appended;
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch};

use crate::message::Peer;
use crate::services::groups::Storing;

/// Something that a node waits for.
pub(crate) type Task = Pin<Box<dyn Future<Output = Done>>>;

/// What has come of it.
pub(crate) enum Done {
    /// Nobody has to hear of it.
    Quietly,
    Followed {
        partition: PartitionId,
        epoch: Epoch,
        result: Result<(), AppendError>,
    },
    Copied {
        leader: usize,
        partition: PartitionId,
        epoch: Epoch,
        bytes: usize,
        result: Result<(), AppendError>,
    },
    Coordinated {
        epoch: Epoch,
        storing: Storing,
        result: Result<(), AppendError>,
    },
    Cut {
        leader: usize,
        partition: PartitionId,
        epoch: Epoch,
        result: Result<(), AppendError>,
    },
    Appended {
        client: Peer,
        attempt: u64,
        partition: PartitionId,
        all: bool,
        batch: bytes::Bytes,
        result: Result<Appended, AppendError>,
    },
}

/// Polls all, in their order, again and again while any of them is done.
pub(crate) fn poll(tasks: &mut Vec<Task>) -> Vec<Done> {
    let mut context = Context::from_waker(Waker::noop());
    let mut done = Vec::new();
    loop {
        let before = done.len();
        tasks.retain_mut(|task| match task.as_mut().poll(&mut context) {
            Poll::Ready(output) => {
                done.push(output);
                false
            }
            Poll::Pending => true,
        });
        if done.len() == before {
            return done;
        }
    }
}
