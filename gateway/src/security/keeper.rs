//! The one owner of stored users and ACLs: makes each change durable in `_security` before anyone sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use forebay_cluster::{Log, LogError};
use forebay_log::AppendError;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, oneshot};

use super::acl::{Acl, AclFilter};
use super::acls::Acls;
use super::limits::{MAX_ACLS, MAX_CREDENTIALS, QUEUE};
use super::records::{self, SECRET_KEY, Stored};
use super::scram::{ScramCredential, ScramMechanism};
use super::users::Secret;
use crate::state::StateTopic;

/// The topic that holds users and ACLs. Clients may not read it.
pub const TOPIC: &str = "_security";

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

type Reply<T> = oneshot::Sender<Result<T, AppendError>>;

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

/// The opened topic, from outside of its keeper.
pub(super) struct Store {
    pub(super) published: Arc<Published>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) secret: Secret,
}

struct Keeper {
    state: Arc<StateTopic>,
    published: Arc<Published>,
}

impl Store {
    /// Opens (or makes) the topic and starts its keeper.
    ///
    /// # Errors
    /// What kept it from being made or read.
    pub(super) async fn open(log: &Log) -> Result<Store, LogError> {
        let state = StateTopic::open(log, TOPIC).await?;
        let (mut acls, mut credentials, mut strange) = (BTreeSet::new(), Credentials::new(), 0);
        for (key, value) in state.scan(b"") {
            match records::read(key.clone(), value) {
                Some(Stored::Acl(acl)) => drop(acls.insert(acl)),
                Some(Stored::Credential(user, credential)) => {
                    credentials.entry(user).or_default().insert(credential.mechanism, credential);
                }
                None if key == SECRET_KEY => {}
                None => strange += 1,
            }
        }
        if strange > 0 {
            tracing::error!(topic = TOPIC, records = strange, "records of another version are passed over");
        }
        let published = Arc::new(Published {
            acls: ArcSwap::from_pointee(Acls::new(acls)),
            credentials: ArcSwap::from_pointee(credentials),
        });
        let secret = secret(&state).await;
        let (commands, queue) = mpsc::channel(QUEUE);
        tokio::spawn(Keeper { state, published: Arc::clone(&published) }.run(queue));
        Ok(Store { published, commands, secret })
    }

    /// Has the keeper make a change.
    pub(super) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| AppendError::Closed)?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }
}

/// The node's secret, made at the first use. If it cannot be stored, another one is made at the next start.
async fn secret(state: &StateTopic) -> Secret {
    if let Some(kept) = state.get(SECRET_KEY).and_then(records::read_secret) {
        return Secret::new(&kept);
    }
    let mut bytes = [0; 32];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        tracing::error!("the system has no random numbers: which users exist can be guessed");
    }
    let key = Bytes::from_static(SECRET_KEY);
    if let Err(error) = state.put(key, Some(records::secret_value(&bytes))).await {
        tracing::warn!(topic = TOPIC, %error, "the node's secret could not be stored");
    }
    Secret::new(&bytes)
}

impl Keeper {
    /// Until nobody can ask any more.
    async fn run(self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.recv().await {
            // Who asked may be gone; then nobody is to be told.
            match command {
                Command::AddAcls(acls, reply) => drop(reply.send(self.add(acls).await)),
                Command::RemoveAcls(filters, reply) => drop(reply.send(self.remove(&filters).await)),
                Command::Alter(changes, reply) => drop(reply.send(self.alter(changes).await)),
            }
        }
    }

    async fn add(&self, acls: Vec<Acl>) -> Result<Vec<Result<(), ChangeRefused>>, AppendError> {
        let mut all = self.published.acls.load().all().clone();
        let (mut changes, mut results) = (Vec::new(), Vec::with_capacity(acls.len()));
        for acl in acls {
            if !all.contains(&acl) && all.len() >= MAX_ACLS {
                results.push(Err(ChangeRefused::TooManyAcls));
                continue;
            }
            results.push(Ok(()));
            let key = records::acl_key(&acl);
            if all.insert(acl) {
                changes.push((key, Some(records::acl_value())));
            }
        }
        if !changes.is_empty() {
            self.state.put_all(changes).await?;
            self.published.acls.store(Arc::new(Acls::new(all)));
        }
        Ok(results)
    }

    async fn remove(&self, filters: &[AclFilter]) -> Result<Vec<Vec<Acl>>, AppendError> {
        let mut all = self.published.acls.load().all().clone();
        // Each goes to the first filter that means it: all together are never more than there are ACLs.
        let removed: Vec<Vec<Acl>> =
            filters.iter().map(|filter| all.extract_if(.., |acl| filter.matches(acl)).collect()).collect();
        let changes: Vec<_> = removed.iter().flatten().map(|acl| (records::acl_key(acl), None)).collect();
        if !changes.is_empty() {
            self.state.put_all(changes).await?;
            self.published.acls.store(Arc::new(Acls::new(all)));
        }
        Ok(removed)
    }

    async fn alter(
        &self,
        changes: Vec<CredentialChange>,
    ) -> Result<BTreeMap<String, Result<(), ChangeRefused>>, AppendError> {
        let mut all = Credentials::clone(&self.published.credentials.load());
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
            records
                .push((records::credential_key(&user, mechanism), credential.as_ref().map(records::credential_value)));
            let has = all.entry(user.clone()).or_default();
            match credential {
                Some(credential) => drop(has.insert(mechanism, credential)),
                None => drop(has.remove(&mechanism)),
            }
            if has.is_empty() {
                all.remove(&user);
            }
        }
        if !records.is_empty() {
            self.state.put_all(records).await?;
            self.published.credentials.store(Arc::new(all));
        }
        Ok(results)
    }
}
