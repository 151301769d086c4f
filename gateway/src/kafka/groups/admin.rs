//! What operators ask of groups: to see them, to remove them, to make them forget.

use bytes::Bytes;
use forebay_log::group::Name;
use forebay_log::group::classic::Phase;
use forebay_log::group::stored::Key;
use forebay_log::group::subscription::subscribes;
use forebay_log::{AppendError, Millis};
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::coordinator::{Coordinator, Entry, Kept, not_stored};
use super::offsets::{self, TopicPartition};
use super::{Described, Listed, Reply};

/// The kind of group whose members say which topics they read.
const CONSUMER: &str = "consumer";
/// Keys removed in one batch.
const REMOVED_TOGETHER: usize = 1000;

impl Coordinator {
    fn has_offsets(&self, name: &Name) -> bool {
        !self.state.scan(&Key::offsets_of(name)).is_empty()
    }

    pub(super) fn describe(&self, name: &Name) -> Option<Described> {
        match self.groups.get(name) {
            Some(Entry { group, .. }) => Some(Described {
                state: state_name(group.phase()),
                protocol_type: group.protocol_type().cloned().unwrap_or_default(),
                protocol: group.protocol().filter(|_| group.phase() == Phase::Stable).cloned().unwrap_or_default(),
                members: group.members().collect(),
            }),
            None => self.has_offsets(name).then(|| Described {
                state: state_name(Phase::Empty),
                protocol_type: Name::default(),
                protocol: Name::default(),
                members: Vec::new(),
            }),
        }
    }

    pub(super) fn list(&self) -> Vec<Listed> {
        let listed = |(name, Entry { group, .. }): (&Name, &Entry)| Listed {
            group: name.clone(),
            state: state_name(group.phase()),
            protocol_type: group.protocol_type().cloned().unwrap_or_default(),
        };
        let mut all: Vec<Listed> = self.groups.iter().map(listed).collect();
        let others = offsets::groups(&self.state).into_iter().filter(|name| !self.groups.contains_key(name));
        let empty = |group| Listed { group, state: state_name(Phase::Empty), protocol_type: Name::default() };
        all.extend(others.map(empty));
        all.sort_by(|a, b| a.group.cmp(&b.group));
        all
    }

    pub(super) async fn delete(&mut self, name: &Name, reply: Reply<()>) {
        let refusal = match self.groups.get(name) {
            Some(entry) if !entry.group.is_unused() => Some(ResponseError::NonEmptyGroup),
            None if !self.has_offsets(name) => Some(ResponseError::GroupIdNotFound),
            _ => None,
        };
        match refusal {
            Some(refusal) => drop(reply.send(Err(refusal.into()))),
            None => self.remove(name, Some(reply)).await,
        }
    }

    /// Takes a group and its offsets out of the log.
    async fn remove(&mut self, name: &Name, reply: Option<Reply<()>>) {
        if let Some(entry) = self.groups.remove(name) {
            self.bytes -= entry.bytes;
            entry.deadline.map(|at| self.deadlines.remove(&(at, name.clone())));
        }
        let mut keys: Vec<Bytes> = self.state.scan(&Key::offsets_of(name)).into_iter().map(|(key, _)| key).collect();
        keys.push(Key::Group(name.clone()).encode());
        let removed = |keys: &[Bytes]| keys.iter().map(|key| (key.clone(), None)).collect();
        // The last batch is durable after all others.
        let last = keys.split_off(keys.len().saturating_sub(1) / REMOVED_TOGETHER * REMOVED_TOGETHER);
        for some in keys.chunks(REMOVED_TOGETHER) {
            self.store(removed(some), Kept::Removed(name.clone())).await;
        }
        let kept = match reply {
            Some(reply) => Kept::Offsets(0, reply),
            None => Kept::Removed(name.clone()),
        };
        self.store(removed(&last), kept).await;
    }

    /// Removes single offsets, but none of a topic that a member of the group reads.
    pub(super) async fn forget(
        &mut self,
        name: &Name,
        which: Vec<TopicPartition>,
        reply: Reply<Vec<Result<(), ResponseError>>>,
    ) {
        let Some(Described { protocol_type, members, .. }) = self.describe(name) else {
            return drop(reply.send(Err(ResponseError::GroupIdNotFound.into())));
        };
        if !members.is_empty() && &*protocol_type != CONSUMER {
            return drop(reply.send(Err(ResponseError::NonEmptyGroup.into())));
        }
        let reads = |topic: &str| members.iter().any(|member| subscribes(&member.metadata, topic));
        let results: Vec<_> = which
            .iter()
            .map(|of| if reads(&of.topic) { Err(ResponseError::GroupSubscribedToTopic) } else { Ok(()) })
            .collect();
        let removed = which.iter().zip(&results).filter(|(_, result)| result.is_ok());
        let changes: Vec<_> = removed.map(|(of, _)| (offsets::key(name, of), None)).collect();
        if changes.is_empty() {
            return drop(reply.send(Ok(results)));
        }
        let (done, durable) = oneshot::channel();
        self.store(changes, Kept::Offsets(0, done)).await;
        // Others are not kept waiting for it.
        tokio::spawn(async move {
            let answer = match durable.await {
                Ok(Ok(())) => Ok(results),
                Ok(Err(refusal)) => Err(refusal),
                Err(_) => Err(not_stored(AppendError::Closed)),
            };
            drop(reply.send(answer));
        });
    }

    pub(super) async fn forget_unused(&mut self, now: Millis) {
        let has_members = |name: &Name| self.groups.get(name).is_some_and(|entry| !entry.group.is_unused());
        let without_offsets = self.groups.keys().filter(|name| !self.has_offsets(name)).cloned();
        let mut unused = offsets::unused(&self.state, now);
        unused.extend(without_offsets);
        unused.retain(|name| !has_members(name));
        for name in &unused {
            self.remove(name, None).await;
        }
        if !unused.is_empty() {
            tracing::info!(
                forgotten = unused.len(),
                "consumer groups without members, and without a commit for a week, are forgotten"
            );
        }
    }
}

fn state_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Empty => "Empty",
        Phase::PreparingRebalance => "PreparingRebalance",
        Phase::CompletingRebalance => "CompletingRebalance",
        Phase::Stable => "Stable",
    }
}
