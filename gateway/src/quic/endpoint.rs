//! How the endpoint is set up: TLS with ALPN `mqtt`, and limits that keep a connection's memory small.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{ServerConfig, TransportConfig, VarInt};

/// The application protocol of MQTT over QUIC.
const ALPN: &[u8] = b"mqtt";

/// Streams that one connection may have open at a time, control included.
const MAX_STREAMS: u32 = 64;

/// Bytes that a peer may send ahead of the session, on one stream and on all of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Bytes sent to a peer and not acknowledged.
const SEND_WINDOW: u64 = 1 << 20;

/// We ping well within the idle timeout, so that only a dead peer is idle: MQTT's keep-alive may be hours, or none.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const IDLE_TIMEOUT_MS: u32 = 45_000;
const _: () = assert!(KEEP_ALIVE.as_millis() * 2 < IDLE_TIMEOUT_MS as u128);

/// First packets of connections not yet looked at: how many, and bytes kept for each.
const MAX_INCOMING: usize = 1024;
const INCOMING_BUFFER: u64 = 16 << 10;

/// The settings of the endpoint with these certificates; ALPN is `mqtt` whatever `tls` says, and there is no 0-RTT: its data may
/// be replayed, and a replayed publish would be stored twice.
pub(super) fn server_config(mut tls: rustls::ServerConfig) -> anyhow::Result<ServerConfig> {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport))
        .migration(true)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER * MAX_INCOMING as u64);
    Ok(config)
}
