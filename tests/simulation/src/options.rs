//! What is run: the seed, and the kinds of trouble that it draws (each seed has other ones, so that rare pairs meet).

use forebay_disk::sim::Random;
use forebay_log::flaws::Flaw;

use crate::services::Kind;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub seed: u64,
    /// Nodes of the cluster; drawn from 3 to 5 when none are given.
    pub nodes: Option<usize>,
    /// The bug to plant.
    pub flaw: Option<Flaw>,
    /// Whether to tell what happens, on standard output.
    pub trace: bool,
}

/// How a seed runs; times in milliseconds, rates in a thousand.
#[derive(Debug, Clone)]
pub struct Profile {
    pub nodes: usize,
    pub topics: usize,
    /// How long faults happen.
    pub chaos_ms: i64,
    /// Mean time between two faults.
    pub fault_every_ms: u64,
    pub producers: usize,
    pub consumers: usize,
    /// Longest pause of a client between two records.
    pub think_ms: u64,
    pub segment_bytes: u64,
    pub drop_per_mille: u32,
    pub duplicate_per_mille: u32,
    pub delay_ms: u64,
    /// Longest time that a turn of a node's disk takes.
    pub disk_ms: u64,
    pub crashes: bool,
    pub pauses: bool,
    pub cuts: bool,
    pub disk_faults: bool,
    pub full_disks: bool,
    pub clocks: bool,
    pub admin: bool,
    pub deletions: bool,
    /// Nodes hear late of what is committed.
    pub late_metadata: bool,
    /// Leaders are moved.
    pub moves: bool,
    /// Until a silent node is fenced.
    pub session_timeout: i64,
    /// The offload runs, and the alert rules.
    pub lake: bool,
    pub alerts: bool,
    /// A consumer group is there.
    pub group: bool,
    /// Most bytes of an answer to a follower.
    pub answer_bytes: u64,
}

impl Profile {
    /// Whether this service is there.
    #[must_use]
    pub fn runs(&self, kind: Kind) -> bool {
        match kind {
            Kind::Lake => self.lake,
            Kind::Alerts => self.alerts,
        }
    }

    #[must_use]
    pub fn draw(options: &Options, random: &mut Random) -> Profile {
        let mut some = |per_mille| random.chance(per_mille);
        let (crashes, pauses, cuts) = (some(800), some(500), some(800));
        let (disk_faults, full_disks, clocks) = (some(300), some(250), some(400));
        let (admin, deletions) = (some(700), some(400));
        let (late_metadata, moves) = (some(500), some(600));
        let (lake, alerts, group) = (some(300), some(300), some(300));
        let mut pick = |values: &[u64]| values[usize::try_from(random.below(values.len() as u64)).unwrap_or(0)];
        let nodes = options.nodes.unwrap_or_else(|| usize::try_from(pick(&[3, 3, 3, 4, 5])).unwrap_or(3));
        Profile {
            nodes,
            topics: usize::try_from(pick(&[1, 2, 3])).unwrap_or(1),
            chaos_ms: i64::try_from(pick(&[20_000, 30_000, 45_000])).unwrap_or(30_000),
            fault_every_ms: pick(&[400, 1000, 2500]),
            producers: usize::try_from(pick(&[3, 5, 8])).unwrap_or(5),
            consumers: usize::try_from(pick(&[1, 2])).unwrap_or(1),
            think_ms: pick(&[100, 300, 800]),
            // The offload takes one segment after the other.
            segment_bytes: if lake { pick(&[4000, 8000]) } else { pick(&[800, 2000, 8000]) },
            drop_per_mille: u32::try_from(pick(&[0, 0, 5, 30])).unwrap_or(0),
            duplicate_per_mille: u32::try_from(pick(&[0, 0, 10, 50])).unwrap_or(0),
            delay_ms: pick(&[1, 5, 20, 80]),
            disk_ms: pick(&[1, 5, 20, 60]),
            crashes,
            pauses,
            cuts,
            disk_faults,
            full_disks,
            clocks,
            admin,
            deletions,
            late_metadata,
            moves,
            lake,
            alerts,
            group,
            session_timeout: i64::try_from(pick(&[1000, 3000])).unwrap_or(3000),
            answer_bytes: pick(&[300, 2000, 65_536]),
        }
    }
}
