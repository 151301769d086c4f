//! A link that is up, from the client's side: requests go in, answers come out in any order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::counters::{Connected, PeerCounters, add};
use super::dial::{BoxRead, Dialled};
use super::error::LinkError;
use super::frame::{ErrorBody, FrameType, Header, max_body};
use super::identity::{Local, Peer};
use super::limits::{Options, QUEUE_SLACK};
use super::reading::{FrameReader, Loss, Pulse};
use super::writing::{FrameWriter, Outgoing, Ticket};

/// A link as long as it is up. Requests that are submitted one after the other arrive in that order; with the next
/// link, which is another `Link`, a new order begins.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    number: u64,
    local: Arc<Local>,
    peer: Peer,
    queue: mpsc::Sender<Outgoing>,
    waiting: Mutex<Waiting>,
    in_flight: Arc<Semaphore>,
    next: AtomicU64,
    max_frame: usize,
    ended: CancellationToken,
    counters: Arc<PeerCounters>,
}

type Reply = Result<Bytes, ErrorBody>;

/// Requests without an answer, by correlation id.
#[derive(Default)]
struct Waiting {
    requests: HashMap<u64, oneshot::Sender<Reply>>,
    /// Why nothing more is taken.
    ended: Option<Arc<str>>,
}

/// A request under way. Dropping it gives the request up: it is not sent if it was not yet.
pub struct Pending {
    link: Link,
    kind: u16,
    correlation: u64,
    ticket: Arc<Ticket>,
    reply: oneshot::Receiver<Reply>,
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Link {
    /// The link over a connection, and what drives it until it is over or `stop` is cancelled.
    pub(super) fn start(
        local: Arc<Local>,
        dialled: Dialled,
        options: &Options,
        stop: CancellationToken,
    ) -> (Link, impl Future<Output = ()> + Send + use<>) {
        let (queue, queued) = mpsc::channel(options.in_flight.max(1) + QUEUE_SLACK);
        let counters = local.counters.peer(dialled.peer.identity.node);
        let pulse = Pulse::new();
        let reader = FrameReader::new(dialled.reader, options, pulse.clone(), counters.clone());
        let (io, write_timeout) = (dialled.writer, options.write_timeout);
        let writer = FrameWriter { io, write_timeout, pulse, counters: counters.clone() };
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let shared = Arc::new(Shared {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            local,
            peer: dialled.peer,
            queue,
            waiting: Mutex::default(),
            in_flight: Arc::new(Semaphore::new(options.in_flight.max(1))),
            next: AtomicU64::new(1),
            max_frame: options.max_frame(),
            ended: CancellationToken::new(),
            counters: counters.clone(),
        });
        let link = Link { shared };
        let (driven, ping) = (link.clone(), options.ping_interval);
        let driver = async move {
            let _connected = Connected::new(counters);
            let loss = tokio::select! {
                loss = driven.read(reader) => loss,
                written = writer.run(queued, Some(ping)) => written.err().unwrap_or(Loss::Stopped),
                () = stop.cancelled() => Loss::Stopped,
            };
            driven.end(&loss.to_string(), true);
        };
        (link, driver)
    }

    /// The node at the other end.
    pub fn peer(&self) -> &Peer {
        &self.shared.peer
    }

    /// A number that no other link of this process has had.
    pub fn number(&self) -> u64 {
        self.shared.number
    }

    /// The newest version of `kind` that both nodes speak.
    ///
    /// # Errors
    /// [`LinkError::Unsupported`] when there is none.
    pub fn common(&self, kind: u16) -> Result<u16, LinkError> {
        self.shared.peer.common(&self.shared.local, kind)
    }

    /// Whether the link takes nothing more. Answers that are under way may still come when the other node said goodbye.
    pub fn is_ended(&self) -> bool {
        self.shared.ended.is_cancelled()
    }

    /// Waits until the link has ended.
    pub async fn ended(&self) {
        self.shared.ended.cancelled().await;
    }

    /// Queues a request; waits while as many as may be are in flight. What is queued is sent in order.
    ///
    /// # Errors
    /// As [`super::Links::request`]; nothing was sent then.
    pub async fn submit(&self, kind: u16, version: u16, body: Body, timeout: Duration) -> Result<Pending, LinkError> {
        self.submit_by(kind, version, body, deadline(timeout)).await
    }

    pub(super) async fn submit_by(
        &self,
        kind: u16,
        version: u16,
        body: Body,
        deadline: Instant,
    ) -> Result<Pending, LinkError> {
        self.check(kind, version, &body)?;
        let shared = &self.shared;
        let permit = tokio::select! {
            permit = timeout_at(deadline, shared.in_flight.clone().acquire_owned()) => match permit {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Err(self.over()),
                Err(_) => return Err(LinkError::NotSent("too many requests are in flight".to_owned())),
            },
            () = self.ended() => return Err(self.over()),
        };
        let (answered, reply) = oneshot::channel();
        let correlation = shared.next.fetch_add(1, Ordering::Relaxed);
        let ticket = Arc::new(Ticket::default());
        if let Some(why) = self.waiting(|waiting| {
            waiting.requests.insert(correlation, answered);
            waiting.ended.clone()
        }) {
            self.waiting(|waiting| waiting.requests.remove(&correlation));
            return Err(LinkError::NotSent(why.to_string()));
        }
        // From here on dropping it takes the request out of the map again.
        let link = self.clone();
        let pending = Pending { link, kind, correlation, ticket: ticket.clone(), reply, deadline, _permit: permit };
        let header = Header { frame: FrameType::Request, kind, version, correlation };
        self.queue(Outgoing { ticket: Some(ticket), ..Outgoing::new(header, body) }, deadline).await?;
        add(&shared.counters.requests_out, 1);
        Ok(pending)
    }

    /// Queues a request that nobody answers. It may be lost with the link.
    ///
    /// # Errors
    /// As [`Link::submit`].
    pub async fn send(&self, kind: u16, version: u16, body: Body, timeout: Duration) -> Result<(), LinkError> {
        self.send_by(kind, version, body, deadline(timeout)).await
    }

    pub(super) async fn send_by(
        &self,
        kind: u16,
        version: u16,
        body: Body,
        deadline: Instant,
    ) -> Result<(), LinkError> {
        self.check(kind, version, &body)?;
        let header = Header { frame: FrameType::OneWay, kind, version, correlation: 0 };
        self.queue(Outgoing::new(header, body), deadline).await?;
        add(&self.shared.counters.requests_out, 1);
        Ok(())
    }

    fn check(&self, kind: u16, version: u16, body: &Body) -> Result<(), LinkError> {
        let theirs = self.shared.peer.kinds.get(kind);
        if !theirs.is_some_and(|versions| versions.contains(version)) {
            return Err(LinkError::unsupported(kind, self.shared.local.kinds.get(kind), theirs));
        }
        let (bytes, max) = (body.len(), max_body(self.shared.max_frame));
        if bytes > max { Err(LinkError::TooLarge { bytes, max }) } else { Ok(()) }
    }

    async fn queue(&self, outgoing: Outgoing, deadline: Instant) -> Result<(), LinkError> {
        if self.is_ended() {
            return Err(self.over());
        }
        match timeout_at(deadline, self.shared.queue.send(outgoing)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.over()),
            Err(_) => Err(LinkError::NotSent("the link is too slow for what is queued".to_owned())),
        }
    }

    fn waiting<T>(&self, f: impl FnOnce(&mut Waiting) -> T) -> T {
        f(&mut self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn over(&self) -> LinkError {
        LinkError::NotSent(self.why().to_string())
    }

    /// Why the link has ended.
    pub(super) fn why(&self) -> Arc<str> {
        self.waiting(|waiting| waiting.ended.clone()).unwrap_or_else(|| "the link has ended".into())
    }

    /// Takes nothing more; with `lost`, nothing comes any more either.
    pub(super) fn end(&self, why: &str, lost: bool) {
        let given_up = self.waiting(|waiting| {
            waiting.ended.get_or_insert_with(|| why.into());
            if lost { std::mem::take(&mut waiting.requests) } else { HashMap::new() }
        });
        self.shared.ended.cancel();
        drop(given_up);
    }

    async fn read(&self, mut reader: FrameReader<BoxRead>) -> Loss {
        let mut goodbye = None;
        loop {
            if let Some(why) = goodbye.take_if(|_| self.waiting(|waiting| waiting.requests.is_empty())) {
                return Loss::Goodbye(why);
            }
            let read = async {
                let (header, length) = reader.header().await?;
                Ok::<_, Loss>((header, reader.body(length).await?))
            };
            let taken = match read.await {
                Ok((header, body)) => self.take(header, body),
                Err(loss) => Err(loss),
            };
            match taken {
                Ok(()) => {}
                Err(Loss::Goodbye(why)) => {
                    self.end(&Loss::Goodbye(why.clone()).to_string(), false);
                    goodbye = Some(why);
                }
                Err(loss) => return loss,
            }
        }
    }

    fn take(&self, header: Header, body: Bytes) -> Result<(), Loss> {
        let reply = match header.frame {
            FrameType::Response => Ok(body),
            FrameType::Error => Err(ErrorBody::decode(body)?),
            FrameType::Pong => return Ok(()),
            FrameType::Goodbye => return Err(Loss::Goodbye(ErrorBody::decode(body)?.text)),
            FrameType::Request | FrameType::OneWay | FrameType::Ping => {
                return Err(Loss::Garbage(format!("a server sent a {:?}", header.frame)));
            }
        };
        // An answer without a request is to one that was given up.
        if let Some(request) = self.waiting(|waiting| waiting.requests.remove(&header.correlation)) {
            let _ = request.send(reply);
        }
        Ok(())
    }
}

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// As [`super::Links::request`].
    pub async fn answer(mut self) -> Result<Bytes, LinkError> {
        let answer = match timeout_at(self.deadline, &mut self.reply).await {
            Ok(Ok(reply)) => reply.map_err(|error| error.into_error(self.kind)),
            Ok(Err(_)) => Err(self.unanswered(&self.link.why())),
            Err(_) => Err(self.unanswered("no answer in time")),
        };
        if answer.is_err() {
            add(&self.link.shared.counters.errors_out, 1);
        }
        answer
    }

    fn unanswered(&self, why: &str) -> LinkError {
        match self.ticket.give_up() {
            true => LinkError::NotSent(why.to_owned()),
            false => LinkError::Unknown(why.to_owned()),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.ticket.give_up();
        self.link.waiting(|waiting| waiting.requests.remove(&self.correlation));
    }
}

/// When `timeout` from now is over; a time that no clock reaches counts as a year.
pub(super) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + Duration::from_secs(365 * 24 * 3600))
}
