//! The Kafka door: framing, negotiation, and one file for each API that is served.

use std::sync::Arc;

use forebay_disk::Log;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::reader::Reader;

/// What every request handler may use.
pub struct KafkaDoor {
    pub log: Log,
    pub reader: Reader,
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    /// What Metadata tells clients to connect to.
    pub advertised: (String, u16),
}

/// Accepts Kafka connections until shutdown; then requests in flight are answered.
pub async fn serve(door: Arc<KafkaDoor>, listener: TcpListener, shutdown: CancellationToken) {
    let _ = (door, listener, shutdown);
    todo!()
}
