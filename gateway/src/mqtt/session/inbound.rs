//! Publishes from the client: topic aliases, the order of acknowledgements, exactly once by packet id.

use std::collections::{BTreeMap, HashMap, VecDeque};

use forebay_log::AppendError;

use super::{CONTROL, Change, Effect, Limits, Session, Then};
use crate::mqtt::packet::{Ack, Outgoing, Publish, Qos, Text, Version};
use crate::mqtt::{reason, topic};

/// How far an exactly-once publish has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceivedState {
    /// Its append is on the way.
    Appending,
    /// Durable: PUBREC was or is being sent, and a repeated PUBLISH is answered without another append.
    Received,
    /// PUBREL came; its mark is being removed.
    Releasing,
    /// It could not be found out at the start whether a publish that a stop interrupted is in the log: neither a PUBREC nor
    /// another append would be right.
    Unsettled,
}

/// A publish whose acknowledgement has not been sent.
#[derive(Debug)]
struct Waiting {
    packet_id: u16,
    exactly_once: bool,
    outcome: Option<Result<(), AppendError>>,
    /// The client has released it meanwhile: a PUBREC now would seem to be of a later publish with its packet id.
    released: bool,
}

/// The publishes of one stream, acknowledged in their order [MQTT-4.6.0-2, 4.6.0-3].
#[derive(Debug, Default)]
struct Lane {
    /// Sequence number of the front of `waiting`.
    base: u64,
    waiting: VecDeque<Waiting>,
    aliases: Vec<Option<Text>>,
    /// The stream has ended; the lane goes when its appends are settled.
    closed: bool,
}

/// All that a session knows of publishes from its client.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    version: Option<Version>,
    control: Lane,
    streams: HashMap<u64, Lane>,
    /// Exactly-once publishes not completed, by stream and packet id.
    received: BTreeMap<(u64, u16), ReceivedState>,
    at_least_once: usize,
    /// A 3.1.1 client was refused a publish: no ack may leave any more, or it would seem to cover the refused one.
    refused: bool,
    receive_maximum: usize,
    alias_maximum: u16,
    max_session_expiry: u32,
}

impl Inbound {
    /// A new connection: what was appended has been settled before, so only completed receipts remain.
    pub(super) fn connected(&mut self, version: Version, limits: &Limits) {
        self.version = Some(version);
        self.control = Lane::default();
        self.streams = HashMap::new();
        self.at_least_once = 0;
        self.refused = false;
        self.received.retain(|_, state| *state != ReceivedState::Appending);
        for state in self.received.values_mut().filter(|state| **state != ReceivedState::Unsettled) {
            *state = ReceivedState::Received;
        }
        self.receive_maximum = usize::from(limits.receive_maximum);
        self.alias_maximum = limits.topic_alias_maximum;
        self.max_session_expiry = limits.max_session_expiry;
    }

    pub(super) fn max_session_expiry(&self) -> u32 {
        self.max_session_expiry
    }

    /// A receipt found in the log or the stored state at start.
    pub(crate) fn restore(&mut self, stream: u64, packet_id: u16) {
        self.received.insert((stream, packet_id), ReceivedState::Received);
    }

    /// A publish that may or may not be in the log.
    pub(crate) fn restore_unsettled(&mut self, stream: u64, packet_id: u16) {
        self.received.insert((stream, packet_id), ReceivedState::Unsettled);
    }

    /// Forgets such publishes, to look for them again; whether there were any.
    pub(crate) fn forget_unsettled(&mut self) -> bool {
        let before = self.received.len();
        self.received.retain(|_, state| *state != ReceivedState::Unsettled);
        self.received.len() < before
    }

    /// Durable receipts: exactly-once publishes that await PUBREL.
    pub(crate) fn received(&self) -> impl Iterator<Item = (u64, u16)> + '_ {
        let durable = |state: &ReceivedState| matches!(state, ReceivedState::Received | ReceivedState::Releasing);
        self.received.iter().filter(move |(_, state)| durable(state)).map(|(key, _)| *key)
    }

    /// Exactly-once publishes that have a stored mark.
    pub(crate) fn marked(&self) -> impl Iterator<Item = (u64, u16)> + '_ {
        self.received.iter().filter(|(_, state)| **state != ReceivedState::Appending).map(|(key, _)| *key)
    }

    /// Publishes that count against the Receive Maximum.
    pub(crate) fn inflight(&self) -> usize {
        self.at_least_once + self.received.len()
    }

    /// Whether a 3.1.1 client has to wait: only what awaits our own ack counts, as its PUBRELs come by the same way.
    pub(super) fn is_full(&self) -> bool {
        let waiting = self.control.waiting.len() + self.streams.values().map(|lane| lane.waiting.len()).sum::<usize>();
        waiting >= self.receive_maximum
    }

    fn lane(&mut self, stream: u64) -> &mut Lane {
        if stream == CONTROL { &mut self.control } else { self.streams.entry(stream).or_default() }
    }

    /// A data stream ended: nothing more comes, and its acknowledgements find nobody.
    pub(crate) fn stream_closed(&mut self, stream: u64) {
        if let Some(lane) = self.streams.get_mut(&stream) {
            lane.closed = true;
            if lane.waiting.is_empty() {
                self.streams.remove(&stream);
            }
        }
    }

    /// Whether publishes of a data stream still wait for their acknowledgement.
    pub(crate) fn awaits(&self, stream: u64) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Takes a PUBLISH; `Err` is the reason code that ends the connection.
    pub(super) fn publish(
        &mut self,
        stream: u64,
        publish: Publish,
        persistent: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), u8> {
        let Publish { packet_id, topic_alias, mut message, .. } = publish;
        if let Some(alias) = topic_alias {
            message.topic = self.resolve(stream, alias, message.topic)?;
        }
        if !topic::valid_topic(message.topic.as_str()) {
            return Err(if message.topic.as_str().is_empty() {
                reason::PROTOCOL_ERROR
            } else {
                reason::TOPIC_NAME_INVALID
            });
        }
        if message.qos == Qos::AtMostOnce {
            effects.push(Effect::Append { stream, sequence: None, message, intent: None });
            return Ok(());
        }
        let exactly_once = message.qos == Qos::ExactlyOnce;
        let known = if exactly_once { self.received.get(&(stream, packet_id)).copied() } else { None };
        match known {
            // Its PUBREC is on the way.
            Some(ReceivedState::Appending) => return Ok(()),
            // After PUBREL the publish must not come again [MQTT-4.3.3-6].
            Some(ReceivedState::Releasing) => return Err(reason::PROTOCOL_ERROR),
            // The client keeps it and tries again.
            Some(ReceivedState::Unsettled) => return Err(reason::IMPLEMENTATION_SPECIFIC),
            Some(ReceivedState::Received) => {
                // Not a new message [MQTT-4.3.3-10]: PUBREC again, in its turn.
                let lane = self.lane(stream);
                lane.waiting.push_back(Waiting { packet_id, exactly_once, outcome: Some(Ok(())), released: false });
                self.acknowledge(stream, effects);
                return Ok(());
            }
            None => {}
        }
        if self.version == Some(Version::V5) && self.inflight() >= self.receive_maximum {
            return Err(reason::RECEIVE_MAXIMUM_EXCEEDED);
        }
        if exactly_once {
            self.received.insert((stream, packet_id), ReceivedState::Appending);
        } else {
            self.at_least_once += 1;
        }
        let lane = self.lane(stream);
        let sequence = lane.base + lane.waiting.len() as u64;
        lane.waiting.push_back(Waiting { packet_id, exactly_once, outcome: None, released: false });
        let intent = (exactly_once && persistent).then_some(packet_id);
        effects.push(Effect::Append { stream, sequence: Some(sequence), message, intent });
        Ok(())
    }

    /// No PUBREC of this id is sent any more for what came before.
    fn silence(&mut self, stream: u64, packet_id: u16) {
        if self.received.get(&(stream, packet_id)) == Some(&ReceivedState::Received) {
            let same = |waiting: &&mut Waiting| {
                waiting.exactly_once && waiting.packet_id == packet_id && matches!(waiting.outcome, Some(Ok(())))
            };
            self.lane(stream).waiting.iter_mut().filter(same).for_each(|waiting| waiting.released = true);
        }
    }

    /// Topic aliases live as long as the connection and hold a copy: the packet's buffer goes back.
    fn resolve(&mut self, stream: u64, alias: u16, topic: Text) -> Result<Text, u8> {
        if alias == 0 || alias > self.alias_maximum {
            return Err(reason::TOPIC_ALIAS_INVALID);
        }
        let aliases = &mut self.lane(stream).aliases;
        let at = usize::from(alias) - 1;
        if topic.as_str().is_empty() {
            return aliases.get(at).cloned().flatten().ok_or(reason::PROTOCOL_ERROR);
        }
        if aliases.len() <= at {
            aliases.resize(at + 1, None);
        }
        aliases[at] = Some(Text::from(topic.as_str()));
        Ok(topic)
    }

    /// Sends the acknowledgements at the front of a lane whose appends are settled. `Err`: a 3.1.1 client, which knows
    /// no negative acknowledgement, has to be disconnected.
    fn acknowledge(&mut self, stream: u64, effects: &mut Vec<Effect>) -> Option<u8> {
        let v5 = self.version == Some(Version::V5);
        while !self.refused {
            let lane = self.lane(stream);
            if lane.closed && lane.waiting.is_empty() {
                self.streams.remove(&stream);
                return None;
            }
            let Some(Waiting { outcome: Some(_), .. }) = lane.waiting.front() else { return None };
            let front = lane.waiting.pop_front();
            let Some(Waiting { packet_id, exactly_once, outcome: Some(outcome), released }) = front else {
                return None;
            };
            lane.base += 1;
            if released {
                continue;
            }
            let reason = match outcome {
                Ok(()) => reason::SUCCESS,
                Err(error) => reason::of_append_error(&error),
            };
            if !exactly_once {
                self.at_least_once -= 1;
            }
            if reason != reason::SUCCESS && !v5 {
                self.refused = true;
                return Some(reason);
            }
            let ack = Ack { packet_id, reason };
            let packet = if exactly_once { Outgoing::PubRec(ack) } else { Outgoing::PubAck(ack) };
            effects.push(Effect::Send { stream, packet });
        }
        None
    }
}

impl Session {
    pub(super) fn appended(
        &mut self,
        stream: u64,
        sequence: u64,
        result: Result<(), AppendError>,
        effects: &mut Vec<Effect>,
    ) {
        let persistent = self.is_persistent();
        let inbound = &mut self.kept.inbound;
        if stream != CONTROL && !inbound.streams.contains_key(&stream) {
            return;
        }
        let lane = inbound.lane(stream);
        let Some(at) = sequence.checked_sub(lane.base) else { return };
        let Some(waiting) = lane.waiting.get_mut(at as usize) else { return };
        let failed = result.is_err();
        let may_be_kept = result.as_ref().is_err_and(AppendError::may_be_kept);
        waiting.outcome = Some(result);
        let (packet_id, exactly_once) = (waiting.packet_id, waiting.exactly_once);
        if exactly_once && may_be_kept && persistent {
            // Its mark stays: it is looked for when the client comes again. Until then no answer would be true.
            inbound.received.insert((stream, packet_id), ReceivedState::Unsettled);
            inbound.refused = true;
            return self.close(reason::IMPLEMENTATION_SPECIFIC, effects);
        }
        if exactly_once && failed {
            // The packet id is free again [MQTT-4.3.3-9].
            inbound.received.remove(&(stream, packet_id));
            if persistent {
                effects
                    .push(Effect::Persist { change: Change::ForgetIntent { stream, packet_id }, then: Then::Nothing });
            }
        } else if exactly_once {
            inbound.received.insert((stream, packet_id), ReceivedState::Received);
        }
        if let Some(reason) = inbound.acknowledge(stream, effects) {
            self.close(reason, effects);
        }
    }

    pub(super) fn release(&mut self, stream: u64, packet_id: u16, effects: &mut Vec<Effect>) {
        let persistent = self.is_persistent();
        self.kept.inbound.silence(stream, packet_id);
        match self.kept.inbound.received.get_mut(&(stream, packet_id)) {
            // PUBREL follows a PUBREC, so an unsettled one was received.
            Some(state @ (ReceivedState::Received | ReceivedState::Unsettled)) if persistent => {
                *state = ReceivedState::Releasing;
                let then = Then::Complete { stream, packet_id };
                effects.push(Effect::Persist { change: Change::ForgetIntent { stream, packet_id }, then });
            }
            Some(ReceivedState::Received | ReceivedState::Unsettled) => {
                self.released(stream, packet_id, Ok(()), effects)
            }
            // Its PUBCOMP is on the way.
            Some(ReceivedState::Releasing) => {}
            // PUBREL before PUBREC [MQTT-4.3.3-4].
            Some(ReceivedState::Appending) => self.close(reason::PROTOCOL_ERROR, effects),
            None => {
                let reason = if self.version == Version::V5 { reason::PACKET_ID_NOT_FOUND } else { reason::SUCCESS };
                effects.push(Effect::Send { stream, packet: Outgoing::PubComp(Ack { packet_id, reason }) });
            }
        }
    }

    pub(super) fn released(
        &mut self,
        stream: u64,
        packet_id: u16,
        result: Result<(), AppendError>,
        effects: &mut Vec<Effect>,
    ) {
        let inbound = &mut self.kept.inbound;
        match result {
            Ok(()) => {
                inbound.received.remove(&(stream, packet_id));
                let ack = Ack { packet_id, reason: reason::SUCCESS };
                effects.push(Effect::Send { stream, packet: Outgoing::PubComp(ack) });
            }
            // PUBCOMP knows no refusal: the connection ends, and the client sends PUBREL again on the next.
            Err(error) => {
                inbound.received.insert((stream, packet_id), ReceivedState::Received);
                self.close(reason::of_append_error(&error), effects);
            }
        }
    }
}
