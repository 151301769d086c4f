//! The coordinator's part for groups of the consumer protocol: heartbeats, and what they want stored.

use bytes::Bytes;
use forebay_log::AppendError;
use forebay_log::group::classic::{ClassicGroup, GroupRecord, Leaver};
use forebay_log::group::consumer::records::RecordOf;
use forebay_log::group::consumer::{ConsumerGroup, Effect, Heartbeat};
use forebay_log::group::stored::Key;
use forebay_log::group::{GroupError, Name};

use super::coordinator::{Coordinator, FULL, Kept};
use super::entry::{Entry, Group};
use super::{BeatWaiter, Reply};
use crate::kafka::limits::{GROUP_MEMORY, MAX_GROUPS};

impl Coordinator {
    pub(super) async fn beat(&mut self, name: &Name, beat: Heartbeat<BeatWaiter>) {
        let now = self.now();
        let total = self.total();
        let has_room = beat.epoch == 0 && total.groups < MAX_GROUPS && total.bytes + beat.bytes() <= GROUP_MEMORY;
        let mut effects = Vec::new();
        let refusal = match self.groups.get_mut(name).map(|entry| &mut entry.group) {
            Some(Group::Consumer(group)) => {
                let grows = group.growth(&beat);
                if grows == 0 || total.bytes + grows <= GROUP_MEMORY {
                    group.heartbeat(now, beat, &self.catalog, &mut effects);
                    return self.perform_beats(name, effects).await;
                }
                GroupError::GroupMaxSizeReached
            }
            // A group without members becomes of the kind that its next member is.
            Some(Group::Classic(group)) if beat.epoch == 0 && group.is_unused() => return self.begin(name, beat).await,
            Some(Group::Classic(_)) => GroupError::GroupIdNotFound,
            None if has_room => return self.begin(name, beat).await,
            None if beat.epoch == 0 => GroupError::GroupMaxSizeReached,
            // The group was forgotten with its last member: who comes late joins again.
            None => GroupError::UnknownMemberId,
        };
        if refusal == GroupError::GroupMaxSizeReached
            && let Some(suppressed) = FULL.admit()
        {
            let (groups, bytes) = (total.groups, total.bytes);
            tracing::warn!(group = %name, groups, bytes, suppressed, "no room for a further member of a group");
        }
        drop(beat.to.send(Err(refusal)));
    }

    /// The first member of a group.
    async fn begin(&mut self, name: &Name, beat: Heartbeat<BeatWaiter>) {
        let mut group = ConsumerGroup::new(self.limits);
        let mut effects = Vec::new();
        group.heartbeat(self.now(), beat, &self.catalog, &mut effects);
        // One that is refused leaves everything as it was.
        if !group.is_empty() {
            self.enter(name, Group::Consumer(group), true);
        }
        self.perform_beats(name, effects).await;
    }

    pub(super) async fn perform_beats(&mut self, name: &Name, effects: Vec<Effect<BeatWaiter>>) {
        for effect in effects {
            match effect {
                // Who does not wait any more needs no answer.
                Effect::Answer { to, answer } => drop(to.send(answer)),
                Effect::Persist(records) => {
                    let Some(number) = self.groups.get(name).map(|entry| entry.number) else { continue };
                    let change = |(of, value)| (Key::Consumer(name.clone(), of).encode(), value);
                    let changes = self.with_leftovers(name, records.into_iter().map(change).collect());
                    self.store(changes, Kept::Beats(name.clone(), number)).await;
                }
            }
        }
        self.settle(name);
    }

    /// A batch of a group is durable, or could not be made so.
    pub(super) async fn beats_stored(&mut self, name: &Name, number: u64, result: Result<(), AppendError>) {
        let Some(entry) = self.groups.get_mut(name).filter(|entry| entry.number == number) else { return };
        let Group::Consumer(group) = &mut entry.group else { return };
        if let Err(error) = result {
            tracing::warn!(group = %name, %error, "a consumer group's state could not be stored");
            return self.go_back(name);
        }
        entry.fresh = false;
        let mut effects = Vec::new();
        group.stored(&mut effects);
        self.perform_beats(name, effects).await;
    }

    /// Takes a group up again from what is stored of it.
    fn go_back(&mut self, name: &Name) {
        if let Some(Group::Consumer(group)) = self.leave_out(name).map(|entry| entry.group) {
            for to in group.abandon() {
                drop(to.send(Err(GroupError::CoordinatorNotAvailable)));
            }
        }
        self.take_up(name);
    }

    /// Takes a group up as it is stored.
    pub(super) fn take_up(&mut self, name: &Name) {
        let now = self.now();
        let mut records = Vec::new();
        for (key, value) in Key::consumer_of(name).flat_map(|prefix| self.state.scan(&prefix)) {
            if let Some(Key::Consumer(_, of)) = Key::decode(key) {
                records.push((of, value));
            }
        }
        let classic = self.state.get(&Key::Group(name.clone()).encode()).and_then(GroupRecord::decode);
        let group = match classic {
            _ if records.iter().any(|(of, _)| *of == RecordOf::Group) => {
                Group::Consumer(ConsumerGroup::restore(self.limits, records, now))
            }
            Some((record, _)) => Group::Classic(ClassicGroup::restore(self.limits, &record, now)),
            None => return,
        };
        self.enter(name, group, false);
        self.settle(name);
    }

    pub(super) fn enter(&mut self, name: &Name, group: Group, fresh: bool) {
        self.leave_out(name);
        self.entered += 1;
        self.groups.insert(name.clone(), Entry::new(group, self.entered, fresh));
    }

    /// What a fresh group stores first takes away what may be left of one that had its name.
    pub(super) fn with_leftovers(
        &self,
        name: &Name,
        changes: Vec<(Bytes, Option<Bytes>)>,
    ) -> Vec<(Bytes, Option<Bytes>)> {
        if !self.groups.get(name).is_some_and(|entry| entry.fresh) {
            return changes;
        }
        let of_consumer = Key::consumer_of(name).flat_map(|prefix| self.state.scan(&prefix)).map(|(key, _)| key);
        // A classic group's last record may still be on its way.
        let mut all: Vec<_> = of_consumer.chain([Key::Group(name.clone()).encode()]).map(|key| (key, None)).collect();
        all.retain(|(key, _)| !changes.iter().any(|(changed, _)| changed == key));
        all.extend(changes);
        all
    }

    /// A group of the consumer protocol without members makes way for a classic one.
    pub(super) fn make_way(&mut self, name: &Name) {
        let gives_way = |entry: &&Entry| {
            matches!(entry.group, Group::Consumer(_)) && entry.group.is_unused() && entry.group.is_settled()
        };
        if self.groups.get(name).filter(gives_way).is_some() {
            self.enter(name, Group::Classic(ClassicGroup::new(self.limits)), true);
        }
    }

    /// Members go that an operator names.
    pub(super) async fn send_away(
        &mut self,
        name: &Name,
        leavers: Vec<Leaver>,
        reply: Reply<Vec<Result<(), GroupError>>>,
    ) {
        let Some(Group::Consumer(group)) = self.groups.get_mut(name).map(|entry| &mut entry.group) else { return };
        let id = |leaver: Leaver| match leaver.instance.as_ref().and_then(|instance| group.member_of(instance)) {
            Some(owner) if leaver.id.is_empty() => owner.clone(),
            _ => leaver.id,
        };
        let ids: Vec<Name> = leavers.into_iter().map(id).collect();
        let mut effects = Vec::new();
        let gone = group.send_away(&ids, &self.catalog, &mut effects);
        let result = |gone| if gone { Ok(()) } else { Err(GroupError::UnknownMemberId) };
        drop(reply.send(Ok(gone.into_iter().map(result).collect())));
        self.perform_beats(name, effects).await;
    }
}
