//! Settings, producer ids, and what of it all a snapshot keeps.

use super::*;
use crate::limits::MAX_SETTINGS_CHANGE_BYTES;

fn put(lab: &mut Lab, changes: &[(&str, Option<&str>)]) -> Result<Reply, Refusal> {
    let change = |(key, value): &(&str, Option<&str>)| SettingChange {
        namespace: "users".to_owned(),
        key: key.to_string(),
        value: value.map(str::to_owned),
    };
    lab.ask(Request::PutSettings { changes: changes.iter().map(change).collect(), expected: Vec::new() })
}

#[test]
fn settings_are_put_removed_and_counted() {
    let mut lab = Lab::of(1);
    put(&mut lab, &[("ada", Some("1")), ("bob", Some("22"))]).unwrap();
    put(&mut lab, &[("ada", None), ("bob", Some("3")), ("eve", None)]).unwrap();
    let image = lab.controller.image();
    assert_eq!(image.settings("users").collect::<Vec<_>>(), [("bob", "3")]);
    assert_eq!(image.settings_bytes(), "usersbob3".len());
    let records = lab.records.len();
    put(&mut lab, &[("bob", Some("3"))]).unwrap();
    assert_eq!(lab.records.len(), records, "the same is no change");
    put(&mut lab, &[("bob", None)]).unwrap();
    assert_eq!(lab.controller.image().settings_bytes(), 0);
}

#[test]
fn settings_are_bounded_and_all_or_none() {
    let mut lab = Lab::of(1);
    lab.controller.limits.max_settings_bytes = 20;
    put(&mut lab, &[("ada", Some("123456789012"))]).unwrap();
    let refused = put(&mut lab, &[("ada", Some("x")), ("bob", Some("12345"))]);
    assert_eq!(refused, Err(Refusal::SettingsTooLarge { bytes: 9 + 13, most: 20 }));
    assert_eq!(lab.controller.image().setting("users", "ada"), Some("123456789012"));
    let longer = "x".repeat(13);
    assert!(put(&mut lab, &[("bob", None), ("ada", Some(&longer))]).is_err());
    lab.controller.limits.max_settings_bytes = 10;
    put(&mut lab, &[("ada", Some("1234567890"))]).unwrap();
    for key in [String::new(), "x".repeat(1025)] {
        assert_eq!(put(&mut lab, &[(&key, None)]), Err(Refusal::InvalidSetting { most: 1024 }));
    }
}

#[test]
fn no_change_of_settings_is_too_large_for_one_entry_of_the_metadata() {
    let mut lab = Lab::of(1);
    for sign in ["x", "\"", "\u{1}", "\n", "é"] {
        let records = lab.records.len();
        let wide = serde_json::to_string(sign).unwrap().len() - 2;
        let most = MAX_SETTINGS_CHANGE_BYTES / wide;
        let value = sign.repeat(most);
        assert!(matches!(put(&mut lab, &[("a", Some(&value))]), Err(Refusal::SettingsTooLarge { .. })));
        let value = sign.repeat(most / 6 - 100);
        put(&mut lab, &[("a", Some(&value)), ("b", Some("1"))]).unwrap();
        let written = serde_json::to_vec(&lab.records[records..]).unwrap();
        assert!(written.len() <= MAX_SETTINGS_CHANGE_BYTES, "{} bytes", written.len());
        put(&mut lab, &[("a", None), ("b", None)]).unwrap();
    }
}

#[test]
fn who_decides_on_what_has_changed_since_decides_again() {
    let mut lab = Lab::of(1);
    let mut put = |expected: Option<&str>, value: Option<&str>| {
        let change = |value: Option<&str>| {
            let (namespace, key) = ("quotas".to_owned(), "ada".to_owned());
            vec![SettingChange { namespace, key, value: value.map(str::to_owned) }]
        };
        lab.ask(Request::PutSettings { changes: change(value), expected: change(expected) })
    };
    let changed = Err(Refusal::SettingChanged { namespace: "quotas".to_owned(), key: "ada".to_owned() });
    assert_eq!(put(Some("0"), Some("1")), changed);
    assert_eq!(put(None, Some("1")), Ok(Reply::Done));
    assert_eq!(put(None, Some("2")), changed);
    assert_eq!(put(Some("1"), Some("2")), Ok(Reply::Done));
    assert_eq!(put(Some("1"), None), changed);
    assert_eq!(put(Some("2"), None), Ok(Reply::Done));
    assert_eq!(lab.controller.image().setting("quotas", "ada"), None);
}

#[test]
fn producer_ids_are_given_out_once() {
    let mut lab = Lab::of(1);
    let mut allocate = |count| lab.ask(Request::AllocateProducerIds { count });
    assert_eq!(allocate(1000), Ok(Reply::ProducerIds { first: 0, count: 1000 }));
    assert_eq!(allocate(1), Ok(Reply::ProducerIds { first: 1000, count: 1 }));
    for wanted in [0, u32::MAX] {
        let most = limits::MAX_PRODUCER_ID_BLOCK;
        assert_eq!(allocate(wanted), Err(Refusal::InvalidProducerIds { wanted, most }));
    }
    let mut image = lab.controller.image().clone();
    image.apply(&Record::ProducerIds { next: i64::MAX });
    lab.controller = Controller::new(image, Limits::default(), BTreeSet::new(), lab.now);
    let refused = lab.controller.handle(lab.now, Request::AllocateProducerIds { count: 1 }, &mut lab.records);
    assert_eq!(refused, Err(Refusal::ProducerIdsExhausted));
}

#[test]
fn a_snapshot_keeps_everything() {
    let mut lab = Lab::of(3);
    lab.topic(&[&[1, 2], &[2, 3]]);
    put(&mut lab, &[("ada", Some("1"))]).unwrap();
    lab.ask(Request::DrainNode { id: NodeId(1), draining: true }).unwrap();
    lab.ask(Request::AllocateProducerIds { count: 7 }).unwrap();
    let image = lab.controller.image();
    let bytes = serde_json::to_vec(image).unwrap();
    let restored: Image = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(&restored, image);
    assert_eq!(restored.settings_bytes(), image.settings_bytes());
    assert_eq!(restored.topic_named("readings"), image.topic_named("readings"));
    assert_eq!(serde_json::to_vec(&restored).unwrap(), bytes);
}

/// What is on disks and in other nodes' releases: it may be added to, not changed.
#[test]
fn records_keep_their_form() {
    let text = [
        r#"{"partition":{"topic":"00000000-0000-0000-0000-000000000070","index":0,"state":{"#,
        r#""replicas":[1,2],"isr":[1],"leader":1,"leader_epoch":3,"partition_epoch":5,"adding":[],"removing":[]}}}"#,
    ]
    .concat();
    let state = PartitionState {
        replicas: ids(&[1, 2]),
        isr: ids(&[1]),
        leader: Some(NodeId(1)),
        leader_epoch: crate::Epoch(3),
        partition_epoch: crate::PartitionEpoch(5),
        ..PartitionState::default()
    };
    let record = Record::Partition { topic: TOPIC, index: 0, state };
    assert_eq!(serde_json::to_string(&record).unwrap(), text);
    let later = text.replace(r#""adding":[],"removing":[]"#, r#""of_a_later_release":true"#);
    assert_eq!(serde_json::from_str::<Record>(&later).unwrap(), record);

    let mut lab = Lab::of(1);
    lab.ask(Request::PutSettings { changes: Vec::new(), expected: Vec::new() }).unwrap();
    let written: Vec<String> = lab.records.iter().map(|record| serde_json::to_string(record).unwrap()).collect();
    let registered = [
        r#"{"node_registered":{"id":1,"incarnation":1,"directory":"00000000-0000-0000-0000-000000000001","#,
        r#""addresses":{"kafka":"10.0.0.1:9092"},"rack":null,"levels":{"least":1,"most":1},"#,
        r#""process":"00000000-0000-0000-0000-000000000001"}}"#,
    ];
    assert_eq!(
        written,
        [
            r#"{"cluster_created":{"id":"00000000-0000-0000-0000-0000000000c1","level":1,"nodes":[1]}}"#,
            &registered.concat(),
            r#"{"node_unfenced":{"id":1}}"#,
        ]
    );
}
