//! What operators ask of groups: to see them, to remove them, to make them forget.

use bytes::Bytes;
use forebay_log::group::classic::Phase;
use forebay_log::group::stored::Key;
use forebay_log::group::subscription::subscribes;
use forebay_log::group::{GroupError, Name};
use forebay_log::{AppendError, Millis};
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::coordinator::{Coordinator, Kept, not_stored};
use super::entry::{CLASSIC, CONSUMER, Entry, Group, classic_state};
use super::offsets::{self, TopicPartition};
use super::{Described, DescribedConsumer, Listed, Reply};

/// Keys removed in one batch.
const REMOVED_TOGETHER: usize = 1000;

impl Coordinator {
    fn has_offsets(&self, name: &Name) -> bool {
        !self.state.scan(&Key::offsets_of(name)).is_empty()
    }

    /// A classic group.
    pub(super) fn describe(&self, name: &Name) -> Option<Described> {
        match self.groups.get(name).map(|entry| &entry.group) {
            Some(Group::Classic(group)) => Some(Described {
                state: classic_state(group.phase()),
                protocol_type: group.protocol_type().cloned().unwrap_or_default(),
                protocol: group.protocol().filter(|_| group.phase() == Phase::Stable).cloned().unwrap_or_default(),
                members: group.members().collect(),
            }),
            Some(Group::Consumer(_)) => None,
            None => self.has_offsets(name).then(|| Described {
                state: classic_state(Phase::Empty),
                protocol_type: Name::default(),
                protocol: Name::default(),
                members: Vec::new(),
            }),
        }
    }

    pub(super) fn describe_consumer(&self, name: &Name) -> Option<DescribedConsumer> {
        let Group::Consumer(group) = &self.groups.get(name)?.group else { return None };
        Some(DescribedConsumer {
            state: self.groups.get(name)?.group.state(),
            epoch: group.epoch(),
            target_epoch: group.target_epoch(),
            assignor: group.assignor().name(),
            members: group.members().collect(),
        })
    }

    pub(super) fn list(&self) -> Vec<Listed> {
        let listed = |(name, Entry { group, .. }): (&Name, &Entry)| Listed {
            group: name.clone(),
            kind: group.kind(),
            state: group.state(),
            protocol_type: group.protocol_type(),
        };
        let mut all: Vec<Listed> = self.groups.iter().map(listed).collect();
        let others = offsets::groups(&self.state).into_iter().filter(|name| !self.groups.contains_key(name));
        let state = classic_state(Phase::Empty);
        all.extend(others.map(|group| Listed { group, kind: CLASSIC, state, protocol_type: Name::default() }));
        all.sort_by(|a, b| a.group.cmp(&b.group));
        all
    }

    pub(super) async fn delete(&mut self, name: &Name, reply: Reply<()>) {
        let refusal = match self.groups.get(name) {
            Some(entry) if !entry.group.is_unused() => Some(GroupError::NonEmptyGroup.into()),
            // That its last member has left is being stored: asked again, it is.
            Some(entry) if !entry.group.is_settled() => Some(GroupError::CoordinatorNotAvailable.into()),
            None if !self.has_offsets(name) => Some(ResponseError::GroupIdNotFound.into()),
            _ => None,
        };
        match refusal {
            Some(refusal) => drop(reply.send(Err(refusal))),
            None => self.remove(name, Some(reply)).await,
        }
    }

    /// Takes a group and its offsets out of the log.
    async fn remove(&mut self, name: &Name, reply: Option<Reply<()>>) {
        self.leave_out(name);
        let prefixes = Key::consumer_of(name).chain([Key::offsets_of(name)]);
        let mut keys: Vec<Bytes> = prefixes.flat_map(|prefix| self.state.scan(&prefix)).map(|(key, _)| key).collect();
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
        let described = self.describe(name);
        let consumer = match self.groups.get(name).map(|entry| &entry.group) {
            Some(Group::Consumer(group)) => Some(group),
            _ => None,
        };
        if described.is_none() && consumer.is_none() {
            return drop(reply.send(Err(ResponseError::GroupIdNotFound.into())));
        }
        if described.as_ref().is_some_and(|group| !group.members.is_empty() && &*group.protocol_type != CONSUMER) {
            return drop(reply.send(Err(ResponseError::NonEmptyGroup.into())));
        }
        let members = described.iter().flat_map(|group| &group.members);
        let reads = |topic: &str| {
            consumer.is_some_and(|group| group.subscribes(topic))
                || members.clone().any(|member| subscribes(&member.metadata, topic))
        };
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
        let used = |group: &Group| !group.is_unused() || !group.is_settled();
        let has_members = |name: &Name| self.groups.get(name).is_some_and(|entry| used(&entry.group));
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
