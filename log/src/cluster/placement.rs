//! Where the replicas of new partitions go: leaders and replicas spread evenly, each partition over as many racks as it
//! can.
//!
//! Round robin as Kafka's: what counts is how much of this topic a node has, not how much of all, so that a topic that
//! is made after a node has come does not lie on that node alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::units::NodeId;

/// A node that can take replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub id: NodeId,
    /// Nodes without one stand in a rack of their own each.
    pub rack: Option<&'a str>,
}

/// What stands or falls together.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Site<'a> {
    Rack(&'a str),
    Alone(NodeId),
}

impl<'a> Candidate<'a> {
    fn site(&self) -> Site<'a> {
        self.rack.map_or(Site::Alone(self.id), Site::Rack)
    }
}

/// Places `count` new partitions of a topic that has the partitions `existing` so far: the replicas of each, its
/// preferred leader first. The seed says where the round begins. None when there are fewer candidates than replicas.
#[must_use]
pub fn place(
    candidates: &[Candidate<'_>],
    existing: &[&[NodeId]],
    count: u32,
    replication_factor: usize,
    seed: u64,
) -> Option<Vec<Vec<NodeId>>> {
    if replication_factor == 0 || candidates.len() < replication_factor {
        return None;
    }
    let round = alternate(candidates);
    let mut leads = vec![0usize; round.len()];
    let mut has = vec![0usize; round.len()];
    // How often a leader has had a follower already: its followers are to differ, so that all share its load when it is
    // gone.
    let mut together: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let position: BTreeMap<NodeId, usize> = round.iter().enumerate().map(|(n, node)| (node.id, n)).collect();
    for replicas in existing {
        for (n, id) in replicas.iter().enumerate() {
            let Some(at) = position.get(id) else { continue };
            has[*at] += 1;
            leads[*at] += usize::from(n == 0);
        }
    }
    let start = usize::try_from(seed % round.len() as u64).unwrap_or_default();
    let turn = |at: usize| (at + round.len() - start) % round.len();
    let mut placed = Vec::new();
    for _ in 0..count {
        let leader = (0..round.len()).min_by_key(|at| (leads[*at], has[*at], turn(*at)))?;
        leads[leader] += 1;
        has[leader] += 1;
        let mut chosen = vec![leader];
        let mut sites = BTreeSet::from([round[leader].site()]);
        while chosen.len() < replication_factor {
            let next = (0..round.len()).filter(|at| !chosen.contains(at)).min_by_key(|at| {
                let pairs = together.get(&(leader, *at)).copied().unwrap_or_default();
                (sites.contains(&round[*at].site()), has[*at], pairs, turn(*at))
            })?;
            has[next] += 1;
            *together.entry((leader, next)).or_default() += 1;
            sites.insert(round[next].site());
            chosen.push(next);
        }
        placed.push(chosen.into_iter().map(|at| round[at].id).collect());
    }
    Some(placed)
}

/// The candidates in an order in which neighbours stand in different racks as far as that can be.
fn alternate<'a>(candidates: &[Candidate<'a>]) -> Vec<Candidate<'a>> {
    let mut sites: BTreeMap<Site<'a>, Vec<Candidate<'a>>> = BTreeMap::new();
    for candidate in candidates {
        sites.entry(candidate.site()).or_default().push(*candidate);
    }
    for site in sites.values_mut() {
        site.sort_by_key(|candidate| candidate.id);
    }
    let longest = sites.values().map(Vec::len).max().unwrap_or_default();
    (0..longest).flat_map(|n| sites.values().filter_map(move |site| site.get(n).copied())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(racks: &[Option<&'static str>]) -> Vec<Candidate<'static>> {
        (1..).zip(racks).map(|(id, rack)| Candidate { id: NodeId(id), rack: *rack }).collect()
    }

    fn spread(of: impl Iterator<Item = NodeId>, among: &[Candidate<'_>]) -> usize {
        let mut counts: BTreeMap<NodeId, usize> = among.iter().map(|node| (node.id, 0)).collect();
        of.for_each(|id| *counts.entry(id).or_default() += 1);
        counts.values().max().unwrap() - counts.values().min().unwrap()
    }

    #[test]
    fn the_seed_says_where_the_round_begins() {
        let three = nodes(&[None, None, None]);
        let leaders = |seed| place(&three, &[], 3, 1, seed).unwrap().concat();
        assert_eq!(leaders(0), [NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(leaders(1), [NodeId(2), NodeId(3), NodeId(1)]);
        assert_eq!(place(&three, &[], 1, 4, 0), None, "fewer nodes than replicas");
    }

    #[test]
    fn followers_of_one_leader_differ() {
        let five = nodes(&[None; 5]);
        let placed = place(&five, &[], 20, 2, 0).unwrap();
        let followers: BTreeSet<_> = placed.iter().filter(|r| r[0] == NodeId(1)).map(|r| r[1]).collect();
        assert_eq!(followers.len(), 4, "{placed:?}");
    }

    #[test]
    fn further_partitions_go_where_the_topic_has_least() {
        let three = nodes(&[None, None, None]);
        let existing: [&[NodeId]; 2] = [&[NodeId(1)], &[NodeId(2)]];
        assert_eq!(place(&three, &existing, 1, 1, 0).unwrap(), [[NodeId(3)]]);
    }

    #[test]
    fn two_racks_and_three_replicas_use_both() {
        let placed = place(&nodes(&[Some("a"), Some("a"), Some("a"), Some("b")]), &[], 12, 3, 7).unwrap();
        assert!(placed.iter().all(|replicas| replicas.contains(&NodeId(4))), "{placed:?}");
    }

    proptest! {
        #[test]
        fn replicas_are_spread(
            racks in prop::collection::vec(prop::option::of(prop::sample::select(vec!["a", "b", "c"])), 1..9),
            factor in 1..4usize,
            count in 1..60u32,
            seed: u64,
        ) {
            let nodes = nodes(&racks);
            prop_assume!(factor <= nodes.len());
            let placed = place(&nodes, &[], count, factor, seed).unwrap();
            prop_assert_eq!(&placed, &place(&nodes, &[], count, factor, seed).unwrap());
            prop_assert_eq!(placed.len(), count as usize);
            let sites: BTreeSet<_> = nodes.iter().map(Candidate::site).collect();
            let site = |id: &NodeId| nodes[usize::try_from(id.0 - 1).unwrap()].site();
            for replicas in &placed {
                prop_assert_eq!(replicas.len(), factor);
                prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), factor, "twice in {:?}", replicas);
                let used: BTreeSet<_> = replicas.iter().map(site).collect();
                prop_assert_eq!(used.len(), factor.min(sites.len()), "racks of {:?}", replicas);
            }
            prop_assert!(spread(placed.iter().map(|replicas| replicas[0]), &nodes) <= 1, "leaders of {:?}", placed);
            if sites.len() == nodes.len() {
                prop_assert!(spread(placed.concat().into_iter(), &nodes) <= 2, "replicas of {:?}", placed);
            }
        }
    }
}
