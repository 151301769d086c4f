//! Prometheus Alertmanager: fired and resolved alerts by its API v2 (`POST /api/v2/alerts`).

use forebay_log::Millis;
use serde_json::{Value, json};

use super::{DeliveryError, client, judge, unreachable};
use crate::limits::ALERTMANAGER_HOLD_MS;
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

    /// Posts alerts as they are at `now` (wall clock). Alertmanager knows fired alerts only: those that were resolved before
    /// they fired are passed over. Those that fire are to be posted again within [`ALERTMANAGER_HOLD_MS`], or they end.
    ///
    /// # Errors
    /// Whether to try again or to give up. Of a POST that was refused, Alertmanager has taken the alerts that are good.
    pub async fn post(&self, alerts: &[Transition], now: Millis) -> Result<(), DeliveryError> {
        let body: Vec<Value> = alerts.iter().filter_map(|transition| alert(transition, now)).collect();
        if body.is_empty() {
            return Ok(());
        }
        let response = self.client.post(&self.url).json(&body).send().await.map_err(|error| unreachable(&error))?;
        judge(&response)
    }
}

/// A fired alert in the API's terms. Its times are event times, except that its end is never ahead of the wall clock once it
/// was resolved (it would fire until then), and never before its beginning, which is refused.
fn alert(transition: &Transition, now: Millis) -> Option<Value> {
    let starts_at = transition.starts_at?;
    let mut labels = transition.labels.clone();
    labels.insert("alertname".into(), transition.alert.clone());
    let ends_at = match transition.ends_at {
        Some(ends_at) => ends_at.min(now).max(starts_at),
        None => Millis(now.max(starts_at).0.saturating_add(ALERTMANAGER_HOLD_MS)),
    };
    Some(json!({
        "labels": labels,
        "annotations": transition.annotations,
        "startsAt": format_time(starts_at),
        "endsAt": format_time(ends_at),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_has_its_name_as_a_label_and_an_end_that_alertmanager_takes() {
        let resolved: Transition = serde_json::from_str(
            r#"{"id":"i","alert":"Over","state":"resolved","labels":{"meter":"m1"},"annotations":{"summary":"s"},"value":1,
               "active_at":"2013-01-01T00:00:00Z","starts_at":"2013-01-01T00:03:00Z","ends_at":"2013-01-01T00:09:00Z",
               "source":{"topic":"t","partition":0,"offset":1}}"#,
        )
        .unwrap();
        let (starts_at, ended) = (resolved.starts_at.unwrap(), resolved.ends_at.unwrap());
        let later = Millis(ended.0 + 3_600_000);
        assert_eq!(
            alert(&resolved, later).unwrap(),
            json!({"labels": {"meter": "m1", "alertname": "Over"}, "annotations": {"summary": "s"},
                   "startsAt": "2013-01-01T00:03:00Z", "endsAt": "2013-01-01T00:09:00Z"})
        );
        let end = |transition: &Transition, now| alert(transition, now).unwrap()["endsAt"].as_str().unwrap().to_owned();
        // The meter's clock is ahead of ours.
        assert_eq!(end(&resolved, Millis(ended.0 - 60_000)), "2013-01-01T00:08:00Z");
        assert_eq!(end(&resolved, Millis(0)), "2013-01-01T00:03:00Z");
        let firing = Transition { ends_at: None, ..resolved.clone() };
        assert_eq!(end(&firing, later), "2013-01-01T01:13:00Z");
        assert_eq!(end(&firing, Millis(0)), format_time(Millis(starts_at.0 + ALERTMANAGER_HOLD_MS)));
        assert_eq!(alert(&Transition { starts_at: None, ..resolved }, later), None);
    }
}
