//! Every limit and default of the links in one place, and the relations between them, checked at compile time.

use std::time::Duration;

use super::Lane;

/// The first bytes that each side sends.
pub const MAGIC: [u8; 4] = *b"FBLK";
/// The oldest protocol version that this release speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The newest protocol version that this release speaks.
pub const PROTOCOL_MAX: u16 = 1;
/// Largest hello or answer to one, in bytes after magic and length.
pub const MAX_HELLO_BYTES: usize = 64 << 10;
/// Longest cluster id, in bytes.
pub const MAX_CLUSTER_ID: usize = 128;
/// Longest text for a person in a refusal, error or goodbye, in bytes; more is cut.
pub const MAX_TEXT: usize = 2048;
/// Most kinds of messages that a node may say that it speaks.
pub const MAX_KINDS: usize = 1024;
/// Bytes of a frame before its body: length, type, kind, version, correlation id.
pub const FRAME_HEADER_BYTES: usize = 4 + 1 + 2 + 2 + 8;
/// Largest frame, in bytes after its length.
pub const MAX_FRAME_BYTES: usize = 80 << 20;
/// Largest frame of the control lane: what is urgent is small, and must not wait behind what is not.
pub const MAX_CONTROL_FRAME_BYTES: usize = 5 << 20;
/// Largest body of a goodbye: class, code and text.
pub const MAX_GOODBYE_BYTES: usize = MAX_TEXT + 16;
/// How long the body of a frame may take, however small it is, and how many bytes a second it must have beside that.
pub const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// See [`BODY_PATIENCE`].
pub const BODY_BYTES_PER_SECOND: u64 = 256 << 10;
/// Bytes of the buffer that a connection reads headers and small bodies into.
pub const READ_BUFFER_BYTES: usize = 64 << 10;
/// Most frames that are written together.
pub const WRITE_BATCH_FRAMES: usize = 64;
/// Bytes of queued frames at which they are written without looking for more.
pub const WRITE_BATCH_BYTES: usize = 256 << 10;
/// Bytes that the system may hold of a link and has not sent yet. Without a bound it holds megabytes, which on a slow
/// path take longer than a silent link lives.
pub const UNSENT_BYTES: u32 = 256 << 10;
/// A body of at most this is copied behind its header, so that a small frame is one piece.
pub const INLINE_BODY_BYTES: usize = 1024;
/// Answers, pongs and goodbyes that may wait beside the requests in flight.
pub const QUEUE_SLACK: usize = 8;
/// Most other nodes that counters are kept of.
pub const MAX_PEERS: usize = 1024;
/// Different reasons of which the log remembers when they were last told.
pub const MAX_REPORTS: usize = 256;
/// Time after which a fault that lasts is told again.
pub const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// Pause when the system cannot give another socket.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// A link that lasted at least this long is dialled again at once when it breaks; others after a pause.
pub const STABLE_LINK: Duration = Duration::from_millis(500);

const _: () = assert!(PROTOCOL_MIN <= PROTOCOL_MAX);
const _: () = assert!(MAX_HELLO_BYTES > MAX_KINDS * 6 + MAX_CLUSTER_ID + MAX_TEXT + 256);
const _: () = assert!(MAX_FRAME_BYTES < u32::MAX as usize && MAX_CONTROL_FRAME_BYTES < MAX_FRAME_BYTES);
const _: () = assert!(crate::quorum::limits::MAX_MESSAGE + FRAME_HEADER_BYTES <= MAX_CONTROL_FRAME_BYTES);
const _: () = assert!(MAX_TEXT + 16 < INLINE_BODY_BYTES * 4 && INLINE_BODY_BYTES < READ_BUFFER_BYTES);
const _: () = assert!(READ_BUFFER_BYTES > FRAME_HEADER_BYTES);

/// What a deployment or a test may want to set. The same values serve both sides of a link.
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest frame, in bytes, sent or received; at most [`MAX_FRAME_BYTES`], and on the control lane
    /// [`MAX_CONTROL_FRAME_BYTES`].
    pub max_frame: usize,
    /// Requests of one link that may wait for their answers: the client sends no more, the server reads no more.
    pub in_flight: usize,
    /// Bytes of requests of one connection that the server handles at a time; it reads no more until some are answered.
    /// A single request may be larger, it is then alone.
    pub connection_bytes: usize,
    /// The same for all connections of a lane together.
    pub lane_bytes: usize,
    /// Connections that the server serves at a time; more wait in the listen queue.
    pub connections: usize,
    /// Connections that may be in their handshake at a time; more wait.
    pub handshakes: usize,
    /// Of these, those of one address; more are closed.
    pub handshakes_each: usize,
    /// Longest wait for a TCP connection.
    pub connect_timeout: Duration,
    /// Longest time that TLS and hello may take; on the server's side with the wait for both.
    pub handshake_timeout: Duration,
    /// How often the client pings. The server answers at once, and by itself while it is held back.
    pub ping_interval: Duration,
    /// A side that hears nothing for this long takes the other for dead.
    pub dead_after: Duration,
    /// A side that cannot write a single byte for this long gives the connection up.
    pub write_timeout: Duration,
    /// First pause before a connection is tried again; doubled each time, and jittered.
    pub backoff_min: Duration,
    /// Longest such pause.
    pub backoff_max: Duration,
    /// Longest wait for answers that are under way when the server shuts down.
    pub drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_frame: MAX_FRAME_BYTES,
            in_flight: 256,
            connection_bytes: 32 << 20,
            lane_bytes: 128 << 20,
            connections: MAX_PEERS * Lane::ALL.len(),
            handshakes: 64,
            handshakes_each: 16,
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_millis(500),
            dead_after: Duration::from_secs(2),
            write_timeout: Duration::from_secs(30),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(2),
        }
    }
}

impl Options {
    pub(super) fn max_frame(&self, lane: Lane) -> usize {
        let most = if lane == Lane::Control { MAX_CONTROL_FRAME_BYTES } else { MAX_FRAME_BYTES };
        self.max_frame.min(most)
    }
}
