//! The network: who reaches whom, how late, how often and in which order.

use std::collections::BTreeMap;

use forebay_disk::sim::Random;

use crate::message::Peer;
use crate::options::Profile;

/// How late a message may come a second time, in milliseconds.
const LATE_MS: u64 = 10_000;

/// Cuts, and when the last ordered message between two arrives.
#[derive(Default)]
pub struct Network {
    /// One-way cuts by the number of the fault that made them.
    cuts: BTreeMap<u64, Vec<(Peer, Peer)>>,
    next_cut: u64,
    last: BTreeMap<(Peer, Peer), i64>,
    pub drop_per_mille: u32,
    pub duplicate_per_mille: u32,
    pub delay_ms: u64,
}

impl Network {
    #[must_use]
    pub fn of(profile: &Profile) -> Network {
        let &Profile { drop_per_mille, duplicate_per_mille, delay_ms, .. } = profile;
        Network { drop_per_mille, duplicate_per_mille, delay_ms, ..Network::default() }
    }

    pub fn is_cut(&self, from: Peer, to: Peer) -> bool {
        self.cuts.values().flatten().any(|cut| *cut == (from, to))
    }

    /// Whether two reach each other.
    pub fn joins(&self, a: Peer, b: Peer) -> bool {
        !self.is_cut(a, b) && !self.is_cut(b, a)
    }

    pub fn cut(&mut self, ways: Vec<(Peer, Peer)>) -> u64 {
        self.next_cut += 1;
        self.cuts.insert(self.next_cut, ways);
        self.next_cut
    }

    pub fn mend(&mut self, cut: u64) {
        self.cuts.remove(&cut);
    }

    /// Everything is well from now on.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.drop_per_mille = 0;
        self.duplicate_per_mille = 0;
        self.delay_ms = 2;
    }

    /// When a message arrives: never, once, or several times.
    pub fn arrivals(&mut self, random: &mut Random, now: i64, (from, to): (Peer, Peer), ordered: bool) -> Vec<i64> {
        if random.chance(self.drop_per_mille) {
            return Vec::new();
        }
        let mut late = || {
            let most = if random.chance(30) { self.delay_ms * 20 } else { self.delay_ms };
            now + 1 + i64::try_from(random.below(most + 1)).unwrap_or(0)
        };
        if ordered {
            let last = self.last.entry((from, to)).or_default();
            *last = late().max(*last);
            return vec![*last];
        }
        let first = late();
        if !random.chance(self.duplicate_per_mille) {
            return vec![first];
        }
        // The second one may be of another age.
        let most = if random.chance(300) { LATE_MS } else { self.delay_ms };
        vec![first, first + i64::try_from(random.below(most + 1)).unwrap_or(0)]
    }
}
