//! A compacted topic through the door: keys are asked for, and of each the last value stays.

use std::time::Duration;

use forebay_log::Offset;
use forebay_log::record::{Batches, RecordReader};
use kafka_protocol::ResponseError;

use super::admin::{ask, keyed};
use super::door::{open, produce};

#[tokio::test(flavor = "multi_thread")]
async fn of_each_key_the_last_value_stays_and_offsets_do_not_move() {
    let door = open().await;
    let mut client = door.client().await;
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "16384"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
    ];
    let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    client.create_topic("limits", Some(1), None, &configs).await.unwrap();
    let mut stream = door.raw().await;
    let keyless = ask(&mut stream, &produce("limits", 0, -1, keyed(None, Some("v"), -1)), 9).await;
    assert_eq!(keyless.responses[0].partition_responses[0].error_code, ResponseError::InvalidRecord.code());
    let padding = "x".repeat(1000);
    for round in 0..20 {
        for key in ["a", "b", "c"] {
            // `c` ends as a tombstone.
            let value = format!("{key}{round} {padding}");
            let value = (key != "c" || round < 3).then_some(value.as_str());
            ask(&mut stream, &produce("limits", 0, -1, keyed(Some(key), value, -1)), 9).await;
        }
    }
    let mut read = Vec::new();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        read.clear();
        let mut next = Offset(0);
        while next < Offset(60) {
            let fetched = client.fetch(1, "limits", &[(0, next)], 1 << 20, Duration::ZERO).await.unwrap();
            for batch in Batches::new(fetched[0].batches.clone()) {
                let (header, batch) = batch.unwrap();
                assert!(header.record_count > 0, "librdkafka cannot read a batch without records");
                for record in RecordReader::new(&header, &batch).unwrap().map(Result::unwrap) {
                    let value = record.value.map(|v| String::from_utf8_lossy(&v).split(' ').next().unwrap().to_owned());
                    read.push((record.offset.0, String::from_utf8_lossy(&record.key.unwrap()).into_owned(), value));
                }
                next = header.next_offset();
            }
        }
        if read.len() < 40 {
            break;
        }
    }
    assert!(read.len() < 40, "{} records stay of 60", read.len());
    let last = |key: &str| read.iter().rfind(|(_, k, _)| k == key).cloned();
    assert_eq!(last("a"), Some((57, "a".to_owned(), Some("a19".to_owned()))));
    assert_eq!(last("b"), Some((58, "b".to_owned(), Some("b19".to_owned()))));
    assert_eq!(last("c").and_then(|(_, _, value)| value), None);
    let shown = client.topic_configs("limits").await.unwrap();
    let remote = shown.iter().find(|config| config.name == "remote.storage.enable").unwrap();
    assert_eq!(remote.value, "false");
}
