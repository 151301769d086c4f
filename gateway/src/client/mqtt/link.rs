//! One stream of a client: buffers, framing and its flow. It is polled, never spawned.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::flow::{Flow, Unacked};
use super::transport::Halves;
use super::{ClientError, Event};
use crate::mqtt::codec::ClientCodec;
use crate::mqtt::packet::{Incoming, Message, Outgoing};

/// Free room that a read is given.
const READ_SIZE: usize = 4 << 10;

/// Nothing more is read while so many events wait for the caller.
const MAX_EVENTS: usize = 4096;

pub(super) struct Link {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    inbox: BytesMut,
    outbox: BytesMut,
    /// Bytes were written since the last flush.
    unflushed: bool,
    /// No publish will follow on this data stream.
    retired: bool,
    /// The writing half is to be, or has been, shut down.
    finish: Finish,
    /// Publishes sent on this stream.
    pub(super) published: u32,
    codec: ClientCodec,
    pub(super) flow: Flow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    Open,
    Wanted,
    Done,
}

impl Link {
    pub(super) fn new((reader, writer): Halves, codec: ClientCodec) -> Link {
        Link {
            reader,
            writer,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            unflushed: false,
            retired: false,
            finish: Finish::Open,
            published: 0,
            codec,
            flow: Flow::default(),
        }
    }

    pub(super) fn into_halves(self) -> Halves {
        (self.reader, self.writer)
    }

    pub(super) fn send(&mut self, packet: &Incoming) {
        self.codec.encode(packet, &mut self.outbox);
    }

    pub(super) fn publish(&mut self, message: Message, tag: u64) {
        self.published += 1;
        let publish = self.flow.publish(message, tag);
        self.send(&Incoming::Publish(publish));
    }

    pub(super) fn resume(&mut self, unacked: Vec<Unacked>) {
        for packet in self.flow.resume(unacked) {
            self.send(&packet);
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Whether everything has been handed to the transport.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && !self.unflushed && self.finish != Finish::Wanted
    }

    /// After what waits has been written, ends the writing half.
    pub(super) fn finish(&mut self) {
        if self.finish == Finish::Open {
            self.finish = Finish::Wanted;
        }
    }

    /// A data stream that gets no more publishes: it ends once all is acknowledged.
    pub(super) fn retire(&mut self) {
        self.retired = true;
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    /// A retired stream that has nothing more to do.
    pub(super) fn is_over(&self) -> bool {
        self.finish == Finish::Done && self.retired
    }

    /// Writes and reads what is possible without waiting. Whether anything was written, and read.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<(bool, bool), ClientError> {
        if self.retired && self.flow.unacked() == 0 {
            self.finish();
        }
        let wrote = self.poll_write(cx)?;
        let read = self.poll_read(cx, events)?;
        Ok((wrote, read))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, ClientError> {
        let mut moved = false;
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.writer).poll_write(cx, &self.outbox) {
                Poll::Ready(Ok(0)) => return Err(ClientError::Closed),
                Poll::Ready(Ok(written)) => {
                    self.outbox.advance(written);
                    self.unflushed = true;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return Ok(moved),
            }
        }
        if self.unflushed && Pin::new(&mut self.writer).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
            moved = true;
        }
        if self.finish == Finish::Wanted && !self.unflushed && Pin::new(&mut self.writer).poll_shutdown(cx)?.is_ready()
        {
            self.finish = Finish::Done;
            moved = true;
        }
        Ok(moved)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, events: &mut VecDeque<Event>) -> Result<bool, ClientError> {
        if self.is_over() || events.len() >= MAX_EVENTS {
            return Ok(false);
        }
        match self.poll_fill(cx)? {
            Poll::Pending => Ok(false),
            Poll::Ready(0) => Err(ClientError::Closed),
            Poll::Ready(_) => {
                self.take_in(events)?;
                Ok(true)
            }
        }
    }

    /// Handles the packets that have been read.
    pub(super) fn take_in(&mut self, events: &mut VecDeque<Event>) -> Result<(), ClientError> {
        while let Some(packet) = self.codec.decode(&mut self.inbox)? {
            let step = self.flow.handle(packet);
            if let Some(reply) = step.reply {
                self.send(&reply);
            }
            events.extend(step.event);
        }
        Ok(())
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Result<Poll<usize>, ClientError> {
        self.inbox.reserve(READ_SIZE);
        let read = pin!(self.reader.read_buf(&mut self.inbox)).poll(cx);
        Ok(match read {
            Poll::Ready(read) => Poll::Ready(read?),
            Poll::Pending => Poll::Pending,
        })
    }

    /// The first packet of the server.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outgoing, ClientError>> {
        self.poll_write(cx)?;
        loop {
            if let Some(packet) = self.codec.decode(&mut self.inbox)? {
                return Poll::Ready(Ok(packet));
            }
            if ready!(self.poll_fill(cx)?) == 0 {
                return Poll::Ready(Err(ClientError::Closed));
            }
        }
    }
}
