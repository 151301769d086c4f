//! What a person who writes a config sees: the mistakes named, the defaults documented, the settings shown.

use std::path::{Path, PathBuf};

use forebay_log::TopicConfig;
use proptest::prelude::*;

use super::keys::{KEYS, TOPIC_DEFAULTS};
use super::*;

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forebay.toml");
    std::fs::write(&path, text).unwrap();
    File { _folder: folder, path }
}

fn sources(file: &File) -> Sources {
    Sources { file: Some(file.path.clone()), ..Sources::default() }
}

fn load(text: &str) -> Result<Config, String> {
    let file = file(text);
    Config::load(&sources(&file)).map_err(|error| error.to_string().replace(&file.path.display().to_string(), "F"))
}

fn set(flags: &[&str]) -> Result<Config, String> {
    let set = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Config::load(&Sources { set, ..Sources::default() }).map_err(|error| error.to_string())
}

#[test]
fn without_any_source_the_documented_defaults_hold() {
    let config = set(&[]).unwrap();
    assert_eq!(config.listeners.mqtt, "127.0.0.1:1883".parse().ok());
    assert_eq!(config.listeners.mqtts, None);
    assert_eq!(config.object_store.url, "file:forebay-data/lake");
    assert_eq!(config.topic_defaults.num_partitions, 4);
    assert_eq!(config.topic_defaults.config, TopicConfig::default());
    assert_eq!(format!("{:?}", config.mqtt), format!("{:?}", MqttConfig::default()));
    assert!(config.durability.fsync && !config.allow_anonymous);
}

#[test]
fn the_example_of_the_documentation_is_understood() {
    let config = load(
        r#"
        [node]
        id = 7
        [topic_defaults]
        num.partitions = 2
        segment.bytes = "1MiB"
        retention.ms = -1
        [topics.readings]
        num.partitions = 8
        local.retention.ms = "1h"
        [topics.plain]
        [[routes]]
        filter = "meters/+/readings"
        topic = "readings"
        key = "{1}"
        timestamp = "/ts"
        [alerts]
        rules = ["rules/*.yaml"]
        "#,
    )
    .unwrap();
    assert_eq!(config.node.id, 7);
    let readings = &config.topics["readings"];
    assert_eq!((readings.num_partitions, readings.config.segment_bytes), (8, 1 << 20));
    assert_eq!((readings.config.retention_ms, readings.config.local_retention_ms), (None, Some(3_600_000)));
    assert_eq!(config.topics["plain"].num_partitions, 2);
    assert_eq!(config.routes[0].key.as_deref(), Some("{1}"));
    assert!(config.alerts.rules[0].is_absolute());
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_key_meant() {
    let error = load("[node]\nid = 1\n\n[listeners]\nmqtt = \"off\"\nmqqts = \"off\"\n").unwrap_err();
    assert!(error.contains("F:6: unknown key listeners.mqqts"), "{error}");
    assert!(error.contains("did you mean listeners.mqtts?"), "{error}");
    let error = load("[topics.readings]\nnum.partitons = 8\n").unwrap_err();
    assert!(error.contains("F:2") && error.contains("topics.readings.num.partitions"), "{error}");
    let error = load("[[routes]]\nfilter = \"a\"\ntopik = \"b\"\n").unwrap_err();
    assert!(error.contains("F:3: unknown key routes.topik") && error.contains("topic"), "{error}");
}

#[test]
fn a_wrong_value_is_named_with_file_line_and_what_is_expected() {
    for (text, place, expected) in [
        ("[node]\nid = \"one\"", "F:2: node.id", "integer"),
        ("[topic_defaults]\n\nsegment.bytes = \"64MB\"", "F:3: topic_defaults.segment.bytes", "MiB"),
        ("[topic_defaults]\nsegment.ms = \"10min\"", "F:2: topic_defaults.segment.ms", "ms, s, m, h, d"),
        ("[listeners]\nmqtt = 1883", "F:2: listeners.mqtt", "IP:PORT"),
        ("[durability]\nacks = \"none\"", "F:2: durability.acks", "\"all\" or \"leader\""),
        ("[durability]\nfsync = 1", "F:2: durability.fsync", "true or false"),
        ("[topic_defaults]\nmin.insync.replicas = 2", "F:2: topic_defaults.min.insync.replicas", "one node"),
        ("[topic_defaults]\ndefault.replication.factor = 3", "F:2", "one node"),
        ("[topics.a]\nmin.insync.replicas = 2", "F:2: topics.a.min.insync.replicas", "one node"),
        ("[topic_defaults]\nmin.cleanable.dirty.ratio = 1.5", "F:2", "from 0 to 1"),
        ("[topics.a]\ncleanup.policy = \"compact\"\nremote.storage.enable = true", "F:3: topics.a", "cleanup.policy"),
        ("[topics.\"a/b\"]\nnum.partitions = 1", "F:1: [topics.a/b]", "letters"),
        ("[[routes]]\nfilter = \"a\"", "F:1: routes", "no topic"),
        ("\n[[routes]]\nfilter = \"a/#/b\"\ntopic = \"b\"", "F:2: routes.filter", "#"),
        ("[[routes]]\nfilter = \"a/+\"\ntopic = \"b\"\nkey = \"{2}\"", "F:1: routes.key", "{2}"),
        ("[node\nid = 1", "F:1", "TOML"),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.contains(place) && error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let error = load("[node]\nidd = 1\n[listeners]\nmqtt = \"x\"\n").unwrap_err();
    assert!(error.contains("F:2") && error.contains("F:4"), "{error}");
}

#[test]
fn what_this_release_does_not_serve_is_refused_clearly() {
    assert!(load("[listeners]\nws = \"127.0.0.1:8083\"").unwrap_err().contains("not supported in this release"));
    assert!(set(&["object_store.url=gs://bucket"]).unwrap_err().contains("not supported in this release"));
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let file = file("[node]\nid = 1\n[mqtt]\nmax_keepalive = 1\nmax_topic_alias = 1\n");
    let mut sources = sources(&file);
    sources.env = vec![
        ("FOREBAY__NODE__ID".to_owned(), "2".to_owned()),
        ("FOREBAY__MQTT__MAX_KEEPALIVE".to_owned(), "1m".to_owned()),
        ("HOME".to_owned(), "/".to_owned()),
    ];
    sources.set = vec!["node.id=3".to_owned()];
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.node.id, config.mqtt.max_keepalive, config.mqtt.max_topic_alias), (3, 60, 1));
}

#[test]
fn a_mistake_in_the_environment_or_a_flag_names_it() {
    let sources = Sources { env: vec![("FOREBAY__NODE__IDD".to_owned(), "2".to_owned())], ..Sources::default() };
    assert!(Config::load(&sources).unwrap_err().to_string().contains("FOREBAY__NODE__IDD: unknown key node.idd"));
    assert!(set(&["node.id"]).unwrap_err().contains("--set node.id"));
    assert!(set(&["node.id=x"]).unwrap_err().contains("--set node.id=x"));
}

#[test]
fn lists_and_routes_can_be_set_by_flag() {
    let routes = r#"routes=[{filter = "a/#", topic = "b"}, {filter = "c", topic = "d"}]"#;
    let config = set(&[routes, "alerts.rules=[\"x.yaml\", \"y.yaml\"]", "topics.readings.num.partitions=3"]).unwrap();
    assert_eq!(config.routes.len(), 2);
    assert_eq!(config.alerts.rules, [Path::new("x.yaml"), Path::new("y.yaml")]);
    assert_eq!(config.topics["readings"].num_partitions, 3);
}

#[test]
fn an_open_listener_needs_authentication_or_consent() {
    let error = set(&["listeners.mqtt=0.0.0.0:1883"]).unwrap_err();
    assert!(error.contains("listeners.mqtt") && error.contains("allow_anonymous"), "{error}");
    assert!(set(&["listeners.mqtt=0.0.0.0:1883", "allow_anonymous=true"]).is_ok());
    assert!(set(&["listeners.mqtt=0.0.0.0:1883", "listeners.allow_anonymous=true"]).is_ok());
    assert!(load("[listeners]\nhttp = \"0.0.0.0:8080\"\nallow_anonymous = true\n").unwrap().allow_anonymous);
    let tls = ["tls.certfile=c", "tls.keyfile=k", "tls.cafile=a", "tls.require_certificate=true"];
    let open = |extra: &str| set(&[&tls[..], &[extra]].concat());
    assert!(open("listeners.mqtts=0.0.0.0:8883").is_ok());
    assert!(open("listeners.kafka=0.0.0.0:9092").is_err());
    assert!(set(&["listeners.mqtts=127.0.0.1:8883"]).unwrap_err().contains("tls.certfile"));
    assert!(set(&["tls.require_certificate=true"]).unwrap_err().contains("tls.cafile"));
}

#[test]
fn a_kafka_listener_whose_clients_authenticate_may_be_open() {
    let open = |more: &[&str]| set(&[&["listeners.kafka=0.0.0.0:9092"], more].concat());
    let tls = ["tls.certfile=c", "tls.keyfile=k", "tls.cafile=a"];
    let with_tls = |more: &[&str]| open(&[&tls[..], more].concat());
    assert!(open(&[]).unwrap_err().contains("security.protocol"));
    assert!(open(&["kafka.security.protocol=SASL_PLAINTEXT"]).is_ok());
    assert!(with_tls(&["kafka.security.protocol=SASL_SSL"]).is_ok());
    assert!(with_tls(&["kafka.security.protocol=SSL"]).is_err());
    assert!(with_tls(&["kafka.security.protocol=SSL", "kafka.ssl.client.auth=requested"]).is_err());
    assert!(with_tls(&["kafka.security.protocol=SSL", "kafka.ssl.client.auth=required"]).is_ok());
}

#[test]
fn what_secures_nothing_is_refused_with_the_key_to_set() {
    for (flags, what) in [
        (&["kafka.security.protocol=SSL"][..], "tls.certfile"),
        (&["kafka.ssl.client.auth=required"], "without TLS"),
        (
            &["kafka.security.protocol=SSL", "tls.certfile=c", "tls.keyfile=k", "kafka.ssl.client.auth=requested"],
            "tls.cafile",
        ),
        (&["kafka.security.protocol=SASL_PLAINTEXT", "kafka.sasl.enabled.mechanisms=[]"], "nobody could log in"),
        (&["kafka.sasl.enabled.mechanisms=GSSAPI"], "PLAIN, SCRAM-SHA-256"),
        (&["kafka.super.users=admin"], "admin is no principal"),
        (&["kafka.security.protocol=TLS"], "SASL_SSL"),
        (&["users.alice="], "a name and a password"),
        (&["users.alice=file:/nowhere"], "cannot read /nowhere"),
    ] {
        let error = set(flags).unwrap_err();
        assert!(error.contains(what), "{flags:?}: {error}");
    }
}

#[test]
fn users_are_named_in_a_table_of_their_own_and_their_passwords_are_shown_to_nobody() {
    let file = file(
        "[users]\nalice = \"hush\"\n\"bob.b\" = \"file:bob\"\n[kafka]\nsuper.users = \"User:a;User:CN=b,O=c\"\n\
        sasl.enabled.mechanisms = [\"PLAIN\"]\n",
    );
    let folder = file.path.parent().unwrap();
    std::fs::write(folder.join("bob"), "whisper\n").unwrap();
    let config = Config::load(&sources(&file)).unwrap();
    assert_eq!((config.users["alice"].password.as_str(), &config.users["alice"].file), ("hush", &None));
    assert_eq!(config.users["bob.b"].password, "whisper");
    assert_eq!(config.users["bob.b"].file, Some(folder.join("bob")));
    assert_eq!(config.kafka.super_users, ["User:a", "User:CN=b,O=c"]);
    assert_eq!(config.kafka.sasl_enabled_mechanisms, [SaslMechanism::Plain]);
    let shown = show(&Settings::read(&sources(&file)).unwrap()).unwrap();
    assert!(shown.contains("alice") && shown.contains("[\"PLAIN\"]"), "{shown}");
    for text in [shown, format!("{config:?}")] {
        assert!(!text.contains("hush") && !text.contains("whisper"), "{text}");
    }
}

#[test]
fn three_peers_mean_three_copies_of_which_two_are_waited_for() {
    let peers = "cluster.peers=1@127.0.0.1:9192,2@127.0.0.1:9193,3@10.0.0.3:9192";
    let set = [peers, "node.id=2", "object_store.url=s3://lake"].map(str::to_owned).to_vec();
    let config = Config::load(&Sources { set, ..Sources::default() }).unwrap();
    let cluster = &config.cluster;
    assert_eq!((cluster.peers.len(), cluster.peers[&3].as_str()), (3, "10.0.0.3:9192"));
    assert_eq!(cluster.listen.map(|address| address.port()), Some(9193), "it listens where the others look for it");
    assert_eq!((cluster.default_replication_factor, config.topic_defaults.config.min_insync_replicas), (3, 2));
    let alone = Config::load(&Sources::default()).unwrap();
    assert_eq!((alone.cluster.default_replication_factor, alone.cluster.listen), (1, None));
    assert_eq!(alone.topic_defaults.config.min_insync_replicas, 1);
}

#[test]
fn a_cluster_that_cannot_work_is_refused() {
    for (text, expected) in [
        ("cluster.peers=1@127.0.0.1", "expected ID@HOST:PORT"),
        ("cluster.peers=1@::1:9192", "expected ID@HOST:PORT"),
        ("cluster.peers=1@127.0.0.1:9192,1@127.0.0.1:9193", "twice"),
        ("cluster.peers=2@127.0.0.1:9192,3@127.0.0.1:9193", "other nodes have to reach this one"),
        ("cluster.peers=1@10.0.0.1:9192,2@10.0.0.2:9192", "do not have to authenticate"),
        ("cluster.peers=1@127.0.0.1:9192,2@127.0.0.1:9193", "lies in this node's data directory"),
        ("listeners.cluster=127.0.0.1:9192", "first quorum"),
        ("topic_defaults.default.replication.factor=3", "with one node only 1"),
    ] {
        let error = set(&[text]).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = set(&["cluster.peers=1@127.0.0.1"]).unwrap_err();
    assert!(!error.contains("twice"), "one mistake, one message: {error}");
}

#[test]
fn a_node_that_joins_a_cluster_of_one_is_reached_by_it() {
    let joins = ["node.id=4", "cluster.peers=1@10.0.0.1:9192", "object_store.url=file:/lake"];
    let with = |more: &[&str]| set(&[&joins[..], more].concat());
    assert!(with(&[]).unwrap_err().contains("other nodes have to reach this one"));
    let open = ["listeners.cluster=0.0.0.0:9192", "allow_anonymous=true"];
    assert!(with(&open).unwrap_err().contains("node.advertised_host"));
    assert!(with(&[&open[..], &["node.advertised_host=10.0.0.4"]].concat()).is_ok());
    assert!(with(&["listeners.cluster=127.0.0.1:9192"]).is_ok(), "on one machine");
}

#[test]
fn paths_and_secrets_start_from_the_file_that_names_them() {
    let file =
        file("[object_store]\nurl = \"file:lake\"\nsecret_access_key = \"file:key\"\n[tls]\ncafile = \"ca.pem\"\n");
    let folder = file.path.parent().unwrap();
    std::fs::write(folder.join("key"), "hush\n").unwrap();
    let config = Config::load(&sources(&file)).unwrap();
    assert_eq!(config.object_store.url, format!("file:{}", folder.join("lake").display()));
    assert_eq!(config.object_store.options["secret_access_key"], "hush");
    assert_eq!(config.tls.cafile, Some(folder.join("ca.pem")));
    let mut sources = sources(&file);
    sources.set = vec!["object_store.session_token=whisper".to_owned()];
    let shown = show(&Settings::read(&sources).unwrap()).unwrap();
    assert!(!shown.contains("hush") && !shown.contains("whisper") && shown.contains("session_token"), "{shown}");
}

#[test]
fn the_lake_lies_in_the_data_directory_unless_it_is_told_where() {
    let config = set(&["node.data_dir=/d"]).unwrap();
    assert_eq!(config.object_store.url, "file:/d/lake");
}

#[test]
fn the_documentation_lists_every_key() {
    let docs = docs();
    for key in KEYS {
        assert!(docs.contains(key.name), "{}", key.path());
        assert!(key.default.is_empty() || super::settings::default_of(key).is_some(), "default of {}", key.path());
    }
    for entry in topic_config::list(&TopicConfig::default()) {
        assert!(KEYS.iter().any(|key| key.section == TOPIC_DEFAULTS && key.name == entry.name));
    }
}

#[test]
fn the_documentation_is_a_file_that_sets_the_defaults() {
    let documented = file(&docs());
    let mut config = Config::load(&sources(&documented)).unwrap();
    let folder = documented.path.parent().unwrap().display().to_string() + "/";
    config.object_store.url = config.object_store.url.replace(&folder, "");
    let text = format!("{config:?}").replace(&folder, "");
    assert_eq!(text, format!("{:?}", set(&[]).unwrap()));
}

#[test]
fn what_is_shown_can_be_read_back() {
    let first = file(
        "[node]\ndata_dir = \"/d\"\n[topic_defaults]\nretention.ms = -1\nsegment.bytes = 70000\n[topics.\"a.b\"]\n\
         segment.ms = 90000\n[[routes]]\nfilter = \"x/+/\\\"q\\\"\"\ntopic = \"y\"\n[alerts]\nrules = [\"/r/*.yaml\"]\n",
    );
    let shown = show(&Settings::read(&sources(&first)).unwrap()).unwrap();
    let second = file(&shown);
    let config = Config::load(&sources(&second)).unwrap();
    assert_eq!(format!("{:?}", Config::load(&sources(&first)).unwrap()), format!("{config:?}"), "{shown}");
}

#[test]
fn text_that_nests_without_end_is_refused() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{b=".repeat(100_000)),
        format!("[{}]\nb = 1", vec!["a"; 20_000].join(".")),
        format!("{} = 1", vec!["a"; 20_000].join(".")),
    ] {
        assert!(load(&text).is_err());
    }
}

const WHOLE: &str = "[node]\nid = 1\n[listeners]\nmqtt = \"127.0.0.1:0\"\n[topics.readings]\nnum.partitions = 8\n\
    segment.bytes = \"64MiB\"\n[[routes]]\nfilter = \"meters/+/readings\"\ntopic = \"readings\"\nkey = \"{1}\"\n\
    timestamp = \"/ts\"\n[alerts]\nrules = [\"rules/*.yaml\"]\n";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_text_is_a_config_or_a_mistake(text in "[a-z.\\[\\]{}=\"'#,\n 0-9:_-]{0,80}", flag in "\\PC{0,40}") {
        let _ = load(&text);
        let _ = set(&[&flag]);
    }

    #[test]
    fn a_config_with_a_piece_cut_out_or_put_in_never_panics(
        at in 0..WHOLE.len(), cut in 0usize..12, put in "[a-z.\\[\\]{}=\"\n 0-9+é-]{0,8}",
    ) {
        let end = (at + cut).min(WHOLE.len());
        let _ = load(&format!("{}{put}{}", &WHOLE[..at], &WHOLE[end..]));
    }
}
