//! Serves one link: begins its requests in order, answers them in any, reads no more than can be handled.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::body::Body;
use super::budget::{Budget, ConnectionBudget, Held};
use super::counters::{Connected, PeerCounters, add};
use super::dial::{BoxRead, BoxWrite};
use super::error::{LinkError, RefusalCode};
use super::frame::{ErrorBody, ErrorClass, FrameType, Header, max_body};
use super::identity::{Peer, still_fits};
use super::limits::QUEUE_SLACK;
use super::reading::{FrameReader, Loss, Pulse};
use super::server::Server;
use super::service::{Answer, Begun, Request};
use super::writing::{FrameWriter, Outgoing};

pub(super) struct Serving {
    server: Arc<Server>,
    peer: Arc<Peer>,
    budget: ConnectionBudget,
    counters: Arc<PeerCounters>,
    tracker: TaskTracker,
}

type Queue = mpsc::Sender<Outgoing>;

/// What the reading side of a connection works with.
struct Incoming {
    reader: FrameReader<BoxRead>,
    queue: Queue,
    /// When an unasked pong is due. One clock for all waits: a ping behind many short ones waits for their sum.
    life: Interval,
}

impl Serving {
    pub(super) fn new(server: Arc<Server>, budget: &Budget, peer: Peer, tracker: TaskTracker) -> Serving {
        let budget = budget.connection(peer.lane, &server.options);
        let counters = server.local.counters.peer(peer.identity.node);
        Serving { server, peer: Arc::new(peer), budget, counters, tracker }
    }

    pub(super) async fn run(self, reader: BoxRead, writer: BoxWrite, shutdown: CancellationToken) {
        let _connected = Connected::new(self.counters.clone());
        let options = &self.server.options;
        let (queue, queued) = mpsc::channel(options.in_flight.max(1) + QUEUE_SLACK);
        let pulse = Pulse::new();
        let reader = FrameReader::new(reader, options, pulse.clone(), self.counters.clone());
        let (io, write_timeout) = (writer, options.write_timeout);
        let writer = FrameWriter { io, write_timeout, pulse, counters: self.counters.clone() };
        let loss = tokio::select! {
            read = self.read(reader, queue, shutdown) => read.err().unwrap_or(Loss::Closed),
            written = writer.run(queued, None) => written.err().unwrap_or(Loss::Closed),
        };
        self.tell(&loss);
    }

    fn tell(&self, loss: &Loss) {
        let (node, lane, address) = (self.peer.identity.node, self.peer.lane, self.peer.address.ip());
        match loss {
            Loss::Garbage(_) | Loss::Goodbye(_) => {
                if let Some(suppressed) = self.server.local.reports.admit(&format!("{node} {address} {loss}")) {
                    warn!(node, ?lane, %address, suppressed, "closed a link: {loss}");
                }
            }
            _ => debug!(node, ?lane, %address, "link ended: {loss}"),
        }
    }

    async fn read(&self, reader: FrameReader<BoxRead>, queue: Queue, shutdown: CancellationToken) -> Result<(), Loss> {
        let mut life = interval(self.server.options.ping_interval.max(Duration::from_millis(1)));
        life.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut link = Incoming { reader, queue, life };
        let mut closing: Option<Instant> = None;
        loop {
            let (header, length) = tokio::select! {
                header = link.reader.header() => header?,
                () = shutdown.cancelled(), if closing.is_none() => {
                    closing = Some(Instant::now() + self.server.options.drain_timeout);
                    let code = RefusalCode::ShuttingDown.to_wire();
                    let goodbye = ErrorBody::new(ErrorClass::NotBegun, code, "the node shuts down");
                    send(&link.queue, Header::bare(FrameType::Goodbye, 0), goodbye.encode().into(), None).await;
                    continue;
                }
                () = sleep_until(closing.unwrap_or_else(Instant::now)), if closing.is_some() => return Ok(()),
            };
            match header.frame {
                FrameType::Request | FrameType::OneWay => {
                    self.request(&mut link, header, length, closing.is_some()).await?;
                }
                FrameType::Ping => {
                    link.reader.body(length).await?;
                    // When the queue is full there is enough to be written that shows life.
                    let _ = link.queue.try_send(Outgoing::pong());
                }
                FrameType::Goodbye => {
                    return Err(Loss::Goodbye(ErrorBody::decode(link.reader.body(length).await?)?.text));
                }
                FrameType::Response | FrameType::Error | FrameType::Pong => {
                    return Err(Loss::Garbage(format!("a client sent a {:?}", header.frame)));
                }
            }
        }
    }

    async fn request(&self, link: &mut Incoming, header: Header, length: usize, closing: bool) -> Result<(), Loss> {
        let held = self.alive(link, self.budget.hold(length)).await.map_err(|_| Loss::Stopped)?;
        let body = link.reader.body(length).await?;
        add(&self.counters.requests_in, 1);
        let reply = Reply {
            queue: link.queue.clone(),
            header,
            held: Some(held),
            counters: self.counters.clone(),
            max_body: max_body(self.server.options.max_frame()),
        };
        if closing {
            reply.error(ErrorBody::new(ErrorClass::NotBegun, 0, "the node shuts down")).await;
            return Ok(());
        }
        let Server { local, admission, .. } = self.server.as_ref();
        if let Err(refusal) = still_fits(local, admission.as_ref(), &self.peer.identity) {
            let refused = || ErrorBody::new(ErrorClass::NotBegun, refusal.code.to_wire(), refusal.text.clone());
            reply.error(refused()).await;
            // It dials again then, and is refused with a reason.
            send(&link.queue, Header::bare(FrameType::Goodbye, 0), refused().encode().into(), None).await;
            return Ok(());
        }
        let Header { kind, version, .. } = header;
        let ours = self.server.local.kinds.get(kind);
        if !ours.is_some_and(|versions| versions.contains(version)) {
            let error = LinkError::unsupported(kind, self.peer.kinds.get(kind), ours);
            let LinkError::Unsupported { text, .. } = error else { return Ok(()) };
            reply.error(ErrorBody::new(ErrorClass::Unsupported, 0, text)).await;
            return Ok(());
        }
        let request = Request { kind, version, body, one_way: header.frame == FrameType::OneWay };
        let answer = match self.server.service.begin(&self.peer, request) {
            Begun::Beside(answer) => answer,
            Begun::InOrder(begin) => self.alive(link, begin).await.0,
        };
        self.tracker.spawn(reply.answer(answer));
        Ok(())
    }

    /// Waits, and says by unasked pongs that the node lives, as nobody reads the pings meanwhile.
    async fn alive<T>(&self, link: &mut Incoming, waited: impl Future<Output = T>) -> T {
        let mut waited = std::pin::pin!(waited);
        loop {
            tokio::select! {
                biased;
                done = &mut waited => return done,
                _ = link.life.tick() => {
                    let _ = link.queue.try_send(Outgoing::pong());
                }
            }
        }
    }
}

async fn send(queue: &Queue, header: Header, body: Body, held: Option<Held>) {
    // A connection that is over needs no answers.
    let _ = queue.send(Outgoing { held, ..Outgoing::new(header, body) }).await;
}

/// The answer to one request, which is given whatever happens.
struct Reply {
    queue: Queue,
    header: Header,
    held: Option<Held>,
    counters: Arc<PeerCounters>,
    max_body: usize,
}

impl Reply {
    async fn answer(self, answer: Answer) {
        match answer.await {
            Ok(body) if body.len() <= self.max_body => self.send(FrameType::Response, body).await,
            Ok(body) => {
                let text = format!("the answer has {} bytes, over the {} that are allowed", body.len(), self.max_body);
                self.error(ErrorBody::new(ErrorClass::Failed, 0, text)).await;
            }
            Err(error) => self.error(ErrorBody::new(ErrorClass::Service, error.code, error.text)).await,
        }
    }

    async fn error(self, error: ErrorBody) {
        add(&self.counters.errors_in, 1);
        self.send(FrameType::Error, error.encode().into()).await;
    }

    async fn send(mut self, frame: FrameType, body: Body) {
        let Some(held) = self.held.take() else { return };
        if self.header.frame == FrameType::Request {
            send(&self.queue, Header { frame, ..self.header }, body, Some(held)).await;
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // Only a service that broke off has not answered by now.
        let Some(held) = self.held.take() else { return };
        add(&self.counters.errors_in, 1);
        if self.header.frame == FrameType::Request {
            let body: Bytes = ErrorBody::new(ErrorClass::Failed, 0, "the request's handling broke off").encode();
            let header = Header { frame: FrameType::Error, ..self.header };
            let _ = self.queue.try_send(Outgoing { held: Some(held), ..Outgoing::new(header, body) });
        }
    }
}
