//! Topics: made, given partitions and configs, deleted; and what is refused.

use super::*;

fn placed(partitions: u32, replication_factor: u16) -> Assignment {
    Assignment::Placed { partitions, replication_factor }
}

fn explicit(replicas: &[&[i32]]) -> Assignment {
    Assignment::Explicit { replicas: replicas.iter().map(|replicas| ids(replicas)).collect() }
}

#[test]
fn a_new_topic_is_led_and_in_sync_at_once() {
    let mut lab = Lab::of(3);
    let Ok(Reply::Placed { first: 0, replicas }) = lab.create("readings", TOPIC, placed(6, 3)) else { panic!() };
    for (index, replicas) in (0u32..).zip(&replicas) {
        let state = lab.state(index);
        assert_eq!((&state.replicas, &state.isr, state.leader), (replicas, replicas, replicas.first().copied()));
    }
    for id in 1..=3 {
        assert_eq!(lab.controller.image().hosting(NodeId(id)).leaderships, 2);
    }
    assert_eq!(lab.controller.image().topic_named("readings").unwrap().id, TOPIC);
    assert_eq!(lab.controller.image().partition_count(), 6);
}

#[test]
fn topics_that_cannot_be_are_refused() {
    let mut lab = Lab::of(3);
    lab.create("readings", TOPIC, placed(1, 1)).unwrap();
    let other = Uuid::from_u128(0x71);
    assert_eq!(lab.create("readings", other, placed(1, 1)), Err(Refusal::TopicExists { name: "readings".to_owned() }));
    assert_eq!(lab.create("others", TOPIC, placed(1, 1)), Err(Refusal::TopicIdExists { id: TOPIC }));
    assert!(matches!(lab.create("a/b", other, placed(1, 1)), Err(Refusal::InvalidTopic { .. })));
    for count in [0, limits::MAX_PARTITIONS_PER_TOPIC + 1] {
        assert!(matches!(lab.create("t", other, placed(count, 1)), Err(Refusal::InvalidPartitions { .. })));
    }
    for wanted in [0, 4, u16::MAX] {
        let refusal = Refusal::InvalidReplicationFactor { wanted, available: 3 };
        assert_eq!(lab.create("t", other, placed(1, wanted)), Err(refusal));
    }
    for bad in [&[&[][..]][..], &[&[1, 1]], &[&[9]], &[&[1], &[1, 2]]] {
        let refused = lab.create("t", other, explicit(bad));
        assert!(matches!(refused, Err(Refusal::InvalidReplicaAssignment { .. })), "{bad:?}: {refused:?}");
    }
    lab.lose(3);
    let refusal = Refusal::InvalidReplicationFactor { wanted: 3, available: 2 };
    assert_eq!(lab.create("t", other, placed(1, 3)), Err(refusal));
    assert!(matches!(lab.create("t", other, explicit(&[&[3]])), Err(Refusal::InvalidReplicaAssignment { .. })));
    lab.create("t", other, explicit(&[&[3, 1]])).unwrap();
    let state = lab.controller.image().partition(other, 0).unwrap();
    assert_eq!((state.leader, &state.isr), (Some(NodeId(1)), &ids(&[1])), "who is not there is not in sync");
}

#[test]
fn the_cluster_has_a_most_of_partitions() {
    let mut lab = Lab::of(1);
    for topic in 0..3u128 {
        let made = lab.create(&format!("t{topic}"), Uuid::from_u128(topic), placed(4000, 1));
        assert!(made.is_ok());
    }
    let refusal = Err(Refusal::TooManyPartitions { partitions: 12_001, most: 12_000 });
    assert_eq!(lab.create("more", TOPIC, placed(1, 1)), refusal);
    let more = |count| Request::CreatePartitions {
        topic: Uuid::from_u128(0),
        count,
        had: None,
        assignment: None,
        validate_only: false,
    };
    assert_eq!(lab.ask(more(4001)), refusal);
    lab.ask(Request::DeleteTopic { topic: Uuid::from_u128(1) }).unwrap();
    lab.ask(more(4001)).unwrap();
}

#[test]
fn what_was_decided_is_answered_again_when_the_answer_was_lost() {
    let mut lab = Lab::of(3);
    let first = lab.create("readings", TOPIC, placed(2, 3)).unwrap();
    let records = lab.records.len();
    assert_eq!(lab.create("readings", TOPIC, placed(2, 3)), Ok(first));
    assert_eq!(lab.records.len(), records);

    let more = |had| Request::CreatePartitions { topic: TOPIC, count: 3, had, assignment: None, validate_only: false };
    let Ok(Reply::Placed { first, replicas }) = lab.ask(more(Some(2))) else { panic!("it can have 3") };
    assert_eq!((first, replicas.len()), (2, 1));
    let records = lab.records.len();
    assert_eq!(lab.ask(more(Some(2))), Ok(Reply::Placed { first, replicas }));
    assert_eq!(lab.records.len(), records);
    for had in [None, Some(3)] {
        assert!(matches!(lab.ask(more(had)), Err(Refusal::InvalidPartitions { .. })), "who knows that it has 3");
    }
}

#[test]
fn more_partitions_keep_the_replication_factor() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2], &[2, 3]]);
    let more = |count, assignment, validate_only| Request::CreatePartitions {
        topic: TOPIC,
        count,
        had: None,
        assignment,
        validate_only,
    };
    assert!(matches!(lab.ask(more(2, None, false)), Err(Refusal::InvalidPartitions { count: 2, .. })));
    lab.ask(more(3, None, true)).unwrap();
    assert_eq!(lab.controller.image().partition_count(), 2, "it was only to be checked");
    let Ok(Reply::Placed { first: 2, replicas }) = lab.ask(more(3, None, false)) else { panic!() };
    assert_eq!((replicas[0][0], replicas[0].len()), (NodeId(3), 2), "{replicas:?}");
    for bad in [vec![], vec![ids(&[1])], vec![ids(&[1, 2]), ids(&[1, 2])]] {
        let refused = lab.ask(more(4, Some(bad), false));
        assert!(matches!(refused, Err(Refusal::InvalidReplicaAssignment { .. })), "{refused:?}");
    }
    lab.ask(more(4, Some(vec![ids(&[3, 1])]), false)).unwrap();
    assert_eq!(lab.state(3).replicas, ids(&[3, 1]));
}

#[test]
fn validation_changes_nothing() {
    let mut lab = Lab::of(1);
    let config = BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]);
    let topic = CreateTopic {
        id: TOPIC,
        name: "readings".to_owned(),
        replicas: placed(1, 1),
        config: config.clone(),
        validate_only: true,
    };
    assert!(lab.ask(Request::CreateTopic(topic)).is_ok());
    assert_eq!(lab.controller.image().topics().len(), 0);
    lab.topic(&[&[1]]);
    lab.ask(Request::AlterConfigs { topic: TOPIC, config, validate_only: true }).unwrap();
    assert!(lab.controller.image().topic(TOPIC).unwrap().config.is_empty());
}

#[test]
fn configs_are_replaced_as_a_whole_and_bounded() {
    let mut lab = Lab::of(1);
    lab.topic(&[&[1]]);
    let alter = |of: &[(&str, &str)]| Request::AlterConfigs {
        topic: TOPIC,
        config: of.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        validate_only: false,
    };
    lab.ask(alter(&[("retention.ms", "1"), ("segment.ms", "2")])).unwrap();
    lab.ask(alter(&[("segment.ms", "3")])).unwrap();
    let config = &lab.controller.image().topic(TOPIC).unwrap().config;
    assert_eq!(config.iter().collect::<Vec<_>>(), [(&"segment.ms".to_owned(), &"3".to_owned())]);
    let records = lab.records.len();
    lab.ask(alter(&[("segment.ms", "3")])).unwrap();
    assert_eq!(lab.records.len(), records, "the same is no change");
    let long = "x".repeat(limits::MAX_TOPIC_CONFIG_BYTES);
    assert!(matches!(lab.ask(alter(&[("a", &long)])), Err(Refusal::ConfigTooLarge { .. })));
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free() {
    let mut lab = Lab::of(1);
    lab.topic(&[&[1], &[1]]);
    lab.ask(Request::DeleteTopic { topic: TOPIC }).unwrap();
    assert_eq!(lab.controller.image().partition_count(), 0);
    assert_eq!(lab.ask(Request::DeleteTopic { topic: TOPIC }), Err(Refusal::UnknownTopicId { id: TOPIC }));
    lab.create("readings", Uuid::from_u128(0x71), placed(1, 1)).unwrap();
}
