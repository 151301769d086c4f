//! The alert rules of one partition, on its leader: the real engine, with its checkpoints and transitions in `_alerts`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use forebay_log::replication::PartitionId;
use forebay_log::{Millis, Offset};
use forebay_sinks::rules::{NoInputs, parse};
use forebay_sinks::{Engine, Reading, RuleSet, Transition};

use super::{Job, ServiceId, Then};
use crate::clients::values;
use crate::world::World;

const RULES: &str = "
groups:
- name: meters
  source: readings
  key: [meter]
  time: {field: ts, lateness: 10m}
  rules:
  - alert: High
    expr: n > 6
    clear: n < 4
    for: 2m
";

/// What the records' times begin with: 2013-01-01.
const DAY: i64 = 1_356_998_400_000;

/// The engine, and the transitions that are recorded.
pub struct Alerts {
    engine: Engine,
    recorded: BTreeSet<String>,
    /// Readings since the last checkpoint.
    since: u32,
}

/// The rules that every run has.
#[must_use]
pub fn rules() -> RuleSet {
    let mut set = RuleSet::default();
    let problems = parse("meters", RULES, &NoInputs, &mut set);
    assert!(problems.is_empty(), "{problems:?}");
    set
}

/// Feeds a record as if it were a reading: what it says follows from its offset and its text alone.
fn feed(engine: &mut Engine, offset: Offset, text: &[u8], out: &mut Vec<Transition>) {
    let at = text.iter().position(|byte| *byte == b'=').unwrap_or(0);
    let meter = String::from_utf8_lossy(&text[..at]).into_owned();
    let number: u64 = std::str::from_utf8(&text[at + 1..]).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (n, ts) = (number / 3 % 10, (DAY + offset.0 * 60_000) / 1000);
    let value = format!(r#"{{"meter":"{meter}","ts":{ts},"n":{n}}}"#);
    let timestamp = Millis(DAY + offset.0 * 60_000);
    engine.feed(Reading { offset: offset.0, timestamp, value: Some(value.as_bytes()) }, timestamp, out);
}

fn prefix(source: PartitionId) -> String {
    format!("{}/{}/", source.topic, source.index)
}

impl World {
    pub(super) fn begin_alerts(&mut self, place: usize, id: ServiceId, found: BTreeMap<Bytes, Bytes>) {
        let (prefix, rules) = (prefix(id.0), rules());
        let mut engine = None;
        let mut recorded = BTreeSet::new();
        for (key, value) in &found {
            let Some(rest) = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&prefix)) else { continue };
            if rest == "checkpoint" {
                let mut gone = Vec::new();
                engine = Engine::restore(&rules, "readings", id.0.index, value, &mut gone).ok();
            } else {
                recorded.insert(rest.to_owned());
            }
        }
        let engine = engine.unwrap_or_else(|| Engine::new(&rules, "readings", id.0.index, 0));
        if let Some(service) = self.service(place, id) {
            service.job = Some(Job::Alerts(Box::new(Alerts { engine, recorded, since: 0 })));
        }
    }

    pub(super) fn drive_alerts(&mut self, place: usize, id: ServiceId) {
        let checkpoint_after = u32::try_from(self.random.below(60)).unwrap_or(0);
        let prefix = prefix(id.0);
        let Some(live) = self.live(place) else { return };
        let Some(handle) = live.partitions.get(&id.0).cloned() else { return };
        let Some(service) = live.services.get_mut(&id).filter(|service| service.is_idle()) else { return };
        let Some(Job::Alerts(alerts)) = &mut service.job else { return };
        let next = Offset(alerts.engine.next_offset());
        let Ok(fetched) = handle.read(next, 2000) else { return };
        let mut out = Vec::new();
        for (offset, _, text) in values(&fetched.batches).unwrap_or_default() {
            feed(&mut alerts.engine, offset, &text, &mut out);
            alerts.since += 1;
        }
        let mut records = Vec::new();
        for transition in out {
            if alerts.recorded.insert(transition.id.clone()) {
                records.push((Bytes::from(format!("{prefix}{}", transition.id)), transition.to_json().into()));
            }
        }
        if alerts.since > checkpoint_after {
            alerts.since = 0;
            records.push((Bytes::from(format!("{prefix}checkpoint")), alerts.engine.snapshot().into()));
        }
        if !records.is_empty() {
            service.write(id, records, Then::Nothing);
        }
    }

    /// How far the rules of a partition have come, on its leader.
    pub(crate) fn alerts_at(&self, place: usize, id: ServiceId) -> Option<i64> {
        let service = self.nodes[place].live.as_ref()?.services.get(&id)?;
        match &service.job {
            Some(Job::Alerts(alerts)) if service.is_idle() => Some(alerts.engine.next_offset()),
            _ => None,
        }
    }

    /// Every transition is recorded once, and none that the log does not give.
    pub(crate) fn check_alerts(&self, source: PartitionId) -> Result<(), String> {
        let Some(topic) = self.quorum.image.topic_named("_alerts") else { return Ok(()) };
        let journal = PartitionId { topic: topic.id, index: 0 };
        let prefix = prefix(source);
        let mut recorded = Vec::new();
        for record in self.truth.all(journal) {
            let Some(cut) = record.iter().position(|byte| *byte == b'=') else { continue };
            let key = String::from_utf8_lossy(&record[..cut]);
            if let Some(id) = key.strip_prefix(&prefix).filter(|rest| *rest != "checkpoint") {
                recorded.push(id.to_owned());
            }
        }
        let mut engine = Engine::new(&rules(), "readings", source.index, 0);
        let mut expected = Vec::new();
        for (offset, text) in (0i64..).map(Offset).zip(self.truth.all(source)) {
            feed(&mut engine, offset, text, &mut expected);
        }
        let expected: Vec<String> = expected.into_iter().map(|transition| transition.id).collect();
        if recorded == expected {
            return Ok(());
        }
        let differs = recorded.iter().zip(&expected).position(|(a, b)| a != b);
        Err(format!(
            "{} transitions are recorded, {} expected, other from {differs:?} on",
            recorded.len(),
            expected.len()
        ))
    }
}
