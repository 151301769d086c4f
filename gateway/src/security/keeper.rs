//! Users and ACLs as the cluster's settings have them, and this node's one way to change them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_cluster::LogError;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::acl::{Acl, AclFilter};
use super::acls::Acls;
use super::limits::{MAX_ACLS, MAX_CREDENTIALS, QUEUE};
use super::records;
use super::scram::{ScramCredential, ScramMechanism};
use super::users::Secret;
use crate::settings::{Entry, MOST_TOGETHER, Settings, SettingsError, Watched};

/// How long another node's secret may take to be known here.
const HEARD: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The credentials that clients made, by user.
pub(super) type Credentials = BTreeMap<String, BTreeMap<ScramMechanism, ScramCredential>>;

/// A change of one user's credential for one mechanism; `None` removes it.
#[derive(Debug, Clone)]
pub struct CredentialChange {
    pub user: String,
    pub mechanism: ScramMechanism,
    pub credential: Option<ScramCredential>,
}

/// Why a change was not made, while others of the same request may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    #[error("there may be {MAX_ACLS} ACLs at most")]
    TooManyAcls,
    #[error("there may be {MAX_CREDENTIALS} credentials at most")]
    TooManyCredentials,
    #[error("attempt to delete a user credential that does not exist")]
    NoCredential,
}

type Reply<T> = oneshot::Sender<Result<T, SettingsError>>;

pub(super) enum Command {
    AddAcls(Vec<Acl>, Reply<Vec<Result<(), ChangeRefused>>>),
    /// Answered with what each filter removed.
    RemoveAcls(Vec<AclFilter>, Reply<Vec<Vec<Acl>>>),
    /// All changes of a user or none; answered for each user.
    Alter(Vec<CredentialChange>, Reply<BTreeMap<String, Result<(), ChangeRefused>>>),
}

/// What everybody may look at.
#[derive(Default)]
pub(super) struct Published {
    pub(super) acls: ArcSwap<Acls>,
    pub(super) credentials: ArcSwap<Credentials>,
}

/// Users and ACLs, from outside of their keeper.
pub(super) struct Store {
    pub(super) published: Arc<Published>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) secret: Secret,
}

struct Keeper {
    settings: Settings,
    published: Arc<Published>,
}

impl Store {
    /// Takes what is set, and follows it.
    ///
    /// # Errors
    /// The log is in no cluster.
    pub(super) async fn open(settings: Settings) -> Result<Store, LogError> {
        let watched = settings.watch(&[records::ACLS, records::USERS])?;
        let secret = secret(&settings).await;
        let published = Arc::new(Published::default());
        let (commands, queue) = mpsc::channel(QUEUE);
        let keeper = Keeper { settings, published: Arc::clone(&published) };
        keeper.publish()?;
        tokio::spawn(keeper.run(queue, watched));
        Ok(Store { published, commands, secret })
    }

    /// Has the keeper make a change.
    pub(super) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, SettingsError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| LogError::Closed)?;
        answer.await.unwrap_or(Err(LogError::Closed.into()))
    }
}

/// The cluster's secret, made at the first use. If it cannot be kept, another one is made at the next start.
async fn secret(settings: &Settings) -> Secret {
    let kept = || settings.get(records::SECRETS, records::SECRET).ok().flatten();
    if let Some(kept) = kept().as_deref().and_then(records::read_secret) {
        return Secret::new(&kept);
    }
    let mut bytes = [0; 32];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        tracing::error!("the system has no random numbers: which users exist can be guessed");
    }
    let (none, made) =
        ((records::SECRET.to_owned(), None), (records::SECRET.to_owned(), Some(records::secret(&bytes))));
    match settings.put(records::SECRETS, vec![none], vec![made]).await {
        // Another node was first; this one may hear of it a little later.
        Err(SettingsError::Changed) => {
            let deadline = Instant::now() + HEARD;
            while Instant::now() < deadline {
                if let Some(kept) = kept().as_deref().and_then(records::read_secret) {
                    return Secret::new(&kept);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            tracing::warn!("the secret that another node has made is not known here yet");
        }
        Err(error) => tracing::warn!(%error, "the secret that hides which users exist could not be kept"),
        Ok(()) => {}
    }
    Secret::new(&bytes)
}

impl Keeper {
    /// Until nobody can ask any more.
    async fn run(self, mut queue: mpsc::Receiver<Command>, mut watched: Watched) {
        loop {
            let command = tokio::select! {
                command = queue.recv() => command,
                changed = watched.changed() => {
                    if changed.is_none() || self.publish().is_err() {
                        return;
                    }
                    continue;
                }
            };
            // Who asked may be gone; then nobody is to be told.
            match command {
                Some(Command::AddAcls(acls, reply)) => drop(reply.send(self.add(acls).await)),
                Some(Command::RemoveAcls(filters, reply)) => drop(reply.send(self.remove(&filters).await)),
                Some(Command::Alter(changes, reply)) => drop(reply.send(self.alter(changes).await)),
                None => return,
            }
        }
    }

    /// Shows what is set now.
    fn publish(&self) -> Result<(), LogError> {
        let (mut acls, mut credentials, mut strange) = (BTreeSet::new(), Credentials::new(), 0);
        for value in self.settings.values(records::ACLS)? {
            match records::read_acl(&value) {
                Some(acl) => drop(acls.insert(acl)),
                None => strange += 1,
            }
        }
        for value in self.settings.values(records::USERS)? {
            match records::read_credential(&value) {
                Some((user, credential)) => {
                    credentials.entry(user).or_default().insert(credential.mechanism, credential);
                }
                None => strange += 1,
            }
        }
        if strange > 0 {
            tracing::error!(settings = strange, "users and ACLs of another version are passed over");
        }
        self.published.acls.store(Arc::new(Acls::new(acls)));
        self.published.credentials.store(Arc::new(credentials));
        Ok(())
    }

    /// Makes changes and shows them, in parts where they are many.
    async fn put(&self, namespace: &str, changes: &[Entry]) -> Result<(), SettingsError> {
        for some in changes.chunks(MOST_TOGETHER) {
            let put = self.settings.put(namespace, Vec::new(), some.to_vec()).await;
            self.publish()?;
            put?;
        }
        Ok(())
    }

    async fn add(&self, acls: Vec<Acl>) -> Result<Vec<Result<(), ChangeRefused>>, SettingsError> {
        let mut all = self.published.acls.load().all().clone();
        let (mut changes, mut results) = (Vec::new(), Vec::with_capacity(acls.len()));
        for acl in acls {
            if !all.contains(&acl) && all.len() >= MAX_ACLS {
                results.push(Err(ChangeRefused::TooManyAcls));
                continue;
            }
            results.push(Ok(()));
            let setting = (records::acl_key(&acl), Some(records::acl(&acl)));
            if all.insert(acl) {
                changes.push(setting);
            }
        }
        self.put(records::ACLS, &changes).await?;
        Ok(results)
    }

    async fn remove(&self, filters: &[AclFilter]) -> Result<Vec<Vec<Acl>>, SettingsError> {
        let mut all = self.published.acls.load().all().clone();
        // Each goes to the first filter that means it: all together are never more than there are ACLs.
        let removed: Vec<Vec<Acl>> =
            filters.iter().map(|filter| all.extract_if(.., |acl| filter.matches(acl)).collect()).collect();
        let changes: Vec<_> = removed.iter().flatten().map(|acl| (records::acl_key(acl), None)).collect();
        self.put(records::ACLS, &changes).await?;
        Ok(removed)
    }

    async fn alter(
        &self,
        changes: Vec<CredentialChange>,
    ) -> Result<BTreeMap<String, Result<(), ChangeRefused>>, SettingsError> {
        let all = self.published.credentials.load_full();
        let mut room = MAX_CREDENTIALS.saturating_sub(all.values().map(BTreeMap::len).sum());
        let mut results: BTreeMap<String, Result<(), ChangeRefused>> = BTreeMap::new();
        for change in &changes {
            let there = all.get(&change.user).is_some_and(|has| has.contains_key(&change.mechanism));
            let result = match &change.credential {
                None if !there => Err(ChangeRefused::NoCredential),
                Some(_) if !there && room == 0 => Err(ChangeRefused::TooManyCredentials),
                Some(_) if !there => {
                    room -= 1;
                    Ok(())
                }
                _ => Ok(()),
            };
            let so_far = results.entry(change.user.clone()).or_insert(Ok(()));
            *so_far = so_far.and(result);
        }
        let mut records = Vec::new();
        for CredentialChange { user, mechanism, credential } in changes {
            if results.get(&user).is_some_and(Result::is_err) {
                continue;
            }
            let value = credential.map(|credential| records::credential(&user, &credential));
            records.push((records::credential_key(&user, mechanism), value));
        }
        self.put(records::USERS, &records).await?;
        Ok(results)
    }
}
