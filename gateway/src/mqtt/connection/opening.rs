//! From the first byte to CONNACK: CONNECT is read, judged and answered, and the session found, taken over or made.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_log::AppendError;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::appends::Appends;
use super::driver::Driver;
use super::feed::Feed;
use super::input::Input;
use super::output::Output;
use super::streams::{SessionHandle, Streams};
use super::{Ended, LOG_LINES, Peer};
use crate::log_limit::LogLimit;
use crate::mqtt::broker::Admission;
use crate::mqtt::codec::Codec;
use crate::mqtt::limits::{CURSOR_INTERVAL, READ_BUFFER_MIN};
use crate::mqtt::packet::{ConnAckProperties, Connect, Incoming, Outgoing};
use crate::mqtt::registry::{Claim, Live, Parked};
use crate::mqtt::session::{self, Accepted, Kept, Session, Then, session_key};
use crate::mqtt::{Broker, reason};

/// How an opening ends.
pub(super) enum Opening {
    Accepted(Box<Driver>),
    Refused(Ended),
}

/// What a new connection found of its session.
struct Found {
    kept: Kept,
    present: bool,
    /// Something of the session is stored.
    is_stored: bool,
}

pub(super) async fn open<R, W>(
    broker: &Arc<Broker>,
    peer: &Peer,
    reader: &mut R,
    writer: &mut W,
    shutdown: &CancellationToken,
    accepted: Option<oneshot::Sender<SessionHandle>>,
) -> Opening
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut codec = Codec::new(broker.limits.max_packet_size);
    let mut buffer = BytesMut::with_capacity(READ_BUFFER_MIN);
    let limit = Duration::from_millis(broker.config.connect_timeout_ms);
    let connect = tokio::select! {
        () = shutdown.cancelled() => return Opening::Refused(Ended::Normal),
        connect = timeout(limit, read_connect(reader, &mut codec, &mut buffer)) => connect,
    };
    let connect = match connect {
        Ok(Ok(connect)) => connect,
        Ok(Err(Unread::Gone)) => return Opening::Refused(Ended::Normal),
        Ok(Err(Unread::Malformed(code, what))) => {
            // Only a client that speaks MQTT learns why; others are just closed (v5 section 4.13.1).
            if codec.version().is_some() {
                refuse(writer, &codec, code, Some(what.clone())).await;
            }
            log_refusal(broker, peer, code, &what);
            return Opening::Refused(Ended::Normal);
        }
        Err(_) => {
            debug!(address = peer.address, "no CONNECT in time");
            return Opening::Refused(Ended::Normal);
        }
    };
    let version = connect.version;
    let judged = session::judge(connect, &broker.limits, || uuid::Uuid::new_v4().simple().to_string());
    let wanted = match judged {
        Ok(accepted) => accepted,
        Err(refusal) => {
            refuse(writer, &codec, refusal.reason, Some(refusal.why.to_owned())).await;
            log_refusal(broker, peer, refusal.reason, refusal.why);
            return Opening::Refused(Ended::Normal);
        }
    };
    let Some(admission) = broker.admit() else {
        refuse(writer, &codec, reason::QUOTA_EXCEEDED, Some("too many connections".to_owned())).await;
        log_refusal(broker, peer, reason::QUOTA_EXCEEDED, "too many connections (max_connections)");
        return Opening::Refused(Ended::Overloaded);
    };
    let live = Live::new(wanted.client_id.clone(), peer.transport, peer.address.clone(), version);
    let mut found = match find(broker, &live, &wanted).await {
        Ok(found) => found,
        Err(Unfound::Full) => {
            refuse(writer, &codec, reason::QUOTA_EXCEEDED, Some("too many sessions".to_owned())).await;
            log_refusal(broker, peer, reason::QUOTA_EXCEEDED, "too many sessions (mqtt.max_sessions)");
            return Opening::Refused(Ended::Normal);
        }
        Err(Unfound::Refused(error)) => {
            let code = reason::of_append_error(&error);
            refuse(writer, &codec, code, Some(error.to_string())).await;
            log_refusal(broker, peer, code, "the session cannot be had");
            return Opening::Refused(Ended::Normal);
        }
        Err(Unfound::Stays(error, mut former)) => {
            let code = reason::of_append_error(&error);
            broker.make_room_for(&mut former.kept);
            broker.let_go(&live, Some(former)).await;
            refuse(writer, &codec, code, Some(error.to_string())).await;
            log_refusal(broker, peer, code, "the former session cannot be removed");
            return Opening::Refused(Ended::Normal);
        }
    };
    if wanted.expiry > 0 && !found.is_stored {
        // A kept session is promised by CONNACK, so it is stored first.
        let entry = fresh_entry(&wanted);
        let stored = broker.sessions.put(session_key(wanted.client_id.as_str()), Some(entry)).await;
        if let Err(error) = stored {
            let code = reason::of_append_error(&error);
            broker.let_go(&live, None).await;
            refuse(writer, &codec, code, Some(error.to_string())).await;
            log_refusal(broker, peer, code, "the session cannot be stored");
            return Opening::Refused(Ended::Normal);
        }
        found.is_stored = true;
    }
    Opening::Accepted(begin(broker, live, wanted, found, (codec, buffer), admission, accepted))
}

fn begin(
    broker: &Arc<Broker>,
    live: Arc<Live>,
    mut wanted: Accepted,
    found: Found,
    (codec, buffer): (Codec, BytesMut),
    admission: Admission,
    accepted: Option<oneshot::Sender<SessionHandle>>,
) -> Box<Driver> {
    let now = broker.clock.now();
    let version = wanted.version;
    let Found { kept, present, is_stored } = found;
    let max_outgoing_packet = wanted.max_outgoing_packet;
    let properties = std::mem::take(&mut wanted.properties);
    let session = Session::new(now, wanted, &broker.limits, kept);
    let streams = accepted.map(|accepted| {
        let (streams, handle) = Streams::new(version, broker.limits.max_packet_size);
        // Whoever asked may have gone.
        let _ = accepted.send(handle);
        Box::new(streams)
    });
    let mut driver = Box::new(Driver {
        broker: broker.clone(),
        live,
        session,
        is_stored,
        codec,
        input: Input::new(buffer),
        output: Output::new(max_outgoing_packet),
        appends: Appends::new(version),
        stores: FuturesUnordered::new(),
        storing_entry: false,
        answering: Vec::new(),
        feed: None,
        streams,
        effects: Vec::new(),
        again: Vec::new(),
        closing: None,
        ending: None,
        cursors_due: None,
        held: broker.held.share(),
        _admission: admission,
    });
    let connack = Outgoing::ConnAck { session_present: present, reason: reason::SUCCESS, properties };
    driver.output.put(&driver.codec, &connack);
    if present {
        resume(&mut driver);
    }
    driver
}

/// Sends again what was not acknowledged, and goes on with delivery where the session left it.
fn resume(driver: &mut Driver) {
    let now = driver.broker.clock.now();
    // While connected the stored session does not age; one that now ends with its connection ends with a crash, too.
    let entry = driver.session.entry(None);
    driver.store(vec![(session_key(driver.live.scope().as_str()), Some(entry))], Then::Nothing);
    let mut effects = Vec::new();
    driver.session.resend(driver.broker.clock.moment(now), &mut effects);
    driver.apply_all(now, effects);
    if driver.session.kept.subscriptions.is_empty() {
        return;
    }
    let feed = Feed::join(&driver.broker, &driver.session.client_id, Some(&driver.session.kept.cursors));
    for subscription in driver.session.kept.subscriptions.iter() {
        if driver.broker.hub.subscribe(&feed.receiving, subscription).is_err() {
            driver.closing = Some(reason::QUOTA_EXCEEDED);
        }
    }
    driver.live.subscriptions.store(driver.session.kept.subscriptions.len(), std::sync::atomic::Ordering::Relaxed);
    driver.feed = Some(Box::new(feed));
    driver.cursors_due = driver.session.is_persistent().then(|| Instant::now() + CURSOR_INTERVAL);
}

/// Why there is no CONNECT.
enum Unread {
    Gone,
    Malformed(u8, String),
}

async fn read_connect<R: AsyncRead + Unpin>(
    reader: &mut R,
    codec: &mut Codec,
    buffer: &mut BytesMut,
) -> Result<Connect, Unread> {
    loop {
        match codec.decode(buffer) {
            Ok(Some(Incoming::Connect(connect))) => return Ok(*connect),
            Ok(Some(_)) => {
                return Err(Unread::Malformed(reason::PROTOCOL_ERROR, "the first packet is not CONNECT".to_owned()));
            }
            Ok(None) => {}
            Err(error) => return Err(Unread::Malformed(error.reason_code(), error.text().to_owned())),
        }
        match reader.read_buf(buffer).await {
            Ok(n) if n > 0 => {}
            _ => return Err(Unread::Gone),
        }
    }
}

async fn refuse<W: AsyncWrite + Unpin>(writer: &mut W, codec: &Codec, code: u8, why: Option<String>) {
    let mut output = Output::new(None);
    let properties = ConnAckProperties { reason_string: why, ..ConnAckProperties::default() };
    output.put(codec, &Outgoing::ConnAck { session_present: false, reason: code, properties });
    output.finish(writer).await;
}

fn log_refusal(broker: &Broker, peer: &Peer, code: u8, why: &str) {
    static LIMIT: LogLimit = LogLimit::new(LOG_LINES);
    broker.metrics.mqtt.disconnected(code);
    if let Some(suppressed) = LIMIT.admit() {
        warn!(
            transport = peer.transport,
            address = peer.address,
            code = format!("0x{code:02x}"),
            suppressed,
            "connection refused: {why}"
        );
    }
}

/// Why a connection gets no session.
enum Unfound {
    /// The node has as many as it may have.
    Full,
    /// It could not be had; its place in the registry is given up.
    Refused(AppendError),
    /// The former one cannot be removed.
    Stays(AppendError, Box<Parked>),
}

/// Claims the client identifier and waits until its former owner has settled what it was appending. A clean start whose former
/// session cannot be removed fails and gives that session back: its exactly-once marks would outlive a restart and be
/// taken for those of later publishes.
async fn find(broker: &Arc<Broker>, live: &Arc<Live>, wanted: &Accepted) -> Result<Found, Unfound> {
    // A session that ends with its connection is bounded by `max_connections`.
    let maximum = if wanted.expiry > 0 { broker.config.max_sessions } else { usize::MAX };
    let mut claim = broker.registry.claim(live, maximum);
    if matches!(claim, Claim::Full) {
        broker.sweep_some(1).await;
        claim = broker.registry.claim(live, maximum);
    }
    let parked = match claim {
        Claim::Full => return Err(Unfound::Full),
        Claim::Nothing => None,
        Claim::Parked(parked) => Some(parked),
        // An owner that died has left nothing.
        Claim::InUse(session) => session.await.unwrap_or(None),
    };
    broker.metrics.mqtt.sessions.set(broker.registry.sessions() as i64);
    let client = wanted.client_id.as_str();
    let mut claims = broker.owners.must_claim(&broker.sessions, client);
    if !claims {
        // From here on a claim of another node meets it; one that came before is seen now.
        live.begin(wanted.client_id.clone(), None);
        claims = broker.owners.must_claim(&broker.sessions, client);
    }
    if claims {
        let taken = broker.take_over(live, wanted, parked).await.map_err(Unfound::Refused)?;
        return Ok(Found { kept: taken.kept, present: taken.present, is_stored: taken.is_stored });
    }
    match parked {
        // The former owner's session was not to be kept, this one is.
        None if broker.registry.sessions() > maximum => {
            broker.let_go(live, None).await;
            Err(Unfound::Full)
        }
        None => Ok(Found { kept: Kept::default(), present: false, is_stored: false }),
        Some(mut parked) => {
            broker.unpark(&parked.kept);
            if !wanted.clean_start && broker.clock.now() < parked.expires_at {
                broker.look_for_unsettled(&mut parked).await;
                // The client came back before its will was due [MQTT-3.1.3-9].
                return Ok(Found { kept: parked.kept, present: true, is_stored: true });
            }
            if let Err(error) = broker.remove_stored(&wanted.client_id, &parked.scope).await {
                return Err(Unfound::Stays(error, parked));
            }
            // The session has ended, so a will that was delayed is due [MQTT-3.1.2-8].
            if let Some((_, will)) = parked.will.take() {
                broker.publish_will(&wanted.client_id, *will).await;
            }
            Ok(Found { kept: Kept::default(), present: false, is_stored: false })
        }
    }
}

fn fresh_entry(wanted: &Accepted) -> Bytes {
    let entry = session::Entry {
        version: wanted.version,
        expiry: wanted.expiry,
        disconnected_at: None,
        subscriptions: session::Subscriptions::default(),
    };
    entry.encode()
}
