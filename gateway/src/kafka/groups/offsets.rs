//! Committed offsets of consumer groups: records of `__consumer_offsets`.
//!
//! A group without members that committed nothing for a week is forgotten, as Kafka does by default; there may be so many
//! offsets and no more.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use forebay_log::Millis;
use forebay_log::group::Name;
use forebay_log::group::stored::{Committed, Key};
use kafka_protocol::ResponseError;

use crate::kafka::errors::Refusal;
use crate::kafka::limits::{MAX_GROUP_OFFSETS, OFFSETS_RETENTION_MS};
use crate::log_limit::FaultLog;
use crate::state::StateTopic;

/// 2000-01-01, milliseconds: commits before were made while the clock was not set.
const CLOCK_UNSET_BEFORE_MS: i64 = 946_684_800_000;

/// What an offset is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TopicPartition {
    pub(crate) topic: Name,
    pub(crate) partition: i32,
}

pub(super) fn key(group: &str, of: &TopicPartition) -> Bytes {
    Key::Offset { group: group.into(), topic: of.topic.clone(), partition: of.partition }.encode()
}

pub(super) fn get(state: &StateTopic, group: &str, of: TopicPartition) -> Option<Committed> {
    Committed::decode(state.get(&key(group, &of))?).map(|(committed, _)| committed)
}

pub(super) fn all(state: &StateTopic, group: &str) -> Vec<(TopicPartition, Committed)> {
    let read = |(key, value)| match (Key::decode(key)?, Committed::decode(value)?) {
        (Key::Offset { topic, partition, .. }, (committed, _)) => {
            Some((TopicPartition { topic, partition }, committed))
        }
        _ => None,
    };
    state.scan(&Key::offsets_of(group)).into_iter().filter_map(read).collect()
}

/// The groups that have offsets.
pub(super) fn groups(state: &StateTopic) -> HashSet<Name> {
    let group = |(key, _)| match Key::decode(key)? {
        Key::Offset { group, .. } => Some(group),
        Key::Group(_) | Key::Consumer(..) => None,
    };
    state.scan(&Key::all_offsets()).into_iter().filter_map(group).collect()
}

/// The groups whose last commit was too long before `now`. A commit at a time that no clock can have shown, 1970 or ahead of
/// `now`, is never too long before.
pub(super) fn unused(state: &StateTopic, now: Millis) -> Vec<Name> {
    let mut groups: HashMap<Name, Millis> = HashMap::new();
    for (key, value) in state.scan(&Key::all_offsets()) {
        let (Some(Key::Offset { group, .. }), Some((_, at))) = (Key::decode(key), Committed::decode(value)) else {
            continue;
        };
        let last = groups.entry(group).or_default();
        *last = (*last).max(if at.0 < CLOCK_UNSET_BEFORE_MS { now } else { at });
    }
    groups.retain(|_, last| now.0.saturating_sub(last.0) > OFFSETS_RETENTION_MS);
    groups.into_keys().collect()
}

/// How many of `changes` are new. `held`: what the node has of all groups, with those on their way.
pub(super) fn new_ones(state: &StateTopic, changes: &[(Bytes, Option<Bytes>)], held: usize) -> Result<usize, Refusal> {
    static FAULTS: FaultLog = FaultLog::new();
    let new = changes.iter().filter(|(key, _)| state.get(key).is_none()).count();
    if new == 0 || held + new <= MAX_GROUP_OFFSETS {
        return Ok(new);
    }
    let what = format!(
        "all consumer groups together keep {MAX_GROUP_OFFSETS} offsets at most; some client makes a new group at each start"
    );
    if let Some(suppressed) = FAULTS.admit(&what) {
        tracing::warn!(suppressed, "an OffsetCommit is refused: {what}");
    }
    Err(Refusal::new(ResponseError::PolicyViolation, what))
}
