//! SUBSCRIBE and UNSUBSCRIBE: which filters a session has, and what each request is answered.

use std::collections::BTreeMap;

use forebay_log::AppendError;

use super::{Change, Effect, Session, Then};
use crate::mqtt::limits::MAX_SUBSCRIPTIONS_PER_CLIENT;
use crate::mqtt::packet::{Outgoing, Qos, SubscribeFilter, Text, Version};
use crate::mqtt::{reason, topic};

/// A granted subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) filter: Text,
    /// Granted: 0 or 1.
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) identifier: Option<u32>,
}

/// A subscription that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Added {
    subscription: Subscription,
    send_retained: bool,
    /// The one with this filter that was there before: it holds if the new one cannot be stored.
    replaced: Option<Subscription>,
}

/// The subscriptions of one session, by filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subscriptions {
    by_filter: BTreeMap<Text, Subscription>,
}

impl Subscriptions {
    /// Adds or replaces [MQTT-3.8.4-3]; returns the one that it replaced.
    pub(crate) fn insert(&mut self, subscription: Subscription) -> Option<Subscription> {
        self.by_filter.insert(subscription.filter.clone(), subscription)
    }
    pub(crate) fn remove(&mut self, filter: &Text) -> bool {
        self.by_filter.remove(filter).is_some()
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.by_filter.values()
    }
    pub(crate) fn len(&self) -> usize {
        self.by_filter.len()
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.by_filter.is_empty()
    }
}

impl Session {
    pub(super) fn subscribe(
        &mut self,
        stream: u64,
        packet_id: u16,
        filters: Vec<SubscribeFilter>,
        identifier: Option<u32>,
        effects: &mut Vec<Effect>,
    ) {
        let mut reasons = Vec::with_capacity(filters.len());
        let mut added = Vec::new();
        for asked in &filters {
            match self.grant(asked, identifier) {
                Ok(subscription) => {
                    reasons.push(subscription.qos as u8);
                    let replaced = self.kept.subscriptions.insert(subscription.clone());
                    effects.push(Effect::Subscribe(subscription.clone()));
                    let send_retained = match asked.retain_handling {
                        0 => true,
                        1 => replaced.is_none(),
                        _ => false,
                    };
                    added.push(Added { subscription, send_retained, replaced });
                }
                Err(reason) => reasons.push(reason),
            }
        }
        let changed = !added.is_empty();
        let then = Then::SubAck { stream, packet_id, reasons, added };
        self.answer_when_stored(changed, then, effects);
    }

    fn grant(&self, asked: &SubscribeFilter, identifier: Option<u32>) -> Result<Subscription, u8> {
        let filter = asked.filter.as_str();
        let refusal = if topic::is_shared(filter) {
            Some(reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED)
        } else if !topic::valid_filter(filter) {
            Some(reason::TOPIC_FILTER_INVALID)
        } else if self.kept.subscriptions.len() >= MAX_SUBSCRIPTIONS_PER_CLIENT
            && !self.kept.subscriptions.by_filter.contains_key(&asked.filter)
        {
            Some(reason::QUOTA_EXCEEDED)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return Err(self.subscribe_failure(reason));
        }
        Ok(Subscription {
            // A copy: the packet's buffer goes back.
            filter: Text::from(filter),
            qos: asked.qos.min(Qos::AtLeastOnce),
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            identifier,
        })
    }

    /// 3.1.1 knows one code for all failures.
    fn subscribe_failure(&self, reason: u8) -> u8 {
        if self.version == Version::V5 { reason } else { reason::UNSPECIFIED }
    }

    fn answer_when_stored(&mut self, changed: bool, then: Then, effects: &mut Vec<Effect>) {
        if changed && self.is_persistent() {
            effects.push(Effect::Persist { change: Change::Entry, then });
        } else {
            self.stored(then, Ok(()), effects);
        }
    }

    pub(super) fn subscribed(
        &mut self,
        stream: u64,
        packet_id: u16,
        mut reasons: Vec<u8>,
        added: Vec<Added>,
        result: Result<(), AppendError>,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(error) = &result {
            let code = self.subscribe_failure(reason::of_append_error(error));
            for reason in reasons.iter_mut().filter(|reason| **reason < reason::UNSPECIFIED) {
                *reason = code;
            }
            self.take_back(&added, effects);
        }
        effects.push(Effect::Send { stream, packet: Outgoing::SubAck { packet_id, reasons } });
        if result.is_ok() {
            let wanted = added.into_iter().filter(|added| added.send_retained);
            effects.extend(wanted.map(|added| Effect::SendRetained(added.subscription)));
        }
    }

    /// Nothing of a SUBSCRIBE was stored: what was there before holds, unless a later request has changed it.
    fn take_back(&mut self, added: &[Added], effects: &mut Vec<Effect>) {
        for Added { subscription, replaced, .. } in added.iter().rev() {
            if self.kept.subscriptions.by_filter.get(&subscription.filter) != Some(subscription) {
                continue;
            }
            effects.push(match replaced {
                Some(before) => {
                    self.kept.subscriptions.insert(before.clone());
                    Effect::Subscribe(before.clone())
                }
                None => {
                    self.kept.subscriptions.remove(&subscription.filter);
                    Effect::Unsubscribe(subscription.filter.clone())
                }
            });
        }
    }

    pub(super) fn unsubscribe(&mut self, stream: u64, packet_id: u16, filters: &[Text], effects: &mut Vec<Effect>) {
        let mut reasons = Vec::with_capacity(filters.len());
        let mut changed = false;
        for filter in filters {
            if self.kept.subscriptions.remove(filter) {
                changed = true;
                effects.push(Effect::Unsubscribe(filter.clone()));
                reasons.push(reason::SUCCESS);
            } else if topic::valid_filter(filter.as_str()) {
                reasons.push(reason::NO_SUBSCRIPTION_EXISTED);
            } else {
                reasons.push(reason::TOPIC_FILTER_INVALID);
            }
        }
        self.answer_when_stored(changed, Then::UnsubAck { stream, packet_id, reasons }, effects);
    }

    /// The subscriptions are gone from this session in any case; a v5 client learns when that was not stored.
    pub(super) fn unsubscribed(
        &mut self,
        stream: u64,
        packet_id: u16,
        mut reasons: Vec<u8>,
        result: Result<(), AppendError>,
        effects: &mut Vec<Effect>,
    ) {
        if result.is_err() {
            if self.version == Version::V4 {
                return self.close(reason::IMPLEMENTATION_SPECIFIC, effects);
            }
            for reason in reasons.iter_mut().filter(|reason| **reason == reason::SUCCESS) {
                *reason = reason::IMPLEMENTATION_SPECIFIC;
            }
        }
        effects.push(Effect::Send { stream, packet: Outgoing::UnsubAck { packet_id, reasons } });
    }
}
