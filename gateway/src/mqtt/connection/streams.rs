//! Data streams: further streams of a QUIC connection that bring publishes and subscriptions into the same session.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::driver::{Driver, End};
use super::input::Arrived;
use crate::mqtt::codec::Codec;
use crate::mqtt::limits::{
    CLOSE_TIMEOUT, MAX_STREAMS, READ_BUFFER_MAX, STREAM_OUTPUT_QUEUE, STREAM_QUEUE, WRITE_TIMEOUT,
};
use crate::mqtt::packet::{Incoming, Outgoing, Version};
use crate::mqtt::reason;

/// What a data stream tells its session.
pub(super) enum StreamInput {
    Opened {
        stream: u64,
        output: mpsc::Sender<Bytes>,
    },
    /// Packets of one read, each with its size in bytes.
    Packets {
        stream: u64,
        packets: Vec<(Incoming, usize)>,
    },
    Malformed {
        reason: u8,
        what: String,
    },
    /// Nothing more comes; acks that are due still go out.
    Closed {
        stream: u64,
    },
}

/// An accepted session to which further streams of the same connection may attach. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {
    inbox: mpsc::Sender<StreamInput>,
    version: Version,
    max_packet_size: usize,
    ended: CancellationToken,
}

impl SessionHandle {
    /// Completes when the session's connection has ended.
    pub async fn closed(&self) {
        self.ended.cancelled().await;
    }
}

struct Open {
    output: mpsc::Sender<Bytes>,
    buffer: BytesMut,
    closing: bool,
}

/// The session's side of all its data streams.
pub(super) struct Streams {
    inbox: mpsc::Receiver<StreamInput>,
    open: HashMap<u64, Open>,
    ended: CancellationToken,
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Streams {
    pub(super) fn new(version: Version, max_packet_size: usize) -> (Streams, SessionHandle) {
        let (sender, inbox) = mpsc::channel(STREAM_QUEUE);
        let ended = CancellationToken::new();
        let handle = SessionHandle { inbox: sender, version, max_packet_size, ended: ended.clone() };
        (Streams { inbox, open: HashMap::new(), ended }, handle)
    }

    pub(super) async fn next(&mut self) -> StreamInput {
        match self.inbox.recv().await {
            Some(input) => input,
            None => std::future::pending().await,
        }
    }

    /// `false`: there are too many.
    pub(super) fn open(&mut self, stream: u64, output: mpsc::Sender<Bytes>) -> bool {
        if self.open.len() >= MAX_STREAMS {
            return false;
        }
        self.open.insert(stream, Open { output, buffer: BytesMut::new(), closing: false });
        true
    }

    /// The stream's peer has finished; it goes once its acks are out.
    pub(super) fn close(&mut self, stream: u64) {
        if let Some(open) = self.open.get_mut(&stream) {
            open.closing = true;
        }
    }

    pub(super) fn put(&mut self, stream: u64, codec: &Codec, packet: &Outgoing) {
        if let Some(open) = self.open.get_mut(&stream) {
            codec.encode(packet, &mut open.buffer);
        }
    }

    /// Hands over what was put; `false`: a stream's peer takes nothing. Closing streams go unless `has_more` for them.
    pub(super) fn flush(&mut self, has_more: impl Fn(u64) -> bool) -> bool {
        let mut taken = true;
        self.open.retain(|stream, open| {
            if !open.buffer.is_empty() {
                let sent = open.output.try_send(open.buffer.split().freeze());
                taken &= !matches!(sent, Err(mpsc::error::TrySendError::Full(_)));
            }
            !open.closing || has_more(*stream)
        });
        taken
    }
}

/// Runs a data stream of an accepted session: packet types 3 to 11, acks on the same stream. Returns at the stream's end.
pub async fn run_data_stream<R, W>(handle: SessionHandle, stream_id: u64, mut reader: R, mut writer: W)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (output, mut acks) = mpsc::channel(STREAM_OUTPUT_QUEUE);
    if handle.inbox.send(StreamInput::Opened { stream: stream_id, output }).await.is_err() {
        return;
    }
    let mut codec = Codec::for_data_stream(handle.version, handle.max_packet_size);
    let mut buffer = BytesMut::new();
    let mut ready: Option<StreamInput> = None;
    let mut open = true;
    loop {
        let reading = open && ready.is_none();
        if reading && buffer.capacity() - buffer.len() < READ_BUFFER_MAX / 4 {
            buffer.reserve(READ_BUFFER_MAX / 2);
        }
        tokio::select! {
            biased;
            () = handle.ended.cancelled() => break,
            acks = acks.recv() => {
                // The session has sent all that was due.
                let Some(bytes) = acks else { return finish(&mut writer).await };
                let written = timeout(WRITE_TIMEOUT, async {
                    writer.write_all(&bytes).await?;
                    writer.flush().await
                });
                if !matches!(written.await, Ok(Ok(()))) {
                    break;
                }
            }
            permit = handle.inbox.reserve(), if ready.is_some() => match (permit, ready.take()) {
                (Ok(permit), Some(input)) => {
                    let last = matches!(input, StreamInput::Malformed { .. });
                    permit.send(input);
                    open &= !last;
                }
                _ => break,
            },
            read = reader.read_buf(&mut buffer), if reading => match read {
                Ok(n) if n > 0 => ready = decode(&mut codec, &mut buffer, stream_id),
                // The client has finished sending; acks still go out.
                _ => {
                    open = false;
                    ready = Some(StreamInput::Closed { stream: stream_id });
                }
            },
        }
    }
    if open {
        let _ = handle.inbox.send(StreamInput::Closed { stream: stream_id }).await;
    }
    finish(&mut writer).await;
}

async fn finish<W: AsyncWrite + Unpin>(writer: &mut W) {
    let _ = timeout(CLOSE_TIMEOUT, writer.shutdown()).await;
}

fn decode(codec: &mut Codec, buffer: &mut BytesMut, stream: u64) -> Option<StreamInput> {
    let mut packets = Vec::new();
    loop {
        let before = buffer.len();
        match codec.decode(buffer) {
            Ok(Some(packet)) => packets.push((packet, before - buffer.len())),
            Ok(None) => break,
            Err(error) => {
                return Some(StreamInput::Malformed { reason: error.reason_code(), what: error.text().to_owned() });
            }
        }
    }
    (!packets.is_empty()).then_some(StreamInput::Packets { stream, packets })
}

impl Driver {
    pub(super) fn stream_input(&mut self, input: StreamInput) {
        self.session.heard(self.broker.clock.now());
        match input {
            StreamInput::Opened { stream, output } => {
                if let Some(streams) = &mut self.streams
                    && !streams.open(stream, output)
                {
                    self.closing = Some(reason::QUOTA_EXCEEDED);
                }
            }
            StreamInput::Packets { stream, packets } => {
                for (packet, bytes) in packets {
                    self.input.push(stream, Arrived::Packet(packet), bytes);
                }
            }
            StreamInput::Malformed { reason, what } => self.end(End::Malformed { reason, what }),
            // Behind the stream's packets, some of which may still wait.
            StreamInput::Closed { stream } => self.input.push(stream, Arrived::End, 0),
        }
    }

    pub(super) fn stream_ended(&mut self, stream: u64) {
        if let Some(streams) = &mut self.streams {
            streams.close(stream);
        }
        self.session.kept.inbound.stream_closed(stream);
    }
}
