//! A small Kafka client for the command line; it works against any Kafka.

mod admin;
mod connection;
mod data;
mod groups;
mod membership;
mod properties;
mod security;
mod stream;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::{MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use connection::Connection;

pub use admin::{ConfigChange, ConfigEntry};
pub(crate) use connection::{answer, frame, read_frame};
pub use data::{Acks, At, Fetched};
pub(crate) use data::{FETCH, PRODUCE, fetch_request, produce_request};
pub use groups::{Group, GroupKind, GroupMember};
pub use membership::{Joined, Membership};
pub use security::ClientSecurity;
pub(crate) use stream::{Reader, Stream, Writer};

/// A client: connections to the brokers, and who leads which partition.
pub struct Client {
    bootstrap: String,
    security: ClientSecurity,
    /// Connections by broker id, opened when first needed; the bootstrap connection is kept apart.
    connections: HashMap<i32, Connection>,
    first: Connection,
    brokers: HashMap<i32, String>,
    controller: i32,
}

/// Where a cluster is found, and how.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// `HOST:PORT`, several separated by commas.
    pub addresses: String,
    pub security: ClientSecurity,
}

impl From<&str> for Bootstrap {
    fn from(addresses: &str) -> Bootstrap {
        Bootstrap { addresses: addresses.to_owned(), security: ClientSecurity::default() }
    }
}

impl From<&String> for Bootstrap {
    fn from(addresses: &String) -> Bootstrap {
        addresses.as_str().into()
    }
}

impl From<&Bootstrap> for Bootstrap {
    fn from(bootstrap: &Bootstrap) -> Bootstrap {
        bootstrap.clone()
    }
}

/// A topic as the cluster describes it.
#[derive(Debug, Clone)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    pub internal: bool,
    /// By index.
    pub partitions: Vec<Partition>,
}

#[derive(Debug, Clone)]
pub struct Partition {
    pub index: i32,
    /// Broker id; -1 while there is none.
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// The broker refused; the text is the protocol's own, or the broker's reason.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Refused {
    what: String,
    why: String,
    pub code: i16,
}

impl Refused {
    /// With the protocol's own words for `code`.
    #[must_use]
    pub fn new(what: impl Into<String>, code: i16) -> Refused {
        let why = ResponseError::try_from_code(code).map_or_else(|| format!("code {code}"), |error| error.to_string());
        Refused { what: what.into(), why, code }
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        ResponseError::try_from_code(self.code).is_some_and(|error| error.is_retriable())
    }

    /// Whether what was to be appended may be stored all the same, or become so: to send it again could store it twice.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        let open = [ResponseError::RequestTimedOut, ResponseError::NotEnoughReplicasAfterAppend];
        open.iter().any(|error| error.code() == self.code)
    }
}

/// Turns an error code into an error that says what was asked.
fn check(code: i16, message: Option<&StrBytes>, what: impl Into<String>) -> Result<(), Refused> {
    if ResponseError::try_from_code(code).is_none() {
        return Ok(());
    }
    let refused = Refused::new(what, code);
    Err(match message {
        Some(message) if !message.is_empty() => Refused { why: message.to_string(), ..refused },
        _ => refused,
    })
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Highest Metadata version that still names topics.
const METADATA: i16 = 12;
const METADATA_ATTEMPTS: u32 = 20;
const METADATA_BACKOFF: Duration = Duration::from_millis(100);

impl Client {
    /// Connects to the first of `bootstrap` that answers.
    ///
    /// # Errors
    /// Why the last of them did not.
    pub async fn connect(bootstrap: impl Into<Bootstrap>) -> anyhow::Result<Client> {
        let Bootstrap { addresses, security } = bootstrap.into();
        let mut failed = None;
        for address in addresses.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            match Connection::open(address, &security).await {
                Ok(first) => {
                    return Ok(Client {
                        bootstrap: address.to_owned(),
                        security,
                        connections: HashMap::new(),
                        first,
                        brokers: HashMap::new(),
                        controller: -1,
                    });
                }
                Err(error) => failed = Some(error),
            }
        }
        let failed = failed.unwrap_or_else(|| anyhow::anyhow!("no address given"));
        Err(failed.context("no broker could be reached; is `forebay serve` running? --bootstrap names another address"))
    }

    /// All topics, by name.
    pub async fn topics(&mut self) -> anyhow::Result<Vec<Topic>> {
        let answer = self.metadata(None, false).await?;
        let mut topics: Vec<Topic> = answer.topics.into_iter().map(|topic| read_topic(&topic)).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic; made with the cluster's defaults if it is missing and `create` is set.
    pub async fn topic(&mut self, name: &str, create: bool) -> anyhow::Result<Topic> {
        let mut attempts = 0;
        loop {
            let answer = self.metadata(Some(name), create).await?;
            let topic = answer.topics.first().with_context(|| format!("{} did not tell of {name}", self.bootstrap))?;
            let missing = topic.error_code == ResponseError::UnknownTopicOrPartition.code();
            let soon = topic.error_code == ResponseError::LeaderNotAvailable.code() || (create && missing);
            attempts += 1;
            // A topic that was just made may need a moment until it has leaders.
            if soon && attempts < METADATA_ATTEMPTS {
                tokio::time::sleep(METADATA_BACKOFF).await;
                continue;
            }
            if missing {
                bail!("topic {name} does not exist\n`forebay topic list` shows those that do");
            }
            check(topic.error_code, None, format!("topic {name}"))?;
            return Ok(read_topic(topic));
        }
    }

    async fn metadata(&mut self, topic: Option<&str>, create: bool) -> anyhow::Result<MetadataResponse> {
        let topics = topic.map(|name| vec![MetadataRequestTopic::default().with_name(Some(topic_name(name)))]);
        let call = self.first.call(METADATA, Duration::ZERO, |version| {
            let request = MetadataRequest::default().with_topics(topics.or((version == 0).then(Vec::new)));
            if version >= 4 { request.with_allow_auto_topic_creation(create) } else { request }
        });
        let answer = call.await?;
        for broker in &answer.brokers {
            self.brokers.insert(broker.node_id.0, format!("{}:{}", broker.host.as_str(), broker.port));
        }
        self.controller = answer.controller_id.0;
        Ok(answer)
    }

    /// The connection to a broker.
    async fn broker(&mut self, id: i32) -> anyhow::Result<&mut Connection> {
        if !self.connections.contains_key(&id) {
            let address = self.brokers.get(&id).with_context(|| format!("the cluster has no broker {id} now"))?;
            let connection = Connection::open(address, &self.security).await?;
            self.connections.insert(id, connection);
        }
        self.connections.get_mut(&id).with_context(|| format!("the cluster has no broker {id} now"))
    }

    /// A connection of its own to a broker, bare, and the version of `R` to speak on it, at most `highest`.
    pub(crate) async fn raw<R: Request>(&mut self, leader: i32, highest: i16) -> anyhow::Result<(Stream, i16)> {
        self.broker(leader).await?;
        let connection = self.connections.remove(&leader).context("the connection was opened just now")?;
        connection.into_raw::<R>(highest)
    }

    /// The connection to the controller, which makes and removes topics.
    async fn controller(&mut self) -> anyhow::Result<&mut Connection> {
        if self.controller < 0 {
            self.metadata(Some(""), false).await?;
        }
        if self.controller < 0 { Ok(&mut self.first) } else { self.broker(self.controller).await }
    }
}

fn read_topic(topic: &kafka_protocol::messages::metadata_response::MetadataResponseTopic) -> Topic {
    let ids = |nodes: &[kafka_protocol::messages::BrokerId]| nodes.iter().map(|node| node.0).collect();
    let mut partitions: Vec<Partition> = topic
        .partitions
        .iter()
        .map(|partition| Partition {
            index: partition.partition_index,
            leader: partition.leader_id.0,
            replicas: ids(&partition.replica_nodes),
            in_sync: ids(&partition.isr_nodes),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
    Topic { name, id: topic.topic_id, internal: topic.is_internal, partitions }
}
