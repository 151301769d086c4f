//! Readings in, transitions out: keys apart, time per key, and the same ids wherever the state was saved between.

use proptest::prelude::*;

use super::*;
use crate::rules::{NoInputs, parse};
use crate::transition::State;

const RULES: &str = r#"
groups:
- name: voltage
  source: readings
  key: [meter]
  time: {field: ts, lateness: 10m, max_future: 60s}
  rules:
  - alert: Overvoltage
    expr: voltage > 253
    clear: voltage < 250
    for: 3m
    labels: {severity: major, feeder: "{{ feeder }}"}
    annotations: {summary: "{{ meter }} at {{ voltage }} V"}
  - alert: Fault
    expr: fault
"#;

fn rules(text: &str) -> RuleSet {
    let mut set = RuleSet::default();
    assert_eq!(parse("f", text, &NoInputs, &mut set), []);
    set
}

/// A reading of a meter at a minute of 2013-01-01; the record arrived a second later.
fn json(meter: &str, minute: i64, voltage: f64) -> String {
    format!(
        r#"{{"meter":"{meter}","ts":"2013-01-01T{:02}:{:02}:00Z","voltage":{voltage},"feeder":"F1"}}"#,
        minute / 60,
        minute % 60
    )
}

const DAY: i64 = 1_356_998_400_000;

fn feed(engine: &mut Engine, offset: i64, minute: i64, value: &str) -> Vec<Transition> {
    let mut out = Vec::new();
    let timestamp = Millis(DAY + minute * 60_000 + 1000);
    engine.feed(Reading { offset, timestamp, value: Some(value.as_bytes()) }, timestamp, &mut out);
    out
}

fn states(out: &[Transition]) -> Vec<(&str, State)> {
    out.iter().map(|t| (t.labels["meter"].as_str(), t.state)).collect()
}

#[test]
fn an_overvoltage_goes_from_pending_over_firing_to_resolved() {
    let mut engine = Engine::new(&rules(RULES), "readings", 2, 0);
    let pending = feed(&mut engine, 0, 0, &json("m1", 0, 254.0));
    assert_eq!(states(&pending), [("m1", State::Pending)]);
    assert!(feed(&mut engine, 1, 1, &json("m2", 1, 240.0)).is_empty());
    assert!(feed(&mut engine, 2, 2, &json("m1", 2, 253.5)).is_empty());
    let firing = feed(&mut engine, 3, 3, &json("m1", 3, 255.5)).remove(0);
    assert_eq!(firing.state, State::Firing);
    assert_eq!(
        firing.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        ["feeder=F1", "meter=m1", "severity=major"]
    );
    assert_eq!(firing.annotations["summary"], "m1 at 255.5 V");
    assert_eq!(
        (firing.value, firing.active_at, firing.starts_at),
        (Some(255.5), Millis(DAY), Some(Millis(DAY + 180_000)))
    );
    assert_eq!((firing.source.topic.as_str(), firing.source.partition, firing.source.offset), ("readings", 2, 3));
    assert_eq!(engine.active().count(), 1);
    assert!(feed(&mut engine, 4, 4, &json("m1", 4, 251.0)).is_empty(), "hysteresis");
    let resolved = feed(&mut engine, 5, 5, &json("m1", 5, 249.0)).remove(0);
    assert_eq!((resolved.state, resolved.ends_at), (State::Resolved, Some(Millis(DAY + 300_000))));
    assert_eq!(resolved.fingerprint, firing.fingerprint);
    assert_ne!(resolved.id, firing.id);
    assert_eq!(engine.active().count(), 0);
    assert!(engine.health().all(|rule| rule.pending == 0 && rule.firing == 0));
}

#[test]
fn a_reading_far_ahead_of_its_arrival_moves_no_clock() {
    let mut engine = Engine::new(&rules(RULES), "readings", 0, 0);
    feed(&mut engine, 0, 0, &json("m1", 0, 254.0));
    assert!(feed(&mut engine, 1, 1, &json("m1", 600, 254.0)).is_empty());
    assert_eq!(engine.take_tally().future, 2 - 1);
    assert!(feed(&mut engine, 2, 2, &json("m1", 2, 254.0)).is_empty());
    assert_eq!(feed(&mut engine, 3, 3, &json("m1", 3, 254.0))[0].state, State::Firing);
    assert_eq!(engine.take_tally().late, 0);
}

#[test]
fn readings_are_not_passed_over_because_the_nodes_clock_is_not_set_yet() {
    let mut engine = Engine::new(&rules(RULES), "readings", 0, 0);
    let mut out = Vec::new();
    for n in 0..4 {
        let value = json("m1", n, 254.0);
        // Arrived in the first hour of 1970.
        let reading = Reading { offset: n, timestamp: Millis(n * 1000), value: Some(value.as_bytes()) };
        engine.feed(reading, Millis(n * 1000), &mut out);
    }
    assert_eq!(engine.take_tally().future, 0);
    assert_eq!(out.last().map(|transition| transition.state), Some(State::Firing));
}

#[test]
fn what_cannot_be_evaluated_is_counted() {
    let mut engine = Engine::new(&rules(RULES), "readings", 0, 0);
    feed(&mut engine, 0, 100, &json("m1", 100, 240.0));
    feed(&mut engine, 1, 100, &json("m1", 95, 240.0));
    feed(&mut engine, 2, 100, &json("m1", 80, 240.0));
    feed(&mut engine, 3, 100, "{broken");
    feed(&mut engine, 4, 100, r#"{"ts":"2013-01-01T00:00:00Z"}"#);
    feed(&mut engine, 5, 100, r#"{"meter":"m1","ts":"noon"}"#);
    feed(&mut engine, 6, 100, r#"{"meter":"m1","ts":"2013-01-01T01:40:00Z","voltage":"high"}"#);
    let tally = engine.take_tally();
    assert_eq!(
        tally,
        Tally { evaluated: 3, out_of_order: 1, late: 1, malformed: 1, no_key: 1, no_time: 1, ..Tally::default() }
    );
    assert_eq!(engine.health().map(|rule| rule.errors).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn reloading_keeps_alerts_whose_rule_is_still_there_and_resolves_the_others() {
    let mut engine = Engine::new(&rules(RULES), "readings", 0, 0);
    feed(&mut engine, 0, 0, &json("m1", 0, 254.0));
    let fault = r#"{"meter":"m1","ts":"2013-01-01T00:01:00Z","fault":true,"voltage":254}"#;
    let fired = feed(&mut engine, 1, 1, fault).remove(0);
    let changed = rules(&RULES.replace("alert: Fault", "alert: Defect").replace("> 253", "> 252"));
    let mut out = Vec::new();
    let mut engine = Engine::restore(&changed, "readings", 0, &engine.snapshot(), &mut out).unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!(
        (out[0].alert.as_str(), out[0].state, &out[0].fingerprint),
        ("Fault", State::Resolved, &fired.fingerprint)
    );
    assert_eq!(out[0].ends_at, Some(Millis(DAY + 60_000)));
    let firing = feed(&mut engine, 2, 3, &json("m1", 3, 252.5));
    assert_eq!((firing[0].state, firing[0].active_at), (State::Firing, Millis(DAY)));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut engine = Engine::new(&rules(RULES), "readings", 0, 0);
    feed(&mut engine, 0, 0, &json("m1", 0, 254.0));
    let snapshot = engine.snapshot();
    for at in 0..snapshot.len() {
        let mut damaged = snapshot.clone();
        damaged[at] ^= 1;
        assert!(Engine::restore(&rules(RULES), "readings", 0, &damaged, &mut Vec::new()).is_err(), "byte {at}");
        assert!(Engine::restore(&rules(RULES), "readings", 0, &snapshot[..at], &mut Vec::new()).is_err());
    }
}

proptest! {
    #[test]
    fn restarts_anywhere_give_the_same_transitions(
        readings in prop::collection::vec((0u8..3, -4i64..5, 0u8..4), 1..60),
        restarts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let rules = rules(RULES);
        let mut minute = 60;
        let values: Vec<(i64, String)> = readings
            .iter()
            .map(|(meter, delta, level)| {
                minute += 1;
                let voltage = [240.0, 251.0, 254.0, 255.0][usize::from(*level)];
                (minute, json(&format!("m{meter}"), minute + delta, voltage))
            })
            .collect();
        let mut whole = Vec::new();
        let mut engine = Engine::new(&rules, "readings", 0, 0);
        for (offset, (minute, value)) in values.iter().enumerate() {
            whole.extend(feed(&mut engine, offset as i64, *minute, value));
        }
        let stops: Vec<usize> = restarts.iter().map(|index| index.index(values.len())).collect();
        let mut parts = Vec::new();
        let mut engine = Engine::new(&rules, "readings", 0, 0);
        for (offset, (minute, value)) in values.iter().enumerate() {
            if stops.contains(&offset) {
                engine = Engine::restore(&rules, "readings", 0, &engine.snapshot(), &mut parts).unwrap();
                prop_assert_eq!(engine.next_offset(), offset as i64);
            }
            parts.extend(feed(&mut engine, offset as i64, *minute, value));
        }
        prop_assert_eq!(&parts, &whole);
        let mut ids: Vec<&str> = whole.iter().map(|t| t.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), whole.len());
        let firing: usize = engine.health().map(|rule| rule.firing + rule.pending).sum();
        prop_assert_eq!(firing, engine.active().count());
    }

    #[test]
    fn arbitrary_bytes_as_snapshot_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut snapshot = b"FBAS\x01".to_vec();
        snapshot.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        snapshot.extend_from_slice(&bytes);
        let _ = Engine::restore(&rules(RULES), "readings", 0, &snapshot, &mut Vec::new());
    }
}
