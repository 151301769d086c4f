//! Writes a FetchResponse around stored batches: the batches are sent from where they are, none is copied.
//!
//! The generated encoder copies records into its buffer; this one leaves gaps between small pieces for them.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::TopicName;
use uuid::Uuid;

use super::api::{Api, set_length};

/// What is answered for one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionAnswer {
    pub(crate) index: i32,
    pub(crate) error: i16,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    pub(crate) records: Bytes,
    /// Where the client shall read from now on: a replica that is nearer to it (KIP-392).
    pub(crate) preferred: Option<i32>,
}

/// What is answered for one topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicAnswer {
    pub(crate) name: TopicName,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<PartitionAnswer>,
}

/// Bytes of a partition's fields without its records, at most.
const PARTITION_BYTES: usize = 64;

/// What stands around the topics of an answer.
pub(crate) struct Frame<'a> {
    pub(crate) api: &'a Api,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) error: i16,
    pub(crate) throttle_ms: i32,
    /// 0: the client sends full requests (KIP-227).
    pub(crate) session_id: i32,
}

impl Frame<'_> {
    /// The frame, in pieces to be written one after the other.
    pub(crate) fn encode(&self, topics: &[TopicAnswer]) -> Vec<Bytes> {
        let &Frame { api, version, correlation_id, error, throttle_ms, session_id } = self;
        let partitions: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
        let names: usize = topics.iter().map(|topic| topic.name.len() + 32).sum();
        let mut writer = Writer {
            frame: api.begin_response(version, correlation_id, names + partitions * PARTITION_BYTES + 32),
            flexible: api.flexible(version),
            gaps: Vec::new(),
        };
        writer.frame.put_i32(throttle_ms);
        if version >= 7 {
            writer.frame.put_i16(error);
            writer.frame.put_i32(session_id);
        }
        writer.array(topics.len());
        for topic in topics {
            if version >= 13 {
                writer.frame.put_u128(topic.id.as_u128());
            } else {
                writer.string(&topic.name);
            }
            writer.array(topic.partitions.len());
            for partition in &topic.partitions {
                writer.partition(version, partition);
            }
            writer.no_tags();
        }
        writer.no_tags();
        writer.finish()
    }
}

struct Writer {
    frame: BytesMut,
    flexible: bool,
    /// Where in `frame` records belong.
    gaps: Vec<(usize, Bytes)>,
}

impl Writer {
    fn partition(&mut self, version: i16, partition: &PartitionAnswer) {
        self.frame.put_i32(partition.index);
        self.frame.put_i16(partition.error);
        self.frame.put_i64(partition.high_watermark);
        self.frame.put_i64(partition.high_watermark); // last_stable_offset: there are no transactions
        if version >= 5 {
            self.frame.put_i64(partition.log_start);
        }
        self.array(0); // aborted_transactions
        if version >= 11 {
            self.frame.put_i32(partition.preferred.unwrap_or(-1));
        }
        self.length(partition.records.len());
        if !partition.records.is_empty() {
            self.gaps.push((self.frame.len(), partition.records.clone()));
        }
        self.no_tags();
    }

    fn array(&mut self, count: usize) {
        self.length(count);
    }

    fn length(&mut self, length: usize) {
        if self.flexible {
            self.varint(length + 1);
        } else {
            self.frame.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
        }
    }

    fn string(&mut self, text: &str) {
        if self.flexible {
            self.varint(text.len() + 1);
        } else {
            self.frame.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        }
        self.frame.put_slice(text.as_bytes());
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.frame.put_u8(0);
        }
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.frame.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.frame.put_u8(value as u8);
    }

    fn finish(mut self) -> Vec<Bytes> {
        let records = self.gaps.iter().map(|(_, records)| records.len()).sum();
        set_length(&mut self.frame, records);
        let frame = self.frame.freeze();
        let mut pieces = Vec::with_capacity(self.gaps.len() * 2 + 1);
        let mut from = 0;
        for (at, records) in self.gaps {
            pieces.push(frame.slice(from..at));
            pieces.push(records);
            from = at;
        }
        pieces.push(frame.slice(from..));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::FetchResponse;
    use kafka_protocol::protocol::Decodable;

    use super::super::fetch::API;
    use super::super::topics::topic_name;
    use super::*;

    fn part(index: i32, error: i16, high_watermark: i64, log_start: i64, records: Bytes) -> PartitionAnswer {
        PartitionAnswer { index, error, high_watermark, log_start, records, preferred: None }
    }

    fn answers() -> Vec<TopicAnswer> {
        let records = Bytes::from(vec![7u8; 300]);
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef);
        vec![
            TopicAnswer {
                name: topic_name("readings"),
                id,
                partitions: vec![
                    part(0, 0, 40, 3, records.clone()),
                    PartitionAnswer { preferred: Some(3), ..part(1, 1, -1, -1, Bytes::new()) },
                    part(2, 0, 9, 0, records),
                ],
            },
            TopicAnswer { name: topic_name("empty"), id: Uuid::nil(), partitions: vec![] },
        ]
    }

    #[test]
    fn every_version_reads_back_as_it_was_meant() {
        for version in API.from..=API.to {
            let frame = Frame { api: &API, version, correlation_id: 42, error: 0, throttle_ms: 5, session_id: 77 };
            let pieces = frame.encode(&answers());
            let frame = Bytes::from(pieces.concat());
            assert_eq!(i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
            let header = if API.flexible(version) { 9 } else { 8 };
            let mut body = frame.slice(header..);
            let response = FetchResponse::decode(&mut body, version).unwrap();
            assert!(body.is_empty(), "v{version} leaves {} bytes", body.len());
            assert_eq!((response.error_code, response.session_id), (0, if version >= 7 { 77 } else { 0 }));
            assert_eq!(response.throttle_time_ms, 5);
            let topic = &response.responses[0];
            if version >= 13 {
                assert_eq!(topic.topic_id, answers()[0].id);
            } else {
                assert_eq!(topic.topic.as_str(), "readings");
            }
            let part = &topic.partitions[0];
            assert_eq!((part.partition_index, part.high_watermark, part.last_stable_offset), (0, 40, 40));
            assert_eq!(part.records.as_ref().map(Bytes::len), Some(300));
            assert_eq!(topic.partitions[1].error_code, 1);
            let preferred = [0, 1].map(|at| topic.partitions[at].preferred_read_replica.0);
            assert_eq!(preferred, if version >= 11 { [-1, 3] } else { [-1, -1] });
            assert_eq!(topic.partitions[2].records, part.records);
            assert!(response.responses[1].partitions.is_empty());
        }
    }

    #[test]
    fn stored_bytes_are_sent_from_where_they_are() {
        let answers = answers();
        let stored = answers[0].partitions[0].records.as_ptr();
        let frame = Frame { api: &API, version: 12, correlation_id: 1, error: 0, throttle_ms: 0, session_id: 0 };
        let pieces = frame.encode(&answers);
        assert!(pieces.iter().any(|piece| piece.as_ptr() == stored));
    }
}
