//! Appends in the name of leaders of other partitions, on their way to the leader that decides on them.

use std::collections::BTreeMap;

use forebay_disk::{AppendData, Appended};
use forebay_log::limits::MAX_PARTITIONS_PER_TOPIC;
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch};

use super::receiver::Receiver;
use super::wire;
use crate::codec::{Malformed, Reader, Writer};
use crate::fence::Claim;
use crate::link::Body;

/// What the leader is asked.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) partition: PartitionId,
    /// The leadership that is meant.
    pub(crate) epoch: Epoch,
    pub(crate) claim: Claim,
    /// Without it only what came before is to be over.
    pub(crate) data: Option<AppendData>,
}

impl Claimed {
    pub(super) fn bytes(&self) -> usize {
        self.data.as_ref().map_or(0, AppendData::bytes)
    }

    pub(super) fn encode(self) -> Body {
        let Claimed { partition, epoch, claim, data } = self;
        let mut writer = Writer::with_capacity(64 + claim.leads.len() * 8);
        writer.uuid(partition.topic).u32(partition.index).i32(epoch.0);
        writer
            .u8(claim.service)
            .uuid(claim.topic)
            .u64(claim.serial())
            .u32(u32::try_from(claim.leads.len()).unwrap_or(0));
        for (index, epoch) in &claim.leads {
            writer.u32(*index).i32(epoch.0);
        }
        writer.bool(data.is_some());
        match data {
            Some(data) => wire::write_data(writer, data),
            None => writer.finish().into(),
        }
    }

    /// # Errors
    /// The message cannot be read.
    pub(crate) fn decode(body: bytes::Bytes) -> Result<Claimed, Malformed> {
        let mut reader = Reader::new(body);
        let partition = PartitionId { topic: reader.uuid()?, index: reader.u32()? };
        let epoch = Epoch(reader.i32()?);
        let (service, topic, serial) = (reader.u8()?, reader.uuid()?, reader.u64()?);
        let mut leads = BTreeMap::new();
        for _ in 0..reader.count(MAX_PARTITIONS_PER_TOPIC as usize)? {
            leads.insert(reader.u32()?, Epoch(reader.i32()?));
        }
        let data = if reader.bool()? { Some(wire::read_data(reader)?) } else { None };
        Ok(Claimed { partition, epoch, claim: Claim::from_parts(service, topic, leads, serial), data })
    }

    /// Goes on when whoever asked has gone.
    pub(crate) async fn answer(self, receiver: &Receiver) -> Body {
        wire::write_answers(&[self.decide(receiver).await])
    }

    pub(crate) async fn decide(self, receiver: &Receiver) -> Result<Appended, AppendError> {
        receiver.fences.append(self.partition, self.epoch, &self.claim, self.data).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use forebay_log::Millis;
    use forebay_log::record::RecordChunk;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_claimed_crosses_whole_and_cut_messages_are_refused() {
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(5), Some(b"key"), Some(b"value"), &[]);
        for data in [None, Some(AppendData::Chunk(chunk))] {
            let partition = PartitionId { topic: Uuid::from_u128(3), index: 9 };
            let claim = Claim::new(2, Uuid::from_u128(4), BTreeMap::from([(0, Epoch(7)), (5, Epoch(1))]));
            let has_data = data.is_some();
            let body = Claimed { partition, epoch: Epoch(4), claim: claim.clone(), data }.encode();
            let bytes = Bytes::from(
                [&body.head[..]]
                    .into_iter()
                    .chain(body.parts.iter().map(|part| &part[..]))
                    .collect::<Vec<_>>()
                    .concat(),
            );
            let read = Claimed::decode(bytes.clone()).unwrap();
            assert_eq!(
                (read.partition, read.epoch, read.claim, read.data.is_some()),
                (partition, Epoch(4), claim, has_data)
            );
            for cut in 0..bytes.len() {
                assert!(Claimed::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
            }
        }
    }
}
