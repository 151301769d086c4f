//! Makes the topics that the configuration names: `[topics.NAME]`, the routes' topics, and the one for everything else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use forebay_cluster::{Log, LogError, NewTopic};
use forebay_log::TopicConfig;
use tokio_util::sync::CancellationToken;

use crate::alerts;
use crate::config::{Config, TopicDefaults};
use crate::ingest::DEFAULT_TOPIC;
use crate::lake::MANIFEST_TOPIC;
use crate::log_limit::LogLimit;
use crate::mqtt;

/// How often a topic that the cluster is to have is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often missing topics are made again.
const MAKE_AGAIN: Duration = Duration::from_secs(5);

/// The node's own state. Who keeps it makes its topic as well; made together, they cost a first start one change of the metadata.
const STATE: [&str; 4] = [MANIFEST_TOPIC, mqtt::SESSIONS_TOPIC, mqtt::RETAINED_TOPIC, alerts::STATE_TOPIC];

/// Makes all that is missing at a start, at once. If that cannot be, [`create_configured`] and those who keep the state make one
/// after the other, and say what is wrong.
pub(super) async fn create_at_start(log: &Log, config: &Config) -> anyhow::Result<()> {
    let new = |name: &str, partitions, config| NewTopic { name: name.to_owned(), partitions, config };
    let configured = wanted(config).into_iter().map(|(name, t)| new(name, t.num_partitions, t.config.clone()));
    let state = STATE.map(|name| new(name, 1, config.replicated(TopicConfig::internal())));
    let journal = new(alerts::JOURNAL_TOPIC, 1, config.replicated(alerts::journal_config()));
    let needed: Vec<NewTopic> = configured.chain(state).chain([journal]).collect();
    let missing = needed.iter().filter(|topic| log.topic(&topic.name).is_none()).cloned().collect();
    if let Err(error) = log.create_topics(missing).await {
        tracing::debug!(%error, "missing topics cannot be made at once");
    }
    if !config.cluster.peers.is_empty() {
        for topic in needed {
            make_together(log, topic).await?;
        }
    }
    create_configured(log, config).await
}

/// Makes a topic of a cluster whose other nodes may be about to make it too, or may not be there yet.
async fn make_together(log: &Log, topic: NewTopic) -> anyhow::Result<()> {
    static LIMIT: LogLimit = LogLimit::new(1);
    while log.topic(&topic.name).is_none() {
        match log.create_topics(vec![topic.clone()]).await {
            // Another node was first: it shows in a moment.
            Ok(_) | Err(LogError::TopicExists(_)) => {}
            Err(error @ (LogError::TooFewNodes(_) | LogError::Unavailable(_))) => {
                if let Some(suppressed) = LIMIT.admit() {
                    tracing::warn!(topic = topic.name, %error, suppressed, "waiting for the cluster's other nodes");
                }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot make topic {}", topic.name)),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Makes what is missing; topics that exist keep their configs.
async fn create_configured(log: &Log, config: &Config) -> anyhow::Result<()> {
    for (name, topic) in wanted(config) {
        match log.topic(name) {
            Some(existing) => {
                let partitions = existing.partitions.len();
                if partitions != topic.num_partitions as usize && config.topics.contains_key(name) {
                    tracing::warn!(
                        "topics.{name}.num.partitions is {}, but the topic exists with {partitions}; it stays as it is",
                        topic.num_partitions
                    );
                }
            }
            None => match log.create_topic(name, topic.num_partitions, topic.config.clone()).await {
                Ok(_) | Err(LogError::TopicExists(_)) => {}
                // Readings are refused until there is room, but the node is up to say so.
                Err(LogError::DiskFull) => tracing::error!("topic {name} cannot be made: the disk is full"),
                Err(error) => return Err(error).with_context(|| format!("cannot make topic {name}")),
            },
        }
    }
    Ok(())
}

/// Topics that are missing: deleted since, or not made for want of space. Publishes to them are refused.
pub(super) fn missing(log: &Log, config: &Config) -> Vec<String> {
    let topics = log.topics();
    wanted(config).into_keys().filter(|name| !topics.contains_key(*name)).map(str::to_owned).collect()
}

/// Makes missing topics again, until told to stop.
pub(super) async fn keep(log: Log, config: Arc<Config>, stop: CancellationToken) {
    static LIMIT: LogLimit = LogLimit::new(1);
    while stop.run_until_cancelled(tokio::time::sleep(MAKE_AGAIN)).await.is_some() {
        if log.disk_full() || missing(&log, &config).is_empty() {
            continue;
        }
        if let Err(error) = create_configured(&log, &config).await
            && let Some(suppressed) = LIMIT.admit()
        {
            tracing::error!(suppressed, "a topic that readings are routed to is missing: {error:#}");
        }
    }
}

fn wanted(config: &Config) -> BTreeMap<&str, &TopicDefaults> {
    let routed = config.routes.iter().map(|route| route.topic.as_str()).chain([DEFAULT_TOPIC]);
    let mut wanted: BTreeMap<&str, &TopicDefaults> = routed.map(|name| (name, &config.topic_defaults)).collect();
    wanted.extend(config.topics.iter().map(|(name, topic)| (name.as_str(), topic)));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn configured_routed_and_default_topics_are_wanted() {
        let set = ["topics.readings.num.partitions=8", "routes=[{filter=\"a\", topic=\"b\"}]"];
        let set = set.iter().map(|flag| (*flag).to_owned()).collect();
        let config = Config::load(&Sources { set, ..Sources::default() }).unwrap();
        let wanted: Vec<_> = wanted(&config).into_iter().map(|(name, topic)| (name, topic.num_partitions)).collect();
        assert_eq!(wanted, [("b", 4), ("mqtt", 4), ("readings", 8)]);
    }
}
