//! Every limit of the Kafka door in one place, and the relations between them, checked at compile time.

use std::time::Duration;

use forebay_log::limits::MAX_BATCH_BYTES;

/// Largest request frame, in bytes, the 4 bytes of length not counted (Kafka's `socket.request.max.bytes`).
pub(crate) const MAX_REQUEST_BYTES: usize = MAX_BATCH_BYTES + (1 << 20);
/// Largest request frame of every API but Produce, in bytes.
pub(crate) const MAX_SMALL_REQUEST_BYTES: usize = 4 << 20;
/// Most array elements and unknown tagged fields in one request, over all nesting levels.
pub(crate) const MAX_REQUEST_ELEMENTS: usize = 100_000;
/// Most partitions of all topics together, when clients make topics.
pub(crate) const MAX_PARTITIONS: usize = 20_000;
/// Longest time that a request waits for the cluster's controller.
pub(crate) const CONTROLLER_WAIT: Duration = Duration::from_secs(30);
/// Most committed offsets of all consumer groups together: they are held in memory.
pub(crate) const MAX_GROUP_OFFSETS: usize = 100_000;
/// A group is forgotten this long after its last commit, milliseconds (Kafka's default of `offsets.retention.minutes`).
pub(crate) const OFFSETS_RETENTION_MS: i64 = 7 * 86_400_000;
/// Most consumer groups with members, or with any since the last look for unused ones.
pub(crate) const MAX_GROUPS: usize = 10_000;
/// Bytes that the members of all groups may take: what they say about themselves and what is assigned to them.
pub(crate) const GROUP_MEMORY: usize = 64 << 20;
/// Longest id, rack or regular expression that a member of the consumer protocol may have, bytes.
pub(crate) const MAX_GROUP_NAME: usize = 4096;
/// Requests that may wait for the group coordinator; more wait at their connections.
pub(crate) const GROUP_QUEUE: usize = 256;
/// Least time between two looks for groups to forget, and before the first.
pub(crate) const GROUP_LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// Filters of one DeleteAcls request: each looks through all ACLs.
pub(crate) const MAX_ACL_FILTERS: usize = 1000;
/// Bytes of large request frames that all connections of the door may hold; more waits in the sockets.
pub(crate) const REQUEST_MEMORY: usize = 256 << 20;
/// Largest frame, its length included, that counts as small. It takes its share of the memory when it has come whole, so
/// that nobody waits for a sender that announces more than it sends.
pub(crate) const SMALL_FRAME_BYTES: usize = READ_AHEAD;
/// Bytes of small request frames that all connections of the door may hold while they are carried out.
pub(crate) const SMALL_REQUEST_MEMORY: usize = 64 << 20;
/// Largest fetch response, in bytes of records, whatever the client allows (a single larger batch is still served).
pub(crate) const MAX_FETCH_BYTES: usize = 16 << 20;
/// Bytes of fetched records that all connections of the door may hold on their way to the sockets.
pub(crate) const FETCH_MEMORY: usize = 256 << 20;
/// How long a fetch waits at least for its share of them.
pub(crate) const FETCH_MEMORY_WAIT: Duration = Duration::from_secs(5);
/// Largest part of a fetch response that comes from the cold tier, in bytes of records (a single larger batch is still served).
pub(crate) const COLD_FETCH_BYTES: usize = 4 << 20;
/// Bytes of such records that all connections may hold: of their own, so that none waits for the object store but their readers.
pub(crate) const COLD_FETCH_MEMORY: usize = 64 << 20;
/// How long a fetch that has nothing else to answer waits at least for the cold tier. Less than clients wait for their answer.
pub(crate) const COLD_FETCH_WAIT: Duration = Duration::from_secs(5);
/// How long one that has waits for it all the same: what the lake has in its cache comes within this.
pub(crate) const COLD_GRACE: Duration = Duration::from_millis(250);
/// Connections of the door; further ones are closed at once.
pub(crate) const MAX_CONNECTIONS: usize = 4096;
/// Requests of one connection that may wait for their answer; the next is not read before one is answered.
pub(crate) const MAX_IN_FLIGHT: usize = 64;
/// A connection without a request for this long is closed (Kafka's `connections.max.idle.ms`).
pub(crate) const IDLE: Duration = Duration::from_secs(600);
/// As [`IDLE`], before the first request: clients begin to speak at once, and a silent one takes another one's place.
pub(crate) const FIRST_REQUEST: Duration = Duration::from_secs(30);
/// A connection must have logged in within this time.
pub(crate) const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// A failed login is answered, and its connection closed, this much later (Kafka's
/// `connection.failed.authentication.delay.ms`).
pub(crate) const FAILED_LOGIN_DELAY: Duration = Duration::from_millis(100);
/// Largest request frame of who has not logged in yet, in bytes; what SASL needs is much smaller.
pub(crate) const MAX_LOGIN_BYTES: usize = 16 << 10;
/// A TLS handshake must begin within this time, and be over within as much again.
pub(crate) const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// TLS handshakes at once, each of which may gather some 64 KiB; further ones wait for their turn.
pub(crate) const MAX_TLS_HANDSHAKES: usize = 1024;
/// Once its length has come, the rest of a request must come within this time.
pub(crate) const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// A client must take its answers within this time and the one that [`MIN_WRITE_RATE`] gives their size.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes a second.
pub(crate) const MIN_WRITE_RATE: usize = 64 << 10;
/// At shutdown, how long requests in flight may take.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest long poll of a fetch.
pub(crate) const MAX_FETCH_WAIT: Duration = Duration::from_secs(60);
/// Least time between two looks of a fetch that waits for more than one byte.
pub(crate) const FETCH_RECHECK: Duration = Duration::from_millis(10);
/// Longest time that a produce request may ask to wait for its append.
pub(crate) const MAX_PRODUCE_WAIT: Duration = Duration::from_secs(120);
/// Most partitions of one answer to DescribeTopicPartitions (Kafka's `max.request.partition.size.limit`).
pub(crate) const MAX_DESCRIBED_PARTITIONS: usize = 2000;
/// Fetch sessions at once (Kafka's `max.incremental.fetch.session.cache.slots`).
pub(crate) const MAX_FETCH_SESSIONS: usize = 1000;
/// Partitions that all fetch sessions remember together.
pub(crate) const MAX_SESSION_PARTITIONS: usize = 100_000;
/// Another may take the place of a fetch session that was not used for this long.
pub(crate) const FETCH_SESSION_IDLE: Duration = Duration::from_secs(120);
/// Entities that may have quotas.
pub(crate) const MAX_QUOTAS: usize = 10_000;
/// Allowances that are remembered at once: users, client ids or pairs of them with a quota.
pub(crate) const MAX_QUOTA_BUCKETS: usize = 10_000;
/// How much of its rate a client may use at once.
pub(crate) const QUOTA_BURST: Duration = Duration::from_secs(1);
/// Longest wait for an allowance; clients give up on an answer sooner than on a broker that asks them to wait.
pub(crate) const MAX_THROTTLE: Duration = Duration::from_secs(30);
/// Unit in which request and fetch memory are counted.
pub(crate) const MEMORY_UNIT: usize = 1024;
/// Log lines a second of each kind that clients can cause; the rest is counted.
pub(crate) const LOG_LINES: u32 = 5;
/// Most that the read buffer of a connection grows ahead of the bytes that came.
pub(crate) const READ_AHEAD: usize = 64 << 10;

const _: () = assert!(MAX_REQUEST_BYTES <= REQUEST_MEMORY);
const _: () = assert!(SMALL_FRAME_BYTES <= SMALL_REQUEST_MEMORY);
const _: () = assert!(MAX_LOGIN_BYTES < SMALL_FRAME_BYTES);
const _: () = assert!(FIRST_REQUEST.as_secs() < IDLE.as_secs());
const _: () = assert!(MAX_BATCH_BYTES <= FETCH_MEMORY);
const _: () = assert!(MAX_FETCH_BYTES <= FETCH_MEMORY);
const _: () = assert!(COLD_FETCH_BYTES <= COLD_FETCH_MEMORY);
const _: () = assert!(REQUEST_MEMORY / MEMORY_UNIT < u32::MAX as usize);
