//! An alert fires after its `for` and not before, ends by its `clear`, and never fires twice without a resolve between.

use proptest::prelude::*;

use super::*;

const FOR: Policy = Policy { for_ms: 3, keep_firing_for_ms: 0 };

fn seen(at: i64, holds: Truth) -> Observation {
    Observation { at, newest: at, holds, clear: None }
}

fn late(at: i64, newest: i64, holds: Truth) -> Observation {
    Observation { at, newest, holds, clear: None }
}

use Truth::{False, True, Unknown};

#[test]
fn it_fires_with_the_first_reading_that_is_for_after_the_run_began() {
    let mut life = Lifecycle::default();
    assert_eq!(life.observe(FOR, seen(10, True)), Some(Change::Pending { active_at: 10 }));
    assert_eq!(life.observe(FOR, seen(12, True)), None);
    assert_eq!(life.observe(FOR, seen(13, True)), Some(Change::Firing { active_at: 10, starts_at: 13 }));
    assert_eq!(life.observe(FOR, seen(14, True)), None);
    assert_eq!(life.observe(FOR, seen(15, False)), Some(Change::Resolved { active_at: 10, starts_at: Some(13) }));
    assert_eq!(life.observe(FOR, seen(16, True)), Some(Change::Pending { active_at: 16 }));
}

#[test]
fn pending_ends_unfired_with_the_first_reading_that_does_not_hold() {
    let mut life = Lifecycle::default();
    life.observe(FOR, seen(10, True));
    assert_eq!(life.observe(FOR, seen(12, False)), Some(Change::Resolved { active_at: 10, starts_at: None }));
}

#[test]
fn without_for_it_fires_at_once() {
    let mut life = Lifecycle::default();
    let policy = Policy { for_ms: 0, keep_firing_for_ms: 0 };
    assert_eq!(life.observe(policy, seen(5, True)), Some(Change::Firing { active_at: 5, starts_at: 5 }));
}

#[test]
fn clear_holds_the_alert_until_it_is_reached() {
    let mut life = Lifecycle::default();
    let policy = Policy { for_ms: 0, keep_firing_for_ms: 0 };
    let with = |at, holds, clear| Observation { clear: Some(clear), ..seen(at, holds) };
    assert!(life.observe(policy, with(1, True, False)).is_some());
    assert_eq!(life.observe(policy, with(2, False, False)), None);
    assert_eq!(life.observe(policy, with(3, False, Unknown)), None);
    assert_eq!(life.observe(policy, with(4, True, True)), None);
    assert!(matches!(life.observe(policy, with(5, False, True)), Some(Change::Resolved { .. })));
}

#[test]
fn keep_firing_for_runs_from_the_clearing_and_begins_anew_when_it_holds_again() {
    let mut life = Lifecycle::default();
    let policy = Policy { for_ms: 0, keep_firing_for_ms: 5 };
    life.observe(policy, seen(1, True));
    assert_eq!(life.observe(policy, seen(2, False)), None);
    assert_eq!(life.observe(policy, seen(6, True)), None);
    assert_eq!(life.observe(policy, seen(7, False)), None);
    assert_eq!(life.observe(policy, seen(11, False)), None);
    assert_eq!(life.observe(policy, seen(12, False)), Some(Change::Resolved { active_at: 1, starts_at: Some(1) }));
}

#[test]
fn unknown_readings_change_nothing() {
    let mut life = Lifecycle::default();
    assert_eq!(life.observe(FOR, seen(10, Unknown)), None);
    life.observe(FOR, seen(11, True));
    assert_eq!(life.observe(FOR, seen(20, Unknown)), None);
    assert!(matches!(life.observe(FOR, seen(21, True)), Some(Change::Firing { active_at: 11, .. })));
    assert_eq!(life.observe(FOR, seen(22, Truth::Wrong)), None);
}

#[test]
fn a_late_reading_corrects_the_run_but_neither_fires_nor_resolves() {
    let mut life = Lifecycle::default();
    life.observe(FOR, seen(10, True));
    assert_eq!(life.observe(FOR, late(8, 10, True)), None);
    assert_eq!(life.phase, Phase::Pending { active_at: 8, last_true: 10 });
    assert!(matches!(life.observe(FOR, seen(11, True)), Some(Change::Firing { active_at: 8, .. })));
    assert_eq!(life.observe(FOR, late(9, 11, False)), None);
    assert!(matches!(life.phase, Phase::Firing { .. }));

    let mut life = Lifecycle::default();
    life.observe(FOR, seen(7, False));
    life.observe(FOR, seen(10, True));
    life.observe(FOR, late(6, 10, True));
    assert_eq!(life.phase, Phase::Pending { active_at: 10, last_true: 10 }, "a reading that did not hold lies between");
    life.observe(FOR, seen(12, True));
    life.observe(FOR, late(11, 12, False));
    assert_eq!(life.phase, Phase::Pending { active_at: 12, last_true: 12 }, "the run was cut");
    assert_eq!(life.observe(FOR, seen(13, True)), None);
    assert_eq!(life.observe(FOR, seen(15, Unknown)), None);
    let over = Change::Resolved { active_at: 12, starts_at: None };
    assert_eq!(life.observe(FOR, late(14, 15, False)), Some(over), "nothing after the cut is known to hold");
}

proptest! {
    #[test]
    fn runs_are_long_enough_and_firings_are_resolved_in_between(
        steps in prop::collection::vec((-3i64..6, 0u8..4, 0u8..4), 1..80),
        for_ms in 0i64..8,
        keep in 0i64..6,
        has_clear in any::<bool>(),
    ) {
        let truth = |n| [True, True, False, Unknown][usize::from(n)];
        let policy = Policy { for_ms, keep_firing_for_ms: keep };
        let mut life = Lifecycle::default();
        let mut newest = 100i64;
        let mut false_at: Vec<i64> = Vec::new();
        let mut true_at: Vec<i64> = Vec::new();
        let mut active = false;
        let mut firing = false;
        for (delta, holds, clear) in steps {
            let at = newest + delta;
            newest = newest.max(at);
            let seen = Observation { at, newest, holds: truth(holds), clear: has_clear.then(|| truth(clear)) };
            match seen.holds { True => true_at.push(at), False => false_at.push(at), _ => {} }
            match life.observe(policy, seen) {
                None => {}
                Some(Change::Pending { active_at }) => {
                    prop_assert!(!active && for_ms > 0 && active_at == at);
                    active = true;
                }
                Some(Change::Firing { active_at, starts_at }) => {
                    prop_assert!(!firing && active == (for_ms > 0));
                    prop_assert_eq!(starts_at, at);
                    prop_assert!(starts_at - active_at >= for_ms);
                    prop_assert!(true_at.contains(&active_at));
                    // A second reading of the same time replaces the first, so the ends may have both.
                    prop_assert!(!false_at.iter().any(|f| *f > active_at && *f < starts_at));
                    active = true;
                    firing = true;
                }
                Some(Change::Resolved { starts_at, .. }) => {
                    prop_assert!(active && starts_at.is_some() == firing && (at == newest || !firing));
                    active = false;
                    firing = false;
                }
            }
        }
    }
}
