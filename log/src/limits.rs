//! Every limit and default of the log in one place, and the relations between them, checked at compile time.

/// Bytes of a v2 record batch before its first record.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Most bytes of a record before its key: its length, attributes, and distances from the batch's timestamp and offset.
pub const RECORD_PREFIX_BYTES: usize = 5 + 1 + 10 + 5;
/// Bytes of the part that the batch length field does not count (base offset and the length itself).
pub const BATCH_PREFIX_BYTES: usize = 12;
/// Default `max.message.bytes`: the largest record batch, as stored, in bytes (Kafka's default).
pub const MAX_MESSAGE_BYTES: usize = 1_048_588;
/// The largest batch, as stored, that any setting may allow, in bytes.
pub const MAX_BATCH_BYTES: usize = 64 << 20;
/// The largest that one batch may decompress to, in bytes; more is refused as corrupt.
pub const MAX_DECOMPRESSED_BYTES: usize = 128 << 20;
/// The largest record timestamp that is stored, before or after 1970, in milliseconds: the lake keeps it in microseconds.
pub const MAX_TIMESTAMP_MS: i64 = 9_000_000_000_000_000;
/// Most headers in one record.
pub const MAX_HEADERS: usize = 1024;
/// Raw bytes of gathered records at which a gathered batch is closed and the next one begun.
pub const GATHER_BATCH_BYTES: usize = 512 << 10;
/// Most records in one gathered batch.
pub const GATHER_BATCH_RECORDS: usize = 16_384;
/// Bytes of log between two entries of the offset index (Kafka's `index.interval.bytes`).
pub const INDEX_INTERVAL_BYTES: usize = 4096;
/// Largest topic name, in bytes (Kafka's limit).
pub const MAX_TOPIC_NAME: usize = 249;
/// Most partitions of one topic.
pub const MAX_PARTITIONS_PER_TOPIC: u32 = 4096;
/// Bytes of appended records that may wait for their commit in one node; more waits at the door.
pub const MAX_PENDING_APPEND_BYTES: usize = 64 << 20;
/// Requests that may wait in front of one shard.
pub const SHARD_QUEUE: usize = 1024;
/// Bytes kept back on disk so that metadata stays writable on a full disk.
pub const RESERVE_BYTES: u64 = 8 << 20;
/// Bytes that must be free beyond the reserve before a disk that was full takes appends again.
pub const DISK_FULL_HEADROOM_BYTES: u64 = 4 << 20;
/// Most bytes that one read returns, unless a single batch is larger.
pub const MAX_READ_BYTES: usize = 64 << 20;
/// Most cold segments that a partition keeps apart for the retention of the whole log; older ones are counted together.
pub const MAX_COLD_SEGMENTS: usize = 1024;
/// Most entries of a closed segment's indexes that are kept in memory.
pub const MAX_HELD_INDEX_ENTRIES: usize = 512;
/// Threads that sync files for all shards; more partitions than that in one commit take turns.
pub const SYNC_THREADS: usize = 4;
/// Longest time between two looks at rolls, retention and repairs, in milliseconds.
pub const TICK_MS: i64 = 1000;
/// Shortest time between two such looks while nothing arrives, in milliseconds.
pub const MIN_TICK_MS: i64 = 50;
/// A clock that differs by more than this from the time that passed has been set, in milliseconds.
pub const CLOCK_STEP_MS: i64 = 10_000;
/// How long after a start, or after the clock was set, age takes nothing of what was there before out of the log, in milliseconds:
/// time for a clock that is wrongly ahead to be set right.
pub const CLOCK_SETTLE_MS: i64 = 60 * 60_000;
/// A segment whose append lies further ahead than this was stamped by a wrong clock, in milliseconds.
pub const MAX_CLOCK_LEAD_MS: i64 = 24 * 60 * 60_000;
/// How often the recovery points are written when they have moved, in milliseconds.
pub const CHECKPOINT_INTERVAL_MS: u64 = 3000;

/// Default `replica.lag.time.max.ms`: how long a follower may be behind and stay in sync, in milliseconds.
pub const REPLICA_LAG_TIME_MAX_MS: i64 = 10_000;
/// How long a follower waits before it asks again after an answer that did not come or was a refusal, in milliseconds.
pub const PULL_AGAIN_MS: i64 = 200;
/// How long it waits the first time when its leader does not know yet that it leads, in milliseconds; then longer each time.
pub const PULL_SOON_MS: i64 = 5;
/// How long it waits before it asks again after it could not cut its log to its leader's, in milliseconds.
pub const PULL_CUT_AGAIN_MS: i64 = 2000;
/// Bytes of a leader's batches that a follower has received and not yet stored; it asks for no more meanwhile.
pub const PULL_COPYING_BYTES: usize = 16 << 20;

/// How often partitions are looked at for compaction, in milliseconds.
pub const CLEANER_INTERVAL_MS: u64 = 1000;
/// Most bytes that the keys of one compaction pass take (Kafka's `log.cleaner.dedupe.buffer.size`); what has no room waits for
/// the next pass.
pub const CLEANER_KEYS_BYTES: usize = 16 << 20;
/// Bytes that compaction reads and writes at once.
pub const CLEANER_IO_BYTES: usize = 1 << 20;

/// Most nodes of a cluster.
pub const MAX_NODES: usize = 64;
/// Most partitions of a cluster.
pub const MAX_CLUSTER_PARTITIONS: usize = 20_000;
/// Most replicas of a partition.
pub const MAX_REPLICAS: usize = 16;
/// Most bytes of all settings (users, ACLs, quotas, rules) in the cluster's metadata.
pub const MAX_SETTINGS_BYTES: usize = 32 << 20;
/// Most bytes of settings that are changed at once, as they are written to the metadata's log.
pub const MAX_SETTINGS_CHANGE_BYTES: usize = 3 << 20;
/// Most bytes of a setting's namespace, and of its key.
pub const MAX_SETTING_KEY_BYTES: usize = 1024;
/// Most bytes of the configs of one topic, names and values.
pub const MAX_TOPIC_CONFIG_BYTES: usize = 32 << 10;
/// Most bytes of a listener's name, of an address and of a rack in a node's registration.
pub const MAX_NODE_TEXT_BYTES: usize = 255;
/// Most addresses of a node.
pub const MAX_NODE_ADDRESSES: usize = 16;
/// Most producer ids given out at once.
pub const MAX_PRODUCER_ID_BLOCK: u32 = 10_000;
/// How often a node tells the controller that it is there, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS: i64 = 300;
/// How long a node may be silent before it is fenced, in milliseconds (Kafka's `broker.session.timeout.ms`, 9000
/// there).
pub const SESSION_TIMEOUT_MS: i64 = 3000;
/// The same for a node whose connections others had refused or reset, in milliseconds.
pub const SUSPICION_GRACE_MS: i64 = 2 * HEARTBEAT_INTERVAL_MS;
/// How often leaderships go back to the preferred leaders, in milliseconds (Kafka's
/// `leader.imbalance.check.interval.seconds`).
pub const BALANCE_INTERVAL_MS: i64 = 300_000;
/// How soon they do after a node or a preferred leader's replica has come back, in milliseconds.
pub const BALANCE_AFTER_RETURN_MS: i64 = 10_000;
/// How long to wait between two steps of balancing or draining when more is to be done, in milliseconds.
pub const MOVE_INTERVAL_MS: i64 = 1000;
/// Most leaderships moved in one step.
pub const LEADERSHIP_MOVES: usize = 200;
/// Most partitions whose replicas are moved at once to empty nodes.
pub const DRAIN_MOVES: usize = 16;

const _: () = assert!(MAX_TIMESTAMP_MS <= i64::MAX / 1000);
const _: () = assert!(GATHER_BATCH_BYTES < MAX_MESSAGE_BYTES);
const _: () = assert!(MAX_MESSAGE_BYTES < MAX_BATCH_BYTES);
const _: () = assert!(MIN_TICK_MS < TICK_MS);
const _: () = assert!(MAX_BATCH_BYTES <= MAX_DECOMPRESSED_BYTES);
const _: () = assert!(MAX_PENDING_APPEND_BYTES >= MAX_BATCH_BYTES);
const _: () = assert!(MAX_PARTITIONS_PER_TOPIC as usize <= MAX_CLUSTER_PARTITIONS);
const _: () = assert!(MAX_REPLICAS <= MAX_NODES);
const _: () = assert!(SUSPICION_GRACE_MS < SESSION_TIMEOUT_MS && HEARTBEAT_INTERVAL_MS < SUSPICION_GRACE_MS);
