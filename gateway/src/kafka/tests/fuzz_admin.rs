//! Valid requests of the APIs that look after topics and partitions, for the property tests of parsing.

use bytes::Bytes;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::*;

use super::super::api::Api;
use super::super::topics::topic_name;
use super::fuzz::{encode, text};

pub(super) fn valid(api: &Api, version: i16) -> Bytes {
    match api.key {
        ApiKey::OffsetForLeaderEpoch => {
            let part = OffsetForLeaderPartition::default().with_leader_epoch(3);
            let topic = OffsetForLeaderTopic::default().with_topic(topic_name("t")).with_partitions(vec![part; 2]);
            encode(&OffsetForLeaderEpochRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::CreatePartitions => {
            let place = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let topic = CreatePartitionsTopic::default().with_name(topic_name("t")).with_count(3);
            let topics = vec![
                topic.clone().with_assignments(None),
                topic.with_name(topic_name("u")).with_assignments(Some(vec![place; 2])),
            ];
            encode(&CreatePartitionsRequest::default().with_topics(topics), version)
        }
        ApiKey::DeleteRecords => {
            let part = DeleteRecordsPartition::default().with_offset(9);
            let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![part; 2]);
            encode(&DeleteRecordsRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::AlterConfigs => {
            let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
            let resource = AlterConfigsResource::default().with_resource_type(2).with_configs(vec![config; 2]);
            encode(&AlterConfigsRequest::default().with_resources(vec![resource; 2]), version)
        }
        ApiKey::DescribeTopicPartitions => {
            let topic = TopicRequest::default().with_name(topic_name("t"));
            let cursor = Cursor::default().with_topic_name(topic_name("t")).with_partition_index(3);
            let request = DescribeTopicPartitionsRequest::default().with_topics(vec![topic; 2]);
            encode(&request.with_cursor(Some(cursor)), version)
        }
        ApiKey::DescribeLogDirs => {
            let topic = DescribableLogDirTopic::default().with_topic(topic_name("t")).with_partitions(vec![1, 2]);
            encode(&DescribeLogDirsRequest::default().with_topics(Some(vec![topic; 2])), version)
        }
        ApiKey::DescribeProducers => {
            let topic = describe_producers_request::TopicRequest::default().with_name(topic_name("t"));
            let topic = topic.with_partition_indexes(vec![1, 2]);
            encode(&DescribeProducersRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::AlterClientQuotas => {
            let side = EntityData::default().with_entity_type(text("user")).with_entity_name(None);
            let op = OpData::default().with_key(text("producer_byte_rate")).with_value(5.0);
            let entry = EntryData::default().with_entity(vec![side; 2]).with_ops(vec![op; 2]);
            encode(&AlterClientQuotasRequest::default().with_entries(vec![entry; 2]), version)
        }
        ApiKey::ElectLeaders => {
            let topic = elect_leaders_request::TopicPartitions::default().with_topic(topic_name("t"));
            let topic = topic.with_partitions(vec![1, 2]);
            encode(&ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic; 2])), version)
        }
        ApiKey::AlterPartitionReassignments => {
            let moved = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1), BrokerId(2)]));
            let stays = ReassignablePartition::default().with_partition_index(1).with_replicas(None);
            let topic = ReassignableTopic::default().with_name(topic_name("t")).with_partitions(vec![moved, stays]);
            encode(&AlterPartitionReassignmentsRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::ListPartitionReassignments => {
            let topic = ListPartitionReassignmentsTopics::default().with_name(topic_name("t"));
            let topics = Some(vec![topic.with_partition_indexes(vec![1, 2]); 2]);
            encode(&ListPartitionReassignmentsRequest::default().with_topics(topics), version)
        }
        ApiKey::DescribeQuorum => {
            let topic = describe_quorum_request::TopicData::default().with_topic_name(topic_name("__cluster_metadata"));
            let topic = topic.with_partitions(vec![describe_quorum_request::PartitionData::default(); 2]);
            encode(&DescribeQuorumRequest::default().with_topics(vec![topic; 2]), version)
        }
        other => panic!("{other:?} is served but not fuzzed: add it here"),
    }
}
