//! A consumer's life in its group, by the classic protocol, which every Kafka speaks: join, sync, heartbeat, commit, leave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use forebay_log::Offset;
use forebay_log::group::subscription::{assigned, assignment, subscription, topics};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::heartbeat_request::HeartbeatRequest;
use kafka_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use kafka_protocol::protocol::StrBytes;

use super::groups::group_id;
use super::{Client, Refused, check, topic_name};

/// Without a heartbeat for this long the member is out.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the others wait for this member when the group rebalances.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(60);
/// The assignor that nearly all consumers know.
const RANGE: &str = "range";
/// What members of such a group are.
const CONSUMER: &str = "consumer";
/// Highest versions that say all that is needed here.
const JOIN_GROUP: i16 = 5;
const SYNC_GROUP: i16 = 3;
const HEARTBEAT: i16 = 3;
const LEAVE_GROUP: i16 = 3;
const OFFSET_COMMIT: i16 = 8;

/// Who a member is, in which generation.
#[derive(Debug, Clone, Default)]
pub struct Membership {
    pub group: String,
    /// Empty until the coordinator has given one.
    pub id: String,
    pub generation: i32,
}

/// A member of a generation that has not got its partitions yet.
#[derive(Debug)]
pub struct Joined {
    /// For the leader, who has to share the partitions out: each member and what it subscribes to.
    members: Vec<(StrBytes, Bytes)>,
}

fn text(name: &str) -> StrBytes {
    StrBytes::from_string(name.to_owned())
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

impl Client {
    /// Joins, or joins again. Waits for the other members.
    ///
    /// # Errors
    /// [`Refused`] when the coordinator refused.
    pub async fn join(&mut self, member: &mut Membership, topic: &str) -> anyhow::Result<Joined> {
        loop {
            let offer =
                JoinGroupRequestProtocol::default().with_name(text(RANGE)).with_metadata(subscription(&[topic]));
            let request = JoinGroupRequest::default()
                .with_group_id(group_id(&member.group))
                .with_session_timeout_ms(millis(SESSION_TIMEOUT))
                .with_rebalance_timeout_ms(millis(REBALANCE_TIMEOUT))
                .with_member_id(text(&member.id))
                .with_protocol_type(text(CONSUMER))
                .with_protocols(vec![offer]);
            let coordinator = self.coordinator(&member.group).await?;
            let answer = coordinator.call(JOIN_GROUP, REBALANCE_TIMEOUT, move |_| request).await?;
            let takes_id = answer.error_code == ResponseError::MemberIdRequired.code() && member.id.is_empty();
            if takes_id {
                member.id = answer.member_id.to_string();
                continue;
            }
            check(answer.error_code, None, format!("cannot join group {}", member.group))?;
            member.id = answer.member_id.to_string();
            member.generation = answer.generation_id;
            let members = answer.members.into_iter().map(|other| (other.member_id, other.metadata));
            return Ok(Joined { members: members.collect() });
        }
    }

    /// Gets the partitions that the leader has given this member; the leader gives them.
    ///
    /// # Errors
    /// [`Refused`] when the coordinator refused, as when the group rebalances again.
    pub async fn sync(&mut self, member: &Membership, joined: Joined) -> anyhow::Result<Vec<(String, i32)>> {
        let named: BTreeSet<String> =
            joined.members.iter().flat_map(|(_, subscription)| topics(subscription)).collect();
        let mut counts = BTreeMap::new();
        for topic in named {
            // One that is not there has no partitions.
            let found = self.topic(&topic, false).await.map_or(0, |found| found.partitions.len());
            counts.insert(topic, i32::try_from(found).unwrap_or(i32::MAX));
        }
        let assignments = range(&joined.members, &counts).into_iter().map(|(id, topics)| {
            let topics = topics.iter().map(|(topic, partitions)| (topic.as_str(), partitions.as_slice()));
            SyncGroupRequestAssignment::default().with_member_id(id).with_assignment(assignment(topics))
        });
        let request = SyncGroupRequest::default()
            .with_group_id(group_id(&member.group))
            .with_generation_id(member.generation)
            .with_member_id(text(&member.id))
            .with_assignments(assignments.collect());
        let coordinator = self.coordinator(&member.group).await?;
        let answer = coordinator.call(SYNC_GROUP, REBALANCE_TIMEOUT, move |_| request).await?;
        check(answer.error_code, None, format!("cannot get partitions in group {}", member.group))?;
        Ok(assigned(&answer.assignment))
    }

    /// Says that the member is alive.
    ///
    /// # Errors
    /// [`Refused`] when it has to join again.
    pub async fn heartbeat(&mut self, member: &Membership) -> anyhow::Result<()> {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(&member.group))
            .with_generation_id(member.generation)
            .with_member_id(text(&member.id));
        let coordinator = self.coordinator(&member.group).await?;
        let answer = coordinator.call(HEARTBEAT, Duration::ZERO, move |_| request).await?;
        Ok(check(answer.error_code, None, format!("group {}", member.group))?)
    }

    /// Stores how far the member has read.
    ///
    /// # Errors
    /// [`Refused`] when it is no member of this generation any more.
    pub async fn commit(&mut self, member: &Membership, topic: &str, next: &[(i32, Offset)]) -> anyhow::Result<()> {
        let part = |&(index, offset): &(i32, Offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset.0)
                .with_committed_metadata(Some(StrBytes::default()))
        };
        let committed = OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(next.iter().map(part).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(&member.group))
            .with_generation_id_or_member_epoch(member.generation)
            .with_member_id(text(&member.id))
            .with_topics(vec![committed]);
        let coordinator = self.coordinator(&member.group).await?;
        let answer = coordinator.call(OFFSET_COMMIT, Duration::ZERO, move |_| request).await?;
        let parts = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let refused = parts.map(|part| part.error_code).find(|code| *code != 0);
        refused.map_or(Ok(()), |code| Err(Refused::new(format!("cannot commit offsets of {topic}"), code).into()))
    }

    /// Leaves, so that the others need not wait for the session's end.
    ///
    /// # Errors
    /// The coordinator cannot be reached, or refuses.
    pub async fn leave(&mut self, member: &Membership) -> anyhow::Result<()> {
        let id = text(&member.id);
        let group = group_id(&member.group);
        let call = self.coordinator(&member.group).await?.call(LEAVE_GROUP, Duration::ZERO, move |version| {
            let request = LeaveGroupRequest::default().with_group_id(group);
            match version {
                3.. => request.with_members(vec![MemberIdentity::default().with_member_id(id)]),
                _ => request.with_member_id(id),
            }
        });
        Ok(check(call.await?.error_code, None, format!("cannot leave group {}", member.group))?)
    }
}

/// Partitions of each topic, by member.
type Shares = Vec<(StrBytes, BTreeMap<String, Vec<i32>>)>;

/// Kafka's range assignor: of each topic a run of neighbours for each of its members, in the order of their ids.
fn range(members: &[(StrBytes, Bytes)], counts: &BTreeMap<String, i32>) -> Shares {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut shares: Shares = sorted.iter().map(|(id, _)| (id.clone(), BTreeMap::new())).collect();
    for (topic, count) in counts {
        let reads = |(_, (_, subscription)): &(usize, &&(StrBytes, Bytes))| topics(subscription).contains(topic);
        let readers: Vec<usize> = sorted.iter().enumerate().filter(reads).map(|(place, _)| place).collect();
        let share = |place: usize| {
            let (place, count, readers) = (place as i64, i64::from(*count), readers.len() as i64);
            (place * (count / readers) + place.min(count % readers)) as i32
        };
        for (place, reader) in readers.iter().enumerate() {
            shares[*reader].1.insert(topic.clone(), (share(place)..share(place + 1)).collect());
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_goes_to_one_member_that_reads_its_topic() {
        let member = |id: &str, topics: &[&str]| (text(id), subscription(topics));
        let members = [member("b", &["t", "u"]), member("a", &["t"]), member("c", &["u", "gone"])];
        let counts = [("t".to_owned(), 3), ("u".to_owned(), 2), ("gone".to_owned(), 0)].into();
        let shares = range(&members, &counts);
        let share = |place: usize, topic: &str| shares[place].1.get(topic).cloned().unwrap_or_default();
        assert_eq!(shares.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((share(0, "t"), share(1, "t"), share(2, "t")), (vec![0, 1], vec![2], vec![]));
        assert_eq!((share(0, "u"), share(1, "u"), share(2, "u")), (vec![], vec![0], vec![1]));
    }
}
