//! The server's assignors, with Kafka's names: who shall have which partition.

mod range;
#[cfg(test)]
mod tests;
mod uniform;

use super::topics::{Partitions, Shape};
use crate::group::Name;

/// How partitions are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// Evenly over all topics together; members keep what they have where that allows it.
    Uniform,
    /// Of each topic, a run of neighbours for each member, in the order of the members: topics with as many partitions are cut
    /// the same way.
    Range,
}

/// A member as an assignor sees it.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    /// Static members stand before others, in the order of their instance ids.
    pub(super) order: (bool, Name),
    /// Which of the topics it reads.
    pub(super) topics: Vec<usize>,
    /// What it was to have before.
    pub(super) had: &'a Partitions,
}

impl Assignor {
    pub fn named(name: &str) -> Option<Assignor> {
        [Assignor::Uniform, Assignor::Range].into_iter().find(|assignor| assignor.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// What each member shall have. A partition that no member reads is nobody's.
    pub(super) fn assign(self, topics: &[Shape], members: &[Candidate]) -> Vec<Partitions> {
        match self {
            Assignor::Uniform => uniform::assign(topics, members),
            Assignor::Range => range::assign(topics, members),
        }
    }
}

/// Who reads each topic.
fn readers(topics: &[Shape], members: &[Candidate]) -> Vec<Vec<usize>> {
    let mut readers = vec![Vec::new(); topics.len()];
    for (number, member) in members.iter().enumerate() {
        for topic in &member.topics {
            readers[*topic].push(number);
        }
    }
    readers
}
