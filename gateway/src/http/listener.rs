//! Accepts HTTP connections: at most so many at once, and none that stays silent, or in the middle of a request's head, for long.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::front::Front;
use super::limits::Timeouts;
use crate::log_limit::FaultLog;

/// A pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct LimitedListener {
    listener: TcpListener,
    free: Arc<Semaphore>,
    front: Arc<Front>,
    timeouts: Timeouts,
}

impl LimitedListener {
    pub(super) fn new(
        listener: TcpListener,
        max_connections: usize,
        front: Arc<Front>,
        timeouts: Timeouts,
    ) -> LimitedListener {
        LimitedListener { listener, free: Arc::new(Semaphore::new(max_connections)), front, timeouts }
    }
}

impl Listener for LimitedListener {
    type Io = IdleStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (IdleStream, SocketAddr) {
        static FAULTS: FaultLog = FaultLog::new();
        loop {
            let Ok(permit) = self.free.clone().acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Answers are written whole; waiting for more only delays them.
                    let _ = stream.set_nodelay(true);
                    return (IdleStream::new(stream, permit, self.front.clone(), self.timeouts), peer);
                }
                Err(error) => {
                    if let Some(gateway) = self.front.gateway() {
                        gateway.metrics.accept_failed("http");
                    }
                    if let Some(suppressed) = FAULTS.admit(&error) {
                        tracing::warn!(%error, suppressed, "accepting an HTTP connection failed");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// How many requests of a connection are being worked on.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// One more, until the guard is dropped.
    pub(super) fn begin(&self) -> RequestGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        RequestGuard(self.clone())
    }

    fn none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// A request that is being worked on.
pub(super) struct RequestGuard(InFlight);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, LimitedListener>> for InFlight {
    fn connect_info(stream: IncomingStream<'_, LimitedListener>) -> InFlight {
        stream.io().requests.clone()
    }
}

/// A connection that fails when a request's head does not come in time, or between requests nothing moves for too long.
pub(super) struct IdleStream {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    front: Arc<Front>,
    timeouts: Timeouts,
    requests: InFlight,
    /// By when the head must have come that is being read.
    head_by: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

impl IdleStream {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, front: Arc<Front>, timeouts: Timeouts) -> IdleStream {
        if let Some(gateway) = front.gateway() {
            gateway.metrics.http.connections.inc();
        }
        let head_by = Instant::now() + timeouts.head;
        let deadline = Box::pin(tokio::time::sleep_until(head_by));
        let (requests, head_by) = (InFlight::default(), Some(head_by));
        IdleStream { stream, deadline, front, timeouts, requests, head_by, _permit: permit }
    }

    /// A result that is ready moves the deadline; one that is not fails once the deadline has passed. A client that waits
    /// for its answer is not idle.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            if !self.requests.none() {
                self.head_by = None;
            }
            let idle_by = Instant::now() + self.timeouts.idle;
            self.deadline.as_mut().reset(self.head_by.map_or(idle_by, |head_by| head_by.min(idle_by)));
            return poll;
        }
        while self.deadline.as_mut().poll(cx).is_ready() {
            if self.requests.none() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.deadline.as_mut().reset(Instant::now() + self.timeouts.idle);
        }
        Poll::Pending
    }

    /// What is written is an answer: the head that it answers has come.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.head_by = None;
        }
        self.watch(cx, poll)
    }
}

impl Drop for IdleStream {
    fn drop(&mut self) {
        if let Some(gateway) = self.front.gateway() {
            gateway.metrics.http.connections.dec();
        }
    }
}

impl AsyncRead for IdleStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        let poll = self.watch(cx, poll);
        if poll.is_ready() && self.requests.none() && self.head_by.is_none() {
            let head_by = Instant::now() + self.timeouts.head;
            self.head_by = Some(head_by);
            self.deadline.as_mut().reset(head_by);
        }
        poll
    }
}

impl AsyncWrite for IdleStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch_write(cx, poll)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch_write(cx, poll)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
