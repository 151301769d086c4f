//! What consumers and their leader tell each other through the broker (Kafka's consumer protocol, KIP-429): the topics that one reads,
//! and the partitions that it gets. The broker itself needs it for tools only; consumers write it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The first version: every consumer reads it.
const VERSION: i16 = 0;

/// Whether this subscription names the topic. One that cannot be read names none.
pub fn subscribes(subscription: &Bytes, topic: &str) -> bool {
    topics(subscription).iter().any(|named| named == topic)
}

/// The topics of a subscription, as far as it can be read.
pub fn topics(subscription: &Bytes) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = subscription.clone();
    let _ = version_and_items(&mut rest, |rest| {
        all.push(String::from_utf8_lossy(&string(rest)?).into_owned());
        Some(())
    });
    all
}

/// A subscription to topics.
pub fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    bytes.put_i32(topics.len() as i32);
    topics.iter().for_each(|topic| put_string(&mut bytes, topic));
    // No data of the assignor's own.
    bytes.put_i32(-1);
    bytes.freeze()
}

/// An assignment of partitions, by topic.
pub fn assignment<'a>(topics: impl ExactSizeIterator<Item = (&'a str, &'a [i32])>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    bytes.put_i32(topics.len() as i32);
    for (topic, partitions) in topics {
        put_string(&mut bytes, topic);
        bytes.put_i32(partitions.len() as i32);
        partitions.iter().for_each(|partition| bytes.put_i32(*partition));
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

fn put_string(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(text.len() as i16);
    bytes.put_slice(text.as_bytes());
}

/// The partitions of an assignment, as far as it can be read.
pub fn assigned(assignment: &Bytes) -> Vec<(String, i32)> {
    let mut all = Vec::new();
    let mut rest = assignment.clone();
    let _ = version_and_items(&mut rest, |rest| {
        let topic = String::from_utf8_lossy(&string(rest)?).into_owned();
        items(rest, |rest| {
            all.push((topic.clone(), rest.try_get_i32().ok()?));
            Some(())
        })
    });
    all
}

fn version_and_items(rest: &mut Bytes, item: impl FnMut(&mut Bytes) -> Option<()>) -> Option<()> {
    rest.try_get_i16().ok()?;
    items(rest, item)
}

/// Each item takes some bytes, so a count that is not true ends with them.
fn items(rest: &mut Bytes, mut item: impl FnMut(&mut Bytes) -> Option<()>) -> Option<()> {
    (0..rest.try_get_i32().ok()?).try_for_each(|_| item(rest))
}

fn string(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_i16().ok()?).ok()?;
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_found_and_what_is_no_subscription_names_none() {
        let subscription = Bytes::from_static(b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x02bc\xff\xff\xff\xff");
        assert!(subscribes(&subscription, "a") && subscribes(&subscription, "bc"));
        assert!(!subscribes(&subscription, "b"));
        for end in 0..10 {
            assert!(!subscribes(&subscription.slice(..end), "bc"));
        }
        assert!(!subscribes(&Bytes::from_static(b"\x00\x01\x7f\xff\xff\xff"), "a"));
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(topics(&subscription(&["a", "bc"])), ["a", "bc"]);
        let of = [("a", &[0, 2][..]), ("bc", &[][..])];
        assert_eq!(assigned(&assignment(of.into_iter())), [("a".to_owned(), 0), ("a".to_owned(), 2)]);
    }

    #[test]
    fn partitions_are_read_as_far_as_they_go() {
        let assignment = b"\x00\x01\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x05";
        let assignment = Bytes::from_static(assignment);
        assert_eq!(assigned(&assignment), [("t".to_owned(), 3), ("t".to_owned(), 5)]);
        assert_eq!(assigned(&assignment.slice(..20)), [("t".to_owned(), 3)]);
        assert!(assigned(&Bytes::new()).is_empty());
    }
}
