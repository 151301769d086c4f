//! End-to-end tests of Forebay: the harness that runs a node, and clients of its protocols that share no code with it.
//!
//! The clients here speak MQTT by hand, Kafka by the `kafka-protocol` crate, and read the lake as a reader of the Delta
//! protocol would: its JSON log and the Parquet files. None of them uses Forebay's own codecs.

pub mod audit;
pub mod http;
pub mod kafka;
pub mod lake;
pub mod meter;
pub mod mqtt;
pub mod process;
pub mod readings;
