//! The transitions that were read last from `_alerts`: a leader that does not know yet that it is none may record one a second time.

use std::collections::{HashSet, VecDeque};

use forebay_log::Offset;

use super::journal::{Journal, behind_damage, parse, visit};
use super::limits::{READ_BYTES, RECENT_TRANSITIONS};

/// Ids of transitions, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Recent {
    /// Those that stand before `end`; what cannot be read is left out.
    pub(super) async fn before(journal: &Journal, end: Offset) -> Recent {
        let journal = journal.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut recent = Recent::default();
            let room = i64::try_from(RECENT_TRANSITIONS).unwrap_or(i64::MAX);
            let mut next = Offset(end.0.saturating_sub(room)).max(journal.partition.watermarks().local_start);
            while next < end {
                let before = next;
                match journal.partition.read(next, READ_BYTES) {
                    Ok(fetched) => visit(fetched.batches, &mut next, |record| {
                        let record = record.ok().filter(|record| record.offset < end);
                        if let Some(transition) = record.as_ref().and_then(parse) {
                            recent.note(transition.id);
                        }
                    }),
                    Err(error) => next = behind_damage(&error, next).unwrap_or(end),
                }
                if next <= before {
                    break;
                }
            }
            recent
        });
        read.await.unwrap_or_default()
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn note(&mut self, id: String) {
        if !self.ids.insert(id.clone()) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > RECENT_TRANSITIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_known_and_no_more() {
        let mut recent = Recent::default();
        for n in 0..RECENT_TRANSITIONS + 10 {
            recent.note(n.to_string());
            recent.note(n.to_string());
        }
        assert_eq!((recent.order.len(), recent.ids.len()), (RECENT_TRANSITIONS, RECENT_TRANSITIONS));
        assert!(recent.contains("10") && !recent.contains("9"));
    }
}
