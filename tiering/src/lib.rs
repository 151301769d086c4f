//! The lake: plans the offload of closed segments, shapes payloads into typed columns, writes and reads Parquet, commits tables.

pub mod parquet;
pub mod shape;
