//! One client's connection while it runs: acks in, the next messages out, as many as fit in one write. It is polled, and the only timer
//! is one for the whole connection.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::flow::Flow;
use crate::bench::fleet::{Account, Counts, Shared, Times};
use crate::bench::pace::{Pace, Turn};
use crate::bench::payload::{Deck, NAME_BYTES};
use crate::bench::tally::Reason;
use crate::client::mqtt::RawStream;

/// Bytes gathered for one write.
const WRITE_BYTES: usize = 32 << 10;
/// Rounds of reading and writing before other clients get their turn.
const ROUNDS: u32 = 16;
/// DISCONNECT without a reason, in both versions.
const DISCONNECT: [u8; 2] = [0xe0, 0];

/// What every message of a client begins with.
pub(super) struct Head {
    /// PUBLISH with the QoS.
    pub(super) first: u8,
    /// The topic with its length.
    pub(super) topic: Vec<u8>,
    pub(super) has_id: bool,
    /// An empty list of properties follows (v5).
    pub(super) has_properties: bool,
}

pub(super) struct Connection {
    stream: RawStream,
    head: Head,
    deck: Arc<Deck>,
    name: [u8; NAME_BYTES],
    number: usize,
    flow: Flow,
    pace: Pace,
    seq: u64,
    out: Vec<u8>,
    written: usize,
    unflushed: bool,
    phase: Phase,
    /// Since when an answer is waited for.
    waiting_since: u64,
    timer: Pin<Box<Sleep>>,
    timer_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Sending,
    /// The schedule is over; acks may be missing.
    Draining,
    /// DISCONNECT is out.
    Leaving,
    /// At QoS 0 the broker's close is the only sign that it has read everything.
    AwaitingClose,
}

impl Connection {
    pub(super) fn new(
        stream: RawStream,
        head: Head,
        deck: Arc<Deck>,
        (number, name): (usize, [u8; NAME_BYTES]),
        flow: Flow,
        pace: Pace,
        times: Times,
    ) -> Connection {
        Connection {
            stream,
            head,
            deck,
            name,
            number,
            flow,
            pace,
            seq: 0,
            out: Vec::new(),
            written: 0,
            unflushed: false,
            phase: Phase::Sending,
            waiting_since: 0,
            timer: Box::pin(tokio::time::sleep_until(times.at(0))),
            timer_at: 0,
        }
    }

    /// Runs until the schedule is over and everything is acknowledged, or nothing more can come.
    pub(super) async fn run(mut self, times: Times, shared: Shared) -> Account {
        let ended = poll_fn(|cx| self.poll(cx, times, &shared)).await;
        let (unacked, missing) = self.flow.into_unacked();
        let tally = &mut shared.lock().tally;
        tally.missing += missing;
        if let Err(reason) = ended {
            tally.error(Reason::Other(reason), 1);
        }
        Account { sent: self.seq, unacked }
    }

    fn poll(&mut self, cx: &mut Context<'_>, times: Times, shared: &Shared) -> Poll<Result<(), String>> {
        for _ in 0..ROUNDS {
            let mut counts = shared.lock();
            let read = match self.read(cx, times, &mut counts)? {
                Poll::Ready(0) if self.phase >= Phase::Leaving => {
                    // At QoS 0 a run by count lasts until the broker has read everything.
                    counts.tally.done(0, 0, times.now());
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(0) => return Poll::Ready(Err("the broker closed the connection".to_owned())),
                Poll::Ready(_) => true,
                Poll::Pending => false,
            };
            let now = times.now();
            let mut wake = self.fill(now, times, &mut counts);
            drop(counts);
            let wrote = self.write(cx)?;
            if self.phase == Phase::Leaving
                && self.is_flushed()
                && Pin::new(&mut self.stream.writer).poll_shutdown(cx).is_ready()
            {
                if self.head.has_id {
                    return Poll::Ready(Ok(()));
                }
                self.phase = Phase::AwaitingClose;
            }
            if !self.out.is_empty() {
                // The socket wakes us; the end of the schedule is seen all the same.
                wake = if self.phase == Phase::Sending { times.end } else { u64::MAX };
            }
            if self.flow.unacked() > 0 || self.phase >= Phase::Leaving {
                let give_up = self.waiting_since.saturating_add(times.drain);
                if now >= give_up {
                    let seconds = times.drain / 1_000_000_000;
                    return Poll::Ready(Err(format!("the broker did not answer for {seconds} s")));
                }
                wake = wake.min(give_up);
            }
            let more = wrote && wake <= now && self.is_flushed();
            if !read && !more && !self.is_due(cx, wake, times) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads into the thread's scratch and takes the acks out of it.
    fn read(&mut self, cx: &mut Context<'_>, times: Times, counts: &mut Counts) -> Result<Poll<usize>, String> {
        let mut buffer = ReadBuf::new(&mut counts.scratch);
        match Pin::new(&mut self.stream.reader).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) if self.phase >= Phase::Leaving => return Ok(Poll::Ready(0)),
            Poll::Ready(Err(error)) => return Err(lost(&error)),
        }
        let now = times.now();
        self.waiting_since = now;
        self.flow.take(buffer.filled(), now, &mut counts.tally, &mut self.out)?;
        Ok(Poll::Ready(buffer.filled().len()))
    }

    /// Gathers what is due; returns when to look again if nothing else happens.
    fn fill(&mut self, now: u64, times: Times, counts: &mut Counts) -> u64 {
        if self.phase > Phase::Draining {
            return u64::MAX;
        }
        loop {
            match self.pace.turn(now) {
                Turn::Over if self.flow.unacked() == 0 => {
                    self.out.extend_from_slice(&DISCONNECT);
                    self.phase = Phase::Leaving;
                    self.waiting_since = now;
                    return u64::MAX;
                }
                Turn::Over => {
                    self.phase = Phase::Draining;
                    return u64::MAX;
                }
                Turn::Wait { until } => return until,
                Turn::Send { .. } if !self.flow.is_open() => return times.end,
                // Looked at again once that is written.
                Turn::Send { .. } if self.out.len() - self.written >= WRITE_BYTES => return now,
                Turn::Send { due } => self.publish(due, now, times, counts),
            }
        }
    }

    /// Adds one PUBLISH (section 3.3) to what is to be written.
    fn publish(&mut self, due: u64, now: u64, times: Times, counts: &mut Counts) {
        if self.flow.unacked() == 0 {
            self.waiting_since = now;
        }
        let card = self.deck.card(self.number, self.seq);
        let id = self.flow.publish(self.seq, due, u32::try_from(card.len()).unwrap_or(u32::MAX));
        let head = &self.head;
        let length = head.topic.len() + 2 * usize::from(head.has_id) + usize::from(head.has_properties) + card.len();
        self.out.push(head.first);
        put_length(&mut self.out, length);
        self.out.extend_from_slice(&head.topic);
        if head.has_id {
            self.out.extend_from_slice(&id.to_be_bytes());
        }
        if head.has_properties {
            self.out.push(0);
        }
        let at = self.out.len();
        self.out.extend_from_slice(card);
        let time = counts.time.text(times.wall(now));
        self.deck.fill(&mut self.out[at..], &self.name, self.seq, time);
        counts.tally.sent(1, due, now);
        if !head.has_id {
            counts.tally.done(1, card.len() as u64, now);
        }
        self.seq += 1;
        self.pace.sent();
    }

    /// Writes what is possible; whether anything was.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, String> {
        let mut wrote = false;
        while self.written < self.out.len() {
            match Pin::new(&mut self.stream.writer).poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(0)) => return Err("the broker closed the connection".to_owned()),
                Poll::Ready(Ok(written)) => self.written += written,
                Poll::Ready(Err(error)) => return Err(lost(&error)),
                Poll::Pending => return Ok(wrote),
            }
            wrote = true;
            self.unflushed = true;
        }
        self.out.clear();
        self.written = 0;
        if self.unflushed {
            match Pin::new(&mut self.stream.writer).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(lost(&error)),
                Poll::Pending => {}
            }
        }
        Ok(wrote)
    }

    fn is_flushed(&self) -> bool {
        self.out.is_empty() && !self.unflushed
    }

    /// Whether `wake` has come; if not, the task is woken then at the latest. A timer that would fire too early is left as it is: that
    /// is cheaper than setting it anew for each message.
    fn is_due(&mut self, cx: &mut Context<'_>, wake: u64, times: Times) -> bool {
        if wake == u64::MAX {
            return false;
        }
        let fired = self.timer.is_elapsed();
        if fired || wake < self.timer_at {
            self.timer.as_mut().reset(times.at(wake));
            self.timer_at = wake;
        }
        self.timer.as_mut().poll(cx).is_ready()
    }
}

fn lost(error: &std::io::Error) -> String {
    format!("the connection was lost: {error}")
}

/// A remaining length (section 1.5.5).
pub(super) fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        if length == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}
