//! What the members shall have: when it is worked out anew, and for which topics.

use std::collections::{BTreeMap, BTreeSet};

use super::assignor::{Assignor, Candidate};
use super::records::RecordOf;
use super::topics::{Catalog, Shape};
use super::{ConsumerGroup, Partitions, Profile};
use crate::group::Name;

impl<T> ConsumerGroup<T> {
    /// Looks whether the topics that the members read are still the same. If not, or with `changed` members or subscriptions,
    /// the epoch rises and the target is worked out anew.
    pub(super) fn refresh(&mut self, catalog: &Catalog, changed: bool) {
        if !changed && !self.patterns.outdated(catalog) {
            return;
        }
        let used: BTreeSet<Name> = self.members.values().filter_map(|member| member.profile.regex.clone()).collect();
        self.patterns.resolve(used, catalog);
        let topics = self.read_topics(catalog);
        let others = topics != self.topics;
        if others {
            self.topics = topics;
            self.unstored.mark(RecordOf::Partitions);
        }
        if others || changed {
            self.epoch = self.epoch.saturating_add(1);
            self.unstored.mark(RecordOf::Group);
            self.work_out_target();
        }
    }

    /// What a member names, and what its expression finds.
    fn named_by<'a>(&'a self, profile: &'a Profile) -> impl Iterator<Item = &'a Name> {
        let by_pattern = profile.regex.as_deref().and_then(|pattern| self.patterns.found(pattern));
        profile.topics.iter().chain(by_pattern.into_iter().flatten())
    }

    /// The topics that some member reads, as far as there are any.
    fn read_topics(&self, catalog: &Catalog) -> BTreeMap<Name, Shape> {
        let mut topics = BTreeMap::new();
        for member in self.members.values() {
            for name in self.named_by(&member.profile) {
                if !topics.contains_key(name)
                    && let Some(shape) = catalog.topics.get(name)
                {
                    topics.insert(name.clone(), *shape);
                }
            }
        }
        topics
    }

    fn work_out_target(&mut self) {
        let assignor = self.assignor();
        let shapes: Vec<Shape> = self.topics.values().copied().collect();
        let places: BTreeMap<&Name, usize> =
            self.topics.keys().enumerate().map(|(place, name)| (name, place)).collect();
        let candidates = self.members.iter().map(|(id, member)| {
            let reads: BTreeSet<usize> =
                self.named_by(&member.profile).filter_map(|name| places.get(name).copied()).collect();
            Candidate {
                order: (member.profile.instance.is_none(), member.profile.instance.as_ref().unwrap_or(id).clone()),
                topics: reads.into_iter().collect(),
                had: &member.target,
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let targets: Vec<Partitions> = assignor.assign(&shapes, &candidates);
        for ((id, member), target) in self.members.iter_mut().zip(targets) {
            if member.target != target {
                member.target = target;
                self.unstored.mark(RecordOf::TargetMember(id.clone()));
            }
        }
        self.target_epoch = self.epoch;
        self.unstored.mark(RecordOf::Target);
    }

    /// The assignor that most members want, of those who want one.
    pub fn assignor(&self) -> Assignor {
        let wanted = self.members.values().filter_map(|member| Assignor::named(member.profile.assignor.as_deref()?));
        let (range, uniform): (Vec<_>, Vec<_>) = wanted.partition(|assignor| *assignor == Assignor::Range);
        if range.len() > uniform.len() { Assignor::Range } else { Assignor::Uniform }
    }
}
