//! Every limit of the HTTP door.

use std::time::Duration;

use forebay_log::limits::MAX_DECOMPRESSED_BYTES;

/// Open connections; more wait in the backlog.
pub(crate) const MAX_CONNECTIONS: usize = 512;
/// What the door waits for, and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// A connection without a request that sends nothing and is sent nothing for this long is closed.
    pub(super) idle: Duration,
    /// Longest time from the connection, and later from a request's first byte, until the request's head is whole: who sends
    /// nothing, or a byte now and then, takes another one's place.
    pub(super) head: Duration,
    /// Longest time for one request, its body included.
    pub(super) request: Duration,
}

pub(super) const TIMEOUTS: Timeouts =
    Timeouts { idle: Duration::from_secs(60), head: Duration::from_secs(10), request: Duration::from_secs(60) };
/// Routes whose work grows with the lake: they may take as long as whoever asked waits.
pub(super) const UNTIMED: &[&str] = &["/api/v1/lake/flush", "/api/v1/lake/verify"];
/// What a client that is refused for now is told to wait, seconds.
pub(super) const RETRY_AFTER: &str = "1";
/// Largest body of a POST, bytes.
pub(super) const MAX_BODY_BYTES: usize = 8 << 20;
/// Bytes of the bodies of all POSTs together. To make records of one takes several times its size, but without a pause: as
/// many do so at a time as the runtime has threads.
pub(super) const BODY_MEMORY: usize = 256 << 20;
/// Bytes that all reads of records together may hold, their answers until they are written included.
pub(super) const READ_MEMORY: usize = 512 << 20;
/// Bytes that one read may need: a batch is decompressed as a whole.
pub(super) const READ_RESERVE: u32 = 128 << 20;
/// Most records in one POST.
pub(super) const MAX_RECORDS_PER_POST: usize = 50_000;
/// Bytes of a POST's records for one partition that are appended as one piece, at most what `max.message.bytes` allows.
pub(super) const CHUNK_BYTES: usize = 128 << 10;
/// Bytes that the encoding of a record takes beyond key, value and headers, at most: attributes and the six numbers of
/// variable length in front of them.
pub(super) const RECORD_OVERHEAD_BYTES: usize = 40;
/// Bytes of the two lengths of a record's header, at most.
pub(super) const HEADER_OVERHEAD_BYTES: usize = 10;
/// Most records in one answer.
pub(super) const MAX_RECORDS_PER_READ: usize = 1000;
/// Records in an answer when `limit` is not given.
pub(super) const DEFAULT_RECORDS_PER_READ: usize = 100;
/// Bytes of keys, values and headers after which an answer ends, and of batches read at a time.
pub(super) const MAX_READ_BYTES: usize = 4 << 20;
/// Consumer groups in one answer.
pub(super) const MAX_GROUPS: usize = 1000;
/// Clients in one answer.
pub(super) const MAX_CLIENTS: usize = 1000;
/// Alerts in the status.
pub(super) const MAX_STATUS_ALERTS: usize = 100;

const _: () = assert!(MAX_BODY_BYTES <= BODY_MEMORY && READ_RESERVE as usize <= READ_MEMORY);
const _: () = assert!(MAX_DECOMPRESSED_BYTES <= READ_RESERVE as usize);
