//! Property tests of all request parsing: hostile bytes end in an error, never in a panic or a believed length.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;

use super::super::api::{Api, SERVED};
use super::super::guard::walk;
use super::super::request::parse;
use super::super::topics::topic_name;

/// Decodes what the guard let through; the guard must have walked exactly the bytes that the decoder takes.
fn check<M: Decodable>(api: &Api, version: i16, body: &Bytes) -> bool {
    let Ok(walked) = walk(api.request, api.flexible(version), version, body) else { return false };
    let mut rest = body.clone();
    if M::decode(&mut rest, version).is_err() {
        return false;
    }
    assert_eq!(walked, body.len() - rest.len(), "{} v{version}: guard and decoder disagree", api.name);
    true
}

/// Checks a body of any served API.
fn check_any(api: &Api, version: i16, body: &Bytes) -> bool {
    match api.key {
        ApiKey::Produce => check::<ProduceRequest>(api, version, body),
        ApiKey::Fetch => check::<FetchRequest>(api, version, body),
        ApiKey::ListOffsets => check::<ListOffsetsRequest>(api, version, body),
        ApiKey::Metadata => check::<MetadataRequest>(api, version, body),
        ApiKey::FindCoordinator => check::<FindCoordinatorRequest>(api, version, body),
        ApiKey::OffsetCommit => check::<OffsetCommitRequest>(api, version, body),
        ApiKey::OffsetFetch => check::<OffsetFetchRequest>(api, version, body),
        ApiKey::ApiVersions => check::<ApiVersionsRequest>(api, version, body),
        ApiKey::CreateTopics => check::<CreateTopicsRequest>(api, version, body),
        ApiKey::DeleteTopics => check::<DeleteTopicsRequest>(api, version, body),
        ApiKey::InitProducerId => check::<InitProducerIdRequest>(api, version, body),
        ApiKey::DescribeConfigs => check::<DescribeConfigsRequest>(api, version, body),
        ApiKey::IncrementalAlterConfigs => check::<IncrementalAlterConfigsRequest>(api, version, body),
        ApiKey::DescribeCluster => check::<DescribeClusterRequest>(api, version, body),
        ApiKey::JoinGroup => check::<JoinGroupRequest>(api, version, body),
        ApiKey::SyncGroup => check::<SyncGroupRequest>(api, version, body),
        ApiKey::Heartbeat => check::<HeartbeatRequest>(api, version, body),
        ApiKey::LeaveGroup => check::<LeaveGroupRequest>(api, version, body),
        ApiKey::DescribeGroups => check::<DescribeGroupsRequest>(api, version, body),
        ApiKey::ListGroups => check::<ListGroupsRequest>(api, version, body),
        ApiKey::DeleteGroups => check::<DeleteGroupsRequest>(api, version, body),
        ApiKey::OffsetDelete => check::<OffsetDeleteRequest>(api, version, body),
        ApiKey::OffsetForLeaderEpoch => check::<OffsetForLeaderEpochRequest>(api, version, body),
        ApiKey::CreatePartitions => check::<CreatePartitionsRequest>(api, version, body),
        ApiKey::DeleteRecords => check::<DeleteRecordsRequest>(api, version, body),
        ApiKey::AlterConfigs => check::<AlterConfigsRequest>(api, version, body),
        ApiKey::DescribeTopicPartitions => check::<DescribeTopicPartitionsRequest>(api, version, body),
        ApiKey::DescribeLogDirs => check::<DescribeLogDirsRequest>(api, version, body),
        ApiKey::DescribeProducers => check::<DescribeProducersRequest>(api, version, body),
        ApiKey::AlterClientQuotas => check::<AlterClientQuotasRequest>(api, version, body),
        ApiKey::SaslHandshake => check::<SaslHandshakeRequest>(api, version, body),
        ApiKey::SaslAuthenticate => check::<SaslAuthenticateRequest>(api, version, body),
        ApiKey::DescribeAcls => check::<DescribeAclsRequest>(api, version, body),
        ApiKey::CreateAcls => check::<CreateAclsRequest>(api, version, body),
        ApiKey::DeleteAcls => check::<DeleteAclsRequest>(api, version, body),
        ApiKey::DescribeClientQuotas => check::<DescribeClientQuotasRequest>(api, version, body),
        ApiKey::DescribeUserScramCredentials => check::<DescribeUserScramCredentialsRequest>(api, version, body),
        ApiKey::AlterUserScramCredentials => check::<AlterUserScramCredentialsRequest>(api, version, body),
        ApiKey::ConsumerGroupHeartbeat => check::<ConsumerGroupHeartbeatRequest>(api, version, body),
        ApiKey::ConsumerGroupDescribe => check::<ConsumerGroupDescribeRequest>(api, version, body),
        ApiKey::ElectLeaders => check::<ElectLeadersRequest>(api, version, body),
        ApiKey::AlterPartitionReassignments => check::<AlterPartitionReassignmentsRequest>(api, version, body),
        ApiKey::ListPartitionReassignments => check::<ListPartitionReassignmentsRequest>(api, version, body),
        ApiKey::DescribeQuorum => check::<DescribeQuorumRequest>(api, version, body),
        other => panic!("{other:?} is served but not fuzzed: add it here"),
    }
}

pub(super) fn encode<M: Encodable>(message: &M, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    message.encode(&mut body, version).unwrap();
    body.freeze()
}

pub(super) fn text(s: &'static str) -> StrBytes {
    StrBytes::from_static_str(s)
}

/// A valid request with every field that the version has, every array filled.
pub(super) fn valid(api: &Api, version: i16) -> Bytes {
    let id = Uuid::from_u128(7);
    match api.key {
        ApiKey::Produce => {
            let part = PartitionProduceData::default().with_index(1).with_records(Some(Bytes::from_static(&[5; 70])));
            let topic = TopicProduceData::default().with_partition_data(vec![part.clone(), part]);
            let topic = if version >= 13 { topic.with_topic_id(id) } else { topic.with_name(topic_name("t")) };
            encode(&ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic.clone(), topic]), version)
        }
        ApiKey::Fetch => {
            let mut part = FetchPartition::default().with_fetch_offset(9).with_partition_max_bytes(1 << 20);
            if version >= 17 {
                part = part.with_replica_directory_id(id);
            }
            let topic = FetchTopic::default().with_partitions(vec![part.clone(), part]);
            let topic = if version >= 13 { topic.with_topic_id(id) } else { topic.with_topic(topic_name("t")) };
            let mut request = FetchRequest::default().with_topics(vec![topic]);
            if version >= 7 {
                let gone = ForgottenTopic::default().with_partitions(vec![1, 2]);
                let gone = if version >= 13 { gone.with_topic_id(id) } else { gone.with_topic(topic_name("t")) };
                request = request.with_forgotten_topics_data(vec![gone]);
            }
            if version >= 12 {
                request = request.with_cluster_id(Some(text("cluster")));
            }
            if version >= 15 {
                request = request.with_replica_state(ReplicaState::default().with_replica_id(BrokerId(3)));
            }
            encode(&request, version)
        }
        ApiKey::ListOffsets => {
            let part = ListOffsetsPartition::default().with_timestamp(-1);
            let topic =
                ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![part.clone(), part]);
            encode(&ListOffsetsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::Metadata => {
            let topic = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
            encode(&MetadataRequest::default().with_topics(Some(vec![topic.clone(), topic])), version)
        }
        ApiKey::FindCoordinator => {
            let request = FindCoordinatorRequest::default();
            let keyed = if version >= 4 {
                request.with_coordinator_keys(vec![text("g"), text("h")])
            } else {
                request.with_key(text("g"))
            };
            encode(&keyed, version)
        }
        ApiKey::OffsetCommit => {
            let part = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("m")));
            let topic = OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![part; 2]);
            let request = OffsetCommitRequest::default().with_group_id(GroupId(text("g"))).with_topics(vec![topic; 2]);
            encode(&request, version)
        }
        ApiKey::OffsetFetch if version >= 8 => {
            let topic =
                OffsetFetchRequestTopics::default().with_name(topic_name("t")).with_partition_indexes(vec![1, 2]);
            let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g")));
            let groups = vec![group.clone().with_topics(None), group.with_topics(Some(vec![topic; 2]))];
            encode(&OffsetFetchRequest::default().with_groups(groups), version)
        }
        ApiKey::OffsetFetch => {
            let topic =
                OffsetFetchRequestTopic::default().with_name(topic_name("t")).with_partition_indexes(vec![1, 2]);
            encode(&OffsetFetchRequest::default().with_topics(Some(vec![topic; 2])), version)
        }
        ApiKey::ApiVersions => {
            let request = ApiVersionsRequest::default();
            let named = if version >= 3 { request.with_client_software_name(text("me")) } else { request };
            encode(&named, version)
        }
        ApiKey::CreateTopics => {
            let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
            let place = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
            let topic = CreatableTopic::default()
                .with_name(topic_name("t"))
                .with_configs(vec![config])
                .with_assignments(vec![place]);
            encode(&CreateTopicsRequest::default().with_topics(vec![topic.clone(), topic]), version)
        }
        ApiKey::DeleteTopics => {
            let request = DeleteTopicsRequest::default();
            let named = if version >= 6 {
                request.with_topics(vec![DeleteTopicState::default().with_topic_id(id)])
            } else {
                request.with_topic_names(vec![topic_name("t"), topic_name("u")])
            };
            encode(&named, version)
        }
        ApiKey::InitProducerId => encode(&InitProducerIdRequest::default().with_transactional_id(None), version),
        ApiKey::DescribeConfigs => {
            let resource = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configuration_keys(Some(vec![text("retention.ms"), text("segment.ms")]));
            encode(&DescribeConfigsRequest::default().with_resources(vec![resource]), version)
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
            let resource = AlterConfigsResource::default().with_resource_type(2).with_configs(vec![config]);
            encode(&IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), version)
        }
        ApiKey::DescribeCluster => encode(&DescribeClusterRequest::default(), version),
        _ => valid_of_security(api, version).unwrap_or_else(|| valid_of_groups(api, version)),
    }
}

fn valid_of_security(api: &Api, version: i16) -> Option<Bytes> {
    Some(match api.key {
        ApiKey::SaslHandshake => encode(&SaslHandshakeRequest::default().with_mechanism(text("PLAIN")), version),
        ApiKey::SaslAuthenticate => {
            encode(&SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0a\0b")), version)
        }
        ApiKey::DescribeAcls => {
            let request = DescribeAclsRequest::default().with_resource_type_filter(1).with_pattern_type_filter(1);
            let request =
                request.with_resource_name_filter(Some(text("t"))).with_principal_filter(Some(text("User:a")));
            encode(&request.with_host_filter(None).with_operation(1).with_permission_type(1), version)
        }
        ApiKey::CreateAcls => {
            let acl = AclCreation::default().with_resource_type(2).with_resource_name(text("t"));
            let acl = acl.with_resource_pattern_type(3).with_principal(text("User:a")).with_host(text("*"));
            let acl = acl.with_operation(3).with_permission_type(3);
            encode(&CreateAclsRequest::default().with_creations(vec![acl; 2]), version)
        }
        ApiKey::DeleteAcls => {
            let filter = DeleteAclsFilter::default().with_resource_type_filter(2).with_pattern_type_filter(3);
            let filter = filter.with_resource_name_filter(Some(text("t"))).with_operation(1).with_permission_type(1);
            encode(&DeleteAclsRequest::default().with_filters(vec![filter; 2]), version)
        }
        ApiKey::DescribeClientQuotas => {
            let component = ComponentData::default().with_entity_type(text("user")).with_match_type(2);
            encode(&DescribeClientQuotasRequest::default().with_components(vec![component; 2]), version)
        }
        ApiKey::DescribeUserScramCredentials => {
            let users = vec![UserName::default().with_name(text("a")), UserName::default().with_name(text("b"))];
            encode(&DescribeUserScramCredentialsRequest::default().with_users(Some(users)), version)
        }
        ApiKey::AlterUserScramCredentials => {
            let gone = ScramCredentialDeletion::default().with_name(text("a")).with_mechanism(1);
            let new = ScramCredentialUpsertion::default().with_name(text("b")).with_mechanism(1).with_iterations(4096);
            let new = new.with_salt(Bytes::from_static(b"salt")).with_salted_password(Bytes::from_static(&[1; 32]));
            let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![gone]);
            encode(&request.with_upsertions(vec![new]), version)
        }
        _ => return None,
    })
}

fn valid_of_groups(api: &Api, version: i16) -> Bytes {
    let group = GroupId(text("g"));
    match api.key {
        ApiKey::JoinGroup => {
            let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
            let protocol = protocol.with_metadata(Bytes::from_static(b"topics"));
            let request = JoinGroupRequest::default().with_group_id(group).with_protocols(vec![protocol; 2]);
            let request = if version >= 5 { request.with_group_instance_id(Some(text("one"))) } else { request };
            encode(&if version >= 8 { request.with_reason(Some(text("new"))) } else { request }, version)
        }
        ApiKey::SyncGroup => {
            let assignment = SyncGroupRequestAssignment::default().with_member_id(text("m"));
            let assignment = assignment.with_assignment(Bytes::from_static(b"all"));
            encode(&SyncGroupRequest::default().with_group_id(group).with_assignments(vec![assignment; 2]), version)
        }
        ApiKey::Heartbeat => encode(&HeartbeatRequest::default().with_group_id(group), version),
        ApiKey::LeaveGroup => {
            let request = LeaveGroupRequest::default().with_group_id(group);
            let member = MemberIdentity::default().with_member_id(text("m"));
            let request = match version {
                3.. => request.with_members(vec![member; 2]),
                _ => request.with_member_id(text("m")),
            };
            encode(&request, version)
        }
        ApiKey::DescribeGroups => encode(&DescribeGroupsRequest::default().with_groups(vec![group; 2]), version),
        ApiKey::ListGroups => {
            let request = ListGroupsRequest::default();
            let states = vec![text("Stable"), text("Empty")];
            encode(&if version >= 4 { request.with_states_filter(states) } else { request }, version)
        }
        ApiKey::DeleteGroups => encode(&DeleteGroupsRequest::default().with_groups_names(vec![group; 2]), version),
        ApiKey::OffsetDelete => {
            let part = OffsetDeleteRequestPartition::default().with_partition_index(3);
            let topic = OffsetDeleteRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![part; 2]);
            encode(&OffsetDeleteRequest::default().with_group_id(group).with_topics(vec![topic; 2]), version)
        }
        ApiKey::ConsumerGroupHeartbeat => {
            let owned = TopicPartitions::default().with_topic_id(Uuid::new_v4()).with_partitions(vec![1, 2]);
            let request = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(group)
                .with_instance_id(Some(text("one")))
                .with_subscribed_topic_names(Some(vec![topic_name("t"); 2]))
                .with_topic_partitions(Some(vec![owned; 2]));
            let by_regex =
                |request: ConsumerGroupHeartbeatRequest| request.with_subscribed_topic_regex(Some(text("a.*")));
            encode(&if version >= 1 { by_regex(request) } else { request }, version)
        }
        ApiKey::ConsumerGroupDescribe => {
            encode(&ConsumerGroupDescribeRequest::default().with_group_ids(vec![group; 2]), version)
        }
        _ => super::fuzz_admin::valid(api, version),
    }
}

fn any_api_and_version() -> impl Strategy<Value = (&'static Api, i16)> {
    prop::sample::select(SERVED.to_vec()).prop_flat_map(|api| (Just(api), api.from..=api.to))
}

#[test]
fn every_valid_request_of_every_served_version_passes_the_guard_whole() {
    for api in SERVED {
        for version in api.from..=api.to {
            let body = valid(api, version);
            assert_eq!(
                walk(api.request, api.flexible(version), version, &body),
                Ok(body.len()),
                "{} v{version}",
                api.name
            );
            assert!(check_any(api, version, &body), "{} v{version}", api.name);
        }
    }
}

#[test]
fn every_truncation_of_a_valid_request_is_refused() {
    for api in SERVED {
        for version in api.from..=api.to {
            let body = valid(api, version);
            for end in 0..body.len() {
                assert!(!check_any(api, version, &body.slice(..end)), "{} v{version} cut at {end}", api.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_frames_never_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let frame = Bytes::from(frame);
        if let Ok(request) = parse(frame) {
            check_any(request.api, request.version, &request.body);
        }
    }

    #[test]
    fn arbitrary_bodies_of_served_requests_never_panic(
        (api, version) in any_api_and_version(),
        body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..200),
    ) {
        check_any(api, version, &Bytes::from(body));
    }

    #[test]
    fn mutated_requests_never_panic(
        (api, version) in any_api_and_version(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = valid(api, version).to_vec();
        for (at, byte) in changes {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len() + 1));
        }
        check_any(api, version, &Bytes::from(body));
    }
}
