//! Clients of the protocols that the gateway speaks: for the demo, the command line, the load generator and tests.

pub mod mqtt;
