//! The high watermark, and the acknowledgements that wait for it.

use super::event::{Ack, Effect, Outcome};
use super::leader::Leading;
use super::machine::Partition;
use super::role::Role;
use crate::error::AppendError;

impl<T> Partition<T> {
    /// Appends that are durable here: some wait for the other replicas. Moves the watermarks.
    pub(super) fn durable(&mut self, acks: impl IntoIterator<Item = Ack<T>>, effects: &mut Vec<Effect<T>>) {
        let leads = self.role.leading().is_some();
        let mut answered = Vec::new();
        for ack in acks {
            if ack.all && leads {
                self.unreplicated.push_back(ack);
            } else {
                // One that was to be replicated by this node's leadership, which is over.
                let outcome =
                    if ack.all { Outcome::Refused(AppendError::NotLeader) } else { Outcome::Appended(ack.at) };
                answered.push(Effect::Done(ack.token, outcome));
            }
        }
        self.advance(effects);
        // Whoever is answered finds the watermarks moved.
        effects.extend(answered);
    }

    /// Moves the high watermark to what every in-sync replica holds, and answers what that covers.
    pub(super) fn advance(&mut self, effects: &mut Vec<Effect<T>>) {
        let before = self.high_watermark;
        let everywhere = match &self.role {
            Role::Leader(leading) => leading.replicated(self.log_end),
            Role::Follower => self.leader_marks.high_watermark.min(self.log_end),
        };
        self.high_watermark = before.max(everywhere);
        let newest_closed = self.segments.iter().rev().nth(1).map(|s| s.end_offset);
        if newest_closed.is_some_and(|end| before < end && end <= self.high_watermark) {
            self.closed_version += 1;
        }
        effects.push(Effect::Watermarks(self.watermarks()));
        let in_sync = self.role.leading().map_or(0, Leading::in_sync_count);
        while self.unreplicated.front().is_some_and(|ack| ack.at.last_offset < self.high_watermark) {
            let Some(Ack { token, at, .. }) = self.unreplicated.pop_front() else { break };
            let outcome = if in_sync < self.config.min_insync_replicas as usize {
                Outcome::Refused(AppendError::NotEnoughReplicasAfterAppend)
            } else {
                Outcome::Appended(at)
            };
            effects.push(Effect::Done(token, outcome));
        }
    }
}
