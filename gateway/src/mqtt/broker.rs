//! All that the MQTT doors of a node share: sessions, subscriptions, retained messages, and the program's own publishes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use forebay_cluster::{Log, LogError};
use forebay_log::{AppendError, Epoch, Offset};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::delivery::{Hub, Published};
use super::held::Held;
use super::limits::{MAX_PARKED_BYTES, REFUSED_AT_A_TIME, SWEEP_AT_ONCE, SWEEP_BATCH, SWEEP_INTERVAL};
use super::orphans::Orphans;
use super::ownership::{Members, Owners};
use super::packet::{Message, MessageProperties, Qos, Text, Version, Will};
use super::record;
use super::registry::{Due, Live, Parked, Registry};
use super::retained::Retained;
use super::session::{Kept, Limits};
use crate::clock::{Clock, Moment};
use crate::config::{Config, MqttConfig};
use crate::ingest::{Gather, Router};
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::state::StateTopic;

/// Where sessions are stored.
pub(crate) const SESSIONS_TOPIC: &str = "_mqtt_sessions";
/// Where retained messages are stored.
pub(crate) const RETAINED_TOPIC: &str = "_mqtt_retained";

/// All that the MQTT doors of a node share: sessions, subscriptions, retained messages.
pub struct Broker {
    pub(super) log: Log,
    pub(super) reader: Reader,
    pub(super) owners: Owners,
    router: Arc<Router>,
    pub(super) config: MqttConfig,
    /// `durability.acks = all`
    acks_all: bool,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<Clock>,
    pub(super) hub: Arc<Hub>,
    pub(super) retained: Retained,
    pub(super) sessions: Arc<StateTopic>,
    pub(super) registry: Registry,
    pub(super) held: Held,
    /// Sockets that may be open, refused ones included.
    pub(super) sockets: Arc<Semaphore>,
    connected: Arc<AtomicUsize>,
    parked_bytes: AtomicUsize,
}

/// One session, for `/api/v1/clients` and the console.
#[derive(Debug, Clone, Serialize)]
pub struct ClientInfo {
    pub client_id: String,
    pub connected: bool,
    /// "tcp", "tls", "ws", "wss" or "quic"
    pub transport: &'static str,
    pub address: String,
    /// "3.1.1" or "5.0"
    pub version: &'static str,
    pub subscriptions: usize,
    pub inflight: usize,
}

/// The right to be connected; given back when dropped.
pub(super) struct Admission {
    connected: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.connected.fetch_sub(1, Ordering::AcqRel);
        self.metrics.mqtt.connections.dec();
    }
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::V4 => "3.1.1",
        Version::V5 => "5.0",
    }
}

impl Broker {
    /// Loads sessions and retained messages and starts the delivery to subscribers.
    ///
    /// # Errors
    /// When the stored state cannot be read, or a topic that routes name cannot be made.
    pub async fn start(
        log: Log,
        reader: Reader,
        router: Arc<Router>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Broker>> {
        let members = log.cluster().map(|cluster| Box::new(cluster.clone()) as Box<dyn Members>);
        Broker::start_among(members, log, reader, router, config, metrics, shutdown).await
    }

    pub(super) async fn start_among(
        members: Option<Box<dyn Members>>,
        log: Log,
        reader: Reader,
        router: Arc<Router>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Arc<Broker>> {
        for name in router.topics() {
            if log.topic(name).is_none() {
                let settings = config.topics.get(name).unwrap_or(&config.topic_defaults);
                match log.create_topic(name, settings.num_partitions, settings.config.clone()).await {
                    // Publishes to it are refused until there is room and the node has made it.
                    Ok(_) | Err(LogError::DiskFull | LogError::TopicExists(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let sessions = StateTopic::open(&log, SESSIONS_TOPIC).await?;
        let stored_retained = StateTopic::open(&log, RETAINED_TOPIC).await?;
        // Older than it was or in part, it serves better than no broker: clients set both again by what they do.
        sessions.go_on_damaged();
        stored_retained.go_on_damaged();
        let clock = Arc::new(Clock::start());
        let hub =
            Hub::start(log.clone(), reader.clone(), router.clone(), metrics.clone(), clock.clone(), shutdown.clone());
        let mqtt = config.mqtt.clone();
        let sockets = (mqtt.max_connections + REFUSED_AT_A_TIME).min(Semaphore::MAX_PERMITS);
        let broker = Arc::new(Broker {
            log,
            reader,
            owners: Owners::new(members),
            router,
            limits: Limits::of(&mqtt),
            retained: Retained::load(stored_retained, &mqtt, metrics.clone(), &clock),
            config: mqtt,
            acks_all: config.durability.all,
            metrics,
            clock,
            hub,
            sessions,
            registry: Registry::default(),
            held: Held::default(),
            sockets: Arc::new(Semaphore::new(sockets)),
            connected: Arc::default(),
            parked_bytes: AtomicUsize::new(0),
        });
        broker.follow_owners();
        broker.load_sessions().await;
        let sweeper = broker.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(sweeper.sweep()).await });
        Ok(broker)
    }

    /// Publishes delayed wills and ends expired sessions.
    async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut orphans = Orphans::default();
        loop {
            ticks.tick().await;
            self.clock.follow(SystemTime::now());
            self.sweep_some(SWEEP_BATCH).await;
            self.sweep_orphans(&mut orphans).await;
        }
    }

    /// Does at most `limit` of what is due.
    pub(super) async fn sweep_some(&self, limit: usize) {
        let due = self.registry.due(self.clock.now(), limit);
        // Together, so that a lost fleet's wills share commits.
        futures_util::stream::iter(due).for_each_concurrent(SWEEP_AT_ONCE, |due| self.take_due(due)).await;
    }

    async fn take_due(&self, due: Due) {
        match due {
            Due::Will(client_id, will) => self.publish_will(&client_id, *will).await,
            Due::Expired(live, parked) => {
                let Parked { kept, will, scope, .. } = *parked;
                if let Some((_, will)) = will {
                    self.publish_will(&live.client_id, *will).await;
                }
                self.unpark(&kept);
                self.forget_session(&live.client_id, &scope).await;
                self.let_go(&live, None).await;
            }
        }
    }

    /// Publishes for the program itself (alert receivers), as a client called `client_id` would at QoS 1; returns when durable.
    ///
    /// # Errors
    /// Why nothing was stored.
    pub async fn publish(&self, client_id: &str, topic: &str, payload: &[u8], retain: bool) -> Result<(), AppendError> {
        if !super::topic::valid_topic(topic) {
            return Err(AppendError::Invalid("the MQTT topic is not valid"));
        }
        let message = Message {
            topic: Text::from(topic),
            payload: Bytes::copy_from_slice(payload),
            qos: Qos::AtLeastOnce,
            retain,
            properties: MessageProperties::default(),
        };
        self.append(&Text::from(client_id), message).await
    }

    /// Appends one message outside of a connection's own gather.
    async fn append(&self, client_id: &Text, message: Message) -> Result<(), AppendError> {
        let now = self.clock.moment(self.clock.now());
        let mut gather = self.new_gather();
        record::push(&mut gather, now, client_id.as_str(), &message, None)?;
        let _keeping = message.retain.then(|| self.retained.keepings.begin());
        for ticket in gather.submit().await.tickets {
            ticket?.await?;
        }
        if let Some(retained) = self.to_retain(&message, client_id, now) {
            self.retained.keep(vec![retained], &self.clock).await?;
        }
        Ok(())
    }

    pub(super) async fn publish_will(&self, client_id: &Text, will: Will) {
        static LIMIT: LogLimit = LogLimit::new(10);
        if let Err(error) = self.append(client_id, will.message).await
            && let Some(suppressed) = LIMIT.admit()
        {
            tracing::warn!(client = client_id.as_str(), %error, suppressed, "will not stored");
        }
    }

    /// Sessions, connected ones and parked ones, in no order.
    pub fn clients(&self, limit: usize) -> Vec<ClientInfo> {
        let mut clients = Vec::new();
        self.registry.visit(limit, |client_id, session| {
            clients.push(match session {
                Ok(live) => ClientInfo {
                    client_id: client_id.as_str().to_owned(),
                    connected: true,
                    transport: live.transport,
                    address: live.address.clone(),
                    version: version_text(live.version),
                    subscriptions: live.subscriptions.load(Ordering::Relaxed),
                    inflight: live.inflight.load(Ordering::Relaxed),
                },
                Err(parked) => ClientInfo {
                    client_id: client_id.as_str().to_owned(),
                    connected: false,
                    transport: "",
                    address: String::new(),
                    version: version_text(parked.version),
                    subscriptions: parked.kept.subscriptions.len(),
                    inflight: parked.kept.inbound.inflight(),
                },
            });
        });
        clients
    }

    /// Open connections with a session.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Acquire)
    }

    /// Admits one more connection, up to `max_connections`.
    pub(super) fn admit(&self) -> Option<Admission> {
        let admission = Admission { connected: self.connected.clone(), metrics: self.metrics.clone() };
        let before = self.connected.fetch_add(1, Ordering::AcqRel);
        self.metrics.mqtt.connections.inc();
        (before < self.config.max_connections).then_some(admission)
    }

    pub(super) fn new_gather(&self) -> Gather {
        let gather = Gather::new(self.log.clone(), self.router.clone());
        if self.acks_all { gather } else { gather.content_with_leader() }
    }

    /// An offset of a partition at or behind which a record that is about to be appended will be, and the leadership that it is meant
    /// for at the latest. What is above the high watermark on a follower may have to go.
    pub(super) fn committed(&self, topic: &str, partition: u32) -> (Offset, Epoch) {
        let topic = self.log.topic(topic);
        let partition = topic.as_ref().and_then(|topic| topic.partitions.get(partition as usize));
        partition.map_or((Offset::ZERO, Epoch(0)), |known| (known.watermarks().high_watermark, known.leader_epoch()))
    }

    /// What is to be kept of a message as its topic's retained one. Beyond `max_retained_messages` or `max_retained_bytes` it is
    /// only delivered (v5 section 3.3.1.3), and none is kept rather than one that is out of date.
    pub(super) fn to_retain(&self, message: &Message, client_id: &Text, now: Moment) -> Option<Arc<Published>> {
        static LIMIT: LogLimit = LogLimit::new(1);
        if !message.retain {
            return None;
        }
        let mut published = Published::kept(message, client_id, now);
        if !self.retained.has_room_for(&published) {
            if let Some(suppressed) = LIMIT.admit() {
                tracing::warn!(
                    topic = message.topic.as_str(),
                    suppressed,
                    "message not retained: mqtt.max_retained_messages or mqtt.max_retained_bytes is reached"
                );
            }
            published.message.payload = Bytes::new();
        }
        Some(Arc::new(published))
    }

    /// Makes the marks of exactly-once publishes durable. On a full disk they are refused, as their publishes would be, and do not
    /// use up its reserve.
    /// `live` may have lost its session to another node meanwhile: what it marked is not to be appended then.
    pub(super) async fn put_marks(&self, live: &Live, marks: Vec<(Bytes, Option<Bytes>)>) -> Result<(), AppendError> {
        if self.log.disk_full() {
            return Err(AppendError::DiskFull);
        }
        self.sessions.put_all(marks).await?;
        // By the log itself: `live` hears of a claim only a moment after the claim is in it.
        let owner = self.claim_of(live.client_id.as_str()).map(|claim| claim.owner);
        if live.lost().is_some() || owner != live.owner() {
            return Err(AppendError::Offline("another node has the session by now".to_owned()));
        }
        Ok(())
    }

    /// A session is about to be parked: what its client has not acknowledged stays in memory while there is room for it, else it
    /// is read from the log again.
    pub(super) fn make_room_for(&self, kept: &mut Kept) {
        let bytes = kept.outbound.bytes();
        if self.parked_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > MAX_PARKED_BYTES {
            self.parked_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.hub.hold_back(&mut kept.cursors, kept.outbound.unacknowledged());
            kept.outbound.forget();
        }
    }

    /// A parked session has an owner again, or has ended.
    pub(super) fn unpark(&self, kept: &Kept) {
        self.parked_bytes.fetch_sub(kept.outbound.bytes(), Ordering::AcqRel);
    }
}
