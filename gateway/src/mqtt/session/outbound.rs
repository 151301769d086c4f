//! Messages to the client: packet ids, the client's Receive Maximum, redelivery in order.

use std::collections::VecDeque;

use super::{CONTROL, Effect};
use crate::clock::Moment;
use crate::mqtt::delivery::{Delivery, Place};
use crate::mqtt::limits::MAX_OUTGOING_INFLIGHT_BYTES;
use crate::mqtt::packet::{Outgoing, Publish, Qos};

/// A message sent at QoS 1 and not acknowledged.
#[derive(Debug)]
pub(crate) struct Outgone {
    packet_id: u16,
    delivery: Delivery,
}

/// All that a session has sent and the client has not acknowledged, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    window: usize,
    last_id: u16,
    inflight: VecDeque<Outgone>,
    bytes: usize,
}

impl Outbound {
    pub(super) fn connected(&mut self, window: u16) {
        self.window = usize::from(window);
    }

    pub(super) fn has_room(&self) -> bool {
        self.inflight.len() < self.window && (self.bytes < MAX_OUTGOING_INFLIGHT_BYTES || self.inflight.is_empty())
    }

    #[cfg(test)]
    pub(super) fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// Bytes of the messages not acknowledged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets what was sent: it will be read from the log again.
    pub(crate) fn forget(&mut self) {
        self.inflight.clear();
        self.bytes = 0;
    }

    /// The places in the log of what the client has not acknowledged: cursors must not pass them.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = Place> + '_ {
        self.inflight.iter().filter_map(|gone| gone.delivery.place)
    }

    pub(super) fn send(&mut self, now: Moment, delivery: Delivery, effects: &mut Vec<Effect>) {
        let Some(mut publish) = delivery.publish(now) else { return };
        if publish.message.qos != Qos::AtMostOnce {
            publish.packet_id = self.free_id();
            self.bytes += delivery.bytes();
            self.inflight.push_back(Outgone { packet_id: publish.packet_id, delivery });
        }
        effects.push(Effect::Send { stream: CONTROL, packet: Outgoing::Publish(publish) });
    }

    /// The window is far smaller than the number of ids, so a free one is near.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.inflight.iter().any(|gone| gone.packet_id == self.last_id) {
                return self.last_id;
            }
        }
    }

    /// PUBACK, or a message that was larger than the client takes: done, whatever the code. An unknown id is ignored.
    pub(crate) fn acked(&mut self, packet_id: u16) {
        if let Some(at) = self.inflight.iter().position(|gone| gone.packet_id == packet_id)
            && let Some(gone) = self.inflight.remove(at)
        {
            self.bytes -= gone.delivery.bytes();
        }
    }

    pub(super) fn resend(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let bytes = &mut self.bytes;
        self.inflight.retain(|gone| match gone.delivery.publish(now) {
            Some(publish) => {
                let publish = Publish { dup: true, packet_id: gone.packet_id, ..publish };
                effects.push(Effect::Send { stream: CONTROL, packet: Outgoing::Publish(publish) });
                true
            }
            // Expired meanwhile [MQTT-3.3.2-5].
            None => {
                *bytes -= gone.delivery.bytes();
                false
            }
        });
    }
}
