//! The coordinator's part for offsets that are committed: who may, and how many there may be.

use forebay_log::Millis;
use forebay_log::group::{GroupError, Name};

use super::coordinator::{Coordinator, Kept};
use super::entry::Group;
use super::offsets::{self, TopicPartition};
use super::{Committed, Membership, Reply};

impl Coordinator {
    /// Gives `reply` back if the member may commit, otherwise refuses.
    pub(super) fn may_commit(&mut self, name: &Name, member: &Membership, reply: Reply<()>) -> Option<Reply<()>> {
        let now = self.now();
        let (generation, instance) = (member.generation, member.instance.as_deref());
        let allowed = match self.groups.get_mut(name).map(|entry| &mut entry.group) {
            Some(Group::Classic(group)) => group.may_commit(now, generation, &member.id, instance),
            Some(Group::Consumer(group)) => group.may_commit(generation, &member.id, instance),
            None if member.generation < 0 => Ok(()),
            None => Err(GroupError::IllegalGeneration),
        };
        match allowed {
            Ok(()) => Some(reply),
            Err(error) => {
                drop(reply.send(Err(error.into())));
                None
            }
        }
    }

    pub(super) async fn commit(
        &mut self,
        name: &Name,
        offsets: &[(TopicPartition, Committed)],
        at: Millis,
        reply: Reply<()>,
    ) {
        let changes: Vec<_> =
            offsets.iter().map(|(of, committed)| (offsets::key(name, of), Some(committed.encode(at)))).collect();
        let held = self.total().offsets;
        match offsets::new_ones(&self.state, &changes, held) {
            Ok(new) => {
                self.coming += new;
                self.store(changes, Kept::Offsets(new, reply)).await;
            }
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }
}
