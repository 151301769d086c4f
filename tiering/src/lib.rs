//! The lake: plans the offload of closed segments, shapes payloads into typed columns, writes and reads Parquet, commits tables.

pub mod manifest;
pub mod offload;
pub mod parquet;
pub mod shape;
pub mod store;
pub mod table;
