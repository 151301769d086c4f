//! What the assignors promise, over any subscriptions and any past.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::topics::{Partition, Partitions, Shape, TopicId};
use super::{Assignor, Candidate};

fn shapes(counts: &[i32]) -> Vec<Shape> {
    counts.iter().enumerate().map(|(n, count)| Shape { id: TopicId([n as u8; 16]), partitions: *count }).collect()
}

/// What each member reads, and had before: possibly what it reads no more, what is not there, what others had, too.
type Past = Vec<(BTreeSet<usize>, BTreeSet<(u8, i32)>)>;

fn members() -> impl Strategy<Value = Past> {
    let reads = prop::collection::btree_set(0..4usize, 0..4);
    let had = prop::collection::btree_set((0..5u8, 0..12i32), 0..20);
    prop::collection::vec((reads, had), 1..7)
}

fn assign(assignor: Assignor, topics: &[Shape], members: &[(BTreeSet<usize>, Partitions)]) -> Vec<Partitions> {
    let candidates = members.iter().enumerate().map(|(n, (reads, had))| Candidate {
        order: (true, format!("member {n}").into()),
        topics: reads.iter().copied().collect(),
        had,
    });
    assignor.assign(topics, &candidates.collect::<Vec<_>>())
}

fn partitions(had: &BTreeSet<(u8, i32)>) -> Partitions {
    had.iter().map(|(topic, index)| Partition { topic: TopicId([*topic; 16]), index: *index }).collect()
}

fn everything(topics: &[Shape]) -> Partitions {
    let all = topics.iter().flat_map(|t| (0..t.partitions).map(|index| Partition { topic: t.id, index }));
    all.collect()
}

proptest! {
    #[test]
    fn each_partition_that_somebody_reads_has_one_reader(
        counts in prop::collection::vec(0..10i32, 4),
        past in members(),
        range: bool,
    ) {
        let topics = shapes(&counts);
        let past: Vec<_> = past.iter().map(|(reads, had)| (reads.clone(), partitions(had))).collect();
        let assigned = assign(if range { Assignor::Range } else { Assignor::Uniform }, &topics, &past);
        let mut seen = Partitions::new();
        for ((reads, _), got) in past.iter().zip(&assigned) {
            for part in got {
                prop_assert!(seen.insert(*part), "{part:?} twice");
                prop_assert!(reads.contains(&usize::from(part.topic.0[0])), "{part:?} is not read");
            }
        }
        let mut wanted = everything(&topics);
        wanted.retain(|part| past.iter().any(|(reads, _)| reads.contains(&usize::from(part.topic.0[0]))));
        prop_assert_eq!(seen, wanted);
    }

    #[test]
    fn uniform_is_as_even_as_one_step_can_make_it(counts in prop::collection::vec(0..10i32, 4), past in members()) {
        let topics = shapes(&counts);
        let past: Vec<_> = past.iter().map(|(reads, had)| (reads.clone(), partitions(had))).collect();
        let assigned = assign(Assignor::Uniform, &topics, &past);
        for rich in &assigned {
            for part in rich {
                for ((reads, _), poor) in past.iter().zip(&assigned) {
                    let could = reads.contains(&usize::from(part.topic.0[0]));
                    prop_assert!(!could || rich.len() <= poor.len() + 1, "{part:?} could go from {rich:?} to {poor:?}");
                }
            }
        }
    }

    #[test]
    fn uniform_leaves_members_that_read_the_same_what_they_had_up_to_their_share(
        counts in prop::collection::vec(0..10i32, 4),
        owners in prop::collection::vec(0..8usize, 40),
        count in 1..7usize,
    ) {
        let topics = shapes(&counts);
        let all = everything(&topics);
        let had = |n: usize| all.iter().zip(&owners).filter(|(_, owner)| **owner == n).map(|(part, _)| *part).collect();
        let past: Vec<_> = (0..count).map(|n| ((0..4).collect(), had(n))).collect();
        let assigned = assign(Assignor::Uniform, &topics, &past);
        let share = all.len() / count;
        for ((_, had), got) in past.iter().zip(&assigned) {
            prop_assert!((share..=share + 1).contains(&got.len()), "{} of {}", got.len(), all.len());
            let kept = had.intersection(got).count();
            prop_assert!(kept >= had.len().min(share), "kept {kept} of {} with a share of {share}", had.len());
        }
        let again: Vec<_> = assigned.iter().map(|got| ((0..4).collect(), got.clone())).collect();
        prop_assert_eq!(assign(Assignor::Uniform, &topics, &again), assigned);
    }

    #[test]
    fn range_gives_runs_of_neighbours_in_the_order_of_the_members(
        counts in prop::collection::vec(0..10i32, 4),
        past in members(),
    ) {
        let topics = shapes(&counts);
        let past: Vec<_> = past.iter().map(|(reads, had)| (reads.clone(), partitions(had))).collect();
        let assigned = assign(Assignor::Range, &topics, &past);
        for (number, topic) in topics.iter().enumerate() {
            let readers = past.iter().zip(&assigned).filter(|((reads, _), _)| reads.contains(&number));
            let runs: Vec<Vec<i32>> = readers
                .map(|(_, got)| got.iter().filter(|part| part.topic == topic.id).map(|part| part.index).collect())
                .collect();
            let joined: Vec<i32> = runs.concat();
            let all = if runs.is_empty() { 0 } else { topic.partitions };
            prop_assert_eq!(joined, (0..all).collect::<Vec<_>>());
            prop_assert!(runs.windows(2).all(|pair| (0..=1).contains(&(pair[0].len() - pair[1].len()))));
        }
    }
}
