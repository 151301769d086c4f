//! One client's packets in flight: which ids are free, when what is unacknowledged was due, and what an answer means. Pure: bytes and
//! times in, bytes and counts out.

use std::collections::VecDeque;

use crate::bench::tally::{Reason, Tally};
use crate::mqtt::packet::Qos;

/// An acknowledgement is never larger than this; anything that is was not meant for us.
const MAX_PACKET: usize = 1 << 20;

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;
/// The first reason code that means failure [MQTT-2.4].
const FAILURE: u8 = 0x80;

/// The window of one client.
#[derive(Debug)]
pub(super) struct Flow {
    qos: Qos,
    /// By packet id, from 1.
    slots: Box<[Slot]>,
    free: VecDeque<u16>,
    /// The beginning of a packet whose end has not come.
    partial: Vec<u8>,
    /// Numbers of messages that the broker refused.
    refused: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    state: State,
    due: u64,
    seq: u64,
    bytes: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    Published,
    /// QoS 2: PUBREL is out.
    Released,
}

impl Flow {
    pub(super) fn new(qos: Qos, window: u16) -> Flow {
        Flow {
            qos,
            slots: vec![Slot::default(); usize::from(window)].into(),
            free: (1..=window).collect(),
            partial: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Whether another message may leave.
    pub(super) fn is_open(&self) -> bool {
        self.qos == Qos::AtMostOnce || !self.free.is_empty()
    }

    pub(super) fn unacked(&self) -> usize {
        if self.qos == Qos::AtMostOnce { 0 } else { self.slots.len() - self.free.len() }
    }

    /// Takes a packet id for message `seq`; 0 at QoS 0. Only while [`Flow::is_open`].
    pub(super) fn publish(&mut self, seq: u64, due: u64, bytes: u32) -> u16 {
        if self.qos == Qos::AtMostOnce {
            return 0;
        }
        let id = self.free.pop_front().unwrap_or(0);
        if let Some(slot) = self.slots.get_mut(usize::from(id).wrapping_sub(1)) {
            *slot = Slot { state: State::Published, due, seq, bytes };
        }
        id
    }

    /// Takes what the broker sent; answers go to `out`.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub(super) fn take(&mut self, input: &[u8], now: u64, tally: &mut Tally, out: &mut Vec<u8>) -> Result<(), String> {
        if self.partial.is_empty() {
            let rest = self.take_whole(input, now, tally, out)?;
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(input);
        let rest = self.take_whole(&all, now, tally, out)?.len();
        all.drain(..all.len() - rest);
        self.partial = all;
        Ok(())
    }

    /// Handles the whole packets in `input`, returns what is left.
    fn take_whole<'a>(
        &mut self,
        mut input: &'a [u8],
        now: u64,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], String> {
        while let Some((kind, body, rest)) = split(input)? {
            self.packet(kind, body, now, tally, out)?;
            input = rest;
        }
        Ok(input)
    }

    fn packet(&mut self, kind: u8, body: &[u8], now: u64, tally: &mut Tally, out: &mut Vec<u8>) -> Result<(), String> {
        match kind {
            PUBACK | PUBREC | PUBCOMP => {}
            PINGRESP => return Ok(()),
            DISCONNECT => {
                let reason = body.first().copied().unwrap_or(0);
                return Err(format!("the broker disconnected with reason code 0x{reason:02x}"));
            }
            other => return Err(format!("the broker sent a packet of type {}, which nobody asked for", other >> 4)),
        }
        let &[high, low, ref more @ ..] = body else { return Err("an acknowledgement without packet id".to_owned()) };
        let id = u16::from_be_bytes([high, low]);
        let reason = more.first().copied().unwrap_or(0);
        let slot = self.slots.get_mut(usize::from(id).wrapping_sub(1)).filter(|slot| slot.state != State::Free);
        let Some(slot) = slot else { return Err(format!("an acknowledgement of packet {id}, which is not in flight")) };
        let expected = match (self.qos, slot.state) {
            (Qos::ExactlyOnce, State::Released) => PUBCOMP,
            (Qos::ExactlyOnce, _) => PUBREC,
            _ => PUBACK,
        };
        if kind != expected {
            return Err(format!("packet {id} was acknowledged by type {}, due was {}", kind >> 4, expected >> 4));
        }
        if kind == PUBREC && reason < FAILURE {
            slot.state = State::Released;
            out.extend_from_slice(&[PUBREL, 2, high, low]);
            return Ok(());
        }
        if reason < FAILURE {
            tally.acked(1, u64::from(slot.bytes), slot.due, now);
        } else {
            tally.error(Reason::Refused(reason), 1);
            self.refused.push(slot.seq);
        }
        slot.state = State::Free;
        self.free.push_back(id);
        Ok(())
    }

    /// The numbers of messages that were refused or never answered, rising; and how many of the latter.
    pub(super) fn into_unacked(self) -> (Vec<u64>, u64) {
        let open = self.slots.iter().filter(|slot| slot.state != State::Free);
        let mut unacked = self.refused;
        let refused = unacked.len();
        unacked.extend(open.map(|slot| slot.seq));
        let missing = (unacked.len() - refused) as u64;
        unacked.sort_unstable();
        (unacked, missing)
    }
}

/// A packet: its first byte, its body, and what follows.
type Packet<'a> = (u8, &'a [u8], &'a [u8]);

/// The first packet; `None` while it is not whole (section 2.1).
fn split(input: &[u8]) -> Result<Option<Packet<'_>>, String> {
    let Some((&kind, rest)) = input.split_first() else { return Ok(None) };
    let (mut length, mut read) = (0, 0);
    loop {
        let Some(&byte) = rest.get(read) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * read);
        read += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if read == 4 {
            return Err("a packet whose length is none; is this an MQTT port?".to_owned());
        }
    }
    if length > MAX_PACKET {
        return Err(format!("a packet of {length} bytes, which is no acknowledgement"));
    }
    let rest = &rest[read..];
    Ok(rest.split_at_checked(length).map(|(body, rest)| (kind, body, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tally::Span;

    fn tally() -> Tally {
        Tally::new(Span { from: 0, to: u64::MAX })
    }

    #[test]
    fn acks_that_come_in_pieces_free_their_ids() {
        let (mut flow, mut tally, mut out) = (Flow::new(Qos::AtLeastOnce, 3), tally(), Vec::new());
        let ids: Vec<u16> = (0..3).map(|seq| flow.publish(seq, 1000 * seq, 200)).collect();
        assert_eq!((ids, flow.is_open()), (vec![1, 2, 3], false));
        // 3.1.1, v5 with reason, v5 with reason and properties; byte by byte.
        for byte in [PUBACK, 2, 0, 1, PUBACK, 3, 0, 2, 0x10, PUBACK, 4, 0, 3, 0x97, 0] {
            flow.take(&[byte], 5_000_000, &mut tally, &mut out).unwrap();
        }
        assert_eq!((tally.acked, tally.measured_bytes, flow.unacked()), (2, 400, 0));
        assert_eq!(tally.errors.get(&Reason::Refused(0x97)), Some(&1));
        assert_eq!(flow.into_unacked(), (vec![2], 0));
        assert!(out.is_empty());
    }

    #[test]
    fn qos_2_counts_when_it_is_complete() {
        let (mut flow, mut tally, mut out) = (Flow::new(Qos::ExactlyOnce, 2), tally(), Vec::new());
        flow.publish(0, 0, 1);
        flow.take(&[PUBREC, 2, 0, 1], 1, &mut tally, &mut out).unwrap();
        assert_eq!((out.as_slice(), tally.acked), (&[PUBREL, 2, 0, 1][..], 0));
        flow.take(&[PUBCOMP, 2, 0, 1], 2, &mut tally, &mut out).unwrap();
        assert_eq!((tally.acked, flow.unacked()), (1, 0));
    }

    #[test]
    fn an_ack_of_nothing_ends_the_connection_with_a_reason() {
        for (input, reason) in [
            (&[PUBACK, 2, 0, 1][..], "not in flight"),
            (&[PUBACK, 1, 0], "without packet id"),
            (&[DISCONNECT, 1, 0x8b], "0x8b"),
            (&[0x30, 0], "type 3"),
            (&[PUBACK, 0xff, 0xff, 0xff, 0xff], "MQTT port"),
        ] {
            let error = Flow::new(Qos::AtLeastOnce, 1).take(input, 0, &mut tally(), &mut Vec::new()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn what_was_never_acknowledged_is_known() {
        let (mut flow, mut tally) = (Flow::new(Qos::AtLeastOnce, 4), tally());
        assert!((0..4).all(|seq| flow.publish(seq, 0, 1) > 0));
        flow.take(&[PUBACK, 2, 0, 3], 1, &mut tally, &mut Vec::new()).unwrap();
        assert_eq!(flow.publish(4, 0, 1), 3, "the id is used again");
        assert_eq!(flow.into_unacked(), (vec![0, 1, 3, 4], 4));
    }
}
