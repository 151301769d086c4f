//! Every limit of the MQTT doors that the configuration does not name, in one place.

use std::time::Duration;

/// Longest client identifier, in bytes: it is a header of every record and a key of the session state.
pub(crate) const MAX_CLIENT_ID_BYTES: usize = 256;
/// Subscriptions of one client; more are answered with 0x97.
pub(crate) const MAX_SUBSCRIPTIONS_PER_CLIENT: usize = 1000;
/// Subscriptions of the whole node; more are answered with 0x97.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 1_000_000;
/// Messages sent to one client that it has not acknowledged, whatever Receive Maximum it announces.
pub(crate) const MAX_OUTGOING_INFLIGHT: u16 = 256;
/// Bytes of such messages; one message always fits.
pub(crate) const MAX_OUTGOING_INFLIGHT_BYTES: usize = 1 << 20;
/// Bytes of such messages that all parked sessions together hold in memory; more is read from the log again.
pub(crate) const MAX_PARKED_BYTES: usize = 64 << 20;
/// Bytes waiting in memory for one subscriber; one message always fits.
pub(crate) const MAX_QUEUED_BYTES: usize = 4 << 20;
/// Publishes of one connection, QoS 0 included, that wait for their commit before the socket is left unread.
pub(crate) const MAX_APPENDING_PUBLISHES: usize = 16_384;
/// Bytes of such publishes; one publish always fits.
pub(crate) const MAX_APPENDING_BYTES: usize = 4 << 20;
/// Bytes decoded ahead of a stalled log, in which PINGREQs are still seen and answered.
pub(crate) const READ_AHEAD_BYTES: usize = 256 << 10;
/// Packets decoded ahead of a stalled log.
pub(crate) const READ_AHEAD_PACKETS: usize = 16_384;
/// Room that is made ahead for as much as came last, at most; it is not counted as held, and what comes may be small.
pub(crate) const EXPECTED_PUBLISHES: usize = 64;
/// As [`EXPECTED_PUBLISHES`], bytes.
pub(crate) const EXPECTED_BYTES: usize = 32 << 10;
/// Bytes read by all connections together that the log has not yet taken; beyond this only connections that hold none read on.
pub(crate) const MAX_HELD_BYTES: usize = 128 << 20;
/// Bytes that a connection still reads beyond that, to see and answer PINGREQs.
pub(crate) const PING_BYTES: usize = 64;
/// Unwritten bytes above which a connection takes no further packets or deliveries.
pub(crate) const OUTPUT_HIGH_BYTES: usize = 256 << 10;
/// Size of the read buffer of an idle connection; it doubles while reads fill it.
pub(crate) const READ_BUFFER_MIN: usize = 512;
/// Size up to which the read buffer doubles.
pub(crate) const READ_BUFFER_MAX: usize = 64 << 10;
/// A peer that takes no byte for this long is disconnected.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the last packets to leave when a connection is closed.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for acks in flight to finish at shutdown.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);
/// Time for a TLS handshake.
pub(crate) const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// TLS handshakes at a time: a reconnect storm waits in the listen queue.
pub(crate) const MAX_TLS_HANDSHAKES: usize = 64;
/// Connections beyond `max_connections` that may be open for a moment, to be told that there is no room. Others wait in the
/// listen queue of the system.
pub(crate) const REFUSED_AT_A_TIME: usize = 512;
/// How often moved cursors of a connected persistent session are stored.
pub(crate) const CURSOR_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes that a tailer or a catch-up reads from the log at once.
pub(crate) const DELIVERY_READ_BYTES: usize = 256 << 10;
/// Retained messages fetched at once for a new subscription.
pub(crate) const RETAINED_PAGE: usize = 64;
/// How long it is tried to find out which retained messages other nodes have acknowledged.
pub(crate) const CATCH_UP_PATIENCE: Duration = Duration::from_secs(1);
/// Reads of a data stream that wait for the session.
pub(crate) const STREAM_QUEUE: usize = 16;
/// Data streams of one connection.
pub(crate) const MAX_STREAMS: usize = 64;
/// Unsent pieces of output of one data stream; more closes the connection.
pub(crate) const STREAM_OUTPUT_QUEUE: usize = 1024;
/// How often expired sessions and delayed wills are looked for.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often the sessions of nodes that are gone are looked through.
pub(crate) const ORPHANS_INTERVAL: Duration = Duration::from_secs(30);
/// Of these, how many wait for their commit at a time.
pub(crate) const SWEEP_AT_ONCE: usize = 64;
/// Wills and expiries handled in one sweep.
pub(crate) const SWEEP_BATCH: usize = 1024;

const _: () = assert!(READ_BUFFER_MIN < READ_BUFFER_MAX);
const _: () = assert!(READ_BUFFER_MAX <= READ_AHEAD_BYTES);
const _: () = assert!(DRAIN_TIMEOUT.as_secs() + CLOSE_TIMEOUT.as_secs() < 10);
