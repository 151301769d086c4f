//! Holds what is in the log and in the lake against the meters' own accounts.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use kafka_protocol::records::Record;

use crate::meter::Account;

/// Sequence numbers of each meter in the order of the log, from the records of all partitions.
pub fn by_meter(partitions: &[Vec<Record>]) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut meters: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (partition, records) in partitions.iter().enumerate() {
        let mut here = BTreeSet::new();
        for record in records {
            let value = record.value.as_ref().context("a record without value")?;
            let json: serde_json::Value = serde_json::from_slice(value)
                .with_context(|| format!("partition {partition} offset {}: {value:?}", record.offset))?;
            let meter = json["meter"].as_str().context("no meter")?.to_owned();
            let key = record.key.as_ref().context("a record without key")?;
            ensure!(key == meter.as_bytes(), "key {key:?} of meter {meter}");
            if here.insert(meter.clone()) {
                ensure!(!meters.contains_key(&meter), "{meter} is in more than one partition");
            }
            meters.entry(meter).or_default().push(json["seq"].as_u64().context("no seq")?);
        }
    }
    Ok(meters)
}

/// Every acked reading once, in order; nothing twice; nothing that was never sent.
pub fn check(accounts: &[Account], found: &BTreeMap<String, Vec<u64>>) -> Result<()> {
    for account in accounts {
        let meter = &account.meter;
        let empty = Vec::new();
        let seen = found.get(meter).unwrap_or(&empty);
        for pair in seen.windows(2) {
            ensure!(pair[0] < pair[1], "{meter} (QoS {}): {} comes before {}", account.qos, pair[0], pair[1]);
        }
        let seen: BTreeSet<u64> = seen.iter().copied().collect();
        let lost: Vec<_> = account.acked.difference(&seen).take(10).collect();
        ensure!(lost.is_empty(), "{meter} (QoS {}): acked but lost: {lost:?}", account.qos);
        let strange: Vec<_> = seen
            .iter()
            .filter(|seq| !account.acked.contains(seq) && !account.uncertain.contains(seq))
            .take(10)
            .collect();
        ensure!(strange.is_empty(), "{meter} (QoS {}): neither acked nor in doubt: {strange:?}", account.qos);
    }
    Ok(())
}
