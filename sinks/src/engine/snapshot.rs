//! The saved state of an engine: magic, version, checksum, then every key with the state of its alerts.
//!
//! ```text
//! "FBAS" | version u8 | crc32c u32 of the rest | next offset i64 | groups u32, each:
//!   name | labels of the key, joined by commas | alerts u32: names | keys u32, each:
//!     key | newest i64 | for each alert: phase u8 | last_false i64 | times of the phase | last transition, JSON or empty
//! ```
//! Integers are big-endian; text has its length (u32) in front.

use forebay_log::Millis;

use super::Engine;
use super::group::{GroupState, Instance, KeyState, key_labels};
use super::lifecycle::{Lifecycle, Phase};
use crate::transition::{State, Transition, fingerprint, transition_id};

const MAGIC: &[u8; 4] = b"FBAS";
const VERSION: u8 = 1;

const INACTIVE: u8 = 0;
const PENDING: u8 = 1;
const FIRING: u8 = 2;
const CLEARING: u8 = 3;

/// Why a snapshot cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("alert state has version {0}, this program reads {VERSION}")]
    Version(u8),
    #[error("alert state is damaged: {0}")]
    Damaged(&'static str),
}

const SHORT: SnapshotError = SnapshotError::Damaged("it ends too early");

pub(super) fn write(engine: &Engine) -> Vec<u8> {
    let mut body = Vec::new();
    put_i64(&mut body, engine.next_offset);
    put_len(&mut body, engine.groups.len());
    for state in &engine.groups {
        put_text(&mut body, &state.group.name);
        put_text(&mut body, &joined_labels(state));
        put_len(&mut body, state.group.rules.len());
        for rule in &state.group.rules {
            put_text(&mut body, &rule.alert);
        }
        put_len(&mut body, state.keys.len());
        // In their order: the same state is the same bytes on every node.
        let mut keys: Vec<_> = state.keys.iter().collect();
        keys.sort_unstable_by_key(|(key, _)| &***key);
        for (key, known) in keys {
            put_text(&mut body, key);
            put_i64(&mut body, known.newest);
            for instance in &known.instances {
                put_instance(&mut body, instance);
            }
        }
    }
    let mut out = Vec::with_capacity(body.len() + 9);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

fn joined_labels(state: &GroupState) -> String {
    let labels: Vec<&str> = state.group.key.iter().map(|field| field.label.as_str()).collect();
    labels.join(",")
}

fn put_instance(body: &mut Vec<u8>, instance: &Instance) {
    let (tag, times): (u8, &[i64]) = match &instance.life.phase {
        Phase::Inactive => (INACTIVE, &[]),
        Phase::Pending { active_at, last_true } => (PENDING, &[*active_at, *last_true]),
        Phase::Firing { active_at, starts_at, cleared_at: None } => (FIRING, &[*active_at, *starts_at]),
        Phase::Firing { active_at, starts_at, cleared_at: Some(at) } => (CLEARING, &[*active_at, *starts_at, *at]),
    };
    body.push(tag);
    put_i64(body, instance.life.last_false);
    for time in times {
        put_i64(body, *time);
    }
    if tag != INACTIVE {
        let json = instance.shown.as_ref().map(|shown| shown.to_json()).unwrap_or_default();
        put_len(body, json.len());
        body.extend_from_slice(&json);
    }
}

fn put_i64(body: &mut Vec<u8>, value: i64) {
    body.extend_from_slice(&value.to_be_bytes());
}
fn put_len(body: &mut Vec<u8>, len: usize) {
    // Counts of rules, keys and bytes of one key: all bounded far below.
    body.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}
fn put_text(body: &mut Vec<u8>, text: &str) {
    put_len(body, text.len());
    body.extend_from_slice(text.as_bytes());
}

/// Fills a fresh engine with the state of a snapshot.
pub(super) fn read(mut engine: Engine, snapshot: &[u8], out: &mut Vec<Transition>) -> Result<Engine, SnapshotError> {
    let mut bytes = Cursor { rest: snapshot };
    if bytes.take(4)? != MAGIC {
        return Err(SnapshotError::Damaged("it does not begin with its magic"));
    }
    match bytes.take(1)?[0] {
        VERSION => {}
        other => return Err(SnapshotError::Version(other)),
    }
    if bytes.len()? != crc32c::crc32c(bytes.rest) as usize {
        return Err(SnapshotError::Damaged("checksum mismatch"));
    }
    engine.next_offset = bytes.i64()?;
    for _ in 0..bytes.len()? {
        let name = bytes.text()?;
        let labels = bytes.text()?;
        let mut alerts = Vec::new();
        for _ in 0..bytes.len()? {
            alerts.push(bytes.text()?);
        }
        let group = engine.groups.iter().position(|state| state.group.name == name && joined_labels(state) == labels);
        // Where each saved alert is now.
        let places: Vec<Option<usize>> = alerts
            .iter()
            .map(|alert| engine.groups[group?].group.rules.iter().position(|rule| rule.alert == *alert))
            .collect();
        for _ in 0..bytes.len()? {
            let key = bytes.text()?;
            let newest = bytes.i64()?;
            let rules = group.map_or(0, |group| engine.groups[group].group.rules.len());
            let mut instances: Vec<Instance> = std::iter::repeat_with(Instance::default).take(rules).collect();
            for (alert, place) in alerts.iter().zip(&places) {
                let mut instance = bytes.instance()?;
                if let Some(shown) = &mut instance.shown {
                    shown.fingerprint = fingerprint(name, alert, key_labels(labels.split(','), key));
                }
                match (place, instance.shown) {
                    (Some(place), shown) => instances[*place] = Instance { life: instance.life, shown },
                    (None, Some(shown)) => out.push(removed(*shown, newest, engine.next_offset)),
                    (None, None) => {}
                }
            }
            if let Some(group) = group {
                engine.groups[group].insert(key, KeyState { newest, instances: instances.into() });
            }
        }
    }
    if bytes.rest.is_empty() { Ok(engine) } else { Err(SnapshotError::Damaged("something follows it")) }
}

/// The end of an alert whose rule is gone: at the newest reading of its key.
fn removed(shown: Transition, newest: i64, next_offset: i64) -> Transition {
    let mut resolved = shown;
    resolved.id = transition_id(&resolved.fingerprint, resolved.active_at, State::Resolved, "rule removed");
    resolved.state = State::Resolved;
    resolved.ends_at = Some(Millis(newest));
    resolved.source.offset = next_offset - 1;
    resolved
}

/// Reads a snapshot, never beyond its end.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }
    fn i64(&mut self) -> Result<i64, SnapshotError> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into().map_err(|_| SHORT)?))
    }
    fn len(&mut self) -> Result<usize, SnapshotError> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().map_err(|_| SHORT)?) as usize)
    }
    fn text(&mut self) -> Result<&'a str, SnapshotError> {
        let len = self.len()?;
        std::str::from_utf8(self.take(len)?).map_err(|_| SnapshotError::Damaged("text is not UTF-8"))
    }
    fn instance(&mut self) -> Result<Instance, SnapshotError> {
        let tag = self.take(1)?[0];
        let last_false = self.i64()?;
        let phase = match tag {
            INACTIVE => Phase::Inactive,
            PENDING => Phase::Pending { active_at: self.i64()?, last_true: self.i64()? },
            FIRING => Phase::Firing { active_at: self.i64()?, starts_at: self.i64()?, cleared_at: None },
            CLEARING => Phase::Firing { active_at: self.i64()?, starts_at: self.i64()?, cleared_at: Some(self.i64()?) },
            _ => return Err(SnapshotError::Damaged("an unknown phase")),
        };
        let mut shown = None;
        if tag != INACTIVE {
            let len = self.len()?;
            let json = self.take(len)?;
            let transition = serde_json::from_slice(json).map_err(|_| SnapshotError::Damaged("a transition"))?;
            shown = Some(Box::new(transition));
        }
        Ok(Instance { life: Lifecycle { phase, last_false }, shown })
    }
}
