//! What the door says of partitions that another node leads, and to clients that know of another leader epoch.

use std::sync::Arc;

use bytes::Bytes;
use forebay_cluster::{AppendData, Log, LogOptions, Partition, Placement, RealFiles};
use forebay_log::record::RecordChunk;
use forebay_log::{Epoch, Millis, NodeId, TopicConfig};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use kafka_protocol::messages::describe_producers_request::{DescribeProducersRequest, TopicRequest};
use kafka_protocol::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    DescribeLogDirsRequest, FetchRequest, FetchResponse, FindCoordinatorRequest, MetadataRequest,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use super::super::dispatch::Caller;
use super::super::groups::{Ask, Committed, Membership, TopicPartition};
use super::super::topics::topic_name;
use super::super::{
    Shared, delete_records, describe_cluster, describe_log_dirs, describe_producers, describe_topic_partitions, fetch,
    find_coordinator, list_offsets, metadata, offset_for_leader_epoch, produce,
};
use super::admin::keyed;
use super::door;
use crate::reader::Reader;

const NOT_LEADER: i16 = ResponseError::NotLeaderOrFollower.code();
const FENCED: i16 = ResponseError::FencedLeaderEpoch.code();
const UNKNOWN: i16 = ResponseError::UnknownLeaderEpoch.code();

/// A door on a log with one record in the one partition of `readings`, in leader epoch 4.
struct Door {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    _dir: tempfile::TempDir,
}

impl Door {
    async fn open() -> Door {
        let dir = tempfile::tempdir().unwrap();
        let files = RealFiles::open(dir.path()).unwrap();
        let log = Log::open(files, LogOptions { shards: 1, fsync: false, alone: true }).unwrap();
        let topic = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
        let partition = Arc::clone(&topic.partitions[0]);
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(1), None, Some(b"{\"v\":1}"), &[]);
        partition.append(AppendData::Chunk(chunk)).await.unwrap();
        lead(&partition, Some(1), 4);
        Door { shared: Arc::new(super::shared(log, Reader::new(None))), partition, _dir: dir }
    }

    async fn produce(&self) -> i16 {
        let caller = Caller::new(super::anybody(&self.shared), "test");
        let request = door::produce("readings", 0, -1, keyed(None, Some("v"), -1));
        let pending = produce::submit(&self.shared, &caller, 9, request).await;
        pending.finish().await.responses[0].partition_responses[0].error_code
    }

    async fn fetch(&self, epoch: i32) -> (i16, usize) {
        let (error, bytes, _) = self.fetch_as(10, epoch, "").await;
        (error, bytes)
    }

    /// The error, the bytes, and the replica that the client is sent to.
    async fn fetch_as(&self, version: i16, epoch: i32, rack: &'static str) -> (i16, usize, i32) {
        let asked = FetchPartition::default().with_partition_max_bytes(1 << 20).with_current_leader_epoch(epoch);
        let topic = FetchTopic::default().with_topic(topic_name("readings")).with_partitions(vec![asked]);
        let request = FetchRequest::default().with_min_bytes(1).with_max_bytes(1 << 20).with_topics(vec![topic]);
        let request = request.with_rack_id(StrBytes::from_static_str(rack));
        let caller = Caller::new(super::anybody(&self.shared), "test");
        let answer = fetch::handle(Arc::clone(&self.shared), caller, version, 1, request).await;
        let mut body = Bytes::from(answer.pieces.concat()).slice(8..);
        let response = FetchResponse::decode(&mut body, version).unwrap();
        let found = &response.responses[0].partitions[0];
        let bytes = found.records.as_ref().map_or(0, Bytes::len);
        (found.error_code, bytes, found.preferred_read_replica.0)
    }

    async fn list_offsets(&self, epoch: i32) -> (i16, i64) {
        let asked = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(epoch);
        let topic = ListOffsetsTopic::default().with_name(topic_name("readings")).with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let answer = list_offsets::handle(&self.shared, &super::anybody(&self.shared), 7, request).await;
        (answer.topics[0].partitions[0].error_code, answer.topics[0].partitions[0].offset)
    }

    fn end_of_epoch(&self, epoch: i32) -> i16 {
        let asked = OffsetForLeaderPartition::default().with_leader_epoch(0).with_current_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default().with_topic(topic_name("readings")).with_partitions(vec![asked]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let answer = offset_for_leader_epoch::handle(&self.shared, &super::anybody(&self.shared), request);
        answer.topics[0].partitions[0].error_code
    }

    async fn delete_records(&self) -> i16 {
        let asked = DeleteRecordsPartition::default().with_offset(0);
        let topic = DeleteRecordsTopic::default().with_name(topic_name("readings")).with_partitions(vec![asked]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
        let answer = delete_records::handle(&self.shared, &super::anybody(&self.shared), request).await;
        answer.topics[0].partitions[0].error_code
    }

    async fn describe_producers(&self) -> i16 {
        let topic = TopicRequest::default().with_name(topic_name("readings")).with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let answer = describe_producers::handle(&self.shared, &super::anybody(&self.shared), request).await;
        answer.topics[0].partitions[0].error_code
    }
}

/// Node `leader` leads from this epoch on. The node of the door is 1, and the only one that is up.
fn lead(partition: &Partition, leader: Option<i32>, epoch: i32) {
    let (leader, leader_epoch) = (leader.map(NodeId), Epoch(epoch));
    let (replicas, isr) = (vec![NodeId(2), NodeId(1)], vec![NodeId(1)]);
    partition.place(Arc::new(Placement {
        leader,
        leader_epoch,
        replicas,
        isr,
        ..Placement::clone(&partition.placement())
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_alone_answers() {
    let door = Door::open().await;
    let answers = async || {
        let reads = [door.fetch(-1).await.0, door.list_offsets(-1).await.0, door.end_of_epoch(-1)];
        (reads, [door.produce().await, door.delete_records().await, door.describe_producers().await])
    };
    assert_eq!(answers().await, ([0; 3], [0; 3]));
    lead(&door.partition, Some(2), 5);
    assert_eq!(answers().await, ([NOT_LEADER; 3], [NOT_LEADER; 3]));
    assert_eq!(door.partition.watermarks().log_end.0, 2, "nothing was written");
    lead(&door.partition, None, 6);
    assert_eq!(answers().await, ([NOT_LEADER; 3], [NOT_LEADER; 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_read_by_those_who_know_of_followers_and_only_while_it_is_one() {
    let door = Door::open().await;
    lead(&door.partition, Some(2), 5);
    let (error, bytes, preferred) = door.fetch_as(11, -1, "").await;
    assert!(error == 0 && bytes > 0 && preferred == -1, "{error} {bytes} {preferred}");
    assert_eq!(door.fetch_as(10, -1, "").await.0, NOT_LEADER, "before KIP-392 clients expect leaders");
    assert_eq!(door.fetch_as(11, 4, "").await.0, FENCED);
    let gone = Placement { replicas: vec![NodeId(2)], ..Placement::clone(&door.partition.placement()) };
    door.partition.place(Arc::new(gone));
    assert_eq!(door.fetch_as(11, -1, "").await.0, NOT_LEADER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_waits_is_told_when_the_leadership_moves() {
    let door = Arc::new(Door::open().await);
    let waiting = Arc::clone(&door);
    let asked = FetchPartition::default().with_fetch_offset(1).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name("readings")).with_partitions(vec![asked]);
    let request = FetchRequest::default().with_min_bytes(1).with_max_bytes(1 << 20).with_topics(vec![topic]);
    let caller = Caller::new(super::anybody(&door.shared), "test");
    let request = request.with_max_wait_ms(30_000);
    let fetch = tokio::spawn(fetch::handle(Arc::clone(&waiting.shared), caller, 10, 1, request));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    lead(&door.partition, Some(2), 5);
    // The log tells of every change of the metadata, this one included.
    door.shared.door.log.create_topic("other", 1, TopicConfig::default()).await.unwrap();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), fetch).await.expect("it is told").unwrap();
    let response = FetchResponse::decode(&mut Bytes::from(answer.pieces.concat()).slice(8..), 10).unwrap();
    assert_eq!(response.responses[0].partitions[0].error_code, NOT_LEADER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_leader_epoch_is_told_so() {
    let door = Door::open().await;
    assert!(door.fetch(4).await.1 > 0);
    assert_eq!((door.list_offsets(4).await, door.end_of_epoch(4)), ((0, 1), 0));
    for (leader, code, epoch) in [(1, FENCED, 3), (1, UNKNOWN, 5), (2, FENCED, 3), (2, UNKNOWN, 5), (2, NOT_LEADER, 4)]
    {
        lead(&door.partition, Some(leader), 4);
        let answers = (door.fetch(epoch).await, door.list_offsets(epoch).await.0, door.end_of_epoch(epoch));
        assert_eq!(answers, ((code, 0), code, code), "epoch {epoch} at node {leader}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_shown_where_a_partition_lies() {
    let door = Door::open().await;
    let session = super::anybody(&door.shared);
    let shown = async || {
        let answer = metadata::handle(&door.shared, &session, 12, MetadataRequest::default().with_topics(None)).await;
        assert_eq!(answer.controller_id.0, 1);
        let brokers: Vec<_> = answer.brokers.iter().map(|broker| (broker.node_id.0, broker.host.as_str())).collect();
        assert_eq!(brokers, [(1, "127.0.0.1")]);
        let part = &answer.topics[0].partitions[0];
        let described = DescribeTopicPartitionsRequest::default().with_response_partition_limit(9);
        let described = describe_topic_partitions::handle(&door.shared, &session, &described);
        let same = &described.topics[0].partitions[0];
        assert_eq!((part.error_code, part.leader_id, part.leader_epoch), {
            (same.error_code, same.leader_id, same.leader_epoch)
        });
        assert_eq!((&part.replica_nodes, &part.isr_nodes, &part.offline_replicas), {
            (&same.replica_nodes, &same.isr_nodes, &same.offline_replicas)
        });
        let ids = |nodes: &[kafka_protocol::messages::BrokerId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
        assert_eq!((ids(&part.replica_nodes), ids(&part.isr_nodes)), (vec![2, 1], vec![1]));
        assert_eq!(ids(&part.offline_replicas), [2]);
        (part.error_code, part.leader_id.0, part.leader_epoch)
    };
    assert_eq!(shown().await, (0, 1, 4));
    lead(&door.partition, None, 5);
    let missing = ResponseError::LeaderNotAvailable.code();
    assert_eq!(shown().await, (missing, -1, 5));
    lead(&door.partition, Some(2), 6);
    assert_eq!(shown().await, (missing, -1, 6), "it cannot be reached");

    let cluster = describe_cluster::handle(&door.shared, &session, 0, &Default::default());
    assert_eq!((cluster.controller_id.0, cluster.brokers.len(), cluster.brokers[0].broker_id.0), (1, 1, 1));
    let dirs =
        describe_log_dirs::handle(&door.shared, &session, 4, DescribeLogDirsRequest::default().with_topics(None));
    assert_eq!(dirs.results[0].topics[0].partitions.len(), 1, "a replica that follows takes room as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_of_groups_leads_their_partition() {
    let door = Door::open().await;
    let (session, log) = (super::anybody(&door.shared), &door.shared.door.log);
    let found = async || {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![StrBytes::from_static_str("g")]);
        let answer = find_coordinator::handle(&door.shared, &session, 4, request).await;
        (answer.coordinators[0].error_code, answer.coordinators[0].node_id.0)
    };
    let asked = async || {
        let nobody = Membership { generation: -1, id: "".into(), instance: None };
        let committed = Committed { offset: 1, leader_epoch: -1, metadata: String::new() };
        let offsets = vec![(TopicPartition { topic: "readings".into(), partition: 0 }, committed)];
        let ask = |reply| Ask::Commit(nobody, offsets, Millis(1), reply);
        door.shared.groups.answer(log, "g", ask).await
    };
    assert_eq!(found().await, (0, 1), "it makes the topic when there is something to keep");
    assert!(asked().await.is_ok());
    assert_eq!(found().await, (0, 1));
    let keeping = log.topic("__consumer_offsets").unwrap();
    lead(&keeping.partitions[0], Some(2), 5);
    assert_eq!(found().await, (ResponseError::CoordinatorNotAvailable.code(), -1));
    let refused = Some(ResponseError::NotCoordinator.code());
    assert_eq!(asked().await.err().map(|refusal| refusal.code), refused);
    let offsets = door.shared.groups.offsets(log, "g").await;
    assert_eq!(offsets.err().map(|refusal| refusal.code), refused, "what it remembers may be old");
}
