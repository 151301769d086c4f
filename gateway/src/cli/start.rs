//! The arguments with which a node's configuration is chosen, shared by the commands that have one.

use std::path::PathBuf;

use crate::config::{Config, ConfigError, Sources};

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct StartArgs {
    /// Configuration file (TOML); without one the defaults hold
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where log, state and lake are kept (node.data_dir)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Set one key, such as --set listeners.mqtt=0.0.0.0:1883; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl StartArgs {
    /// These arguments with the process's environment.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Sources {
            file: self.config.clone(),
            set: self.set.clone(),
            env: env.collect(),
            data_dir: self.data_dir.clone(),
        }
    }

    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.sources())
    }
}
