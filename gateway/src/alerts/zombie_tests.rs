//! A leader of the past beside its successor, on three nodes: nothing that it saves or records is kept.

use bytes::Bytes;
use forebay_cluster::Claim;
use forebay_log::{AppendError, Epoch, Millis};
use forebay_sinks::{State, Transition};

use super::checkpoint::{Checkpoints, NotSaved};
use super::recorder::Recorder;
use super::*;
use crate::node::trio_tests::{Trio, eventually};
use crate::state::StateTopic;

fn transition(id: &str) -> Transition {
    Transition {
        id: id.to_owned(),
        alert: "Over".to_owned(),
        state: State::Firing,
        labels: Default::default(),
        annotations: Default::default(),
        value: None,
        active_at: Millis(1),
        starts_at: Some(Millis(1)),
        ends_at: None,
        source: forebay_sinks::transition::Source { topic: "quiet".to_owned(), partition: 0, offset: 0 },
        fingerprint: format!("of {id}"),
    }
}

fn service(trio: &Trio, id: i32) -> Arc<Service> {
    trio.nodes[&id].gateway.alerts.service().expect("begun").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_of_the_past_records_no_transition_and_saves_nothing() {
    let trio = Trio::start().await;
    let (old, new) = trio.quiet(&[JOURNAL_TOPIC, STATE_TOPIC]).await;
    let topic = trio.log(old).topic("quiet").expect("made").id;
    let stop = CancellationToken::new();
    // Not the service's own: it would see that no rule reads the topic.
    let opened = async |id: i32| {
        eventually("its own state", async || StateTopic::open(trio.log(id), "_quiet_state").await.ok()).await
    };
    let (old_state, new_state) = (opened(old).await, opened(new).await);
    let of = |id: i32, state: &Arc<StateTopic>, epoch: Epoch| {
        let checkpoints = Checkpoints::new(state.clone(), "quiet", topic, 0, epoch).led(topic);
        (checkpoints, Recorder::new(service(&trio, id), ("quiet".to_owned(), topic, 0), epoch))
    };
    let before = trio.epoch();
    let (mut old_checkpoints, mut old_recorder) = of(old, &old_state, before);
    assert!(old_checkpoints.take_over().await.expect("it leads").is_none());
    old_recorder.begin(&stop).await.expect("not told to stop");
    assert!(old_recorder.record(&[transition("one")], &stop).await);
    old_checkpoints.save(b"state", Offset(0)).await.expect("it leads");

    trio.hand_over(new).await;
    let (mut checkpoints, mut recorder) = of(new, &new_state, trio.epoch());
    let loaded = checkpoints.take_over().await.expect("it leads").expect("what the one before has saved");
    assert_eq!(loaded.snapshot, b"state");
    recorder.begin(&stop).await.expect("not told to stop");
    let emitted = recorder.emitted_since(loaded.journal, &stop).await.expect("not told to stop");
    assert_eq!(emitted, ["one".to_owned()].into());

    // The one before goes on as if nothing had happened, even before it can see that it is followed.
    assert!(!old_recorder.record(&[transition("two")], &stop).await);
    let claim = Claim::new(1, topic, [(0, before)].into());
    let late = vec![(Bytes::from(format!("check/quiet/{topic}/0/late")), Some(Bytes::from_static(b"late")))];
    let put = old_state.put_as(&claim, late).await;
    assert_eq!(put, Err(AppendError::ProducerFenced));
    assert!(matches!(old_checkpoints.save(b"late", Offset(0)).await, Err(NotSaved::Superseded)));
    assert!(matches!(old_checkpoints.take_over().await, Err(NotSaved::Superseded)));

    assert!(recorder.record(&[transition("two")], &stop).await);
    checkpoints.save(b"next", Offset(0)).await.expect("it leads");
    for node in [1, 2, 3] {
        let journal = service(&trio, node).journal.clone();
        eventually("both", async || (journal.end() >= Offset(2)).then_some(())).await;
        let fetched = journal.partition.read(Offset(0), 1 << 20).expect("readable");
        let (mut ids, mut next) = (Vec::new(), Offset(0));
        journal::visit(fetched.batches, &mut next, |record| {
            ids.push(journal::parse(&record.expect("whole")).expect("a transition").id);
        });
        assert_eq!(ids, ["one", "two"], "node {node}");
    }
    trio.drain(0).await;
}
