//! Has all nodes of a cluster evaluate the same rules: offers this node's files to the controller, and takes up what the controller
//! holds.
//!
//! A node's own files are offered when a reload asks for it, or when they are not those that the node had when it last offered or
//! followed: so a node that comes back with old files does not bring old rules back.

use std::sync::{Arc, Mutex, PoisonError};

use forebay_cluster::LogError;
use forebay_log::NodeId;
use forebay_log::cluster::Image;
use forebay_sinks::rules::Sources;
use tokio_util::sync::CancellationToken;

use super::courier::{self, Couriers};
use super::kept::{self, Change, Listed, NAMESPACE, RuleStamp, Unkept};
use super::service::{Service, pause};
use crate::log_limit::FaultLog;
use crate::settings::{Settings, SettingsError, Watched};

/// How often an offer is made anew that another node's was before.
const OFFERS: usize = 8;

/// Why the files of this node have not become the cluster's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OfferError {
    #[error(transparent)]
    Unkept(#[from] Unkept),
    #[error("the controller has not taken the rules: {0}")]
    NotTaken(#[from] SettingsError),
}

/// What is to happen with a node's own files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// They become the cluster's.
    Offer,
    /// They are the cluster's.
    Same,
    /// The cluster's hold: they are others, and not new.
    Follow,
    /// There are none. The cluster's hold, if it has any.
    None,
}

/// What to do with own files (their digest, if there are any) where the controller holds others, and the node had those `noted` when it
/// last offered or followed.
pub(super) fn course(own: Option<&str>, held: Option<&str>, noted: Option<&str>) -> Course {
    match (own, held) {
        (None, _) => Course::None,
        (Some(_), None) => Course::Offer,
        (Some(own), Some(held)) if own == held => Course::Same,
        // One that has never been here may bring anything.
        (own, _) if noted.is_none() || noted == own => Course::Follow,
        (Some(_), Some(_)) => Course::Offer,
    }
}

/// Rule files of this node, as they were read.
pub(super) struct OwnFiles {
    pub(super) sources: Arc<Sources>,
    /// Of the sources.
    pub(super) digest: String,
}

/// This node's part in the rules of its cluster.
pub(super) struct SharedRules {
    service: Arc<Service>,
    settings: Settings,
    node: NodeId,
    /// What was read last.
    own: Mutex<Arc<OwnFiles>>,
}

/// Why the set that the controller holds is not in force here.
enum NotTakenUp {
    /// It will not be, in this release.
    Unreadable(String),
    /// It may be later.
    Yet(anyhow::Error),
}

impl SharedRules {
    pub(super) fn new(service: Arc<Service>, node: NodeId, own: OwnFiles) -> SharedRules {
        SharedRules { settings: Settings::new(service.log.clone()), service, node, own: Mutex::new(Arc::new(own)) }
    }

    fn own(&self) -> Arc<OwnFiles> {
        Arc::clone(&self.own.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up what the controller holds, before the service begins. What fails is tried again, and said, by [`SharedRules::follow`].
    pub(super) async fn take_up_at_start(&self, couriers: &mut Couriers) {
        let _ = self.take_up(couriers, false).await;
    }

    pub(super) fn watch(&self) -> Result<Watched, LogError> {
        self.settings.watch(&[NAMESPACE])
    }

    /// Offers files that were read again, or notes them: `anyway`, also those that the node had before.
    ///
    /// # Errors
    /// They cannot be the cluster's, or the controller has not answered in time; then it may have taken them.
    pub(super) async fn reload(&self, own: OwnFiles, anyway: bool) -> Result<(), OfferError> {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(own);
        self.settle(anyway).await
    }

    /// Offers this node's files or notes them, as their [`course`] is.
    async fn settle(&self, anyway: bool) -> Result<(), OfferError> {
        let own = self.own();
        let OwnFiles { sources, digest } = &*own;
        for left in (0..OFFERS).rev() {
            let image = self.settings.image().map_err(SettingsError::Log)?;
            // What a later release has written is replaced by nobody who cannot read it.
            let held = Listed::read(&image)?.map(|listed| listed.stamp);
            let noted = kept::noted(&image, self.node);
            let there = (!sources.files.is_empty()).then_some(digest.as_str());
            let change = match course(there, held.as_ref().map(|held| &*held.digest), noted.as_deref()) {
                Course::None => return Ok(()),
                Course::Offer => kept::offer(&image, self.node, sources, digest)?,
                Course::Follow if anyway => kept::offer(&image, self.node, sources, digest)?,
                course @ (Course::Same | Course::Follow) => {
                    if let Some(held) = held.filter(|_| course == Course::Follow) {
                        tell_of_others(digest, &held);
                    }
                    if noted.as_ref() == Some(digest) {
                        return Ok(());
                    }
                    kept::note(&image, self.node, digest)
                }
            };
            let Change { expected, changes } = change;
            match self.settings.put(NAMESPACE, expected, changes).await {
                Ok(()) => return Ok(()),
                // Another node was first, or this very offer, whose answer was lost. It shows in a moment.
                Err(SettingsError::Changed) if left > 0 => self.heard(held_text(&image)).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(SettingsError::Changed.into())
    }

    /// Waits a little until another set than this one is known here.
    async fn heard(&self, before: Option<String>) {
        let Some(cluster) = self.service.log.cluster() else { return };
        let mut metadata = cluster.metadata();
        let other = metadata.wait_for(|known| held_text(&known.image) != before);
        let _ = tokio::time::timeout(super::limits::RETRY_PAUSE, other).await;
    }

    /// At a start: offers this node's files or notes them, trying again while the controller cannot be asked.
    pub(super) async fn settle_at_start(self: Arc<Self>, stop: CancellationToken) {
        static FAULTS: FaultLog = FaultLog::new();
        loop {
            match self.settle(false).await {
                Ok(()) => return,
                Err(OfferError::Unkept(why @ Unkept::TooMuch { .. })) => {
                    tracing::error!(%why, "this node's rule files cannot be the cluster's");
                    if self.service.origin.borrow().stamp.is_none() {
                        self.service.say(format!("this node evaluates its own rules: {why}"));
                    }
                    return;
                }
                // Whoever takes them up has said so.
                Err(OfferError::Unkept(Unkept::Unreadable(_))) => return,
                Err(error) => {
                    if let Some(suppressed) = FAULTS.admit(&error) {
                        tracing::warn!(%error, suppressed, "this node's rule files are not settled yet; trying again");
                    }
                }
            }
            if pause(&stop).await {
                return;
            }
        }
    }

    /// Takes up what the controller holds, whenever it changes, until the shutdown.
    pub(super) async fn follow(
        self: Arc<Self>,
        couriers: Arc<tokio::sync::Mutex<Couriers>>,
        mut watched: Watched,
        stop: CancellationToken,
    ) {
        static FAULTS: FaultLog = FaultLog::new();
        loop {
            match self.take_up(&mut *couriers.lock().await, false).await {
                Ok(_) => {}
                Err(NotTakenUp::Unreadable(why)) => tracing::error!("the cluster's rules are not taken up: {why}"),
                Err(NotTakenUp::Yet(error)) => {
                    if let Some(suppressed) = FAULTS.admit(&format!("{error:#}")) {
                        tracing::error!(
                            suppressed,
                            "the cluster's rules are not taken up yet; trying again: {error:#}"
                        );
                    }
                    if pause(&stop).await {
                        return;
                    }
                    continue;
                }
            }
            match stop.run_until_cancelled(watched.changed()).await {
                Some(Some(())) => {}
                Some(None) | None => return,
            }
        }
    }

    /// Takes up what the controller holds, also if it is in force already: what it takes from this node's files may have changed.
    ///
    /// `false`: it holds nothing.
    ///
    /// # Errors
    /// Why the rules of before stay.
    pub(super) async fn take_up_again(&self, couriers: &mut Couriers) -> anyhow::Result<bool> {
        self.take_up(couriers, true).await.map_err(|error| match error {
            NotTakenUp::Unreadable(why) => anyhow::anyhow!(why),
            NotTakenUp::Yet(error) => error,
        })
    }

    async fn take_up(&self, couriers: &mut Couriers, again: bool) -> Result<bool, NotTakenUp> {
        let present = self.service.origin.borrow().stamp.clone();
        let image = self.settings.image().map_err(|error| NotTakenUp::Yet(error.into()))?;
        let listed = match Listed::read(&image) {
            Ok(None) => return Ok(false),
            Ok(Some(listed)) if !again && present.as_ref() == Some(&listed.stamp) => return Ok(true),
            Ok(Some(listed)) => listed,
            Err(why) => return Err(self.unreadable(why.to_string())),
        };
        // Where this node has the same texts, they are its own: their secrets lie beside them.
        let own = Some(self.own()).filter(|own| own.digest == listed.stamp.digest).map(|own| own.sources.clone());
        let sources = match own.map_or_else(|| listed.sources(&image).map(Arc::new), Ok) {
            Ok(sources) => sources,
            Err(why) => return Err(self.unreadable(why.to_string())),
        };
        let stamp = listed.stamp;
        let made = tokio::task::spawn_blocking(move || sources.parse()).await;
        let rules = match made.map_err(|error| NotTakenUp::Yet(error.into()))? {
            Ok(rules) => rules,
            Err(mistakes) => return Err(self.unreadable(format!("{}: {mistakes}", shown(&stamp)))),
        };
        let replaced = async {
            courier::check(&rules.receivers)?;
            if self.service.keeps() && self.service.knows_rules() {
                couriers.replace(&rules.receivers).await?;
            }
            Ok(())
        };
        if let Err(error) = replaced.await {
            self.service.say(format!("{} is not taken up yet: {error:#}", shown(&stamp)));
            return Err(NotTakenUp::Yet(error));
        }
        if present.as_ref() != Some(&stamp) {
            let (revision, node, digest, count) = (stamp.revision, stamp.node, &stamp.digest, rules.rule_count());
            tracing::info!(revision, node, digest, rules = count, "the cluster's rules are taken up");
        }
        self.service.put_in_force(rules, Some(stamp));
        Ok(true)
    }

    fn unreadable(&self, why: String) -> NotTakenUp {
        let instead = if self.service.knows_rules() { "those of before stay" } else { "no rules are evaluated here" };
        let why = format!("{why}; {instead}");
        self.service.say(why.clone());
        NotTakenUp::Unreadable(why)
    }
}

fn held_text(image: &Image) -> Option<String> {
    image.setting(NAMESPACE, kept::SET).map(str::to_owned)
}

fn shown(stamp: &RuleStamp) -> String {
    format!("revision {} of the rules, from node {}", stamp.revision, stamp.node)
}

fn tell_of_others(own: &str, held: &RuleStamp) {
    let (revision, node, cluster) = (held.revision, held.node, &held.digest);
    tracing::warn!(
        own,
        cluster,
        revision,
        node,
        "this node's rule files are not the cluster's, and have not changed since it last had others: the cluster's rules hold; \
         POST /api/v1/rules/reload here makes this node's the cluster's"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_files_become_the_clusters_by_themselves() {
        let cases = [
            // A node without files never has the cluster lose its own.
            (None, Some("b"), Some("a"), Course::None),
            (None, None, None, Course::None),
            (Some("a"), None, None, Course::Offer),
            (Some("a"), None, Some("a"), Course::Offer),
            (Some("b"), Some("b"), Some("a"), Course::Same),
            (Some("b"), Some("b"), None, Course::Same),
            // Back with old files, or here for the first time.
            (Some("a"), Some("b"), Some("a"), Course::Follow),
            (Some("a"), Some("b"), None, Course::Follow),
            // Changed while the node was down.
            (Some("c"), Some("b"), Some("a"), Course::Offer),
            (Some("c"), Some("b"), Some("b"), Course::Offer),
        ];
        for (own, held, noted, expected) in cases {
            assert_eq!(course(own, held, noted), expected, "{own:?} where there is {held:?}, {noted:?} before");
        }
    }
}
