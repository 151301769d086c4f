//! Settings (users, ACLs, quotas, rules) and blocks of producer ids.

use std::collections::BTreeMap;

use super::Controller;
use super::refusal::Refusal;
use super::request::{Reply, SettingChange};
use crate::cluster::image::setting_bytes;
use crate::cluster::record::Record;
use crate::limits::{MAX_PRODUCER_ID_BLOCK, MAX_SETTING_KEY_BYTES, MAX_SETTINGS_CHANGE_BYTES};

/// More than the names and signs around a setting take in the metadata's log.
const WRITTEN_NAMES: usize = 64;

impl Controller {
    pub(super) fn put_settings(
        &mut self,
        changes: Vec<SettingChange>,
        expected: &[SettingChange],
        records: &mut Vec<Record>,
    ) -> Result<Reply, Refusal> {
        let fits = |name: &str| (1..=MAX_SETTING_KEY_BYTES).contains(&name.len());
        if changes.iter().any(|change| !fits(&change.namespace) || !fits(&change.key)) {
            return Err(Refusal::InvalidSetting { most: MAX_SETTING_KEY_BYTES });
        }
        let written: usize = changes.iter().map(written).sum();
        if written > MAX_SETTINGS_CHANGE_BYTES {
            return Err(Refusal::SettingsTooLarge { bytes: written, most: MAX_SETTINGS_CHANGE_BYTES });
        }
        let is_other =
            |setting: &&SettingChange| self.image.setting(&setting.namespace, &setting.key) != setting.value.as_deref();
        if let Some(SettingChange { namespace, key, .. }) = expected.iter().find(is_other).cloned() {
            return Err(Refusal::SettingChanged { namespace, key });
        }
        let mut last: BTreeMap<(&str, &str), Option<&str>> = BTreeMap::new();
        for SettingChange { namespace, key, value } in &changes {
            last.insert((namespace, key), value.as_deref());
        }
        let mut bytes = self.image.settings_bytes();
        for ((namespace, key), value) in last {
            let size = |value: Option<&str>| value.map_or(0, |value| setting_bytes(namespace, key, value));
            bytes = bytes + size(value) - size(self.image.setting(namespace, key));
        }
        let most = self.limits.max_settings_bytes;
        if bytes > most && bytes > self.image.settings_bytes() {
            return Err(Refusal::SettingsTooLarge { bytes, most });
        }
        for SettingChange { namespace, key, value } in changes {
            if self.image.setting(&namespace, &key) != value.as_deref() {
                self.decide(Record::Setting { namespace, key, value }, records);
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn allocate_producer_ids(&mut self, count: u32, records: &mut Vec<Record>) -> Result<Reply, Refusal> {
        if !(1..=MAX_PRODUCER_ID_BLOCK).contains(&count) {
            return Err(Refusal::InvalidProducerIds { wanted: count, most: MAX_PRODUCER_ID_BLOCK });
        }
        let first = self.image.next_producer_id();
        let next = first.checked_add(i64::from(count)).ok_or(Refusal::ProducerIdsExhausted)?;
        self.decide(Record::ProducerIds { next }, records);
        Ok(Reply::ProducerIds { first, count })
    }
}

/// At most so many bytes one change takes in the metadata's log, which is JSON.
fn written(change: &SettingChange) -> usize {
    let bytes = |text: &str| -> usize {
        let escaped = text.bytes().map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
            0..0x20 => 6,
            _ => 1,
        });
        escaped.sum()
    };
    let SettingChange { namespace, key, value } = change;
    WRITTEN_NAMES + bytes(namespace) + bytes(key) + value.as_deref().map_or(0, bytes)
}
