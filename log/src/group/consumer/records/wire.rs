//! Compact strings and arrays, as the values of version 0 have them (KIP-482).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::super::topics::{Partition, Partitions, TopicId};
use crate::group::Name;

pub(super) trait Writer {
    fn put_varint(&mut self, value: u32);
    fn put_optional(&mut self, text: Option<&str>);
    fn put_partitions(&mut self, partitions: &Partitions);

    /// The length of an array.
    fn put_count(&mut self, count: usize) {
        self.put_varint(u32::try_from(count).map_or(u32::MAX, |count| count.saturating_add(1)));
    }

    fn put_string(&mut self, text: &str) {
        self.put_optional(Some(text));
    }

    fn put_no_tags(&mut self) {
        self.put_varint(0);
    }
}

impl Writer for BytesMut {
    fn put_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    fn put_optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => {
                self.put_count(text.len());
                self.put_slice(text.as_bytes());
            }
            None => self.put_varint(0),
        }
    }

    fn put_partitions(&mut self, partitions: &Partitions) {
        // A set has a topic's partitions next to each other.
        let sorted: Vec<Partition> = partitions.iter().copied().collect();
        let topics = || sorted.chunk_by(|a, b| a.topic == b.topic);
        self.put_count(topics().count());
        for of_topic in topics() {
            let Some(first) = of_topic.first() else { continue };
            self.put_slice(&first.topic.0);
            self.put_count(of_topic.len());
            of_topic.iter().for_each(|part| self.put_i32(part.index));
            self.put_no_tags();
        }
    }
}

/// Each reads what stands next; `None` if it does not stand there whole.
pub(super) trait Reader: Sized {
    fn varint(&mut self) -> Option<u32>;
    fn optional(&mut self) -> Option<Option<Name>>;
    fn topic_id(&mut self) -> Option<TopicId>;
    fn skip_tags(&mut self) -> Option<()>;
    fn partitions(&mut self) -> Option<Partitions>;

    fn count(&mut self) -> Option<u32> {
        Some(self.varint()?.saturating_sub(1))
    }

    fn string(&mut self) -> Option<Name> {
        self.optional()?
    }
}

impl Reader for Bytes {
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.try_get_u8().ok()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Some(value)
    }

    fn optional(&mut self) -> Option<Option<Name>> {
        let Some(length) = (self.varint()? as usize).checked_sub(1) else { return Some(None) };
        (length <= self.len()).then_some(())?;
        let text = self.split_to(length);
        Some(Some(std::str::from_utf8(&text).ok()?.into()))
    }

    fn topic_id(&mut self) -> Option<TopicId> {
        let mut id = [0; 16];
        self.try_copy_to_slice(&mut id).ok()?;
        Some(TopicId(id))
    }

    fn skip_tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()? as usize;
            (length <= self.len()).then_some(())?;
            self.advance(length);
        }
        Some(())
    }

    fn partitions(&mut self) -> Option<Partitions> {
        let mut partitions = Partitions::new();
        for _ in 0..self.count()? {
            let topic = self.topic_id()?;
            for _ in 0..self.count()? {
                partitions.insert(Partition { topic, index: self.try_get_i32().ok()? });
            }
            self.skip_tags()?;
        }
        Some(partitions)
    }
}
