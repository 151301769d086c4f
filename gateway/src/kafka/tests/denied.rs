//! Every API that is served, asked by somebody to whom the ACLs allow nothing, and by a super user.

use std::collections::BTreeSet;

use bytes::{BufMut, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::api::{Api, SERVED};
use super::super::session::is_checked;
use super::door::answer;
use super::fuzz::valid;
use super::secured::{Secured, with_acls};

#[test]
fn every_served_api_is_known_to_the_session() {
    let missing: Vec<&str> = SERVED.iter().filter(|api| !is_checked(api.key)).map(|api| api.name).collect();
    assert!(missing.is_empty(), "add their checks, then name them in session.rs: {missing:?}");
}

/// A version in which the request of [`valid`] names things instead of giving ids that nobody knows.
fn version(api: &Api) -> i16 {
    match api.key {
        ApiKey::Produce | ApiKey::Fetch => 12,
        ApiKey::DeleteTopics => 5,
        _ => api.to,
    }
}

async fn ask<M: Decodable + HeaderVersion>(stream: &mut TcpStream, api: &Api) -> M {
    let version = version(api);
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(api.key as i16);
    frame.put_i16(version);
    frame.put_i32(7);
    frame.put_i16(-1);
    if api.flexible(version) {
        frame.put_u8(0);
    }
    frame.extend_from_slice(&valid(api, version));
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame).await.unwrap();
    answer::<M>(stream, version).await.unwrap_or_else(|| panic!("{} closed the connection", api.name)).1
}

/// The error codes in the answer, one for each thing that was asked about.
async fn codes(stream: &mut TcpStream, api: &Api) -> Vec<i16> {
    match api.key {
        ApiKey::Produce => {
            let topics = ask::<ProduceResponse>(stream, api).await.responses;
            topics.iter().flat_map(|topic| &topic.partition_responses).map(|part| part.error_code).collect()
        }
        ApiKey::Fetch => {
            let topics = ask::<FetchResponse>(stream, api).await.responses;
            topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).collect()
        }
        ApiKey::ListOffsets => {
            let topics = ask::<ListOffsetsResponse>(stream, api).await.topics;
            topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).collect()
        }
        ApiKey::Metadata => {
            ask::<MetadataResponse>(stream, api).await.topics.iter().map(|topic| topic.error_code).collect()
        }
        ApiKey::OffsetCommit => {
            let topics = ask::<OffsetCommitResponse>(stream, api).await.topics;
            topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).collect()
        }
        ApiKey::OffsetFetch => {
            ask::<OffsetFetchResponse>(stream, api).await.groups.iter().map(|group| group.error_code).collect()
        }
        ApiKey::FindCoordinator => {
            ask::<FindCoordinatorResponse>(stream, api).await.coordinators.iter().map(|one| one.error_code).collect()
        }
        ApiKey::JoinGroup => vec![ask::<JoinGroupResponse>(stream, api).await.error_code],
        ApiKey::SyncGroup => vec![ask::<SyncGroupResponse>(stream, api).await.error_code],
        ApiKey::Heartbeat => vec![ask::<HeartbeatResponse>(stream, api).await.error_code],
        ApiKey::LeaveGroup => vec![ask::<LeaveGroupResponse>(stream, api).await.error_code],
        ApiKey::DescribeGroups => {
            ask::<DescribeGroupsResponse>(stream, api).await.groups.iter().map(|group| group.error_code).collect()
        }
        ApiKey::DeleteGroups => {
            ask::<DeleteGroupsResponse>(stream, api).await.results.iter().map(|group| group.error_code).collect()
        }
        ApiKey::OffsetDelete => vec![ask::<OffsetDeleteResponse>(stream, api).await.error_code],
        ApiKey::CreateTopics => {
            ask::<CreateTopicsResponse>(stream, api).await.topics.iter().map(|topic| topic.error_code).collect()
        }
        ApiKey::DeleteTopics => {
            ask::<DeleteTopicsResponse>(stream, api).await.responses.iter().map(|topic| topic.error_code).collect()
        }
        ApiKey::InitProducerId => vec![ask::<InitProducerIdResponse>(stream, api).await.error_code],
        ApiKey::DescribeConfigs => {
            ask::<DescribeConfigsResponse>(stream, api).await.results.iter().map(|one| one.error_code).collect()
        }
        ApiKey::IncrementalAlterConfigs => {
            let response = ask::<IncrementalAlterConfigsResponse>(stream, api).await;
            response.responses.iter().map(|one| one.error_code).collect()
        }
        ApiKey::DescribeAcls => vec![ask::<DescribeAclsResponse>(stream, api).await.error_code],
        ApiKey::CreateAcls => {
            ask::<CreateAclsResponse>(stream, api).await.results.iter().map(|one| one.error_code).collect()
        }
        ApiKey::DeleteAcls => {
            ask::<DeleteAclsResponse>(stream, api).await.filter_results.iter().map(|one| one.error_code).collect()
        }
        ApiKey::ConsumerGroupHeartbeat => vec![ask::<ConsumerGroupHeartbeatResponse>(stream, api).await.error_code],
        ApiKey::ConsumerGroupDescribe => {
            ask::<ConsumerGroupDescribeResponse>(stream, api).await.groups.iter().map(|one| one.error_code).collect()
        }
        ApiKey::AlterClientQuotas => {
            ask::<AlterClientQuotasResponse>(stream, api).await.entries.iter().map(|one| one.error_code).collect()
        }
        ApiKey::OffsetForLeaderEpoch => {
            let topics = ask::<OffsetForLeaderEpochResponse>(stream, api).await.topics;
            topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).collect()
        }
        ApiKey::CreatePartitions => {
            ask::<CreatePartitionsResponse>(stream, api).await.results.iter().map(|one| one.error_code).collect()
        }
        ApiKey::DeleteRecords => {
            let topics = ask::<DeleteRecordsResponse>(stream, api).await.topics;
            topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).collect()
        }
        ApiKey::AlterConfigs => {
            ask::<AlterConfigsResponse>(stream, api).await.responses.iter().map(|one| one.error_code).collect()
        }
        ApiKey::DescribeTopicPartitions => {
            let topics = ask::<DescribeTopicPartitionsResponse>(stream, api).await.topics;
            topics.iter().map(|topic| topic.error_code).collect()
        }
        ApiKey::DescribeLogDirs => vec![ask::<DescribeLogDirsResponse>(stream, api).await.error_code],
        ApiKey::DescribeProducers => {
            let topics = ask::<DescribeProducersResponse>(stream, api).await.topics;
            topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).collect()
        }
        ApiKey::DescribeClientQuotas => vec![ask::<DescribeClientQuotasResponse>(stream, api).await.error_code],
        ApiKey::DescribeUserScramCredentials => {
            vec![ask::<DescribeUserScramCredentialsResponse>(stream, api).await.error_code]
        }
        ApiKey::AlterUserScramCredentials => {
            let response = ask::<AlterUserScramCredentialsResponse>(stream, api).await;
            response.results.iter().map(|one| one.error_code).collect()
        }
        ApiKey::ElectLeaders => vec![ask::<ElectLeadersResponse>(stream, api).await.error_code],
        ApiKey::AlterPartitionReassignments => {
            vec![ask::<AlterPartitionReassignmentsResponse>(stream, api).await.error_code]
        }
        ApiKey::ListPartitionReassignments => {
            vec![ask::<ListPartitionReassignmentsResponse>(stream, api).await.error_code]
        }
        ApiKey::DescribeQuorum => vec![ask::<DescribeQuorumResponse>(stream, api).await.error_code],
        // For everybody.
        ApiKey::ListGroups
        | ApiKey::ApiVersions
        | ApiKey::DescribeCluster
        | ApiKey::SaslHandshake
        | ApiKey::SaslAuthenticate => Vec::new(),
        other => panic!("{other:?} is served but nobody sees to it that it is denied: add it here"),
    }
}

fn is_denial(code: i16) -> bool {
    let denials = [
        ResponseError::TopicAuthorizationFailed,
        ResponseError::GroupAuthorizationFailed,
        ResponseError::ClusterAuthorizationFailed,
    ];
    denials.iter().any(|denial| denial.code() == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_nothing_is_denied_by_every_api_and_a_super_user_by_none() {
    let door = Secured::open(&with_acls()).await;
    let mut alice = door.raw_of("alice", "alice-secret").await;
    let mut admin = door.raw_of("admin", "admin-secret").await;
    let open = BTreeSet::from([ApiKey::ListGroups as i16, ApiKey::ApiVersions as i16, ApiKey::DescribeCluster as i16]);
    for api in SERVED {
        let told = codes(&mut alice, api).await;
        if told.is_empty() {
            let sasl = matches!(api.key, ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
            assert!(sasl || open.contains(&(api.key as i16)), "{} says nothing", api.name);
            continue;
        }
        assert!(told.iter().all(|code| is_denial(*code)), "{}: {told:?}", api.name);
        let told = codes(&mut admin, api).await;
        assert!(!told.iter().any(|code| is_denial(*code)), "{}: {told:?} for a super user", api.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_leave_out_what_one_may_not_see() {
    let door = Secured::open(&with_acls()).await;
    let mut admin = door.log_in("PLAIN", "admin", "admin-secret").await.unwrap();
    admin.topic("readings", true).await.unwrap();
    admin.seek_group("billing", "readings", &[(0, forebay_log::Offset(1))]).await.unwrap();
    assert_eq!(admin.groups().await.unwrap(), ["billing"]);
    let mut alice = door.log_in("PLAIN", "alice", "alice-secret").await.unwrap();
    assert!(alice.topics().await.unwrap().is_empty());
    assert!(alice.groups().await.unwrap().is_empty());
    // Whether a topic exists is told to nobody who may not know.
    let there = alice.topic("readings", false).await.unwrap_err().to_string();
    let not_there = alice.topic("missing", false).await.unwrap_err().to_string();
    assert_eq!(there.replace("readings", "missing"), not_there);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_the_keys_of_users() {
    let door = Secured::open(&with_acls()).await;
    let mut admin = door.log_in("PLAIN", "admin", "admin-secret").await.unwrap();
    // Nodes before there were clusters kept them there.
    door.log().create_topic(crate::security::LEGACY_TOPIC, 1, forebay_log::TopicConfig::internal()).await.unwrap();
    let topic = admin.topic(crate::security::LEGACY_TOPIC, false).await.unwrap();
    let from = [(0, forebay_log::Offset(0))];
    let read = admin.fetch(topic.partitions[0].leader, &topic.name, &from, 1 << 20, std::time::Duration::ZERO).await;
    let refused = read.unwrap_err().to_string();
    assert!(refused.contains("uthoriz"), "{refused}");
}
