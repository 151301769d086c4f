//! The controller quorum.
