//! Clients of the doors: for the command line, the demo, the load generator and the tests.

pub mod kafka;
pub mod mqtt;
