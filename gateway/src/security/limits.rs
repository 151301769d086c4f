//! Every limit of users and ACLs in one place.

use std::num::NonZeroU32;

/// Most ACLs of the node: they are held in memory.
pub(crate) const MAX_ACLS: usize = 10_000;
/// Most SCRAM credentials that clients may make; a user has one for each mechanism.
pub(crate) const MAX_CREDENTIALS: usize = 10_000;
/// Most users in `[users]`: each costs milliseconds at a start.
pub(crate) const MAX_FILE_USERS: usize = 1000;
/// Longest name of a user, a principal, a host or a resource in an ACL, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 1024;
/// Longest salt, in bytes.
pub(crate) const MAX_SALT_BYTES: usize = 256;
/// Iterations of a SCRAM credential (Kafka's `ScramMechanism`).
pub(crate) const MIN_ITERATIONS: u32 = 4096;
pub(crate) const MAX_ITERATIONS: u32 = 16_384;
/// Iterations for the passwords in `[users]`.
pub(crate) const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(MIN_ITERATIONS - 1);
/// Requests that may wait for a change of users or ACLs to be durable; more wait at their connections.
pub(crate) const QUEUE: usize = 64;
