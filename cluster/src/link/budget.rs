//! How much of the requests that were read may be handled at a time. Who asks for more waits, and reads nothing
//! meanwhile.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::identity::Lane;
use super::limits::Options;

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Budget {
    lanes: [Arc<Semaphore>; Lane::ALL.len()],
    lane_bytes: usize,
}

/// What one connection has.
#[derive(Debug)]
pub(super) struct ConnectionBudget {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_bytes: usize,
    lane: Arc<Semaphore>,
    lane_bytes: usize,
}

/// What one request holds until it is answered and the answer is written.
#[derive(Debug)]
pub(super) struct Held {
    _permits: [OwnedSemaphorePermit; 3],
}

impl Budget {
    pub(super) fn new(options: &Options) -> Budget {
        let lane_bytes = bound(options.lane_bytes);
        Budget { lanes: Lane::ALL.map(|_| Arc::new(Semaphore::new(lane_bytes))), lane_bytes }
    }

    pub(super) fn connection(&self, lane: Lane, options: &Options) -> ConnectionBudget {
        let max_bytes = bound(options.connection_bytes);
        ConnectionBudget {
            requests: Arc::new(Semaphore::new(options.in_flight.max(1))),
            bytes: Arc::new(Semaphore::new(max_bytes)),
            max_bytes,
            lane: self.lanes[lane as usize].clone(),
            lane_bytes: self.lane_bytes,
        }
    }
}

impl ConnectionBudget {
    /// Room for a request of `bytes`. One that is larger than all there is waits until it is alone.
    pub(super) async fn hold(&self, bytes: usize) -> Result<Held, AcquireError> {
        let some = |max: usize| u32::try_from(bytes.min(max)).unwrap_or(u32::MAX);
        let request = self.requests.clone().acquire_owned().await?;
        let here = self.bytes.clone().acquire_many_owned(some(self.max_bytes)).await?;
        let lane = self.lane.clone().acquire_many_owned(some(self.lane_bytes)).await?;
        Ok(Held { _permits: [request, here, lane] })
    }
}

/// What a semaphore can count and one acquisition can take.
fn bound(bytes: usize) -> usize {
    bytes.clamp(1, (u32::MAX >> 1) as usize).min(Semaphore::MAX_PERMITS)
}
