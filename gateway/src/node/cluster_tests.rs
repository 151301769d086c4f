//! Three nodes in one process: what one of them coordinates or is told is not lost with it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use forebay_cluster::LogOptions;
use forebay_log::cluster::Request;
use forebay_log::cluster::controller::Reassign;
use forebay_log::{NodeId, Offset};
use kafka_protocol::ResponseError;

use super::three_for_tests::{self as three, Places};
use super::{Node, open_data_dir};
use crate::client::kafka::{Client, Refused};
use crate::config::{Config, Sources};
use crate::security::acl::{Acl, AclFilter, Operation, PatternFilter, PatternType, Permission, ResourceType};
use crate::security::scram::{ScramCredential, ScramMechanism};
use crate::security::{CredentialChange, LEGACY_TOPIC, legacy_written};
use crate::state::StateTopic;

const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    places: Places,
    more: Vec<String>,
    nodes: BTreeMap<i32, Node>,
}

impl World {
    async fn start(more: &[&str]) -> World {
        let (places, more) = (Places::new(), more.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>());
        let nodes = places.open_all(|_| more.clone()).await;
        World { places, more, nodes }
    }

    async fn open(&self, id: i32) -> Node {
        self.places.open(id, &self.more).await
    }

    async fn kill(&mut self, id: i32) {
        three::kill(self.nodes.remove(&id).unwrap()).await;
    }

    async fn drain(self) {
        for (_, node) in self.nodes {
            node.drain().await;
        }
    }

    fn any(&self) -> &Node {
        self.nodes.values().next().unwrap()
    }

    async fn client(&self, id: i32) -> Client {
        Client::connect(&self.nodes[&id].gateway.addresses.kafka.unwrap().to_string()).await.unwrap()
    }

    /// The node that coordinates a group, as `of` sees it.
    async fn coordinator(&self, of: i32, group: &str) -> Option<i32> {
        let gateway = &self.nodes[&of].gateway;
        gateway.groups.coordinator(&gateway.log, group).await.map(|id| id.0)
    }

    /// Has a fresh client do something, until it is done.
    async fn until_done<R>(&self, on: i32, what: impl AsyncFn(&mut Client) -> anyhow::Result<R>) -> R {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut client = self.client(on).await;
            match what(&mut client).await {
                Ok(done) => return done,
                Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn committed(offset: i64) -> BTreeMap<(String, i32), Offset> {
    BTreeMap::from([(("read".to_owned(), 0), Offset(offset))])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_from_its_offsets_when_its_coordinator_dies() {
    let mut world = Box::pin(World::start(&[])).await;
    world.until_done(1, async |client| client.create_topic("read", Some(1), None, &[]).await).await;
    world.until_done(1, async |client| client.seek_group("billing", "read", &[(0, Offset(42))]).await).await;
    let topic = world.any().gateway.log.topic("__consumer_offsets").unwrap();
    assert_eq!((topic.partitions.len(), topic.partitions[0].placement().replicas.len()), (16, 3));
    let coordinator = world.coordinator(1, "billing").await.unwrap();
    for id in 1..=3 {
        assert_eq!(world.coordinator(id, "billing").await, Some(coordinator), "as node {id} sees it");
        let offsets = world.until_done(id, async |client| client.group_offsets("billing").await).await;
        assert_eq!(offsets, committed(42));
        assert_eq!(world.until_done(id, async |client| client.groups().await).await, ["billing"]);
    }
    drop(topic);

    world.kill(coordinator).await;
    let left = *world.nodes.keys().next().unwrap();
    let offsets = world.until_done(left, async |client| client.group_offsets("billing").await).await;
    assert_eq!(offsets, committed(42));
    world.until_done(left, async |client| client.seek_group("billing", "read", &[(0, Offset(43))]).await).await;
    let offsets = world.until_done(left, async |client| client.group_offsets("billing").await).await;
    assert_eq!(offsets, committed(43));
    assert_ne!(world.coordinator(left, "billing").await, Some(coordinator));
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_of_the_past_takes_no_commit_and_offsets_do_not_go_back() {
    let world = Box::pin(World::start(&[])).await;
    world.until_done(1, async |client| client.create_topic("read", Some(1), None, &[]).await).await;
    world.until_done(1, async |client| client.seek_group("billing", "read", &[(0, Offset(1))]).await).await;
    for offset in 2..6 {
        let before = world.coordinator(1, "billing").await.unwrap();
        let mut old = world.client(before).await;
        assert_eq!(old.group_offsets("billing").await.unwrap(), committed(offset - 1));
        let next = before % 3 + 1;
        move_to(&world, next).await;
        // The connection to the node that was the coordinator is still there.
        let refused = old.seek_group_at("billing", "read", &[(0, Offset(0))], before).await.unwrap_err();
        let code = refused.downcast_ref::<Refused>().map(|refused| refused.code);
        let known = [ResponseError::NotCoordinator, ResponseError::CoordinatorLoadInProgress].map(|error| error.code());
        assert!(code.is_some_and(|code| known.contains(&code)), "{refused:#}");
        let offsets = world.until_done(before, async |client| client.group_offsets("billing").await).await;
        assert_eq!(offsets, committed(offset - 1));
        world.until_done(next, async |client| client.seek_group("billing", "read", &[(0, Offset(offset))]).await).await;
    }
    world.drain().await;
}

/// Has another node lead the partition that keeps `billing`.
async fn move_to(world: &World, leader: i32) {
    let log = &world.any().gateway.log;
    let topic = log.topic("__consumer_offsets").unwrap();
    let index = crate::kafka::partition_of("billing", topic.partitions.len());
    let others = (1..=3).filter(|id| *id != leader);
    let target = Some([leader].into_iter().chain(others).map(NodeId).collect());
    let partitions = vec![Reassign { topic: topic.id, index: index as u32, target }];
    log.cluster().unwrap().ask(Request::AlterReassignments { partitions }, PATIENCE).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let leads = |node: &Node| {
        let topic = node.gateway.log.topic("__consumer_offsets").unwrap();
        topic.partitions[index].leader() == Some(NodeId(leader))
    };
    while !world.nodes.values().all(leads) {
        assert!(Instant::now() < deadline, "node {leader} does not lead");
        let election = forebay_log::cluster::controller::ElectionType::Preferred;
        let partitions = Some(vec![(topic.id, index as u32)]);
        let _ = log.cluster().unwrap().ask(Request::ElectLeaders { election, partitions }, PATIENCE).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const SECURED: &[&str] = &[
    "kafka.security.protocol=SASL_PLAINTEXT",
    "kafka.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256",
    "kafka.authorizer.enable=true",
    "kafka.super.users=User:admin",
    "users.admin=admin-secret",
];

fn acl(name: &str) -> Acl {
    Acl {
        resource_type: ResourceType::Topic,
        name: name.to_owned(),
        pattern: PatternType::Literal,
        principal: "User:eve".to_owned(),
        host: "*".to_owned(),
        operation: Operation::Read,
        permission: Permission::Allow,
    }
}

fn credential(password: &str) -> ScramCredential {
    let salt = bytes::Bytes::from_static(b"salt of this test");
    ScramCredential::of_password(ScramMechanism::Sha256, password, salt, NonZeroU32::new(4096).unwrap())
}

fn eve_reads(node: &Node, topic: &str) -> bool {
    node.security.authorize("User:eve", "127.0.0.1", Operation::Read, ResourceType::Topic, topic)
}

fn knows_eve(node: &Node, password: &str) -> bool {
    node.security.credential(ScramMechanism::Sha256, "eve") == Some(credential(password))
}

async fn soon(what: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < deadline, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_acls_set_on_one_node_hold_on_all_and_after_restarts() {
    let mut world = Box::pin(World::start(SECURED)).await;
    let made = credential("first");
    let (user, mechanism) = ("eve".to_owned(), ScramMechanism::Sha256);
    let change = CredentialChange { user: user.clone(), mechanism, credential: Some(made) };
    let one = &world.nodes[&1].security;
    one.alter_credentials(vec![change]).await.unwrap();
    one.add_acls(vec![acl("readings"), acl("others")]).await.unwrap();
    assert!(knows_eve(&world.nodes[&1], "first") && eve_reads(&world.nodes[&1], "readings"), "at once, here");
    soon(|| world.nodes.values().all(|node| knows_eve(node, "first") && eve_reads(node, "others"))).await;
    // Nobody learns from an answer of another node that there is no such user.
    let nobody = |node: &Node| node.security.credential(ScramMechanism::Sha256, "nobody").unwrap();
    assert!(world.nodes.values().all(|node| nobody(node) == nobody(&world.nodes[&1])));

    let three = &world.nodes[&3].security;
    let any = AclFilter {
        resource_type: None,
        name: None,
        pattern: PatternFilter::Any,
        principal: None,
        host: None,
        operation: None,
        permission: None,
    };
    assert_eq!(three.acls(&any).await.unwrap().len(), 2);
    let named = AclFilter { name: Some("others".to_owned()), ..any };
    assert_eq!(three.remove_acls(vec![named]).await.unwrap(), [vec![acl("others")]]);
    soon(|| world.nodes.values().all(|node| !eve_reads(node, "others") && eve_reads(node, "readings"))).await;

    let node = world.nodes.remove(&2).unwrap();
    node.drain().await;
    let change = CredentialChange { user, mechanism, credential: Some(credential("second")) };
    world.nodes[&1].security.alter_credentials(vec![change]).await.unwrap();
    let back = world.open(2).await;
    world.nodes.insert(2, back);
    soon(|| world.nodes.values().all(|node| knows_eve(node, "second") && eve_reads(node, "readings"))).await;
    world.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_alone_kept_in_its_topics_is_taken_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let files = forebay_cluster::RealFiles::open(folder.path()).unwrap();
    let log = forebay_cluster::Log::open(files, LogOptions { shards: 1, fsync: true, alone: true }).unwrap();
    let state = StateTopic::open(&log, LEGACY_TOPIC).await.unwrap();
    let key = legacy_written::credential_key("eve", ScramMechanism::Sha256);
    state.put(key, Some(legacy_written::credential_value(&credential("old")))).await.unwrap();
    state.put(legacy_written::acl_key(&acl("readings")), Some(legacy_written::acl_value())).await.unwrap();
    state.put(&b"secret-of-the-node"[..], Some(legacy_written::secret_value(&[7; 32]))).await.unwrap();
    let quotas = StateTopic::open(&log, "_client_quotas").await.unwrap();
    let (entity, rates) = (r#"{"user":null,"client":{"named":"meter"}}"#, r#"{"producer_byte_rate":1000.0}"#);
    quotas.put(entity, Some(rates.into())).await.unwrap();
    drop((state, quotas));
    tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();

    let ports = ["mqtt", "quic", "kafka", "http"].map(|name| format!("listeners.{name}=127.0.0.1:0"));
    let set: Vec<String> = ports.into_iter().chain(SECURED.iter().map(|flag| (*flag).to_owned())).collect();
    let start = async || {
        let data_dir = Some(folder.path().to_path_buf());
        let config = Config::load(&Sources { set: set.clone(), data_dir, ..Sources::default() }).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let files = loop {
            match open_data_dir(&config) {
                Ok(files) => break files,
                Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        Node::start(config, files).await.unwrap()
    };
    let node = start().await;
    assert!(knows_eve(&node, "old") && eve_reads(&node, "readings"));
    let image = node.gateway.log.cluster().unwrap().metadata().borrow().image.clone();
    let quotas: Vec<_> = image.settings("quotas").map(|(_, value)| value.to_owned()).collect();
    assert_eq!(quotas, [format!(r#"{{"entity":{entity},"rates":{rates}}}"#)]);
    let nobody = node.security.credential(ScramMechanism::Sha256, "nobody");
    let gone = CredentialChange { user: "eve".to_owned(), mechanism: ScramMechanism::Sha256, credential: None };
    node.security.alter_credentials(vec![gone]).await.unwrap();
    assert!(!knows_eve(&node, "old"));
    node.drain().await;

    let node = start().await;
    assert!(!knows_eve(&node, "old") && eve_reads(&node, "readings"), "what was removed since is not back");
    assert_eq!(node.security.credential(ScramMechanism::Sha256, "nobody"), nobody);
    node.drain().await;
}
