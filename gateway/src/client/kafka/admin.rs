//! Topics: made, removed, described and altered.

use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use kafka_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::{Client, check, topic_name};

/// How long the controller may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Kafka's code for a resource that is a topic.
const TOPIC: i8 = 2;
/// The config source of a value that was set on the topic.
const SET_ON_TOPIC: i8 = 1;

/// One config of a topic.
#[derive(Debug, Clone)]
pub struct ConfigEntry {
    pub name: String,
    pub value: String,
    /// Set on the topic, not a default.
    pub own: bool,
}

/// A change to one config.
#[derive(Debug, Clone)]
pub enum ConfigChange {
    Set(String, String),
    /// Back to the default.
    Reset(String),
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

fn timeout_ms() -> i32 {
    i32::try_from(ADMIN_TIMEOUT.as_millis()).unwrap_or(i32::MAX)
}

impl Client {
    /// Makes a topic; `None` leaves a count to the cluster's defaults.
    pub async fn create_topic(
        &mut self,
        name: &str,
        partitions: Option<i32>,
        replication_factor: Option<i16>,
        configs: &[(String, String)],
    ) -> anyhow::Result<()> {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions.unwrap_or(-1))
            .with_replication_factor(replication_factor.unwrap_or(-1))
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms());
        let answer = self.controller().await?.call(7, ADMIN_TIMEOUT, move |_| request).await?;
        for topic in &answer.topics {
            check(topic.error_code, topic.error_message.as_ref(), format!("cannot create topic {name}"))?;
        }
        Ok(())
    }

    /// Gives a topic more partitions, `count` in all.
    pub async fn create_partitions(&mut self, name: &str, count: i32) -> anyhow::Result<()> {
        let topic =
            CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms());
        let answer = self.controller().await?.call(3, ADMIN_TIMEOUT, move |_| request).await?;
        for topic in &answer.results {
            let what = format!("cannot give topic {name} {count} partitions");
            check(topic.error_code, topic.error_message.as_ref(), what)?;
        }
        Ok(())
    }

    /// Removes a topic and its records.
    pub async fn delete_topic(&mut self, name: &str) -> anyhow::Result<()> {
        let asked = topic_name(name);
        let call = self.controller().await?.call(6, ADMIN_TIMEOUT, move |version| {
            let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms());
            if version >= 6 {
                request.with_topics(vec![DeleteTopicState::default().with_name(Some(asked))])
            } else {
                request.with_topic_names(vec![asked])
            }
        });
        for topic in &call.await?.responses {
            check(topic.error_code, topic.error_message.as_ref(), format!("cannot delete topic {name}"))?;
        }
        Ok(())
    }

    /// The configs of a topic, by name.
    pub async fn topic_configs(&mut self, name: &str) -> anyhow::Result<Vec<ConfigEntry>> {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(name))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.controller().await?.call(4, ADMIN_TIMEOUT, move |_| request).await?;
        let mut configs = Vec::new();
        for result in answer.results {
            check(result.error_code, result.error_message.as_ref(), format!("cannot read the configs of {name}"))?;
            configs.extend(result.configs.into_iter().map(|config| ConfigEntry {
                name: config.name.to_string(),
                value: config.value.map(|value| value.to_string()).unwrap_or_default(),
                own: config.config_source == SET_ON_TOPIC,
            }));
        }
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(configs)
    }

    /// Changes configs of a topic; all of them or none.
    pub async fn alter_topic(&mut self, name: &str, changes: &[ConfigChange]) -> anyhow::Result<()> {
        let changes = changes.iter().map(|change| match change {
            ConfigChange::Set(key, value) => {
                AlterableConfig::default().with_name(text(key)).with_config_operation(0).with_value(Some(text(value)))
            }
            ConfigChange::Reset(key) => {
                AlterableConfig::default().with_name(text(key)).with_config_operation(1).with_value(None)
            }
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(name))
            .with_configs(changes.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.controller().await?.call(1, ADMIN_TIMEOUT, move |_| request).await?;
        for result in &answer.responses {
            check(result.error_code, result.error_message.as_ref(), format!("cannot alter topic {name}"))?;
        }
        Ok(())
    }
}
