//! The session machine against a model: any sequence of packets, append results and reconnects, whatever their order.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::mqtt::packet::SubscribeFilter;

#[derive(Debug, Clone)]
enum Step {
    Publish {
        stream: u64,
        packet_id: u16,
        qos: u8,
    },
    Release {
        stream: u64,
        packet_id: u16,
    },
    /// The `at`-th append on the way is durable, or refused.
    Settle {
        at: usize,
        durable: bool,
    },
    Store {
        at: usize,
        durable: bool,
    },
    Subscribe {
        filter: usize,
        qos: u8,
    },
    Unsubscribe {
        filter: usize,
    },
    Deliver,
    Acknowledge {
        packet_id: u16,
    },
    Other(u8),
    CloseStream,
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stream = prop_oneof![3 => Just(CONTROL), 1 => Just(8u64)];
    let id = 1u16..5;
    let step = prop_oneof![
        8 => (stream.clone(), id.clone(), 0u8..3).prop_map(|(stream, packet_id, qos)| Step::Publish { stream, packet_id, qos }),
        3 => (stream, id.clone()).prop_map(|(stream, packet_id)| Step::Release { stream, packet_id }),
        8 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(at, durable)| Step::Settle { at, durable }),
        3 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(at, durable)| Step::Store { at, durable }),
        1 => (0usize..4, 0u8..3).prop_map(|(filter, qos)| Step::Subscribe { filter, qos }),
        1 => (0usize..4).prop_map(|filter| Step::Unsubscribe { filter }),
        2 => Just(Step::Deliver),
        2 => id.prop_map(|packet_id| Step::Acknowledge { packet_id }),
        1 => (0u8..4).prop_map(Step::Other),
        1 => Just(Step::CloseStream),
        1 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 0..120)
}

/// What the peer and the log know.
/// Packet id, whether it is exactly once, sequence, and how its append ended.
type Due = (u16, bool, u64, Option<bool>);

#[derive(Default)]
struct Model {
    /// Appends on the way: stream and sequence.
    appending: Vec<(u64, u64)>,
    storing: Vec<Then>,
    /// Acknowledgements that may come, in order, by stream; `true` once durable or refused.
    due: HashMap<u64, VecDeque<Due>>,
    /// Exactly-once publishes that are durable and not released.
    received: HashSet<(u64, u16)>,
    /// Messages in the log of each exactly-once packet id since it was last free.
    copies: BTreeMap<(u64, u16), usize>,
    closed: bool,
}

impl Model {
    fn check(&mut self, session: &Session, effects: Vec<Effect>, cause: Option<(u64, u16)>) {
        for effect in effects {
            match effect {
                Effect::Append { stream, sequence: Some(sequence), message, intent } => {
                    assert!(!self.closed, "no appends after the close");
                    let packet_id = cause.map_or(0, |(_, id)| id);
                    let exactly_once = message.qos == Qos::ExactlyOnce;
                    assert_eq!(intent.is_some(), exactly_once && session.is_persistent());
                    assert!(!(exactly_once && self.received.contains(&(stream, packet_id))), "appended twice");
                    self.appending.push((stream, sequence));
                    self.due.entry(stream).or_default().push_back((packet_id, exactly_once, sequence, None));
                }
                Effect::Send { stream, packet: Outgoing::PubAck(ack) } => self.acknowledged(stream, ack, false),
                Effect::Send { stream, packet: Outgoing::PubRec(ack) } => self.acknowledged(stream, ack, true),
                Effect::Send { stream, packet: Outgoing::PubComp(ack) } if ack.reason == 0 => {
                    assert!(
                        !self.received.contains(&(stream, ack.packet_id)) || !session.is_persistent(),
                        "PUBCOMP before the release is durable"
                    );
                    self.received.remove(&(stream, ack.packet_id));
                    self.copies.remove(&(stream, ack.packet_id));
                }
                Effect::Persist { then, .. } => self.storing.push(then),
                Effect::Close { .. } => self.closed = true,
                _ => {}
            }
        }
        if session.version == Version::V5 {
            assert!(session.inflight() <= usize::from(RECEIVE_MAXIMUM) + self.received.len());
        }
        assert!(session.kept.outbound.inflight() <= usize::from(WINDOW));
    }

    fn acknowledged(&mut self, stream: u64, ack: Ack, exactly_once: bool) {
        let due = self.due.entry(stream).or_default();
        let repeated = exactly_once && self.received.contains(&(stream, ack.packet_id));
        match due.front() {
            Some((packet_id, of_kind, _, Some(durable)))
                if *packet_id == ack.packet_id && *of_kind == exactly_once && *durable == (ack.reason == 0) =>
            {
                due.pop_front();
            }
            // PUBREC again, for what is in the log.
            _ => assert!(repeated && ack.reason == 0, "{ack:?} is not due: {due:?}"),
        }
    }

    fn settle(&mut self, stream: u64, sequence: u64, durable: bool) {
        for (packet_id, exactly_once, number, outcome) in self.due.entry(stream).or_default() {
            if *number == sequence {
                *outcome = Some(durable);
                if *exactly_once && durable {
                    self.received.insert((stream, *packet_id));
                    let copies = self.copies.entry((stream, *packet_id)).or_default();
                    *copies += 1;
                    assert_eq!(*copies, 1, "an exactly-once publish is in the log twice");
                }
            }
        }
    }

    fn reconnect(&mut self) {
        self.due.clear();
        self.appending.clear();
        self.storing.clear();
        self.closed = false;
    }
}

fn result(durable: bool) -> Result<(), AppendError> {
    if durable { Ok(()) } else { Err(AppendError::DiskFull) }
}

fn run(version: Version, expiry: u32, steps: Vec<Step>) {
    let mut session = session(version, expiry, Kept::default());
    let mut model = Model::default();
    let filters = ["meters/+", "#", "bad/#/x", "$share/g/a"];
    for step in steps {
        let mut effects = Vec::new();
        let mut cause = None;
        let event = match step {
            Step::Publish { stream, packet_id, qos } => {
                let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(qos)];
                cause = Some((stream, packet_id));
                Some(Event::Packet { stream, packet: publish(packet_id, qos) })
            }
            Step::Release { stream, packet_id } => {
                // What is released is not answered by PUBREC any more.
                if model.received.contains(&(stream, packet_id)) {
                    let due = model.due.entry(stream).or_default();
                    due.retain(|(id, exactly_once, _, durable)| {
                        !(*exactly_once && *id == packet_id && *durable == Some(true))
                    });
                }
                Some(Event::Packet { stream, packet: Incoming::PubRel(Ack { packet_id, reason: 0 }) })
            }
            Step::Settle { at, durable } if !model.appending.is_empty() => {
                let (stream, sequence) = model.appending.swap_remove(at % model.appending.len());
                model.settle(stream, sequence, durable);
                Some(Event::Appended { stream, sequence, result: result(durable) })
            }
            Step::Store { at, durable } if !model.storing.is_empty() => {
                let then = model.storing.swap_remove(at % model.storing.len());
                if let (Then::Complete { stream, packet_id }, true) = (&then, durable) {
                    model.received.remove(&(*stream, *packet_id));
                }
                Some(Event::Stored { then, result: result(durable) })
            }
            Step::Subscribe { filter, qos } => {
                let filter = SubscribeFilter {
                    filter: Text::from(filters[filter]),
                    qos: [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(qos)],
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: 0,
                };
                let packet = Incoming::Subscribe { packet_id: 9, filters: vec![filter], subscription_identifier: None };
                Some(Event::Packet { stream: CONTROL, packet })
            }
            Step::Unsubscribe { filter } => {
                let packet = Incoming::Unsubscribe { packet_id: 9, filters: vec![Text::from(filters[filter])] };
                Some(Event::Packet { stream: CONTROL, packet })
            }
            Step::Deliver if session.has_room() => Some(Event::Deliver { delivery: delivery(), wall: T0 }),
            Step::Acknowledge { packet_id } => {
                Some(Event::Packet { stream: CONTROL, packet: Incoming::PubAck(Ack { packet_id, reason: 0 }) })
            }
            Step::Other(which) => Some(Event::Packet {
                stream: CONTROL,
                packet: match which {
                    0 => Incoming::PingReq,
                    1 => Incoming::PubRec(Ack { packet_id: 1, reason: 0 }),
                    2 => Incoming::Disconnect { reason: 0, session_expiry_interval: None },
                    _ => Incoming::Auth { reason: 0 },
                },
            }),
            Step::CloseStream => {
                session.kept.inbound.stream_closed(8);
                None
            }
            Step::Reconnect => {
                // The driver settles everything before another connection gets the session.
                for (stream, sequence) in std::mem::take(&mut model.appending) {
                    model.settle(stream, sequence, true);
                    session.handle(T0, Event::Appended { stream, sequence, result: Ok(()) }, &mut Vec::new());
                }
                let kept = std::mem::take(&mut session.kept);
                session = self::session(version, expiry, kept);
                model.reconnect();
                session.resend(Moment { steady: T0, wall: T0 }, &mut effects);
                None
            }
            Step::Settle { .. } | Step::Store { .. } | Step::Deliver => None,
        };
        if let Some(event) = event {
            session.handle(T0, event, &mut effects);
        }
        model.check(&session, effects, cause);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn acks_follow_durable_appends_in_order_whatever_happens(v5 in any::<bool>(), kept in any::<bool>(), steps in steps()) {
        run(if v5 { Version::V5 } else { Version::V4 }, if kept { 100 } else { 0 }, steps);
    }
}
