//! Tests of the client against a small server that keeps nothing.

mod connection;
pub(crate) mod server;
