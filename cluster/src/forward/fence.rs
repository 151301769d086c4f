//! The question to a partition's leader to take nothing more of some writers.

use bytes::Bytes;
use forebay_log::replication::PartitionId;
use forebay_log::{Epoch, ReadError};

use super::receiver::Receiver;
use crate::codec::{Malformed, Reader, Writer as Out};
use crate::link::Body;
use crate::writers::{MAX_AT_ONCE, Writer};

/// Longest text in an answer; longer ones are cut.
const MAX_TEXT: usize = 1024;

/// Who is fenced, and at the leader of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) partition: PartitionId,
    /// No append of theirs is meant for a later leadership: a leader of an earlier one has to wait until it is this one.
    pub(crate) epoch: Epoch,
    pub(crate) writers: Vec<Writer>,
}

impl Fence {
    pub(super) fn write(&self) -> Body {
        let mut out = Out::new();
        out.uuid(self.partition.topic).u32(self.partition.index).i32(self.epoch.0).count(self.writers.len());
        self.writers.iter().for_each(|writer| writer.write(&mut out));
        out.finish().into()
    }

    /// # Errors
    /// The message cannot be read.
    pub(crate) fn decode(message: Bytes) -> Result<Fence, Malformed> {
        let mut reader = Reader::new(message);
        let partition = PartitionId { topic: reader.uuid()?, index: reader.u32()? };
        let epoch = Epoch(reader.i32()?);
        let count = reader.count(MAX_AT_ONCE)?;
        let writers = (0..count).map(|_| Writer::read(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Fence { partition, epoch, writers })
    }

    pub(crate) async fn answer(self, receiver: &Receiver) -> Body {
        let mut out = Out::new();
        match self.decide(receiver).await {
            Ok(()) => out.bool(true),
            Err(error) => out.bool(false).text(&error.to_string(), MAX_TEXT),
        };
        out.finish().into()
    }

    /// On return the leader has all that it will ever have of these writers.
    ///
    /// # Errors
    /// [`ReadError::Offline`] where this node does not lead, or not yet in that leadership.
    pub(crate) async fn decide(&self, receiver: &Receiver) -> Result<(), ReadError> {
        let elsewhere = || ReadError::Offline("the node that was asked does not lead the partition".to_owned());
        let partition = receiver.partition(self.partition).ok_or_else(elsewhere)?;
        if !partition.leads() || partition.leader_epoch() < self.epoch {
            return Err(elsewhere());
        }
        receiver.writers.fence(&self.writers).await;
        Ok(())
    }
}

pub(super) fn read_answer(message: Bytes) -> Result<Result<(), ReadError>, Malformed> {
    let mut reader = Reader::new(message);
    Ok(if reader.bool()? { Ok(()) } else { Err(ReadError::Offline(reader.string(MAX_TEXT)?)) })
}

#[cfg(test)]
mod tests {
    use forebay_log::NodeId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_fence_crosses_whole_and_cut_ones_are_refused() {
        let partition = PartitionId { topic: Uuid::from_u128(3), index: 9 };
        let writers = (1..4).map(|number| Writer { node: NodeId(number), incarnation: 7, number: 5 }).collect();
        let fence = Fence { partition, epoch: Epoch(4), writers };
        let bytes = Bytes::copy_from_slice(&fence.write().head);
        assert_eq!(Fence::decode(bytes.clone()).unwrap(), fence);
        for cut in 0..bytes.len() {
            assert!(Fence::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}
