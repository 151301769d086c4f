//! The configuration: TOML file, `--set`, environment, defaults; every key with type, unit and default.

mod build;
mod build_cluster;
mod build_kafka;
mod cluster;
mod error;
mod kafka;
mod key;
mod keys;
mod print;
mod settings;
mod source;
mod suggest;
pub mod topic_config;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use cluster::{ClusterConfig, ClusterTls};
pub use error::{ConfigError, Origin, Problem};
pub use kafka::{ClientAuth, KafkaConfig, SaslMechanism, SecurityProtocol, UserConfig};
pub use key::TimeUnit;
pub use print::{docs, show};
pub use settings::Settings;
pub use source::{ENV_PREFIX, Sources};
pub use types::*;
pub use value::parse_time;

impl Config {
    /// Reads and checks all sources.
    ///
    /// # Errors
    /// Every mistake found, with file, line and key.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        Settings::read(sources)?.build()
    }
}
