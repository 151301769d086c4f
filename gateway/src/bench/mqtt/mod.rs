//! Publishing over MQTT: connects like any client, then only frames and acks.

mod connection;
mod flow;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use anyhow::{Context, bail};

use super::fleet::{self, Account, Generator, Shared, Times};
use super::pace::{Limits, Pace};
use super::payload::Deck;
use super::progress::{Progress, Show};
use super::readback::Readback;
use super::report::{Facts, Report};
use super::{Load, Names, Payload, Verify};
use crate::client::mqtt::{Client, ConnectOptions, RawStream, Transport, Trust};
use crate::mqtt::packet::{Qos, Version};
use connection::{Connection, Head};
use flow::Flow;

/// The largest packet (section 1.5.5), less the room for topic and header.
const MAX_PAYLOAD: usize = 268_435_455 - (1 << 17);

const TRUST: &str = "cannot prepare TLS; --cafile must name a PEM file with certificates";

/// A benchmark over MQTT.
#[derive(Debug, Clone)]
pub(crate) struct MqttBench {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) road: RoadKind,
    pub(crate) version: Version,
    pub(crate) qos: Qos,
    /// With `{client}`.
    pub(crate) topic: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) load: Load,
    pub(crate) payload: Payload,
    pub(crate) verify: Option<Verify>,
    pub(crate) show: Show,
}

/// What the connections go over.
#[derive(Debug, Clone)]
pub(crate) enum RoadKind {
    Tcp,
    Tls(Trust),
    Quic(Trust),
}

impl MqttBench {
    /// Connects, publishes, reads back if that is asked for, and sums up.
    ///
    /// # Errors
    /// The broker cannot be reached, or what was sent cannot be read back.
    pub(crate) async fn run(self) -> anyhow::Result<Report> {
        let deck = Arc::new(self.payload.deck()?);
        if deck.largest() > MAX_PAYLOAD {
            bail!("a payload of {} bytes does not fit into an MQTT packet", deck.largest());
        }
        let readback = match &self.verify {
            Some(verify) => Some(Readback::begin(verify, &deck).await?),
            None => None,
        };
        let names = Names::new();
        let facts = Facts {
            protocol: match self.road {
                RoadKind::Tcp => "mqtt",
                RoadKind::Tls(_) => "mqtt over tls",
                RoadKind::Quic(_) => "mqtt over quic",
            },
            clients: self.load.clients,
            inflight: self.load.inflight,
            acks: match self.qos {
                Qos::AtMostOnce => "QoS 0",
                Qos::AtLeastOnce => "QoS 1",
                Qos::ExactlyOnce => "QoS 2",
            },
            rate: self.load.rate,
        };
        let (load, show, wants_acks) = (self.load.clone(), self.show, self.qos != Qos::AtMostOnce);
        let publisher = Publisher { bench: self, deck: deck.clone(), names: names.clone() };
        let done = fleet::run(publisher, &load, Progress::new(show)).await?;
        let verdict = match readback {
            Some(readback) => Some(readback.end(&deck, &names, &done.accounts, wants_acks).await?),
            None => None,
        };
        Ok(Report::new(facts, done.tally, verdict))
    }
}

struct Publisher {
    bench: MqttBench,
    deck: Arc<Deck>,
    names: Names,
}

impl Publisher {
    fn topic(&self, number: usize) -> String {
        let name = self.names.name(number);
        self.bench.topic.replace("{client}", &String::from_utf8_lossy(&name))
    }
}

impl Generator for Publisher {
    type Road = Transport;
    type Client = (RawStream, u16);

    fn road(&self) -> anyhow::Result<Transport> {
        let bench = &self.bench;
        let (address, server_name) = (format!("{}:{}", bench.host, bench.port), bench.host.clone());
        Ok(match &bench.road {
            RoadKind::Tcp => Transport::Tcp { address },
            RoadKind::Tls(trust) => {
                Transport::Tls { address, server_name, config: Arc::new(trust.tls().context(TRUST)?) }
            }
            RoadKind::Quic(trust) => {
                let mut addresses = address.to_socket_addrs().with_context(|| format!("cannot find {}", bench.host))?;
                Transport::Quic {
                    endpoint: trust.quic().context(TRUST)?,
                    // The clients' socket is an IPv4 one.
                    address: addresses
                        .find(SocketAddr::is_ipv4)
                        .with_context(|| format!("{} has no IPv4 address", bench.host))?,
                    server_name,
                    messages_per_stream: None,
                }
            }
        })
    }

    async fn connect(&self, road: &Transport, number: usize) -> anyhow::Result<(RawStream, u16)> {
        let bench = &self.bench;
        let options = ConnectOptions {
            version: bench.version,
            // The longest there is: pings would only be noise here, and the run is bounded by itself. Some brokers refuse none.
            keep_alive: u16::MAX,
            username: bench.username.clone(),
            password: bench.password.as_ref().map(|password| password.clone().into_bytes()),
            window: bench.load.inflight,
            ..ConnectOptions::new(String::from_utf8_lossy(&self.names.name(number)))
        };
        let client = Client::connect(road, &options).await;
        let client = client.with_context(|| {
            format!("no MQTT connection to {}:{}; is a broker running there?", bench.host, bench.port)
        })?;
        Ok(client.into_raw())
    }

    async fn drive(&self, (stream, window): (RawStream, u16), number: usize, times: Times, shared: Shared) -> Account {
        let (bench, load) = (&self.bench, &self.bench.load);
        let topic = self.topic(number);
        let mut length_and_topic = u16::try_from(topic.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        length_and_topic.extend_from_slice(topic.as_bytes());
        let head = Head {
            first: 0x30 | ((bench.qos as u8) << 1),
            topic: length_and_topic,
            has_id: bench.qos != Qos::AtMostOnce,
            has_properties: bench.version == Version::V5,
        };
        let limits = Limits { end: times.end, count: load.count_of(number) };
        let pace = Pace::new(load.rate, number, load.clients, limits);
        let flow = Flow::new(bench.qos, window);
        let client = (number, self.names.name(number));
        Connection::new(stream, head, self.deck.clone(), client, flow, pace, times).run(times, shared).await
    }
}
