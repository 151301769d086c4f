//! The MQTT door over a real socket, on a log whose disk the tests hold in their hands.

mod backpressure;
mod behind;
mod delivery;
mod limits;
mod owners;
mod publish;
mod sessions;
mod streams;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_cluster::{Files, Log, LogOptions};
use forebay_disk::sim::{Faults, HookedFiles, SimFiles, Step};
use forebay_log::record::{Batches, Record, RecordReader};
use forebay_log::{Millis, Offset, TopicConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Sources};
use crate::ingest::Router;
use crate::metrics::Metrics;
use crate::mqtt::codec::ClientCodec;
use crate::mqtt::ownership::Members;
use crate::mqtt::packet::{
    Ack, ConnAckProperties, Connect, Incoming, Message, MessageProperties, Outgoing, Publish, Qos, SubscribeFilter,
    Text, Version, Will,
};
use crate::mqtt::{Broker, serve};
use crate::reader::Reader;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test watches that nothing comes.
const SILENCE: Duration = Duration::from_millis(150);

/// Files whose syncs wait while the gate is shut: a stalled disk. Of one directory they can be made unreadable.
#[derive(Clone)]
struct Gated {
    inner: SimFiles,
    gate: Arc<(Mutex<Option<PathBuf>>, Condvar)>,
    unreadable: Arc<Mutex<Option<PathBuf>>>,
}

fn lies_in(path: &Path, directory: Option<&PathBuf>) -> bool {
    directory.is_some_and(|directory| path.starts_with(directory))
}

impl Gated {
    fn new() -> Gated {
        Gated { inner: SimFiles::new(7), gate: Arc::default(), unreadable: Arc::default() }
    }
    fn shut(&self) {
        self.shut_for("");
    }
    fn shut_for(&self, directory: &str) {
        *self.gate.0.lock().unwrap() = Some(PathBuf::from(directory));
    }
    fn open(&self) {
        *self.gate.0.lock().unwrap() = None;
        self.gate.1.notify_all();
    }
    /// The file system that the log gets.
    fn files(&self) -> Arc<dyn Files> {
        let gated = self.clone();
        let hooked = HookedFiles::new(Arc::new(self.inner.clone()), move |step, path| match step {
            Step::Read if lies_in(path, gated.unreadable.lock().unwrap().as_ref()) => {
                Err(io::Error::other("the disk cannot be read here"))
            }
            Step::Sync => {
                let shut = gated.gate.0.lock().unwrap();
                drop(gated.gate.1.wait_while(shut, |shut| lies_in(path, shut.as_ref())).unwrap());
                Ok(())
            }
            _ => Ok(()),
        });
        Arc::new(hooked)
    }
    fn make_unreadable(&self, directory: Option<&str>) {
        *self.unreadable.lock().unwrap() = directory.map(PathBuf::from);
    }
}

async fn open_log(files: &Gated, shards: usize) -> Log {
    let opened = files.files();
    let options = LogOptions { shards, fsync: true, alone: true };
    tokio::task::spawn_blocking(move || Log::open(opened, options)).await.unwrap().unwrap()
}

/// A broker with a TCP listener.
struct Door {
    files: Gated,
    log: Log,
    broker: Arc<Broker>,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Door {
    async fn start(settings: &[&str]) -> Door {
        Door::on(Gated::new(), settings).await
    }

    async fn on(files: Gated, settings: &[&str]) -> Door {
        let log = open_log(&files, 1).await;
        Door::of(None, files, log, settings).await
    }

    /// The door of one of several nodes.
    async fn of(members: Option<Box<dyn Members>>, files: Gated, log: Log, settings: &[&str]) -> Door {
        let set = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut config = Config::load(&Sources { set, ..Sources::default() }).unwrap();
        config.topic_defaults.num_partitions = 1;
        let config = Arc::new(config);
        let shutdown = CancellationToken::new();
        let router = Arc::new(Router::new(&config.routes).unwrap());
        let metrics = Arc::new(Metrics::new());
        let reader = Reader::new(None);
        let end = shutdown.clone();
        let starting = Broker::start_among(members, log.clone(), reader, router, config, metrics, end);
        let broker = starting.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(broker.clone(), listener, None, shutdown.clone()));
        Door { files, log, broker, address, shutdown, serving }
    }

    /// Drains and stops, and gives back the files.
    async fn stop(self) -> Gated {
        self.shutdown.cancel();
        self.serving.await.unwrap();
        let log = self.log.clone();
        drop(self.broker);
        tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
        drop(self.log);
        self.files
    }

    /// Stops as kill -9 with power loss does: what was not synced is gone.
    async fn crash(self) -> Gated {
        self.files.inner.set_faults(Faults { stop_after: Some(0), ..Faults::default() });
        self.shutdown.cancel();
        self.serving.abort();
        let log = self.log.clone();
        drop(self.broker);
        tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
        drop(self.log);
        self.files.inner.crash();
        self.files
    }

    async fn connect(&self, connect: Connect) -> Client {
        let (client, reason, _) = self.try_connect(connect).await;
        assert_eq!(reason, 0);
        client
    }

    async fn try_connect(&self, connect: Connect) -> (Client, u8, ConnAckProperties) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let codec = ClientCodec::new(connect.version, 1 << 20);
        let mut client = Client { stream, codec, buffer: BytesMut::new(), present: false };
        client.send(Incoming::Connect(Box::new(connect))).await;
        match client.receive().await {
            Outgoing::ConnAck { session_present, reason, properties } => {
                client.present = session_present;
                (client, reason, properties)
            }
            other => panic!("expected CONNACK, got {other:?}"),
        }
    }

    /// Every record of the topic for what no route names.
    fn records(&self) -> Vec<Record> {
        let partition = self.log.topic("mqtt").unwrap().partitions[0].clone();
        let mut records = Vec::new();
        let mut next = Offset(0);
        while next < partition.watermarks().high_watermark {
            for batch in Batches::new(partition.read(next, 1 << 20).unwrap().batches) {
                let (header, batch) = batch.unwrap();
                records.extend(RecordReader::new(&header, &batch).unwrap().map(Result::unwrap));
                next = header.next_offset();
            }
        }
        records
    }

    fn values(&self) -> Vec<String> {
        self.records().iter().map(|r| String::from_utf8_lossy(r.value.as_deref().unwrap()).into_owned()).collect()
    }

    /// Waits until the log holds what is expected.
    async fn values_become(&self, expected: &[&str]) {
        eventually(|| self.values() == expected).await;
    }
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "it did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client driven by hand.
struct Client<S = TcpStream> {
    stream: S,
    codec: ClientCodec,
    buffer: BytesMut,
    present: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn send(&mut self, packet: Incoming) {
        let mut out = BytesMut::new();
        self.codec.encode(&packet, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    /// The next packet, `None` at the end of the connection.
    async fn next(&mut self) -> Option<Outgoing> {
        loop {
            if let Some(packet) = self.codec.decode(&mut self.buffer).unwrap() {
                return Some(packet);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("nothing came");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn receive(&mut self) -> Outgoing {
        self.next().await.expect("the connection ended")
    }

    /// The next PUBLISH, acknowledged when it asks for that.
    async fn message(&mut self) -> Publish {
        match self.receive().await {
            Outgoing::Publish(publish) => {
                if publish.packet_id != 0 {
                    self.send(Incoming::PubAck(ack(publish.packet_id))).await;
                }
                publish
            }
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }

    /// Asserts that no packet comes for a while.
    async fn hears_nothing(&mut self) {
        if let Ok(packet) = timeout(SILENCE, self.next()).await {
            panic!("expected silence, got {packet:?}");
        }
    }

    async fn publish(&mut self, packet_id: u16, qos: Qos, payload: &str) {
        self.send(publish(packet_id, qos, "meters/m1", payload)).await;
    }

    async fn subscribe(&mut self, filter: &str, qos: Qos) -> u8 {
        self.subscribe_with(filter, qos, 0, false, None).await
    }

    async fn subscribe_with(
        &mut self,
        filter: &str,
        qos: Qos,
        retain_handling: u8,
        no_local: bool,
        identifier: Option<u32>,
    ) -> u8 {
        let filter =
            SubscribeFilter { filter: Text::from(filter), qos, no_local, retain_as_published: false, retain_handling };
        let packet = Incoming::Subscribe { packet_id: 900, filters: vec![filter], subscription_identifier: identifier };
        self.send(packet).await;
        match self.receive().await {
            Outgoing::SubAck { packet_id: 900, reasons } => reasons[0],
            other => panic!("expected SUBACK, got {other:?}"),
        }
    }

    async fn disconnect(mut self) {
        self.send(Incoming::Disconnect { reason: 0, session_expiry_interval: None }).await;
        assert_eq!(self.next().await, None);
    }
}

fn ack(packet_id: u16) -> Ack {
    Ack { packet_id, reason: 0 }
}

fn message(qos: Qos, topic: &str, payload: &str) -> Message {
    Message {
        topic: Text::from(topic),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        properties: MessageProperties::default(),
    }
}

fn publish(packet_id: u16, qos: Qos, topic: &str, payload: &str) -> Incoming {
    Incoming::Publish(Publish { dup: false, packet_id, topic_alias: None, message: message(qos, topic, payload) })
}

fn retained(packet_id: u16, topic: &str, payload: &str) -> Incoming {
    let message = Message { retain: true, ..message(Qos::AtLeastOnce, topic, payload) };
    Incoming::Publish(Publish { dup: false, packet_id, topic_alias: None, message })
}

fn v5(client_id: &str) -> Connect {
    Connect {
        version: Version::V5,
        client_id: Text::from(client_id),
        clean_start: true,
        keep_alive: 60,
        username: None,
        password: None,
        will: None,
        session_expiry_interval: 0,
        receive_maximum: u16::MAX,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        request_problem_information: true,
        authentication_method: None,
    }
}

/// A v5 client whose session is kept.
fn kept(client_id: &str) -> Connect {
    Connect { clean_start: false, session_expiry_interval: 3600, ..v5(client_id) }
}

fn v4(client_id: &str) -> Connect {
    Connect { version: Version::V4, ..v5(client_id) }
}

fn will(payload: &str, delay_interval: u32) -> Option<Will> {
    Some(Will { message: message(Qos::AtLeastOnce, "meters/m1/state", payload), delay_interval })
}
