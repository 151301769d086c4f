//! Gathers the publishes of one socket read into one chunk per partition and submits them together.

use std::sync::Arc;

use bytes::Bytes;
use forebay_disk::{Log, Ticket};
use forebay_log::{AppendError, Millis};

use super::Router;

/// One message to be appended. Slices borrow from the connection's read buffer.
pub struct Publish<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub client_id: &'a str,
    /// 0, 1 or 2
    pub qos: u8,
    pub user_properties: &'a [(Bytes, Bytes)],
    pub content_type: Option<&'a str>,
    /// Set for QoS 2 of a persistent session: recovery finds the record by it (header `mqtt.packet_id`).
    pub packet_id: Option<u16>,
    /// The program's own further headers (`mqtt.retain`, `mqtt.response_topic` ...), written before the user properties.
    pub headers: &'a [(&'static str, &'a [u8])],
}

/// Collects publishes; one per connection, reused.
pub struct Gather {
    #[allow(dead_code)]
    log: Log,
    #[allow(dead_code)]
    router: Arc<Router>,
}

/// Which ticket covers the n-th publish of a gather (several share one).
pub struct Tickets {
    /// In the order of first use; `by_publish[i]` indexes into this.
    pub tickets: Vec<Result<Ticket, AppendError>>,
    pub by_publish: Vec<u32>,
}

impl Gather {
    pub fn new(log: Log, router: Arc<Router>) -> Gather {
        Gather { log, router }
    }
    /// Adds a publish that arrived at `now`; returns its partition (log topic, index) for those who must know. One that is
    /// refused here is not part of the gather: `Tickets::by_publish` does not count it.
    pub fn push(&mut self, now: Millis, publish: &Publish<'_>) -> Result<(Arc<str>, u32), AppendError> {
        let _ = (now, publish);
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    pub fn bytes(&self) -> usize {
        todo!()
    }
    /// Submits all that was gathered, waiting under back-pressure. Order within a partition is kept.
    pub async fn submit(&mut self) -> Tickets {
        todo!()
    }
}
