//! What holds for the whole cluster and is small (users, ACLs, quotas): settings in its metadata, which every node has.

mod legacy;

use std::time::Duration;

use forebay_cluster::{AskError, Cluster, Log, LogError, Metadata};
use forebay_log::cluster::controller::SettingChange;
use forebay_log::cluster::{Image, Refusal, Request};
use ring::digest::{SHA256, digest};
use tokio::sync::watch;

use crate::base64;

pub(crate) use legacy::{Legacy, take_over};

/// How long the controller may take for a change.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long this node may take to hear of a change that is decided.
const HEARD: Duration = Duration::from_secs(5);
/// Changes that are decided together at most; more go in parts.
pub(crate) const MOST_TOGETHER: usize = 500;

/// A key, and its value if it has one.
pub(crate) type Entry = (String, Option<String>);

/// Why settings were not changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("they were changed meanwhile")]
    Changed,
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The settings, as this node knows them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Settings {
    log: Log,
}

impl Settings {
    pub(crate) fn new(log: Log) -> Settings {
        Settings { log }
    }

    fn cluster(&self) -> Result<&Cluster, LogError> {
        // Settings are a cluster's.
        self.log.cluster().ok_or(LogError::NotPossible(Refusal::NoCluster))
    }

    /// The metadata that the settings are in.
    ///
    /// # Errors
    /// The log is in no cluster.
    pub(crate) fn image(&self) -> Result<Image, LogError> {
        Ok(self.cluster()?.metadata().borrow().image.clone())
    }

    /// The values of a namespace.
    ///
    /// # Errors
    /// The log is in no cluster.
    pub(crate) fn values(&self, namespace: &str) -> Result<Vec<String>, LogError> {
        Ok(self.image()?.settings(namespace).map(|(_, value)| value.to_owned()).collect())
    }

    /// # Errors
    /// As [`Settings::values`].
    pub(crate) fn get(&self, namespace: &str, key: &str) -> Result<Option<String>, LogError> {
        Ok(self.image()?.setting(namespace, key).map(str::to_owned))
    }

    /// Sets and removes; all of it if what is `expected` is so, or nothing. It is committed when this returns, and this node knows.
    ///
    /// # Errors
    /// [`SettingsError::Changed`] when something expected is otherwise; no controller in time, and then it may be decided or not;
    /// no room.
    pub(crate) async fn put(
        &self,
        namespace: &str,
        expected: Vec<Entry>,
        changes: Vec<Entry>,
    ) -> Result<(), SettingsError> {
        let cluster = self.cluster()?;
        let settings = |entries: Vec<Entry>| -> Vec<SettingChange> {
            let setting = |(key, value)| SettingChange { namespace: namespace.to_owned(), key, value };
            entries.into_iter().map(setting).collect()
        };
        let request = Request::PutSettings { changes: settings(changes.clone()), expected: settings(expected) };
        match cluster.ask(request, PATIENCE).await {
            Ok(_) => {}
            Err(AskError::Refused(Refusal::SettingChanged { .. })) => return Err(SettingsError::Changed),
            Err(AskError::Refused(refusal)) => return Err(SettingsError::Refused(refusal)),
            Err(AskError::Unavailable(why)) => return Err(LogError::Unavailable(why).into()),
        }
        let mut metadata = cluster.metadata();
        let known = metadata.wait_for(|known| {
            changes.iter().all(|(key, value)| known.image.setting(namespace, key) == value.as_deref())
        });
        // Another node may have changed it again before this one has heard of the first change.
        let _ = tokio::time::timeout(HEARD, known).await;
        Ok(())
    }

    /// Follows these namespaces.
    ///
    /// # Errors
    /// As [`Settings::values`].
    pub(crate) fn watch(&self, namespaces: &'static [&'static str]) -> Result<Watched, LogError> {
        let metadata = self.cluster()?.metadata();
        let seen = metadata.borrow().image.clone();
        Ok(Watched { metadata, namespaces, seen })
    }
}

/// Tells when settings change.
pub(crate) struct Watched {
    metadata: watch::Receiver<Metadata>,
    namespaces: &'static [&'static str],
    seen: Image,
}

impl Watched {
    /// Waits until something is otherwise than at the last call; `None` when the cluster has ended.
    pub(crate) async fn changed(&mut self) -> Option<()> {
        loop {
            self.metadata.changed().await.ok()?;
            let image = self.metadata.borrow_and_update().image.clone();
            let same = self.namespaces.iter().all(|namespace| image.shares_settings(&self.seen, namespace));
            self.seen = image;
            if !same {
                return Some(());
            }
        }
    }
}

/// A key for what is called by names of any length.
pub(crate) fn key_of(names: &[&str]) -> String {
    let mut text = Vec::new();
    for name in names {
        text.extend_from_slice(&(name.len() as u64).to_be_bytes());
        text.extend_from_slice(name.as_bytes());
    }
    base64::encode(digest(&SHA256, &text).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_join_to_the_same_text_have_keys_of_their_own() {
        assert_ne!(key_of(&["ab", "c"]), key_of(&["a", "bc"]));
        assert_eq!(key_of(&["ab", "c"]), key_of(&["ab", "c"]));
        assert!(key_of(&[&"x".repeat(1 << 16)]).len() < 64);
    }
}
