//! The Kafka port: `[kafka]` and `[users]`, with Kafka's names.

use std::fmt;
use std::path::PathBuf;

use forebay_log::group::Limits;

use super::value::read_secret_file;
use crate::security::scram::ScramMechanism;

/// `[kafka]`
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `security.protocol`
    pub security_protocol: SecurityProtocol,
    /// `sasl.enabled.mechanisms`
    pub sasl_enabled_mechanisms: Vec<SaslMechanism>,
    /// `ssl.client.auth`
    pub ssl_client_auth: ClientAuth,
    /// `authorizer.enable`: whether ACLs are asked.
    pub authorizer_enable: bool,
    /// `super.users`: principals, such as `User:admin`
    pub super_users: Vec<String>,
    /// `allow.everyone.if.no.acl.found`
    pub allow_everyone_if_no_acl_found: bool,
    /// `auto.create.topics.enable`
    pub auto_create_topics_enable: bool,
    /// `group.*`
    pub groups: Limits,
}

impl KafkaConfig {
    /// Whether nobody is let in who does not say, and prove, who it is.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        let certificate =
            self.security_protocol == SecurityProtocol::Ssl && self.ssl_client_auth == ClientAuth::Required;
        self.security_protocol.is_sasl() || certificate
    }
}

/// What the listener speaks (Kafka's `SecurityProtocol`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecurityProtocol {
    #[default]
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    pub const ALL: [SecurityProtocol; 4] = [
        SecurityProtocol::Plaintext,
        SecurityProtocol::Ssl,
        SecurityProtocol::SaslPlaintext,
        SecurityProtocol::SaslSsl,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "PLAINTEXT",
            SecurityProtocol::Ssl => "SSL",
            SecurityProtocol::SaslPlaintext => "SASL_PLAINTEXT",
            SecurityProtocol::SaslSsl => "SASL_SSL",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<SecurityProtocol> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    #[must_use]
    pub fn is_sasl(self) -> bool {
        matches!(self, SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl)
    }

    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, SecurityProtocol::Ssl | SecurityProtocol::SaslSsl)
    }
}

/// How a client logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    Scram(ScramMechanism),
}

impl SaslMechanism {
    pub const ALL: [SaslMechanism; 3] = [
        SaslMechanism::Plain,
        SaslMechanism::Scram(ScramMechanism::Sha256),
        SaslMechanism::Scram(ScramMechanism::Sha512),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::Scram(mechanism) => mechanism.name(),
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<SaslMechanism> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    #[must_use]
    pub fn scram(self) -> Option<ScramMechanism> {
        match self {
            SaslMechanism::Plain => None,
            SaslMechanism::Scram(mechanism) => Some(mechanism),
        }
    }
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    #[default]
    None,
    Requested,
    Required,
}

impl ClientAuth {
    pub(super) fn from_name(name: &str) -> ClientAuth {
        match name {
            "requested" => ClientAuth::Requested,
            "required" => ClientAuth::Required,
            _ => ClientAuth::None,
        }
    }
}

/// One user of `[users]`.
#[derive(Clone, PartialEq, Eq)]
pub struct UserConfig {
    pub password: String,
    /// Where the password comes from, when it is `file:PATH`.
    pub file: Option<PathBuf>,
}

impl UserConfig {
    /// As it is now: a file is read again.
    ///
    /// # Errors
    /// The file cannot be read, or has no password in it.
    pub fn read_again(&self) -> anyhow::Result<UserConfig> {
        let Some(file) = &self.file else { return Ok(self.clone()) };
        let password = read_secret_file(file).map_err(anyhow::Error::msg)?;
        anyhow::ensure!(!password.is_empty(), "{} is empty", file.display());
        Ok(UserConfig { password, file: Some(file.clone()) })
    }
}

impl fmt::Debug for UserConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserConfig").field("file", &self.file).finish_non_exhaustive()
    }
}
