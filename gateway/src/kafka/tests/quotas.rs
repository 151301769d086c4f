//! Client quotas through the door: who takes more than its share waits, and nobody else.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::super::topics::topic_name;
use super::admin::{ask, keyed};
use super::door::{open_clustered as open, produce};
use super::secured::{SASL, Secured};

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

/// Sets a rate of all clients without one of their own; `None` takes it away.
fn alter(key: &str, rate: Option<f64>) -> AlterClientQuotasRequest {
    let side = EntityData::default().with_entity_type(text("client-id")).with_entity_name(None);
    let op = OpData::default().with_key(text(key)).with_value(rate.unwrap_or(0.0)).with_remove(rate.is_none());
    let entry = EntryData::default().with_entity(vec![side]).with_ops(vec![op]);
    AlterClientQuotasRequest::default().with_entries(vec![entry])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_over_its_quota_waits_and_is_told_so() {
    let door = open().await;
    door.client().await.create_topic("t", Some(1), None, &[]).await.unwrap();
    let mut stream = door.raw().await;
    let size = keyed(None, Some(&"x".repeat(1000)), -1).len() as f64;
    assert_eq!(ask(&mut stream, &alter("producer_byte_rate", Some(size * 2.0)), 1).await.entries[0].error_code, 0);
    let (began, mut throttled) = (Instant::now(), 0);
    for _ in 0..5 {
        let request = produce("t", 0, -1, keyed(None, Some(&"x".repeat(1000)), -1));
        throttled += ask(&mut stream, &request, 9).await.throttle_time_ms;
    }
    // Two go at once, the third has to wait for the half second that it owes, and so on.
    assert!(throttled > 0 && began.elapsed() >= Duration::from_millis(900), "{throttled} {:?}", began.elapsed());
    let mut other = door.raw().await;
    assert_eq!(ask(&mut other, &alter("producer_byte_rate", None), 1).await.entries[0].error_code, 0);
    let request = produce("t", 0, -1, keyed(None, Some("x"), -1));
    assert_eq!(ask(&mut other, &request, 9).await.throttle_time_ms, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_over_its_quota_gets_less_at_once_and_waits() {
    let door = open().await;
    door.client().await.create_topic("t", Some(1), None, &[]).await.unwrap();
    let mut stream = door.raw().await;
    for _ in 0..10 {
        ask(&mut stream, &produce("t", 0, -1, keyed(None, Some(&"x".repeat(1000)), -1)), 9).await;
    }
    ask(&mut stream, &alter("consumer_byte_rate", Some(2500.0)), 1).await;
    let asked = FetchPartition::default().with_partition(0).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic_name("t")).with_partitions(vec![asked]);
    let request = FetchRequest::default().with_session_epoch(-1).with_topics(vec![topic]).with_max_bytes(1 << 20);
    let first = ask(&mut stream, &request, 12).await;
    let bytes = |answer: &FetchResponse| answer.responses[0].partitions[0].records.as_ref().map_or(0, |r| r.len());
    assert!((1000..=2500).contains(&bytes(&first)) && first.throttle_time_ms == 0, "{}", bytes(&first));
    assert!(ask(&mut stream, &request, 12).await.throttle_time_ms > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_described_and_wrong_ones_refused() {
    let door = open().await;
    let mut stream = door.raw().await;
    ask(&mut stream, &alter("consumer_byte_rate", Some(7.0)), 1).await;
    let any = ComponentData::default().with_entity_type(text("client-id")).with_match_type(2).with_match(None);
    let request = DescribeClientQuotasRequest::default().with_components(vec![any]).with_strict(true);
    let entries = ask(&mut stream, &request, 1).await.entries.unwrap();
    assert_eq!(
        (entries.len(), entries[0].values[0].key.as_str(), entries[0].values[0].value),
        (1, "consumer_byte_rate", 7.0)
    );
    assert_eq!(entries[0].entity[0].entity_name, None);
    for (key, rate) in [("request_percentage", 5.0), ("consumer_byte_rate", -1.0), ("consumer_byte_rate", f64::NAN)] {
        let code = ask(&mut stream, &alter(key, Some(rate)), 1).await.entries[0].error_code;
        assert_eq!(code, ResponseError::InvalidRequest.code(), "{key} {rate}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_after_a_restart() {
    let mut door = Secured::open(SASL).await;
    let mut stream = door.raw_of("admin", "admin-secret").await;
    assert_eq!(ask(&mut stream, &alter("producer_byte_rate", Some(100.0)), 1).await.entries[0].error_code, 0);
    door.restart().await;
    door.log_in("PLAIN", "admin", "admin-secret").await.unwrap().create_topic("t", Some(1), None, &[]).await.unwrap();
    let mut stream = door.raw_of("alice", "alice-secret").await;
    let request = produce("t", 0, -1, keyed(None, Some(&"x".repeat(1000)), -1));
    assert!(ask(&mut stream, &request, 9).await.throttle_time_ms > 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_alter_one_entity_at_once_both_have_their_way() {
    let door = open().await;
    let (mut one, mut other) = (door.raw().await, door.raw().await);
    for rate in 1..=10 {
        let [produced, fetched] =
            ["producer_byte_rate", "consumer_byte_rate"].map(|key| alter(key, Some(f64::from(rate))));
        let (first, second) = tokio::join!(ask(&mut one, &produced, 1), ask(&mut other, &fetched, 1));
        assert_eq!([first.entries[0].error_code, second.entries[0].error_code], [0, 0]);
        let any = ComponentData::default().with_entity_type(text("client-id")).with_match_type(2).with_match(None);
        let request = DescribeClientQuotasRequest::default().with_components(vec![any]).with_strict(true);
        let entries = ask(&mut one, &request, 1).await.entries.unwrap();
        let rates: Vec<f64> = entries[0].values.iter().map(|value| value.value).collect();
        assert_eq!(rates, [f64::from(rate); 2]);
    }
}
