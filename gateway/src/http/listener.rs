//! Accepts HTTP connections: at most so many at once, and none that stays silent for long.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::front::Front;
use super::limits::{FIRST_BYTE_TIMEOUT, IDLE_TIMEOUT};

/// A pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct LimitedListener {
    listener: TcpListener,
    free: Arc<Semaphore>,
    front: Arc<Front>,
}

impl LimitedListener {
    pub(super) fn new(listener: TcpListener, max_connections: usize, front: Arc<Front>) -> LimitedListener {
        LimitedListener { listener, free: Arc::new(Semaphore::new(max_connections)), front }
    }
}

impl Listener for LimitedListener {
    type Io = IdleStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (IdleStream, SocketAddr) {
        loop {
            let Ok(permit) = self.free.clone().acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Answers are written whole; waiting for more only delays them.
                    let _ = stream.set_nodelay(true);
                    return (IdleStream::new(stream, permit, self.front.clone()), peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting an HTTP connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when nothing comes for [`FIRST_BYTE_TIMEOUT`], or later nothing moves for [`IDLE_TIMEOUT`].
pub(super) struct IdleStream {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    front: Arc<Front>,
    _permit: OwnedSemaphorePermit,
}

impl IdleStream {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, front: Arc<Front>) -> IdleStream {
        if let Some(gateway) = front.gateway() {
            gateway.metrics.http.connections.inc();
        }
        IdleStream { stream, deadline: Box::pin(tokio::time::sleep(FIRST_BYTE_TIMEOUT)), front, _permit: permit }
    }

    /// A result that is ready moves the deadline; one that is not fails once the deadline has passed.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.deadline.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
            return poll;
        }
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
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
        self.watch(cx, poll)
    }
}

impl AsyncWrite for IdleStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, poll)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, poll)
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
