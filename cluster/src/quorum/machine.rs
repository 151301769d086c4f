//! What the quorum keeps: a state that changes by opaque entries, on every node alike.

/// A state machine. It begins empty; after a restart it is restored from a snapshot and given the entries after it again.
pub trait Machine: Send + 'static {
    /// Applies a committed entry. `index` is its place in the Raft log: it grows, with gaps, since not all that is in the
    /// log is for the machine. The same entries in the same order must leave the same state on every node.
    ///
    /// # Errors
    /// Why it cannot be applied here, for a person. The quorum stops on this node: going on without it, the state would be
    /// another one than elsewhere.
    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<(), String>;
    /// The whole state.
    fn snapshot(&self) -> Vec<u8>;
    /// Whether [`Machine::restore`] will take it: asked before the snapshot replaces the one on disk.
    ///
    /// # Errors
    /// What is wrong with it, for a person. The quorum stops on this node.
    fn check(&self, snapshot: &[u8]) -> Result<(), String>;
    /// Replaces the state by what [`Machine::snapshot`] returned, here or on another node.
    ///
    /// # Errors
    /// What is wrong with it, for a person. The quorum stops on this node.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;
}
