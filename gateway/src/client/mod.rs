//! Clients of the doors, for the command line and the tests.

pub mod kafka;
