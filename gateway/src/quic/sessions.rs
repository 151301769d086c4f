//! What a QUIC connection needs of the MQTT sessions; the broker in the program, a small server in this door's tests.

use std::future::Future;
use std::sync::Arc;

use quinn::{RecvStream, SendStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::mqtt::Broker;
use crate::mqtt::connection::{self, Ended, Peer, SessionHandle};

/// Runs the streams of a connection.
pub(super) trait Sessions: Clone + Send + Sync + 'static {
    /// An accepted session, to which data streams attach.
    type Handle: Clone + Send + 'static;

    /// Runs the control stream from CONNECT to its end; `accepted` learns the session.
    fn control(
        &self,
        peer: Peer,
        reader: RecvStream,
        writer: SendStream,
        shutdown: CancellationToken,
        accepted: oneshot::Sender<Self::Handle>,
    ) -> impl Future<Output = Ended> + Send;

    /// Runs a data stream to its end. `stream` is never 0, which is control.
    fn data(
        handle: Self::Handle,
        stream: u64,
        reader: RecvStream,
        writer: SendStream,
    ) -> impl Future<Output = ()> + Send;
}

impl Sessions for Arc<Broker> {
    type Handle = SessionHandle;

    async fn control(
        &self,
        peer: Peer,
        reader: RecvStream,
        writer: SendStream,
        shutdown: CancellationToken,
        accepted: oneshot::Sender<SessionHandle>,
    ) -> Ended {
        connection::run(self.clone(), peer, reader, writer, shutdown, Some(accepted)).await
    }

    async fn data(handle: SessionHandle, stream: u64, reader: RecvStream, writer: SendStream) {
        connection::run_data_stream(handle, stream, reader, writer).await;
    }
}
