//! Several nodes' doors on one log: who has a session when its client changes nodes faster than they let go of it.

use std::collections::BTreeSet;

use forebay_log::NodeId;

use super::*;
use crate::mqtt::intents::Mark;
use crate::mqtt::orphans::Orphans;
use crate::mqtt::ownership::{Claim, Owner, claim_key, release_key, scoped, state_of};
use crate::mqtt::session::{Cursors, Entry, Subscriptions, cursor_key, intent_key, judge, session_key};

/// The nodes are those that the test says.
struct Pretended {
    here: i32,
    up: Arc<Mutex<BTreeSet<i32>>>,
}

impl Members for Pretended {
    fn here(&self) -> (NodeId, u64) {
        (NodeId(self.here), 1)
    }
    fn has_others(&self) -> bool {
        true
    }
    fn is_up(&self, owner: Owner) -> bool {
        owner.incarnation == 1 && self.up.lock().unwrap().contains(&owner.node.0)
    }
}

/// Nodes 1 to `N` over one log. What is published can be held up without their sessions: they are other shards'.
async fn nodes<const N: usize>() -> [Door; N] {
    let files = Gated::new();
    let log = open_log(&files, 4).await;
    let up: Arc<Mutex<BTreeSet<i32>>> = Arc::new(Mutex::new((1..=N as i32).collect()));
    let mut doors = Vec::new();
    for here in 1..=N as i32 {
        let members = Box::new(Pretended { here, up: up.clone() });
        doors.push(Door::of(Some(members), files.clone(), log.clone(), &[]).await);
    }
    doors.try_into().unwrap_or_else(|_| panic!("as many as asked for"))
}

/// Sends CONNECT and does not wait.
async fn begin(door: &Door, connect: Connect) -> Client {
    let stream = TcpStream::connect(door.address).await.unwrap();
    let codec = ClientCodec::new(connect.version, 1 << 20);
    let mut client = Client { stream, codec, buffer: BytesMut::new(), present: false };
    client.send(Incoming::Connect(Box::new(connect))).await;
    client
}

fn claim(door: &Door, client: &str) -> Option<Claim> {
    door.broker.sessions.get(&claim_key(client)).map(|value| Claim::decode(value).unwrap())
}

fn owner_of(door: &Door, client: &str) -> Option<i32> {
    claim(door, client).map(|claim| claim.owner.node.0)
}

fn someone(node: i32, number: u64) -> Owner {
    Owner { node: NodeId(node), incarnation: 1, number }
}

async fn put(door: &Door, key: Bytes, value: Option<Bytes>) {
    door.broker.sessions.put(key, value).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_meets_a_parting_connection_gets_its_release() {
    let [one, two] = nodes().await;
    let lost = one.connect(Connect { will: will("lost", 0), ..kept("m1") }).await;
    one.files.shut_for("log/mqtt-0");
    drop(lost);
    // Its will waits for the disk, and the connection for its will.
    tokio::time::sleep(SILENCE).await;
    let mut next = begin(&two, kept("m1")).await;
    eventually(|| owner_of(&one, "m1") == Some(2)).await;
    next.hears_nothing().await;
    one.files.open();
    assert!(matches!(next.receive().await, Outgoing::ConnAck { session_present: true, .. }));
    assert_eq!(one.broker.clients(9).len(), 0, "the session is not here any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_only_opens_passes_the_release_on_when_it_has_it() {
    let [one, two, three] = nodes().await;
    let mut old = one.connect(kept("m1")).await;
    one.files.shut_for("log/mqtt-0");
    old.publish(1, Qos::ExactlyOnce, "once").await;
    old.hears_nothing().await;
    let _given_up = begin(&two, kept("m1")).await;
    eventually(|| owner_of(&three, "m1") == Some(2)).await;
    let mut next = begin(&three, kept("m1")).await;
    eventually(|| owner_of(&one, "m1") == Some(3)).await;
    next.hears_nothing().await;
    one.files.open();
    assert!(matches!(next.receive().await, Outgoing::ConnAck { session_present: true, .. }));
    next.publish(1, Qos::ExactlyOnce, "once").await;
    assert_eq!(next.receive().await, Outgoing::PubRec(ack(1)));
    assert_eq!(three.values(), ["once"]);
    eventually(|| one.broker.clients(9).is_empty() && two.broker.clients(9).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_while_another_node_waits_for_its_session_has_it() {
    let [one, two] = nodes().await;
    let mut old = one.connect(kept("m1")).await;
    one.files.shut_for("log/mqtt-0");
    old.publish(1, Qos::AtLeastOnce, "first").await;
    old.hears_nothing().await;
    let mut elsewhere = begin(&two, kept("m1")).await;
    eventually(|| owner_of(&one, "m1") == Some(2)).await;
    // Waits for the old one here, then for node 2, which waits for the old one as well.
    let mut back = begin(&one, kept("m1")).await;
    back.hears_nothing().await;
    one.files.open();
    match elsewhere.receive().await {
        // It came first, and has lost the session again since.
        Outgoing::ConnAck { reason: 0, .. } => {
            assert!(matches!(elsewhere.receive().await, Outgoing::Disconnect { reason: 0x8E, .. }));
        }
        Outgoing::ConnAck { reason, .. } => assert_ne!(reason, 0),
        other => panic!("expected CONNACK, got {other:?}"),
    }
    assert!(matches!(back.receive().await, Outgoing::ConnAck { session_present: true, reason: 0, .. }));
    eventually(|| owner_of(&two, "m1") == Some(1) && two.broker.clients(9).is_empty()).await;
    assert_eq!(one.values(), ["first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_overtake_each_other_do_not_wait_for_each_other() {
    let [one, two] = nodes().await;
    one.connect(kept("m1")).await.disconnect().await;
    eventually(|| one.broker.connected() == 0).await;
    one.files.shut_for("log/_mqtt_sessions-0");
    let mut first = begin(&two, kept("m1")).await;
    first.hears_nothing().await;
    let mut second = begin(&one, kept("m1")).await;
    second.hears_nothing().await;
    one.files.open();
    // Sooner than a node is given up that does not let go.
    let answer = timeout(Duration::from_secs(4), second.receive()).await.expect("both wait");
    assert!(matches!(answer, Outgoing::ConnAck { session_present: true, reason: 0, .. }));
    assert!(!matches!(first.receive().await, Outgoing::ConnAck { reason: 0, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_settled_in_is_still_there() {
    let [one, _two] = nodes().await;
    let away = one.connect(Connect { will: will("gone", 2), ..kept("m1") }).await;
    drop(away);
    eventually(|| one.broker.connected() == 0 && one.broker.clients(9).iter().all(|client| !client.connected)).await;
    one.files.shut_for("log/_mqtt_sessions-0");
    let mut client = begin(&one, kept("m1")).await;
    client.hears_nothing().await;
    // The claim is written by now; what comes after it finds no room.
    one.files.inner.set_faults(Faults { capacity: Some(0), ..Faults::default() });
    one.files.open();
    assert!(matches!(client.receive().await, Outgoing::ConnAck { reason: 0x97, .. }));
    one.files.inner.set_faults(Faults::default());
    one.values_become(&["gone"]).await;
    assert!(one.connect(kept("m1")).await.present);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_swept_away_is_written_again_while_somebody_has_the_session() {
    let [one, two] = nodes().await;
    let client = one.connect(kept("m1")).await;
    let owner = claim(&one, "m1").map(|claim| claim.owner);
    assert!(owner.is_some());
    put(&two, claim_key("m1"), None).await;
    eventually(|| claim(&two, "m1").map(|claim| claim.owner) == owner).await;
    client.disconnect().await;
    eventually(|| one.broker.connected() == 0).await;
    put(&two, claim_key("m1"), None).await;
    eventually(|| claim(&two, "m1").map(|claim| claim.owner) == owner).await;
    assert!(two.connect(kept("m1")).await.present);
    // One that has ended leaves none, however fast that is.
    for n in 0..30 {
        one.connect(v5(&format!("short{n}"))).await.disconnect().await;
    }
    eventually(|| one.broker.connected() == 0).await;
    tokio::time::sleep(SILENCE).await;
    assert_eq!(two.broker.sessions.scan(b"o/short"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_node_has_claimed_is_not_removed_with_a_session_that_ends_here() {
    let [one, two] = nodes().await;
    let client = one.connect(kept("m1")).await;
    client.disconnect().await;
    let scope = scoped("m1", Some(claim(&one, "m1").unwrap().owner));
    assert!(two.connect(kept("m1")).await.present);
    let later = claim(&two, "m1");
    eventually(|| claim(&one, "m1") == later).await;
    one.broker.remove_stored(&Text::from("m1"), &scope).await.unwrap();
    assert_eq!(claim(&one, "m1"), later);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loser_that_settles_in_late_does_not_bring_its_state_back() {
    let [one, two, three] = nodes().await;
    let wanted = judge(kept("m1"), &one.broker.limits, String::new).unwrap();
    let mut client = one.connect(kept("m1")).await;
    let from = scoped("m1", Some(claim(&one, "m1").unwrap().owner));
    // It claims the session, and what it stores then is cut off on its way.
    let loser = someone(2, 99);
    let lost = Claim { owner: loser, from: None, state: state_of(from.as_str()), clean: false };
    client.publish(1, Qos::ExactlyOnce, "before").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(1)));
    put(&two, claim_key("m1"), Some(lost.encode())).await;
    let late = two.broker.settling(&wanted, loser, &from, None);
    let mut client = three.connect(kept("m1")).await;
    assert!(client.present);
    client.publish(2, Qos::ExactlyOnce, "meanwhile").await;
    assert_eq!(client.receive().await, Outgoing::PubRec(ack(2)));
    let has = owner_of(&three, "m1");
    two.broker.sessions.put_all(late).await.unwrap();
    tokio::time::sleep(SILENCE).await;
    assert_eq!((has, owner_of(&one, "m1")), (Some(3), Some(3)), "who has it keeps it");
    drop(client);
    let mut client = one.connect(kept("m1")).await;
    assert!(client.present);
    for (packet_id, value) in [(1, "before"), (2, "meanwhile")] {
        client.publish(packet_id, Qos::ExactlyOnce, value).await;
        assert_eq!(client.receive().await, Outgoing::PubRec(ack(packet_id)));
    }
    one.values_become(&["before", "meanwhile"]).await;
    // What the loser stored is gone with the settling of the next one.
    let stored = one.broker.sessions.scan(&session_key("m1"));
    assert_eq!(stored.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_removes_what_losers_wrote_late_and_nothing_that_is_still_to_be_read() {
    let [one, _two] = nodes().await;
    let client = one.connect(kept("m1")).await;
    let (loser, gone) = (Some(someone(2, 99)), Some(someone(7, 1)));
    let entry =
        Entry { version: Version::V5, expiry: 3600, disconnected_at: None, subscriptions: Subscriptions::default() };
    let late = |client: &str| {
        let name = scoped(client, loser);
        let mark = Some(Mark::Received.encode());
        [(cursor_key(name.as_str()), Some(Cursors::default().encode())), (intent_key(name.as_str(), 0, 5), mark)]
    };
    one.broker.sessions.put_all(late("m1").into()).await.unwrap();
    // Node 7 is gone and had claimed a session before it could take it.
    let (from, state) = (loser, loser);
    let unsettled = Claim { owner: gone.unwrap(), from, state, clean: false };
    let mut waiting = Vec::from(late("m2"));
    waiting.push((session_key(scoped("m2", loser).as_str()), Some(entry.encode())));
    waiting.push((session_key(scoped("m2", Some(someone(2, 98))).as_str()), Some(entry.encode())));
    waiting.push((claim_key("m2"), Some(unsettled.encode())));
    one.broker.sessions.put_all(waiting).await.unwrap();
    let stored = |client: &str| {
        let all = one.broker.sessions.scan(b"");
        all.iter().filter(|(key, _)| String::from_utf8_lossy(key).contains(client)).count()
    };
    let (before, other) = (stored("m1"), stored("m2"));
    one.broker.sweep_orphans(&mut Orphans::default()).await;
    assert_eq!(stored("m1"), before - 2);
    assert_eq!(stored("m2"), other);
    client.disconnect().await;
    assert!(one.connect(kept("m1")).await.present);
    assert_eq!(one.broker.sessions.get(&release_key("m1")), None);
}
