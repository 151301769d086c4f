//! One member's way from what it has to what it shall have.

use super::ConsumerGroup;
use super::member::MemberState;
use super::records::RecordOf;
use super::topics::Partitions;
use crate::Millis;
use crate::group::Name;

impl<T> ConsumerGroup<T> {
    /// Takes a member as far as it can get now. `has_nothing`: it has just joined, so that there is nothing to wait for. Whether
    /// it has to be told.
    pub(super) fn reconcile(&mut self, now: Millis, id: &Name, has_nothing: bool) -> bool {
        let Some(member) = self.members.get_mut(id) else { return false };
        let target_epoch = self.target_epoch;
        match member.state {
            MemberState::Stable if member.epoch == target_epoch => return false,
            MemberState::UnrevokedPartitions if !has_nothing && member.has_unrevoked() => return false,
            _ => {}
        }
        for part in std::mem::take(&mut member.revoking) {
            self.owners.remove(&part);
        }
        let mut assigned: Partitions = member.assigned.intersection(&member.target).copied().collect();
        let to_revoke: Partitions = member.assigned.difference(&member.target).copied().collect();
        let (state, epoch) = (member.state, member.epoch);
        if to_revoke.is_empty() || has_nothing {
            for part in &to_revoke {
                self.owners.remove(part);
            }
            let mut unreleased = false;
            for part in member.target.difference(&member.assigned) {
                if self.owners.contains_key(part) {
                    unreleased = true;
                } else {
                    self.owners.insert(*part, id.clone());
                    assigned.insert(*part);
                    // From when it takes it until it says so, nothing is known.
                    member.reported = None;
                }
            }
            member.state = if unreleased { MemberState::UnreleasedPartitions } else { MemberState::Stable };
            member.revoke_by = None;
            member.enter(target_epoch);
        } else {
            member.state = MemberState::UnrevokedPartitions;
            member.revoking = to_revoke;
            member.revoke_by = Some(now.after(member.profile.rebalance_timeout));
        }
        let news = member.assigned != assigned;
        member.assigned = assigned;
        // From waiting for what it gives up to waiting for more of it, what it has is news, too.
        if news || state != member.state || epoch != member.epoch || !member.revoking.is_empty() {
            self.unstored.mark(RecordOf::Current(id.clone()));
        }
        self.watch(id);
        news
    }
}
