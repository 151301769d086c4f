//! What subscribers get while it is not known here what there is elsewhere.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_of_which_nothing_is_known_begins_where_its_leader_says_it_ends() {
    let door = Door::start(&[]).await;
    let mut meter = door.connect(v5("m1")).await;
    let mut subscriber = door.connect(kept("s1")).await;
    subscriber.subscribe("meters/#", Qos::AtLeastOnce).await;
    door.broker.hub.forget_positions();
    meter.publish(1, Qos::AtLeastOnce, "history").await;
    assert_eq!(meter.receive().await, Outgoing::PubAck(ack(1)));
    subscriber.hears_nothing().await;
    meter.publish(2, Qos::AtLeastOnce, "now").await;
    assert_eq!(subscriber.message().await.message.payload, "now");
    // One that reads for itself goes on where it was.
    drop(subscriber);
    eventually(|| door.broker.clients(9).iter().filter(|client| client.connected).count() == 1).await;
    door.broker.hub.forget_positions();
    meter.publish(3, Qos::AtLeastOnce, "missed").await;
    assert_eq!(meter.receive().await, Outgoing::PubAck(ack(2)));
    let mut subscriber = door.connect(kept("s1")).await;
    assert_eq!(subscriber.message().await.message.payload, "missed");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_at_once_ask_once_what_is_retained_elsewhere_and_do_not_wait_for_long() {
    let door = Door::start(&[]).await;
    let partition = door.log.topic("_mqtt_retained").unwrap().partitions[0].clone();
    let before = partition.watermarks().log_end;
    let retained = &door.broker.retained;
    door.files.shut_for("log/_mqtt_retained-0");
    for _ in 0..1000 {
        retained.catch_up();
    }
    let (keepings, number) = (retained.keepings.clone(), retained.keepings.next());
    tokio::time::sleep(SILENCE).await;
    assert!(!keepings.have_ended_below(number), "what was acknowledged elsewhere comes first");
    let waited = timeout(Duration::from_secs(10), keepings.end_below(number)).await;
    assert!(waited.is_ok(), "other messages wait behind");
    assert_eq!(door.broker.metrics.mqtt.retained_unsure.get(), 2);
    door.files.open();
    retained.catch_up();
    keepings.end_below(retained.keepings.next()).await;
    assert!(partition.watermarks().log_end.0 - before.0 <= 3);
}
