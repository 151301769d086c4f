//! The HTTP door: metrics, health, the JSON API and the console page.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::node::Gateway;

/// Serves until shutdown.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, shutdown: CancellationToken) {
    let _ = (gateway, listener, shutdown);
    todo!()
}
