//! The load generator of `forebay bench`: MQTT over TCP, TLS and QUIC, and Kafka, against any broker that speaks the protocol.
//!
//! A client is a connection with a window of messages in flight; the clients of a thread share one event loop, and no message
//! costs a task, a timer or an allocation. Latencies count from the time at which a message was due.

mod fetch;
mod fleet;
mod kafka;
mod mqtt;
mod pace;
mod payload;
mod progress;
mod readback;
mod report;
mod tally;
#[cfg(test)]
mod tests;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

pub(crate) use fetch::FetchBench;
pub(crate) use kafka::{KafkaAcks, KafkaBench};
pub(crate) use mqtt::{MqttBench, RoadKind};
pub(crate) use progress::Show;
pub(crate) use report::Report;

use crate::client::kafka::Bootstrap;
use payload::{Deck, NAME_BYTES};

/// How much is sent, how fast and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    /// Messages (Kafka: requests) of a client that may be unacknowledged.
    pub(crate) inflight: u16,
    /// Messages a second of all clients; `None`: as fast as the broker takes them.
    pub(crate) rate: Option<f64>,
    /// How long is measured, after the warm-up.
    pub(crate) duration: Option<Duration>,
    /// Messages of all clients.
    pub(crate) count: Option<u64>,
    pub(crate) warmup: Duration,
    pub(crate) threads: usize,
}

/// What the messages hold.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// A JSON reading of so many bytes.
    Reading { size: usize },
    /// With the placeholders `{client}`, `{seq}`, `{time}` and `{value}`.
    Template(String),
    /// Real readings: those in the binary, or of a CSV file.
    Readings(Option<PathBuf>),
}

impl Payload {
    fn deck(&self) -> anyhow::Result<Deck> {
        match self {
            Payload::Reading { size } => Deck::reading(*size).context("--size"),
            Payload::Template(text) => Ok(Deck::template(text)),
            Payload::Readings(file) => Deck::readings(file.as_deref()).context("--payload"),
        }
    }
}

/// Where and in which topic to read back what was sent.
#[derive(Debug, Clone)]
pub(crate) struct Verify {
    pub(crate) bootstrap: Bootstrap,
    pub(crate) topic: String,
}

impl Load {
    /// Messages of client `number`: the count shared out evenly.
    fn count_of(&self, number: usize) -> u64 {
        let clients = self.clients.max(1) as u64;
        self.count.map_or(u64::MAX, |count| count / clients + u64::from((number as u64) < count % clients))
    }
}

/// The names of a run's clients: all of one width, so that they can be put into a payload in place.
#[derive(Debug, Clone)]
struct Names {
    prefix: String,
}

impl Names {
    /// Names that no other run has.
    fn new() -> Names {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Names { prefix: format!("bench-{}-", &id[..6]) }
    }

    fn name(&self, number: usize) -> [u8; NAME_BYTES] {
        let mut name = [b'0'; NAME_BYTES];
        for (place, byte) in name.iter_mut().zip(format!("{}{number:06}", self.prefix).bytes()) {
            *place = byte;
        }
        name
    }

    /// The client that has this name.
    fn number(&self, name: &[u8]) -> Option<usize> {
        std::str::from_utf8(name.strip_prefix(self.prefix.as_bytes())?).ok()?.parse().ok()
    }
}
