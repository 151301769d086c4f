//! Who clients of the Kafka port are and what they may do: users, SCRAM, ACLs, and how they are kept.

pub mod acl;
mod acls;
mod keeper;
mod legacy;
pub(crate) mod limits;
#[cfg(test)]
mod made;
mod principal;
mod records;
pub mod scram;
pub(crate) mod scram_client;
pub(crate) mod scram_server;
#[cfg(test)]
mod tests;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use forebay_cluster::{Log, LogError};
use tokio::sync::OnceCell;

use crate::config::{Config, SaslMechanism, UserConfig};
use acl::{Acl, AclFilter, Operation, ResourceType};
use acls::{Acls, Answer};
pub use keeper::{ChangeRefused, CredentialChange};
use keeper::{Command, Store};
pub use legacy::TOPIC as LEGACY_TOPIC;
pub(crate) use legacy::setting as legacy_setting;
#[cfg(test)]
pub(crate) use legacy::written as legacy_written;
pub(crate) use principal::of_certificate;
use scram::{ScramCredential, ScramMechanism};
use users::FileUsers;

use crate::settings::{Settings, SettingsError};

/// The principal of who does not say who it is.
pub const ANONYMOUS: &str = "User:ANONYMOUS";

/// Why something could not be done with users and ACLs.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error("users and ACLs cannot be read: {0}")]
    Unopened(#[from] LogError),
    #[error("users and ACLs cannot be changed: {0}")]
    NotStored(#[from] SettingsError),
}

/// Users and ACLs of the node.
pub struct Security {
    config: Arc<Config>,
    settings: Settings,
    store: OnceCell<Store>,
    file_users: ArcSwap<FileUsers>,
}

impl Security {
    /// Nothing is opened before it is used.
    #[must_use]
    pub fn new(log: Log, config: Arc<Config>) -> Security {
        Security { config, settings: Settings::new(log), store: OnceCell::new(), file_users: ArcSwap::default() }
    }

    /// Opens what the configuration needs: nothing, where nobody authenticates and everything is allowed.
    ///
    /// # Errors
    /// Users and ACLs cannot be read.
    pub async fn start(&self) -> anyhow::Result<()> {
        let kafka = &self.config.kafka;
        if !kafka.security_protocol.is_sasl() && !kafka.authorizer_enable {
            return Ok(());
        }
        let store = self.store().await.context("users and ACLs")?;
        self.derive_users(self.config.users.clone()).await?;
        let nobody = self.file_users.load().is_empty() && store.published.credentials.load().is_empty();
        if kafka.security_protocol.is_sasl() && nobody {
            tracing::warn!("no user exists, so nobody can connect to listeners.kafka; name one in [users]");
        }
        Ok(())
    }

    /// Reads the password files of `[users]` again.
    ///
    /// # Errors
    /// One that cannot be read; then all passwords stay as they were.
    pub async fn reload(&self) -> anyhow::Result<()> {
        if self.store.get().is_none() {
            return Ok(());
        }
        let users = self.config.users.clone();
        let read = move || {
            let read = |(name, user): (&String, &UserConfig)| {
                let user = user.read_again().with_context(|| format!("users.{name}"))?;
                Ok((name.clone(), user))
            };
            users.iter().map(read).collect::<anyhow::Result<BTreeMap<_, _>>>()
        };
        let users = tokio::task::spawn_blocking(read).await??;
        self.derive_users(users).await
    }

    async fn derive_users(&self, users: BTreeMap<String, UserConfig>) -> anyhow::Result<()> {
        let secret = self.store().await?.secret.clone();
        let mechanisms: Vec<ScramMechanism> = self.mechanisms().iter().filter_map(|m| m.scram()).collect();
        let derive = move || FileUsers::derive(&users, &mechanisms, &secret);
        self.file_users.store(Arc::new(tokio::task::spawn_blocking(derive).await?));
        Ok(())
    }

    async fn store(&self) -> Result<&Store, LogError> {
        self.store.get_or_try_init(|| Store::open(self.settings.clone())).await
    }

    /// The SASL mechanisms that are served.
    #[must_use]
    pub fn mechanisms(&self) -> &[SaslMechanism] {
        &self.config.kafka.sasl_enabled_mechanisms
    }

    /// Whether ACLs are asked at all.
    #[must_use]
    pub fn authorizes(&self) -> bool {
        self.config.kafka.authorizer_enable
    }

    /// Whether a principal may do everything.
    #[must_use]
    pub fn is_super_user(&self, principal: &str) -> bool {
        self.config.kafka.super_users.iter().any(|name| name == principal)
    }

    /// Whether this is the password of a user of `[users]`: only those can log in with PLAIN.
    #[must_use]
    pub fn check_password(&self, user: &str, password: &str) -> bool {
        self.store.get().is_some_and(|store| self.file_users.load().check(&store.secret, user, password))
    }

    /// What a user's proof is checked against. One who does not exist has a credential, too, of no password; `None` only before
    /// [`Security::start`].
    #[must_use]
    pub fn credential(&self, mechanism: ScramMechanism, user: &str) -> Option<ScramCredential> {
        let store = self.store.get()?;
        let users = self.file_users.load();
        if let Some(credential) = users.scram(mechanism, user) {
            return Some(credential.clone());
        }
        let stored = store.published.credentials.load();
        let stored = stored.get(user).and_then(|has| has.get(&mechanism)).filter(|_| !users.contains(user));
        Some(stored.cloned().unwrap_or_else(|| store.secret.fake(mechanism, user)))
    }

    /// Whether a user stands in `[users]`; such a one is changed there.
    #[must_use]
    pub fn is_file_user(&self, user: &str) -> bool {
        self.file_users.load().contains(user)
    }

    /// Mechanisms and iterations of every user who can log in with SCRAM.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn scram_users(&self) -> Result<BTreeMap<String, Vec<(ScramMechanism, u32)>>, SecurityError> {
        let facts = |credential: &ScramCredential| (credential.mechanism, credential.iterations.get());
        let stored = self.store().await?.published.credentials.load();
        let mut all: BTreeMap<String, Vec<_>> =
            stored.iter().map(|(user, has)| (user.clone(), has.values().map(facts).collect())).collect();
        let file_users = self.file_users.load();
        for name in file_users.names() {
            match file_users.all_scram(name) {
                Some(scram) if !scram.is_empty() => all.insert(name.clone(), scram.iter().map(facts).collect()),
                _ => all.remove(name),
            };
        }
        Ok(all)
    }

    /// Changes credentials: all of a user's changes or none. Durable on return.
    ///
    /// # Errors
    /// Nothing could be changed; what was refused of one user is in the answer.
    pub async fn alter_credentials(
        &self,
        changes: Vec<CredentialChange>,
    ) -> Result<BTreeMap<String, Result<(), ChangeRefused>>, SecurityError> {
        Ok(self.store().await?.ask(|reply| Command::Alter(changes, reply)).await?)
    }

    /// Adds ACLs. Durable on return.
    ///
    /// # Errors
    /// Nothing could be changed; for which there was no room is in the answer.
    pub async fn add_acls(&self, acls: Vec<Acl>) -> Result<Vec<Result<(), ChangeRefused>>, SecurityError> {
        Ok(self.store().await?.ask(|reply| Command::AddAcls(acls, reply)).await?)
    }

    /// Removes the ACLs that filters mean. Durable on return.
    ///
    /// # Errors
    /// Nothing could be changed.
    pub async fn remove_acls(&self, filters: Vec<AclFilter>) -> Result<Vec<Vec<Acl>>, SecurityError> {
        Ok(self.store().await?.ask(|reply| Command::RemoveAcls(filters, reply)).await?)
    }

    /// The ACLs that a filter means.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn acls(&self, filter: &AclFilter) -> Result<BTreeSet<Acl>, SecurityError> {
        let acls = self.store().await?.published.acls.load();
        Ok(acls.all().iter().filter(|acl| filter.matches(acl)).cloned().collect())
    }

    /// May `principal` (`User:alice`), no super user, at this host do this? Before [`Security::start`] nobody may do anything.
    #[must_use]
    pub fn authorize(
        &self,
        principal: &str,
        host: &str,
        operation: Operation,
        resource_type: ResourceType,
        name: &str,
    ) -> bool {
        self.ask(|acls| acls.answer(principal, host, operation, resource_type, name))
    }

    /// May it do this to some resource of the type?
    #[must_use]
    pub fn authorize_some(
        &self,
        principal: &str,
        host: &str,
        operation: Operation,
        resource_type: ResourceType,
    ) -> bool {
        // As Kafka does: a name that no ACL is about tells what holds without ACLs.
        self.authorize(principal, host, operation, resource_type, "hardcode")
            || self.ask(|acls| match acls.allows_some(principal, host, operation, resource_type) {
                true => Answer::Allowed,
                false => Answer::Denied,
            })
    }

    fn ask(&self, question: impl FnOnce(&Acls) -> Answer) -> bool {
        let Some(store) = self.store.get() else { return false };
        match question(&store.published.acls.load()) {
            Answer::Allowed => true,
            Answer::Denied => false,
            Answer::Silent => self.config.kafka.allow_everyone_if_no_acl_found,
        }
    }
}
