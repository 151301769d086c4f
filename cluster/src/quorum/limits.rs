//! Every limit and default of the quorum in one place, and the relations between them, checked at compile time.

use std::time::Duration;

/// How often a leader lets its followers know of itself; also how long one message to a follower may take.
pub const HEARTBEAT: Duration = Duration::from_millis(150);
/// A voter that has heard from a leader within this time votes for nobody else.
pub const LEASE: Duration = Duration::from_millis(400);
/// A voter that has not heard from a leader for a random time between these two asks for an election.
pub const ELECTION_MIN: Duration = Duration::from_millis(1000);
/// See [`ELECTION_MIN`].
pub const ELECTION_MAX: Duration = Duration::from_millis(2000);
/// The most that a hint that the leader is gone is put off, so that two voters do not ask at the same moment.
pub const HINT_JITTER: Duration = Duration::from_millis(40);
/// How long one chunk of a snapshot may take, the last one with its installation.
pub const SNAPSHOT_CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message with a single entry larger than [`MAX_APPEND`] may take.
pub const LARGE_APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a proposal waits until its outcome counts as unknown.
pub const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node that was not reached is left alone.
pub const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);

/// The largest entry in bytes.
pub const MAX_ENTRY: usize = 4 << 20;
/// Bytes of entries that travel in one message, unless a single entry is larger.
pub const MAX_APPEND: usize = 512 << 10;
/// Entries that travel in one message.
pub const MAX_APPEND_ENTRIES: u64 = 300;
/// Bytes of a snapshot that travel in one message.
pub const SNAPSHOT_CHUNK: usize = 768 << 10;
/// The largest snapshot in bytes.
pub const MAX_SNAPSHOT: u64 = 256 << 20;
/// The largest message in bytes: what a transport has to carry.
pub const MAX_MESSAGE: usize = MAX_ENTRY + (64 << 10);

/// A snapshot is taken after so many entries.
pub const SNAPSHOT_ENTRIES: u64 = 5000;
/// A snapshot is taken when the entries in the log have so many bytes.
pub const SNAPSHOT_BYTES: u64 = 8 << 20;
/// How often at most openraft is asked to make a log smaller that has too many bytes.
pub const TRIM_PAUSE: Duration = Duration::from_millis(100);
/// Entries that stay in the log behind a snapshot, for followers that are a little late.
pub const KEPT_ENTRIES: u64 = 1000;
/// A log file that has reached this size is followed by a new one.
pub const LOG_FILE_BYTES: u64 = 4 << 20;
/// How often a failed write is tried in all, and the pauses before the later tries.
pub const WRITE_PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
/// The first pause before a quorum that the disk has stopped is tried again; doubled each time.
pub const AGAIN_MIN: Duration = Duration::from_secs(1);
/// The longest such pause.
pub const AGAIN_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(HEARTBEAT.as_millis() * 2 < LEASE.as_millis(), "a lease outlives a lost heartbeat");
const _: () = assert!(LEASE.as_millis() < ELECTION_MIN.as_millis(), "an election begins after the lease");
const _: () = assert!(ELECTION_MIN.as_millis() < ELECTION_MAX.as_millis());
const _: () = assert!(MAX_APPEND < MAX_ENTRY && SNAPSHOT_CHUNK < MAX_MESSAGE);
const _: () = assert!(KEPT_ENTRIES < SNAPSHOT_ENTRIES);
