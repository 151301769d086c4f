//! Fetch sessions (KIP-227): a client says once which partitions it follows, and is told only of those that have news.
//!
//! A session belongs to the node, not to a connection, and is lost without harm: the client is told that it is not known
//! and sends a full request again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use tokio::time::Instant;
use uuid::Uuid;

use super::fetch_response::{PartitionAnswer, TopicAnswer};
use super::limits::{FETCH_SESSION_IDLE, MAX_FETCH_SESSIONS, MAX_SESSION_PARTITIONS};

/// Epoch of a full request that wants a session.
const INITIAL_EPOCH: i32 = 0;
/// Epoch of a full request that ends its session, if it has one.
const FINAL_EPOCH: i32 = -1;

/// Name, id (one of them is empty) and index of a partition.
type Key = (TopicName, Uuid, i32);

/// The sessions of a node.
#[derive(Default)]
pub(crate) struct FetchSessions {
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    sessions: HashMap<i32, Session>,
    /// Of all sessions.
    partitions: usize,
}

struct Session {
    /// Of the next request.
    epoch: i32,
    by_id: bool,
    used: Instant,
    /// In the order in which they are read: what gave records goes to the end, so that none starves.
    order: BTreeMap<u64, Followed>,
    places: HashMap<Key, u64>,
    next_place: u64,
}

struct Followed {
    topic: TopicName,
    id: Uuid,
    asked: FetchPartition,
    /// High watermark and log start as they were told last.
    told: Option<(i64, i64)>,
}

/// One request of a session.
pub(crate) struct Turn {
    /// 0: without a session.
    pub(crate) session_id: i32,
    /// Only news are told.
    incremental: bool,
    /// Everything to be read, in order.
    pub(crate) topics: Vec<FetchTopic>,
}

impl FetchSessions {
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request in: what it changes in its session, and what is to be read for it.
    ///
    /// # Errors
    /// No such session, an epoch that does not follow, or names where the session has ids.
    pub(crate) fn begin(&self, version: i16, request: FetchRequest, now: Instant) -> Result<Turn, ResponseError> {
        let by_id = version >= 13;
        let mut cache = self.lock();
        if matches!(request.session_epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            cache.remove(request.session_id);
            let wanted = request.session_epoch == INITIAL_EPOCH && version >= 7 && !request.topics.is_empty();
            let session_id = if wanted { cache.make(by_id, &request.topics, now) } else { 0 };
            return Ok(Turn { session_id, incremental: false, topics: request.topics });
        }
        let Cache { sessions, partitions } = &mut *cache;
        let session = sessions.get_mut(&request.session_id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        let before = session.order.len();
        session.forget(&request);
        let added: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        let room = MAX_SESSION_PARTITIONS.saturating_sub(*partitions - before + session.order.len());
        if added > room {
            // The client begins anew, and will be served without a session.
            cache.remove(request.session_id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        session.follow(&request.topics);
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        session.used = now;
        *partitions = *partitions - before + session.order.len();
        let topics = session.topics();
        if topics.is_empty() {
            // As Kafka: who follows nothing any more has no session.
            cache.remove(request.session_id);
            return Ok(Turn { session_id: 0, incremental: false, topics });
        }
        Ok(Turn { session_id: request.session_id, incremental: true, topics })
    }

    /// Keeps what was told, and takes what is not news out of the answers of an incremental request.
    pub(crate) fn finish(&self, turn: &Turn, answers: &mut Vec<TopicAnswer>) {
        if turn.session_id == 0 {
            return;
        }
        let mut cache = self.lock();
        // Without the session all is told, which is right as well.
        let Some(session) = cache.sessions.get_mut(&turn.session_id) else { return };
        for topic in answers.iter_mut() {
            let (name, id) = (topic.name.clone(), topic.id);
            topic.partitions.retain(|answer| session.is_news(&name, id, answer) || !turn.incremental);
        }
        answers.retain(|topic| !topic.partitions.is_empty());
    }
}

impl Cache {
    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.order.len();
        }
    }

    /// A session that follows these partitions; 0 when there is no room for one.
    fn make(&mut self, by_id: bool, topics: &[FetchTopic], now: Instant) -> i32 {
        let count: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
        let full = |cache: &Cache| {
            cache.sessions.len() >= MAX_FETCH_SESSIONS || cache.partitions + count > MAX_SESSION_PARTITIONS
        };
        if full(self) {
            let idle = |session: &Session| now.duration_since(session.used) >= FETCH_SESSION_IDLE;
            let gone: Vec<i32> = self.sessions.iter().filter(|(_, s)| idle(s)).map(|(id, _)| *id).collect();
            gone.into_iter().for_each(|id| self.remove(id));
        }
        if full(self) {
            return 0;
        }
        let mut session = Session {
            epoch: INITIAL_EPOCH + 1,
            by_id,
            used: now,
            order: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        };
        session.follow(topics);
        let id = loop {
            // Random, so that no client takes another's session for its own after a restart.
            let id = (Uuid::new_v4().as_u128() >> 96) as u32 as i32 & i32::MAX;
            if id != 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        self.partitions += session.order.len();
        self.sessions.insert(id, session);
        id
    }
}

impl Session {
    fn follow(&mut self, topics: &[FetchTopic]) {
        for topic in topics {
            for asked in &topic.partitions {
                let key = (topic.topic.clone(), topic.topic_id, asked.partition);
                if let Some(known) = self.places.get(&key).and_then(|place| self.order.get_mut(place)) {
                    known.asked = asked.clone();
                    continue;
                }
                let followed =
                    Followed { topic: topic.topic.clone(), id: topic.topic_id, asked: asked.clone(), told: None };
                self.put_last(key, followed);
            }
        }
    }

    fn forget(&mut self, request: &FetchRequest) {
        for topic in &request.forgotten_topics_data {
            for &index in &topic.partitions {
                if let Some(place) = self.places.remove(&(topic.topic.clone(), topic.topic_id, index)) {
                    self.order.remove(&place);
                }
            }
        }
    }

    fn put_last(&mut self, key: Key, followed: Followed) {
        self.places.insert(key, self.next_place);
        self.order.insert(self.next_place, followed);
        self.next_place += 1;
    }

    /// All that is followed, as a full request would ask for it.
    fn topics(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for followed in self.order.values() {
            match topics.last_mut() {
                Some(last) if last.topic == followed.topic && last.topic_id == followed.id => {
                    last.partitions.push(followed.asked.clone());
                }
                _ => topics.push(
                    FetchTopic::default()
                        .with_topic(followed.topic.clone())
                        .with_topic_id(followed.id)
                        .with_partitions(vec![followed.asked.clone()]),
                ),
            }
        }
        topics
    }

    /// Whether the client does not know this yet; it does from now on.
    fn is_news(&mut self, name: &TopicName, id: Uuid, answer: &PartitionAnswer) -> bool {
        let key = (name.clone(), id, answer.index);
        let Some(&place) = self.places.get(&key) else { return true };
        let Some(followed) = self.order.get_mut(&place) else { return true };
        let marks = Some((answer.high_watermark, answer.log_start));
        let news =
            answer.error != 0 || answer.preferred.is_some() || !answer.records.is_empty() || followed.told != marks;
        // An error is told again and again, until the client does something about it.
        followed.told = marks.filter(|_| answer.error == 0);
        if !answer.records.is_empty()
            && let Some(followed) = self.order.remove(&place)
        {
            self.put_last(key, followed);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::fetch_request::ForgottenTopic;

    use super::super::topics::topic_name;
    use super::*;

    fn request(id: i32, epoch: i32, partitions: &[i32]) -> FetchRequest {
        let asked = partitions.iter().map(|&index| FetchPartition::default().with_partition(index)).collect();
        let topic = FetchTopic::default().with_topic(topic_name("t")).with_partitions(asked);
        let topics = if partitions.is_empty() { Vec::new() } else { vec![topic] };
        FetchRequest::default().with_session_id(id).with_session_epoch(epoch).with_topics(topics)
    }

    fn read(turn: &Turn) -> Vec<i32> {
        turn.topics.iter().flat_map(|topic| topic.partitions.iter().map(|asked| asked.partition)).collect()
    }

    fn answers(turn: &Turn, with_records: &[i32], high_watermark: i64) -> Vec<TopicAnswer> {
        let partitions = read(turn).into_iter().map(|index| PartitionAnswer {
            index,
            high_watermark,
            records: if with_records.contains(&index) { Bytes::from_static(b"x") } else { Bytes::new() },
            ..PartitionAnswer::default()
        });
        vec![TopicAnswer { name: topic_name("t"), id: Uuid::nil(), partitions: partitions.collect() }]
    }

    fn told(sessions: &FetchSessions, turn: &Turn, with_records: &[i32], high_watermark: i64) -> Vec<i32> {
        let mut answers = answers(turn, with_records, high_watermark);
        sessions.finish(turn, &mut answers);
        answers.iter().flat_map(|topic| topic.partitions.iter().map(|answer| answer.index)).collect()
    }

    #[test]
    fn a_session_reads_all_and_tells_only_news() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        let first = sessions.begin(12, request(0, 0, &[0, 1, 2]), now).unwrap();
        assert_ne!(first.session_id, 0);
        assert_eq!(told(&sessions, &first, &[], 5), [0, 1, 2], "a full request is answered in full");
        let turn = sessions.begin(12, request(first.session_id, 1, &[]), now).unwrap();
        assert_eq!((read(&turn), told(&sessions, &turn, &[1], 5)), (vec![0, 1, 2], vec![1]));
        let turn = sessions.begin(12, request(first.session_id, 2, &[3]), now).unwrap();
        assert_eq!(read(&turn), [0, 2, 1, 3], "what gave records is read last");
        assert_eq!(told(&sessions, &turn, &[], 6), [0, 2, 1, 3], "a high watermark that moved is news");
        let gone = ForgottenTopic::default().with_topic(topic_name("t")).with_partitions(vec![0, 2]);
        let forget = request(first.session_id, 3, &[]).with_forgotten_topics_data(vec![gone]);
        assert_eq!(read(&sessions.begin(12, forget, now).unwrap()), [1, 3]);
    }

    #[test]
    fn an_error_is_told_each_time() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        let id = sessions.begin(12, request(0, 0, &[0]), now).unwrap().session_id;
        for epoch in 1..4 {
            let turn = sessions.begin(12, request(id, epoch, &[]), now).unwrap();
            let mut failed = answers(&turn, &[], -1);
            failed[0].partitions[0].error = 1;
            sessions.finish(&turn, &mut failed);
            assert_eq!(failed[0].partitions.len(), 1);
        }
    }

    #[test]
    fn requests_out_of_turn_are_refused() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        let id = sessions.begin(12, request(0, 0, &[0]), now).unwrap().session_id;
        let refused = |version, request| sessions.begin(version, request, now).err();
        assert_eq!(refused(12, request(id, 2, &[])), Some(ResponseError::InvalidFetchSessionEpoch));
        assert_eq!(refused(12, request(id + 1, 1, &[])), Some(ResponseError::FetchSessionIdNotFound));
        assert_eq!(refused(13, request(id, 1, &[])), Some(ResponseError::FetchSessionTopicIdError));
        sessions.begin(12, request(id, -1, &[0]), now).unwrap();
        assert_eq!(
            refused(12, request(id, 1, &[])),
            Some(ResponseError::FetchSessionIdNotFound),
            "ended by its client"
        );
    }

    #[test]
    fn sessions_and_their_partitions_are_bounded_and_idle_ones_make_room() {
        let (sessions, now) = (FetchSessions::default(), Instant::now());
        for _ in 0..MAX_FETCH_SESSIONS {
            assert_ne!(sessions.begin(12, request(0, 0, &[0]), now).unwrap().session_id, 0);
        }
        assert_eq!(sessions.begin(12, request(0, 0, &[0]), now).unwrap().session_id, 0);
        let later = now + FETCH_SESSION_IDLE;
        let id = sessions.begin(12, request(0, 0, &[0]), later).unwrap().session_id;
        assert_ne!(id, 0);
        let many: Vec<i32> = (1..=MAX_SESSION_PARTITIONS as i32).collect();
        let refused = sessions.begin(12, request(id, 1, &many), later).err();
        assert_eq!(refused, Some(ResponseError::FetchSessionIdNotFound));
        assert_eq!(
            sessions.begin(12, request(0, 0, &many[1..]), later).unwrap().topics[0].partitions.len(),
            many.len() - 1
        );
        let cache = sessions.lock();
        assert_eq!(cache.partitions, cache.sessions.values().map(|session| session.order.len()).sum::<usize>());
    }
}
