//! The meters: one MQTT client each, half of them over TCP and half over QUIC, sending their readings when they are due.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::readings::Meter;
use super::tally::{Road, Tally};
use crate::client::mqtt::{Client, ConnectOptions, Event, Transport, Trust};
use crate::mqtt::packet::Qos;
use crate::node::Addresses;

/// Readings that are due within this time leave together.
const TICK: Duration = Duration::from_millis(5);
/// Readings that one meter may have unacknowledged.
const WINDOW: u16 = 256;
/// The first reason code that means failure [MQTT-2.4].
const FAILURE: u8 = 0x80;
/// The name in the certificate that a node makes for itself.
const SERVER_NAME: &str = "localhost";

/// How the meters' time runs: `speedup` of its milliseconds in each of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) speedup: f64,
    /// Added to the readings' own times: each round of the same readings is later.
    pub(super) shift: i64,
}

struct Connected {
    meter: Arc<Meter>,
    road: Road,
    client: Client,
}

/// All meters, connected.
pub(super) struct Fleet {
    meters: Vec<Connected>,
}

impl Fleet {
    /// Connects every meter, over TCP or over QUIC so that each road gets about half of the readings.
    ///
    /// # Errors
    /// The meter that could not connect, and why.
    pub(super) async fn connect(meters: &[Arc<Meter>], addresses: &Addresses) -> anyhow::Result<Fleet> {
        let (Some(mqtt), Some(quic)) = (addresses.mqtt, addresses.quic) else {
            bail!("the demo needs the listeners mqtt and quic");
        };
        let tcp = Transport::Tcp { address: mqtt.to_string() };
        let quic = Transport::Quic {
            endpoint: Trust::Anything.quic()?,
            address: quic,
            server_name: SERVER_NAME.to_owned(),
            messages_per_stream: None,
        };
        let mut connecting = JoinSet::new();
        let mut load = (0, 0);
        let mut largest_first: Vec<&Arc<Meter>> = meters.iter().collect();
        largest_first.sort_by_key(|meter| std::cmp::Reverse(meter.len()));
        for meter in largest_first {
            let meter = meter.clone();
            let (road, transport) = if load.0 < load.1 {
                load.0 += meter.len();
                (Road::Tcp, tcp.clone())
            } else {
                load.1 += meter.len();
                (Road::Quic, quic.clone())
            };
            connecting.spawn(async move {
                let options = ConnectOptions { window: WINDOW, ..ConnectOptions::new(meter.name.as_str()) };
                let client = Client::connect(&transport, &options).await;
                let client = client.with_context(|| format!("meter {} cannot connect over {road:?}", meter.name))?;
                anyhow::Ok(Connected { meter, road, client })
            });
        }
        let mut meters = Vec::with_capacity(meters.len());
        while let Some(connected) = connecting.join_next().await {
            meters.push(connected??);
        }
        Ok(Fleet { meters })
    }

    /// How many meters take a road.
    pub(super) fn count(&self, road: Road) -> usize {
        self.meters.iter().filter(|meter| meter.road == road).count()
    }

    /// Replays all readings once, or until `stop`; returns when everything sent is acknowledged.
    ///
    /// # Errors
    /// The meter whose connection failed, and why.
    pub(super) async fn replay(self, pace: Pace, tally: Arc<Tally>, stop: CancellationToken) -> anyhow::Result<Fleet> {
        let start = Instant::now();
        let mut running = JoinSet::new();
        for mut meter in self.meters {
            let (tally, stop) = (tally.clone(), stop.clone());
            running.spawn(async move {
                let result = meter.replay(start, pace, &tally, &stop).await;
                result.with_context(|| format!("meter {} ({:?})", meter.meter.name, meter.road)).map(|()| meter)
            });
        }
        let mut meters = Vec::with_capacity(running.len());
        while let Some(meter) = running.join_next().await {
            meters.push(meter??);
        }
        Ok(Fleet { meters })
    }

    /// Ends all connections in order.
    pub(super) async fn disconnect(self) {
        let mut ending = JoinSet::new();
        for meter in self.meters {
            // Nothing is unacknowledged any more, so a failure here loses nothing.
            ending.spawn(async move { meter.client.disconnect().await.is_ok() });
        }
        ending.join_all().await;
    }
}

impl Connected {
    async fn replay(
        &mut self,
        start: Instant,
        pace: Pace,
        tally: &Tally,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut next = 0;
        loop {
            let stopped = stop.is_cancelled();
            if !stopped {
                self.send_due(&mut next, start, pace, tally).await?;
            }
            let due = self.meter.due(next).filter(|_| !stopped);
            if due.is_none() && self.client.unacked() == 0 {
                return Ok(());
            }
            let wake = due.map(|due| pace.when(start, due).max(Instant::now() + TICK));
            tokio::select! {
                event = self.client.next() => self.handle(event?, tally)?,
                () = sleep_until(wake.unwrap_or(start)), if wake.is_some() && self.client.can_publish() => {}
                () = stop.cancelled(), if !stopped => {}
            }
        }
    }

    /// Queues what is due by now, as far as the window allows.
    async fn send_due(&mut self, next: &mut usize, start: Instant, pace: Pace, tally: &Tally) -> anyhow::Result<()> {
        let now = Instant::now();
        while let Some(due) = self.meter.due(*next)
            && pace.when(start, due) <= now
            && self.client.can_publish()
        {
            let payload = self.meter.payload(*next, pace.shift).context("a time beyond the calendar")?;
            let topic = format!("meters/{}/readings", self.meter.name);
            self.client.publish(topic.as_str(), Bytes::from(payload), Qos::AtLeastOnce, *next as u64).await?;
            tally.sent(self.road, due + pace.shift);
            *next += 1;
        }
        Ok(())
    }

    fn handle(&self, event: Event, tally: &Tally) -> anyhow::Result<()> {
        match event {
            Event::Acked { reason, .. } if reason >= FAILURE => tally.refused(),
            Event::Acked { .. } => tally.acked(),
            Event::Disconnected { reason, text } => {
                bail!("disconnected with reason code 0x{reason:02x} {}", text.unwrap_or_default());
            }
            _ => {}
        }
        Ok(())
    }
}

impl Pace {
    /// When a reading that is due `due` milliseconds into the meters' time is to be sent.
    fn when(self, start: Instant, due: i64) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "a pace, not an account")]
        let seconds = due as f64 / 1000.0 / self.speedup;
        start + Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}
