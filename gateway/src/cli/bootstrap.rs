//! The arguments with which commands that speak Kafka are told where to connect, and how.

use std::path::PathBuf;

use anyhow::Context;

use crate::client::kafka::{Bootstrap, ClientSecurity};

/// Where the Kafka listener is, and what it asks for.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BootstrapArgs {
    /// Kafka listener of the node, HOST:PORT, or of any other Kafka
    #[arg(long, global = true, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    bootstrap: String,
    /// Kafka's client properties: security.protocol, sasl.mechanism, sasl.jaas.config, ssl.truststore.location (PEM) and the like
    #[arg(long, global = true, value_name = "FILE")]
    command_config: Option<PathBuf>,
}

impl BootstrapArgs {
    /// Reads the properties file, if one is given.
    ///
    /// # Errors
    /// What is wrong in it.
    pub(super) fn read(&self) -> anyhow::Result<Bootstrap> {
        let security = match &self.command_config {
            Some(file) => ClientSecurity::read(file).with_context(|| format!("--command-config {}", file.display()))?,
            None => ClientSecurity::default(),
        };
        Ok(Bootstrap { addresses: self.bootstrap.clone(), security })
    }
}
