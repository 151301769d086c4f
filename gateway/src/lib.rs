//! Forebay: an edge ingest gateway from smart meters to log, lake and alerts in one process.

pub mod alerts;
mod base64;
mod bench;
pub mod cli;
pub mod client;
mod clock;
mod cluster;
mod cluster_tls;
pub mod config;
pub mod demo;
mod figures;
pub mod http;
pub mod ingest;
pub mod kafka;
pub mod lake;
mod leadership;
pub mod log_limit;
pub mod metrics;
pub mod mqtt;
pub mod node;
pub mod quic;
pub mod reader;
pub mod security;
mod settings;
pub mod state;
