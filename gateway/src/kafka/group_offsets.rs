//! Committed offsets of consumer groups: records of `__consumer_offsets`.
//!
//! A group that committed nothing for a week is forgotten, as Kafka does by default; there may be so many offsets and no more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use forebay_disk::{Log, LogError};
use forebay_log::group::Name;
pub(crate) use forebay_log::group::stored::Committed;
use forebay_log::group::stored::Key;
use forebay_log::{AppendError, Millis};
use kafka_protocol::ResponseError;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::errors::Refusal;
use super::limits::{GROUP_LOOK_INTERVAL, MAX_GROUP_OFFSETS, OFFSETS_RETENTION_MS};
use crate::log_limit::FaultLog;
use crate::state::StateTopic;

/// The topic that Kafka, too, keeps them in.
const TOPIC: &str = "__consumer_offsets";
/// 2000-01-01, milliseconds: commits before were made while the clock was not set.
const CLOCK_UNSET_BEFORE_MS: i64 = 946_684_800_000;

/// The committed offsets of all groups; the topic is made with the first use.
pub(crate) struct GroupOffsets {
    state: OnceCell<Arc<StateTopic>>,
    /// New ones on their way.
    coming: AtomicUsize,
    /// When groups are looked through for those that nobody uses any more. Not right after the start, when the clock may not
    /// be set yet.
    look_at: Mutex<Instant>,
}

/// Room for offsets that are new, until they are stored or refused.
struct Room<'a>(&'a AtomicUsize, usize);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

impl GroupOffsets {
    pub(crate) fn new() -> GroupOffsets {
        let look_at = Mutex::new(Instant::now() + GROUP_LOOK_INTERVAL);
        GroupOffsets { state: OnceCell::new(), coming: AtomicUsize::new(0), look_at }
    }

    async fn state(&self, log: &Log) -> Result<&Arc<StateTopic>, Refusal> {
        let open = async || {
            let state = StateTopic::open(log, TOPIC).await?;
            // From an older offset a group reads records again, as after any crash of its own.
            state.go_on_damaged();
            Ok(state)
        };
        let opened = self.state.get_or_try_init(open).await;
        opened.map_err(|error: LogError| Refusal::new(ResponseError::CoordinatorNotAvailable, error.to_string()))
    }

    /// Forgets the groups whose last commit was too long before `now`, if it is time to look. A commit at a time that no
    /// clock can have shown, 1970 or ahead of `now`, is never too long before.
    async fn forget_unused(&self, state: &StateTopic, now: Millis) {
        {
            let mut look_at = self.look_at.lock().unwrap_or_else(PoisonError::into_inner);
            if Instant::now() < *look_at {
                return;
            }
            *look_at = Instant::now() + GROUP_LOOK_INTERVAL;
        }
        let mut groups: HashMap<Name, (Millis, Vec<Bytes>)> = HashMap::new();
        for (key, value) in state.scan(&Key::all_offsets()) {
            let (Some(Key::Offset { group, .. }), Some((_, at))) = (Key::decode(key.clone()), Committed::decode(value))
            else {
                continue;
            };
            let (last, keys) = groups.entry(group).or_default();
            *last = (*last).max(if at.0 < CLOCK_UNSET_BEFORE_MS { now } else { at });
            keys.push(key);
        }
        groups.retain(|_, (last, _)| now.0.saturating_sub(last.0) > OFFSETS_RETENTION_MS);
        if groups.is_empty() {
            return;
        }
        let forgotten = groups.len();
        for (_, (_, keys)) in groups {
            let changes = keys.into_iter().map(|key| (key, None)).collect();
            if let Err(error) = state.put_all(changes).await {
                tracing::warn!(%error, "offsets of consumer groups that nobody uses any more stay for now");
                return;
            }
        }
        tracing::info!(forgotten, "consumer groups without a commit for a week are forgotten");
    }

    /// Room for those of `changes` that are not there yet.
    fn room(&self, state: &StateTopic, changes: &[(Bytes, Option<Bytes>)]) -> Result<Room<'_>, Refusal> {
        static FAULTS: FaultLog = FaultLog::new();
        let new = changes.iter().filter(|(key, _)| state.get(key).is_none()).count();
        let before = self.coming.fetch_add(new, Ordering::AcqRel);
        let room = Room(&self.coming, new);
        if new == 0 || state.count() + before + new <= MAX_GROUP_OFFSETS {
            return Ok(room);
        }
        let what = format!(
            "all consumer groups together keep {MAX_GROUP_OFFSETS} offsets at most; some client makes a new group at each start"
        );
        if let Some(suppressed) = FAULTS.admit(&what) {
            tracing::warn!(suppressed, "an OffsetCommit is refused: {what}");
        }
        Err(Refusal::new(ResponseError::PolicyViolation, what))
    }

    /// Stores offsets of one group, all of them or none; returns when they are durable.
    pub(crate) async fn commit(
        &self,
        log: &Log,
        group: &str,
        offsets: impl IntoIterator<Item = ((String, i32), Committed)>,
        now: Millis,
    ) -> Result<(), Refusal> {
        let changes: Vec<_> = offsets
            .into_iter()
            .map(|((topic, partition), committed)| (key(group, &topic, partition), Some(committed.encode(now))))
            .collect();
        let state = self.state(log).await?;
        self.forget_unused(state, now).await;
        let _room = self.room(state, &changes)?;
        let stored = state.put_all(changes).await;
        stored.map_err(|error| match error {
            // The client tries again with these, and finds another coordinator if there is one.
            AppendError::Closed | AppendError::NotLeader => ResponseError::NotCoordinator.into(),
            other => Refusal::new(ResponseError::CoordinatorNotAvailable, other.to_string()),
        })
    }

    /// As if the time had passed after which groups are looked through.
    #[cfg(test)]
    pub(crate) fn look_now(&self) {
        *self.look_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// One offset of a group.
    pub(crate) async fn get(
        &self,
        log: &Log,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<Committed>, Refusal> {
        let stored = self.state(log).await?.get(&key(group, topic, partition));
        Ok(stored.and_then(Committed::decode).map(|(committed, _)| committed))
    }

    /// Every offset of a group, by topic and partition.
    pub(crate) async fn all(&self, log: &Log, group: &str) -> Result<Vec<((String, i32), Committed)>, Refusal> {
        let stored = self.state(log).await?.scan(&Key::offsets_of(group));
        let read = |(key, value)| match (Key::decode(key)?, Committed::decode(value)?) {
            (Key::Offset { topic, partition, .. }, (committed, _)) => Some(((topic.to_string(), partition), committed)),
            _ => None,
        };
        Ok(stored.into_iter().filter_map(read).collect())
    }
}

fn key(group: &str, topic: &str, partition: i32) -> Bytes {
    Key::Offset { group: group.into(), topic: topic.into(), partition }.encode()
}
