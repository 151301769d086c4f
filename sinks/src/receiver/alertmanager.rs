//! Prometheus Alertmanager: fired and resolved alerts by its API v2 (`POST /api/v2/alerts`).

use serde_json::json;

use super::{DeliveryError, client, judge, unreachable};
use crate::transition::{Transition, format_time};

/// Posts to one Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    client: reqwest::Client,
    url: String,
}

impl Alertmanager {
    /// `base` is the address without path, such as `http://127.0.0.1:9093`.
    ///
    /// # Errors
    /// The TLS roots of the system cannot be used.
    pub fn new(base: &str, timeout_ms: i64) -> Result<Alertmanager, reqwest::Error> {
        Ok(Alertmanager { client: client(timeout_ms)?, url: format!("{base}/api/v2/alerts") })
    }

    /// Posts one transition. Alertmanager knows fired alerts only: one that was resolved before it fired is passed over.
    ///
    /// # Errors
    /// Whether to try again or to give up.
    pub async fn deliver(&self, transition: &Transition) -> Result<(), DeliveryError> {
        let Some(body) = body(transition) else { return Ok(()) };
        let response = self.client.post(&self.url).json(&body).send().await.map_err(|error| unreachable(&error))?;
        judge(&response)
    }
}

fn body(transition: &Transition) -> Option<serde_json::Value> {
    let starts_at = transition.starts_at?;
    let mut labels = transition.labels.clone();
    labels.insert("alertname".into(), transition.alert.clone());
    let mut alert = json!({
        "labels": labels,
        "annotations": transition.annotations,
        "startsAt": format_time(starts_at),
    });
    if let Some(ends_at) = transition.ends_at {
        alert["endsAt"] = format_time(ends_at).into();
    }
    Some(json!([alert]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_a_list_of_one_alert_with_its_name_as_a_label() {
        let transition: Transition = serde_json::from_str(
            r#"{"id":"i","alert":"Over","state":"resolved","labels":{"meter":"m1"},"annotations":{"summary":"s"},"value":1,
               "active_at":"2013-01-01T00:00:00Z","starts_at":"2013-01-01T00:03:00Z","ends_at":"2013-01-01T00:09:00Z",
               "source":{"topic":"t","partition":0,"offset":1}}"#,
        )
        .unwrap();
        assert_eq!(
            body(&transition).unwrap(),
            json!([{"labels": {"meter": "m1", "alertname": "Over"}, "annotations": {"summary": "s"},
                    "startsAt": "2013-01-01T00:03:00Z", "endsAt": "2013-01-01T00:09:00Z"}])
        );
        assert_eq!(body(&Transition { starts_at: None, ..transition }), None);
    }
}
