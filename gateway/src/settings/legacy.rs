//! Users, ACLs and quotas of nodes before there were clusters: kept in topics of their own then, and taken over once.

use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::{Log, LogError};

use super::{Entry, MOST_TOGETHER, Settings, SettingsError};
use crate::kafka::legacy_quota;
use crate::security::{LEGACY_TOPIC, legacy_setting};
use crate::state::StateTopic;

/// The settings that say what is taken over, by the topic.
const NAMESPACE: &str = "taken_over";
/// The topic that held quotas.
const QUOTAS: &str = "_client_quotas";
/// How long this node may take to lead such a topic.
const LED: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A setting made of a record, with its namespace.
pub(crate) type Legacy = (&'static str, Entry);

/// Takes over what is in such topics and was not taken over before.
///
/// # Errors
/// A topic cannot be read, or the settings not be made; the next start tries again.
pub(crate) async fn take_over(log: &Log) -> Result<(), SettingsError> {
    take_over_topic(log, LEGACY_TOPIC, legacy_setting).await?;
    take_over_topic(log, QUOTAS, legacy_quota).await
}

async fn take_over_topic(
    log: &Log,
    topic: &str,
    read: impl Fn(&Bytes, &Bytes) -> Option<Legacy>,
) -> Result<(), SettingsError> {
    let settings = Settings::new(log.clone());
    let Some(partition) = log.topic(topic).and_then(|topic| topic.partitions.first().cloned()) else { return Ok(()) };
    // Made by a node that was alone: it is that node that has it.
    if !partition.is_here() || settings.get(NAMESPACE, topic)?.is_some() {
        return Ok(());
    }
    let led = async {
        while partition.led_in().is_none() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let late = |_| LogError::Unavailable(format!("{topic} is not led by this node"));
    tokio::time::timeout(LED, led).await.map_err(late)?;
    let state = StateTopic::open(log, topic).await?;
    let (mut taken, mut strange) = (0, 0);
    let mut by_namespace: std::collections::BTreeMap<&str, Vec<Entry>> = std::collections::BTreeMap::new();
    for (key, value) in state.scan(b"") {
        match read(&key, &value) {
            Some((namespace, entry)) => by_namespace.entry(namespace).or_default().push(entry),
            None => strange += 1,
        }
    }
    for (namespace, entries) in by_namespace {
        taken += entries.len();
        for some in entries.chunks(MOST_TOGETHER) {
            settings.put(namespace, Vec::new(), some.to_vec()).await?;
        }
    }
    settings.put(NAMESPACE, Vec::new(), vec![(topic.to_owned(), Some("{}".to_owned()))]).await?;
    if strange > 0 {
        tracing::error!(topic, records = strange, "records of another version are passed over");
    }
    tracing::info!(topic, taken, "taken into the cluster's metadata");
    Ok(())
}
