//! A flush of a whole topic: each partition's leader brings its own into the table, asked over the manifest where it is another node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use forebay_cluster::{Partition, Topic};
use forebay_log::Offset;
use tokio::time::Instant;

use super::worker::Command;
use super::{Lake, status};
use crate::leadership;

/// How often it is looked how far the others are.
const LOOK: Duration = Duration::from_millis(50);
/// How long a flush waits without anybody getting any further.
const STALL: Duration = Duration::from_secs(30);

impl Lake {
    /// Rolls the topic's active segments, offloads everything below the high watermark and commits, on whichever nodes its partitions
    /// are led; returns when the table holds it.
    ///
    /// # Errors
    /// The topic is not offloaded, a step failed (it will be tried again in the background), or which partitions are not in the table
    /// because their leaders cannot be asked or get no further.
    pub async fn flush(self: &Arc<Self>, topic: &str) -> anyhow::Result<()> {
        let found = self.offloaded(topic)?;
        let all_here = found.partitions.iter().all(|one| leadership::led(&self.shared.log, one).is_some());
        if all_here {
            return self.flush_own(topic).await;
        }
        let mut ends = BTreeMap::new();
        for partition in &found.partitions {
            ends.insert(partition.index(), end_of(partition).await.map_err(|why| anyhow!("{topic}: {why}"))?);
        }
        let (own, others) = tokio::join!(self.flush_own(topic), self.until_flushed(&found, &ends));
        own?;
        others.map_err(|why| anyhow!("{topic}: {why}"))
    }

    /// Of the partitions that this node leads.
    async fn flush_own(self: &Arc<Self>, topic: &str) -> anyhow::Result<()> {
        self.command(topic, Command::Flush).await?.map_err(|error| anyhow!("{topic}: {error}"))
    }

    async fn until_flushed(&self, topic: &Topic, ends: &BTreeMap<u32, Offset>) -> Result<(), String> {
        let manifest = &self.shared.manifest;
        let (mut last, mut deadline) = (None, Instant::now() + STALL);
        loop {
            let missing = self.missing(topic, ends);
            let mut asked = manifest.asked(topic.id);
            if missing.is_empty() {
                // Somebody else may have asked for more.
                if !asked.is_empty() && self.missing(topic, &asked).is_empty() {
                    manifest.ask(topic.id, &BTreeMap::new()).await?;
                }
                return Ok(());
            }
            if missing.keys().any(|partition| asked.get(partition) < ends.get(partition)) {
                for (partition, end) in ends {
                    let asked = asked.entry(*partition).or_default();
                    *asked = (*asked).max(*end);
                }
                manifest.ask(topic.id, &asked).await?;
            }
            if self.shared.log.topic(&topic.name).is_none_or(|there| there.id != topic.id) {
                return Err("the topic was deleted".to_owned());
            }
            if last.as_ref() != Some(&missing) {
                deadline = Instant::now() + STALL;
            } else if Instant::now() >= deadline {
                return Err(not_flushed(topic, &missing));
            }
            last = Some(missing);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many records of each partition are below its end and not in the table, where there are any.
    fn missing(&self, topic: &Topic, ends: &BTreeMap<u32, Offset>) -> BTreeMap<u32, i64> {
        let totals = self.shared.manifest.totals(topic.id, status::settled(topic));
        let missing = |(partition, end): (&u32, &Offset)| {
            let start = topic.partitions.get(*partition as usize)?.watermarks().log_start;
            let missing = end.0 - totals.end(*partition).max(start).0;
            (missing > 0).then_some((*partition, missing))
        };
        ends.iter().filter_map(missing).collect()
    }
}

/// The end of what is committed, as the partition's leader says; nothing where nothing is left below it.
async fn end_of(partition: &Partition) -> Result<Offset, String> {
    let fetched = if partition.leads() {
        Ok(partition.watermarks())
    } else {
        partition.fetch_from_leader(Offset::ZERO, 0).await.map(|fetched| fetched.watermarks)
    };
    let marks = fetched.map_err(|error| format!("partition {} is not in the table: {error}", partition.index()))?;
    Ok(if marks.log_start < marks.high_watermark { marks.high_watermark } else { Offset::ZERO })
}

fn not_flushed(topic: &Topic, missing: &BTreeMap<u32, i64>) -> String {
    let told = missing.iter().map(|(partition, records)| {
        let leader = topic.partitions.get(*partition as usize).and_then(|one| one.leader());
        let leader = leader.map_or("nobody leads it".to_owned(), |leader| format!("led by node {leader}"));
        format!("{records} records of partition {partition} ({leader})")
    });
    format!("not in the table, and no progress for {STALL:?}: {}", told.collect::<Vec<_>>().join(", "))
}
