//! The four kinds of receivers behind one call: tell this transition, or say whether another attempt makes sense.

use std::borrow::Cow;

use anyhow::Context;
use forebay_cluster::{AppendData, LogError};
use forebay_log::AppendError;
use forebay_log::partitioner::partition_for_key;
use forebay_log::record::RecordChunk;
use forebay_sinks::ReceiverConfig;
use forebay_sinks::Transition;
use forebay_sinks::receiver::{Alertmanager, DeliveryError, Webhook};
use forebay_sinks::template::{Part, Template};

use super::service::{Service, now};

/// The client id that alerts are published with.
const CLIENT_ID: &str = "forebay-alerts";
/// The header of a record in a `kafka` receiver's topic that names the transition.
const ID_HEADER: &str = "idempotency-key";

/// Where transitions go.
pub(super) enum Receiver {
    Webhook(Webhook),
    Alertmanager(Alertmanager),
    Mqtt { topic: Template, retain: bool },
    Kafka { topic: String },
}

impl Receiver {
    pub(super) fn new(config: &ReceiverConfig) -> anyhow::Result<Receiver> {
        let client = || format!("{} cannot be set up", config.id());
        Ok(match config {
            ReceiverConfig::Webhook { url, hmac_secret, timeout_ms } => {
                Receiver::Webhook(Webhook::new(url, hmac_secret.clone(), *timeout_ms).with_context(client)?)
            }
            ReceiverConfig::Alertmanager { url, timeout_ms } => {
                Receiver::Alertmanager(Alertmanager::new(url, *timeout_ms).with_context(client)?)
            }
            ReceiverConfig::Mqtt { topic, retain, .. } => Receiver::Mqtt { topic: topic.clone(), retain: *retain },
            ReceiverConfig::Kafka { topic } => Receiver::Kafka { topic: topic.clone() },
        })
    }

    /// Delivers one transition; on return the receiver has it.
    pub(super) async fn deliver(&self, service: &Service, transition: &Transition) -> Result<(), DeliveryError> {
        match self {
            Receiver::Webhook(webhook) => webhook.deliver(&transition.id, transition.to_json()).await,
            Receiver::Alertmanager(alertmanager) => alertmanager.post(std::slice::from_ref(transition), now()).await,
            Receiver::Mqtt { topic, retain } => {
                let topic = mqtt_topic(topic, transition);
                let json = transition.to_json();
                service.broker.publish(CLIENT_ID, &topic, &json, *retain).await.map_err(|error| judge(&error))
            }
            Receiver::Kafka { topic } => append(service, topic, transition).await,
        }
    }
}

/// The MQTT topic of a transition. What would change the topic's levels in an inserted value becomes `_`.
fn mqtt_topic(template: &Template, transition: &Transition) -> String {
    template.render(|part| {
        let value: Cow<'_, str> = match part {
            Part::Text(_) => return None,
            Part::AlertName => Cow::Borrowed(transition.alert.as_str()),
            Part::Value => Cow::Owned(transition.value?.to_string()),
            Part::Label(name) => Cow::Borrowed(transition.labels.get(name)?.as_str()),
            Part::Field(path) => match transition.labels.get(&path.0.join("_")) {
                Some(value) => Cow::Borrowed(value.as_str()),
                None if path.0 == ["state"] => Cow::Borrowed(transition.state.name()),
                None => return None,
            },
        };
        Some(Cow::Owned(value.replace(['/', '+', '#', '\0'], "_")))
    })
}

async fn append(service: &Service, topic: &str, transition: &Transition) -> Result<(), DeliveryError> {
    let topic = match service.log.topic(topic) {
        Some(topic) => topic,
        None => {
            let defaults = &service.config.topic_defaults;
            match service.log.create_topic(topic, defaults.num_partitions, defaults.config.clone()).await {
                Ok(topic) => topic,
                // Another made it at the same time: the next attempt finds it.
                Err(error @ LogError::InvalidTopic(_)) => return Err(refused(&error)),
                Err(error) => return Err(unavailable(&error)),
            }
        }
    };
    let key = transition.fingerprint.as_bytes();
    let index = partition_for_key(key, u32::try_from(topic.partitions.len()).unwrap_or(1));
    let Some(partition) = topic.partitions.get(index as usize) else {
        return Err(DeliveryError::Unavailable { what: "the topic has no partition".into(), retry_after: None });
    };
    let mut chunk = RecordChunk::new();
    chunk.push(now(), Some(key), Some(&transition.to_json()), &[(ID_HEADER, transition.id.as_bytes())]);
    partition.append(AppendData::Chunk(chunk)).await.map_err(|error| judge(&error))?;
    Ok(())
}

fn judge(error: &AppendError) -> DeliveryError {
    match error {
        AppendError::Invalid(_) | AppendError::Corrupt(_) | AppendError::TooLarge { .. } => refused(error),
        _ => unavailable(error),
    }
}

fn unavailable(error: &impl ToString) -> DeliveryError {
    DeliveryError::Unavailable { what: error.to_string(), retry_after: None }
}

fn refused(error: &impl ToString) -> DeliveryError {
    DeliveryError::Refused { what: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_add_levels_or_wildcards_to_a_topic() {
        let transition: Transition = serde_json::from_str(
            r#"{"id":"i","alert":"Over/x","state":"firing","labels":{"meter":"a/+#"},"annotations":{},"value":1.5,
               "active_at":"2013-01-01T00:00:00Z","source":{"topic":"t","partition":0,"offset":1}}"#,
        )
        .expect("json");
        let template =
            Template::parse("alerts/{{ alertname }}/{{ meter }}/{{ state }}/{{ $value }}{{ none }}").expect("template");
        assert_eq!(mqtt_topic(&template, &transition), "alerts/Over_x/a___/firing/1.5");
    }
}
