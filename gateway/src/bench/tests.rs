//! Whole runs: against a node, against brokers that lose messages or vanish.

use std::net::SocketAddr;
use std::time::Duration;

use forebay_log::record::Compression;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::mqtt::RoadKind;
use super::*;
use crate::client::mqtt::Trust;
use crate::client::mqtt::tests::server::TestServer;
use crate::config::{Config, Sources};
use crate::mqtt::packet::{Qos, Version};
use crate::node::{Node, open_data_dir};

struct Setup {
    node: Node,
    _folder: tempfile::TempDir,
}

impl Setup {
    async fn start(more: &[&str]) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let ports = ["mqtt", "quic", "kafka", "http"].map(|name| format!("listeners.{name}=127.0.0.1:0"));
        let set = ports.into_iter().chain(more.iter().map(|flag| (*flag).to_owned())).collect();
        let sources = Sources { set, data_dir: Some(folder.path().to_path_buf()), ..Sources::default() };
        let config = Config::load(&sources).unwrap();
        let files = open_data_dir(&config).unwrap();
        Setup { node: Node::start(config, files).await.unwrap(), _folder: folder }
    }

    fn mqtt(&self) -> MqttBench {
        bench(self.node.gateway.addresses.mqtt.unwrap(), self.verify())
    }

    fn verify(&self) -> Option<Verify> {
        Some(Verify { bootstrap: (&self.kafka()).into(), topic: "mqtt".to_owned() })
    }

    fn kafka(&self) -> String {
        self.node.gateway.addresses.kafka.unwrap().to_string()
    }
}

fn load(count: u64) -> Load {
    let (rate, duration, warmup) = (None, None, Duration::ZERO);
    Load { clients: 7, inflight: 5, rate, duration, count: Some(count), warmup, threads: 2 }
}

fn bench(address: SocketAddr, verify: Option<Verify>) -> MqttBench {
    MqttBench {
        host: "localhost".to_owned(),
        port: address.port(),
        road: RoadKind::Tcp,
        version: Version::V4,
        qos: Qos::AtLeastOnce,
        topic: "meters/{client}/readings".to_owned(),
        username: None,
        password: None,
        load: load(1000),
        payload: Payload::Reading { size: 200 },
        verify,
        show: Show::Auto,
    }
}

/// All of the run's messages are there, and nothing is wrong.
#[track_caller]
fn assert_good(report: &Report, messages: u64) {
    assert_eq!(report.failure(), None, "{}", report.text());
    let json = report.json();
    assert_eq!(json["sent"], messages, "{json}");
    assert_eq!(json["verify"]["records"], messages, "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_published_at_any_qos_is_acknowledged_and_read_back() {
    let setup = Setup::start(&[]).await;
    for (qos, version) in [
        (Qos::AtMostOnce, Version::V4),
        (Qos::AtLeastOnce, Version::V4),
        (Qos::AtLeastOnce, Version::V5),
        (Qos::ExactlyOnce, Version::V5),
    ] {
        let report = MqttBench { qos, version, ..setup.mqtt() }.run().await.unwrap();
        assert_good(&report, 1000);
        let acked = if qos == Qos::AtMostOnce { 0 } else { 1000 };
        assert_eq!(report.json()["acked"], acked, "{qos:?}");
    }
    setup.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_readings_over_quic_are_read_back_byte_for_byte() {
    let setup = Setup::start(&[]).await;
    let port = setup.node.gateway.addresses.quic.unwrap().port();
    let road = RoadKind::Quic(Trust::Anything);
    let report = MqttBench { port, road, payload: Payload::Readings(None), ..setup.mqtt() }.run().await.unwrap();
    assert_good(&report, 1000);
    setup.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_brokers_certificate_is_checked_unless_told_otherwise() {
    let certificate = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| certificate.path().join(name));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = [format!("tls.certfile={}", cert.display()), format!("tls.keyfile={}", key.display())];
    let setup = Setup::start(&[&files[0], &files[1], "listeners.mqtts=127.0.0.1:0"]).await;
    let port = setup.node.gateway.addresses.mqtts.unwrap().port();
    for trust in [Trust::CaFile(cert), Trust::Anything] {
        let road = RoadKind::Tls(trust);
        let report = MqttBench { port, road, load: load(300), ..setup.mqtt() }.run().await.unwrap();
        assert_good(&report, 300);
    }
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let stranger = certificate.path().join("stranger.pem");
    std::fs::write(&stranger, other.cert.pem()).unwrap();
    let road = RoadKind::Tls(Trust::CaFile(stranger));
    let error = MqttBench { port, road, ..setup.mqtt() }.run().await.unwrap_err();
    assert!(format!("{error:#}").contains("certificate"), "{error:#}");
    setup.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept_and_its_latencies_are_there() {
    let setup = Setup::start(&[]).await;
    let load = Load { rate: Some(500.0), ..load(500) };
    let report = MqttBench { load, ..setup.mqtt() }.run().await.unwrap();
    assert_good(&report, 500);
    let json = report.json();
    let seconds = json["duration_seconds"].as_f64().unwrap();
    // The last of 500 messages is due after 499/500 s; a busy machine may add to that.
    assert!((0.99..10.0).contains(&seconds), "{seconds}");
    assert!(
        json["ack_latency_seconds"]["p99"].as_f64().is_some() && json["sent_late_by_seconds"].is_object(),
        "{json}"
    );
    setup.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_produced_over_kafka_are_read_back_with_any_acks_and_codec() {
    let setup = Setup::start(&[]).await;
    for (acks, compression) in [
        (KafkaAcks::All, Compression::None),
        (KafkaAcks::Leader, Compression::Zstd),
        (KafkaAcks::None, Compression::Lz4),
    ] {
        let bench = KafkaBench {
            bootstrap: (&setup.kafka()).into(),
            topic: "bench".to_owned(),
            acks,
            batch_bytes: 4000,
            compression,
            load: load(1001),
            payload: Payload::Reading { size: 200 },
            verify: true,
            show: Show::Auto,
        };
        let not_read_back = KafkaBench { verify: false, ..bench.clone() };
        assert_good(&bench.run().await.unwrap(), 1001);
        let report = not_read_back.run().await.unwrap();
        assert_eq!((report.failure(), report.json()["sent"].as_u64()), (None, Some(1001)), "{acks:?}");
    }
    let fetch = FetchBench {
        bootstrap: (&setup.kafka()).into(),
        topic: "bench".to_owned(),
        load: load(20_000),
        show: Show::Auto,
    };
    let report = fetch.run().await.unwrap();
    assert_eq!(report.failure(), None);
    assert!(report.json()["acked"].as_u64().unwrap() >= 20_000, "the topic is read more than once: {}", report.text());
    setup.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_acknowledges_and_does_not_store_is_found_out() {
    let setup = Setup::start(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (reader, writer) = stream.into_split();
            tokio::spawn(async move { TestServer::default().control(reader, writer, |_| {}).await });
        }
    });
    let report = MqttBench { load: load(70), ..bench(address, setup.verify()) }.run().await.unwrap();
    let failure = report.failure().unwrap_or_default();
    assert!(
        failure.contains("70 missing") && failure.contains("message 0 was acknowledged and is not there"),
        "{failure}"
    );
    setup.node.drain().await;
}

/// Accepts CONNECT, acknowledges one publish, and is gone.
async fn vanishing_broker() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                let _ = stream.read(&mut bytes).await;
                let _ = stream.write_all(&[0x20, 2, 0, 0]).await;
                let _ = stream.read(&mut bytes).await;
                let _ = stream.write_all(&[0x40, 2, 0, 1]).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_vanishes_fails_the_run_with_a_reason() {
    let report = bench(vanishing_broker().await, None).run().await.unwrap();
    let failure = report.failure().unwrap_or_default();
    assert!(failure.contains("never acknowledged") && failure.contains("connection"), "{failure}");
    assert_eq!(report.json()["acked"], 7, "one of each client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keep_alive_is_promised_as_some_brokers_refuse_clients_without() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let run = tokio::spawn(bench(listener.local_addr().unwrap(), None).run());
    let mut connect = [0; 12];
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_exact(&mut connect).await.unwrap();
    assert!(connect.starts_with(b"\x10") && &connect[2..8] == b"\x00\x04MQTT", "{connect:?}");
    assert_ne!(connect[10..], [0, 0]);
    run.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_the_address_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = format!("{:#}", bench(address, None).run().await.unwrap_err());
    assert!(error.contains(&format!("localhost:{}", address.port())) && error.contains("client"), "{error}");
}

#[tokio::test]
async fn messages_that_cannot_be_told_apart_are_not_verified() {
    let verify = Some(Verify { bootstrap: "127.0.0.1:1".into(), topic: "mqtt".to_owned() });
    let payload = Payload::Template("always the same".to_owned());
    let error = MqttBench { payload, ..bench(([127, 0, 0, 1], 1).into(), verify) }.run().await.unwrap_err();
    assert!(error.to_string().contains("{seq}"), "{error}");
}
