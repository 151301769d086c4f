//! The configuration: TOML file, `--set`, environment, defaults; every key with type, unit and default.

mod types;

pub use types::*;
