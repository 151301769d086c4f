//! A node alone, through the log's handles: they follow the local log, and say what they are when another node leads.

use forebay_disk::{AppendData, RealFiles, Term};
use forebay_log::partition::Leadership;
use forebay_log::record::RecordChunk;
use forebay_log::{AppendError, Epoch, Millis, Offset, PartitionEpoch, ReadError};

use super::*;

const HERE: NodeId = NodeId(7);

fn local(dir: &tempfile::TempDir) -> forebay_disk::Log {
    let options = LogOptions { shards: 1, fsync: false, alone: true };
    forebay_disk::Log::open(RealFiles::open(dir.path()).unwrap(), options).unwrap()
}

fn record() -> AppendData {
    let mut chunk = RecordChunk::new();
    chunk.push(Millis(1), Some(b"k"), Some(b"v"), &[]);
    AppendData::Chunk(chunk)
}

fn led_by(leader: Option<i32>, epoch: i32) -> Arc<Placement> {
    let replicas = vec![NodeId(2), HERE];
    let leader = leader.map(NodeId);
    Arc::new(Placement { leader, leader_epoch: Epoch(epoch), isr: replicas.clone(), replicas, ..Placement::on(HERE) })
}

#[tokio::test]
async fn topics_follow_the_local_log_whoever_changes_it() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir);
    local.create_topic("before", 1, TopicConfig::default()).await.unwrap();
    let log = Log::alone(HERE, local.clone());
    assert_eq!(log.topic("before").unwrap().partitions.len(), 1);
    let mut changed = log.topics_changed();

    let made = local.create_topic("readings", 2, TopicConfig::default()).await.unwrap();
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    let topic = log.topic("readings").unwrap();
    assert_eq!((topic.id, topic.partitions.len()), (made.id, 2));
    assert_eq!((topic.partitions[1].topic(), topic.partitions[1].index()), ("readings", 1));

    let config = TopicConfig { max_message_bytes: 4096, ..TopicConfig::default() };
    local.alter_topic("readings", config).await.unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(topic.config().max_message_bytes, 4096, "a handle that was there before knows it");

    local.delete_topic("readings").await.unwrap();
    assert!(log.topic("readings").is_none());
}

#[tokio::test]
async fn what_is_changed_is_seen_when_the_change_returns() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::alone(HERE, local(&dir));
    let names = ["b", "a"].map(|name| NewTopic { name: name.into(), partitions: 1, config: TopicConfig::default() });
    let made = log.create_topics(names.to_vec()).await.unwrap();
    assert_eq!(made.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(Arc::ptr_eq(&made[0], &log.topic("a").unwrap()));
    log.add_partitions("a", 3).await.unwrap();
    assert_eq!(log.topic("a").unwrap().partitions.len(), 3);
    log.delete_topic("a").await.unwrap();
    assert!(log.topic("a").is_none());
    assert!(matches!(log.delete_topic("a").await, Err(LogError::UnknownTopic(_))));
    assert!(matches!(log.create_topic("b", 1, TopicConfig::default()).await, Err(LogError::TopicExists(_))));
}

#[tokio::test]
async fn handles_stay_the_same_as_long_as_their_topic() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::alone(HERE, local(&dir));
    let topic = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
    log.create_topic("other", 1, TopicConfig::default()).await.unwrap();
    log.alter_topic("readings", TopicConfig { compact: true, ..TopicConfig::default() }).await.unwrap();
    assert!(Arc::ptr_eq(&topic, &log.topic("readings").unwrap()));

    log.add_partitions("readings", 2).await.unwrap();
    let grown = log.topic("readings").unwrap();
    assert!(Arc::ptr_eq(&topic.partitions[0], &grown.partitions[0]));
    assert_eq!(grown.partitions[1].append(record()).await.unwrap().base_offset, Offset(0));
    log.alter_topic("readings", TopicConfig::default()).await.unwrap();
    assert!(!topic.config().compact && !grown.config().compact);

    log.delete_topic("readings").await.unwrap();
    let anew = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
    assert!(!Arc::ptr_eq(&topic.partitions[0], &anew.partitions[0]));
    assert!(matches!(topic.partitions[0].append(record()).await, Err(AppendError::Offline(_))));
}

#[tokio::test]
async fn a_node_alone_is_all_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::alone(HERE, local(&dir));
    let topic = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
    let partition = &topic.partitions[0];
    assert_eq!((log.node_id(), log.controller()), (HERE, Some(HERE)));
    assert_eq!(*log.nodes(), [Node { id: HERE, kafka: None, rack: None }]);
    log.advertise("edge".into(), 9092);
    assert_eq!(*log.nodes(), [Node { id: HERE, kafka: Some(("edge".into(), 9092)), rack: None }]);
    assert!(partition.leads() && partition.is_here());
    assert_eq!((partition.leader(), &*partition.placement()), (Some(HERE), &Placement::on(HERE)));
    // The log begins an epoch at each start.
    partition.append(record()).await.unwrap();
    let epoch = partition.leader_epoch();
    log.shutdown();
    drop((topic, log));
    let log = Log::alone(HERE, local(&dir));
    assert_eq!(log.topic("readings").unwrap().partitions[0].leader_epoch(), Epoch(epoch.0 + 1));
}

#[tokio::test]
async fn what_another_node_leads_is_read_here_but_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::alone(HERE, local(&dir));
    let topic = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
    let partition = &topic.partitions[0];
    partition.append(record()).await.unwrap();
    for placement in [led_by(Some(2), 5), led_by(None, 6)] {
        partition.place(Arc::clone(&placement));
        assert!(!partition.leads() && partition.is_here());
        assert_eq!((partition.leader(), partition.leader_epoch()), (placement.leader, placement.leader_epoch));
        assert_eq!(partition.append(record()).await, Err(AppendError::NotLeader));
        assert!(matches!(partition.submit_to_leader(record()).await, Err(AppendError::NotLeader)));
        assert_eq!(partition.set_log_start(Offset(1)).await, Err(AppendError::NotLeader));
        assert_eq!(partition.watermarks().high_watermark, Offset(1));
        assert!(!partition.read(Offset(0), 1 << 20).unwrap().batches.is_empty());
    }
    // What a chain sends after a refusal must not come before what it sends again.
    let chain = Chain::new();
    assert!(matches!(partition.submit_chained(&chain, true, record()).await, Err(AppendError::NotLeader)));
    partition.place(led_by(Some(HERE.0), 7));
    assert!(partition.leads());
    assert!(matches!(partition.submit_chained(&chain, true, record()).await, Err(AppendError::Storage(_))));
    assert_eq!(partition.append(record()).await.unwrap().base_offset, Offset(1));
}

#[tokio::test]
async fn without_a_replica_here_there_is_nothing_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::alone(HERE, local(&dir));
    let topic = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
    let partition = &topic.partitions[0];
    partition.append(record()).await.unwrap();
    partition.hold(None);
    assert!(!partition.is_here() && !partition.leads() && partition.unopened().is_some());
    assert!(matches!(partition.read(Offset(0), 1), Err(ReadError::Offline(_))));
    assert!(matches!(partition.offset_for_time(Millis(0)), Err(ReadError::Offline(_))));
    assert_eq!(partition.append(record()).await, Err(AppendError::NotLeader));
    assert_eq!(partition.producers().await.err(), Some(AppendError::NotLeader));
    assert_eq!(partition.roll().await, Err(AppendError::NotLeader));
    assert_eq!((partition.watermarks().log_end, partition.local_bytes()), (Offset(0), 0));
    assert!(partition.watch().changed().await.is_err(), "nobody waits for what cannot come");
}

#[tokio::test]
async fn a_term_writes_in_its_leader_epoch_and_until_it_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir);
    let log = Log::alone(HERE, local.clone());
    let topic = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
    let partition = &topic.partitions[0];
    partition.append(record()).await.unwrap();
    let epoch = partition.led_in().unwrap();
    let write =
        async |term: &Term| partition.submit_in(term, record()).await?.await.map(|appended| appended.base_offset);
    let (term, other) = (Term::new(epoch), Term::new(epoch));
    assert_eq!(write(&term).await, Ok(Offset(1)));
    for gone in [Term::new(Epoch(epoch.0 - 1)), Term::new(Epoch(epoch.0 + 1))] {
        assert_eq!(write(&gone).await, Err(AppendError::FencedLeaderEpoch));
    }
    term.end();
    assert_eq!(write(&term).await, Err(AppendError::FencedLeaderEpoch));
    assert_eq!(write(&other).await, Ok(Offset(2)), "the other one goes on");

    // Another node leads for a while: what leads afterwards is another leadership.
    let replica = local.topic("readings").unwrap().partition(0).cloned().unwrap();
    replica.follow(Epoch(epoch.0 + 1)).await.unwrap();
    assert_eq!(partition.led_in(), None);
    assert_eq!(write(&other).await, Err(AppendError::FencedLeaderEpoch));
    let (followers, in_sync) = (Vec::new(), Vec::new());
    let (epoch, partition_epoch) = (Epoch(epoch.0 + 2), forebay_log::PartitionEpoch(1));
    let word = Leadership { epoch, partition_epoch, followers, in_sync, max_lag_ms: 1000 };
    replica.lead(word).await.unwrap();
    assert_eq!(write(&other).await, Err(AppendError::FencedLeaderEpoch));
    assert_eq!(write(&Term::new(epoch)).await, Ok(Offset(3)));
    assert_eq!(partition.led_in(), Some(epoch));
    partition.place(led_by(Some(2), epoch.0 + 1));
    assert_eq!(write(&Term::new(epoch)).await, Err(AppendError::NotLeader), "never to another node");
}

#[tokio::test]
async fn a_new_leader_says_where_it_began_until_its_followers_have_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir);
    let log = Log::alone(HERE, local.clone());
    let topic = log.create_topic("readings", 1, TopicConfig::default()).await.unwrap();
    let partition = &topic.partitions[0];
    partition.append(record()).await.unwrap();
    let epoch = Epoch(partition.led_in().unwrap().0 + 1);
    let others = vec![NodeId(2)];
    let (followers, in_sync) = (others.clone(), others);
    let word = Leadership { epoch, partition_epoch: PartitionEpoch(1), followers, in_sync, max_lag_ms: 10_000 };
    local.topic("readings").unwrap().partitions[0].lead(word).await.unwrap();
    let mut watch = partition.watch();
    let ticket = partition.submit(record()).await.unwrap();
    watch.wait_for(|marks| marks.log_end == Offset(2)).await.unwrap();
    assert_eq!((partition.led_in(), partition.led_from()), (Some(epoch), Some(Offset(1))));
    partition.place(led_by(Some(2), epoch.0 + 1));
    assert_eq!(partition.led_from(), None);
    drop(ticket);
}
