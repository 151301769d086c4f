//! A meter that keeps account: what it sent, what was acknowledged, what it cannot know. It outlives its gateway.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::mqtt::{Client, Options};
use crate::readings::Reading;

/// How long a meter goes on connecting after the stop to settle what is in flight. A failing disk cuts connections, and a
/// partition whose repair failed too rests for a second before the next.
const SETTLE: Duration = Duration::from_secs(30);

/// What one meter knows at the end.
#[derive(Debug)]
pub struct Account {
    pub meter: String,
    pub qos: u8,
    /// Sequence numbers acknowledged to the end (PUBACK, PUBCOMP or PUBREC).
    pub acked: BTreeSet<u64>,
    /// Sent, but the connection was lost before the ack: QoS 1 does not send them again, so they are there once or not.
    pub uncertain: BTreeSet<u64>,
}

/// Where and how a meter publishes.
#[derive(Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub qos: u8,
    /// Publishes in flight at once.
    pub window: usize,
    /// Told to finish: no new readings, what is in flight is completed.
    pub stop: Arc<AtomicBool>,
}

/// Publishes the readings of one meter (`meters/ID/readings`), over and over with rising sequence numbers, until told to
/// stop. A QoS 2 meter has a persistent session and resends until each exchange is complete; a QoS 1 meter never resends.
pub fn run(plan: &Plan, meter: &str, readings: &[Reading]) -> Result<Account> {
    let mut state = State {
        plan,
        topic: format!("meters/{meter}/readings"),
        readings,
        account: Account { meter: meter.to_owned(), qos: plan.qos, acked: BTreeSet::new(), uncertain: BTreeSet::new() },
        next: 0,
        inflight: VecDeque::new(),
        released: BTreeMap::new(),
    };
    let mut settle_until = None;
    loop {
        let done = state.connection(meter);
        if plan.stop.load(Ordering::Relaxed) {
            match done {
                Ok(()) => return Ok(state.account),
                // A connection that was cut gets others, in which everything is settled.
                Err(error) if Instant::now() > *settle_until.get_or_insert_with(|| Instant::now() + SETTLE) => {
                    bail!("{meter} cannot settle: {error:#}")
                }
                Err(_) => {}
            }
        }
        if plan.qos == 1 {
            state.account.uncertain.extend(state.inflight.drain(..).map(|(seq, _)| seq));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct State<'a> {
    plan: &'a Plan,
    topic: String,
    readings: &'a [Reading],
    account: Account,
    next: u64,
    /// Sent and not acknowledged, in order: sequence number and packet id.
    inflight: VecDeque<(u64, u16)>,
    /// QoS 2: PUBREC arrived, PUBCOMP not yet.
    released: BTreeMap<u16, u64>,
}

impl State<'_> {
    /// One connection, until it is lost (an error) or everything is settled after the stop.
    fn connection(&mut self, meter: &str) -> Result<()> {
        let options = Options::v4(meter);
        let options = if self.plan.qos == 2 { options.persistent() } else { options };
        let (mut client, present) = Client::connect(self.plan.address, options)?;
        if self.plan.qos == 2 {
            let unsettled = !self.inflight.is_empty() || !self.released.is_empty();
            if unsettled && !present {
                bail!("{meter}: the session is gone");
            }
            for (seq, id) in self.inflight.clone() {
                self.send(&mut client, seq, id, true)?;
            }
            for id in self.released.keys() {
                client.ack(0x62, *id)?;
            }
        }
        loop {
            let stopping = self.plan.stop.load(Ordering::Relaxed);
            while !stopping && self.inflight.len() + self.released.len() < self.plan.window {
                let seq = self.next;
                self.next += 1;
                let id = (seq % 5_000) as u16 + 1;
                self.inflight.push_back((seq, id));
                self.send(&mut client, seq, id, false)?;
            }
            if stopping && self.inflight.is_empty() && self.released.is_empty() {
                client.disconnect()?;
                return Ok(());
            }
            self.answer(&mut client)?;
        }
    }

    fn send(&self, client: &mut Client, seq: u64, id: u16, dup: bool) -> Result<()> {
        let reading = &self.readings[seq as usize % self.readings.len()];
        let bytes = client.publish_bytes(&self.topic, self.plan.qos, id, dup, false, reading.payload(seq).as_bytes());
        client.send(&bytes)
    }

    fn answer(&mut self, client: &mut Client) -> Result<()> {
        let packet = client.receive()?;
        let id = packet.id();
        match packet.kind() {
            4 | 5 => {
                // Acks come in the order of the publishes [MQTT-4.6.0-2].
                let Some((seq, expected)) = self.inflight.pop_front() else { bail!("an ack for nothing: {packet:?}") };
                assert_eq!(id, expected, "acks out of order: {packet:?}");
                self.account.acked.insert(seq);
                if packet.kind() == 5 {
                    self.released.insert(id, seq);
                    client.ack(0x62, id)?;
                }
            }
            7 => {
                self.released.remove(&id);
            }
            other => bail!("unexpected packet type {other}"),
        }
        Ok(())
    }
}
