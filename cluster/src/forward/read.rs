//! Reads of partitions that have no replica on the reader's node: the leader is asked, and may wait until there is something.

use std::time::Duration;

use bytes::Bytes;
use forebay_disk::{Fetched, Watermarks};
use forebay_log::replication::PartitionId;
use forebay_log::{Offset, ReadError};

use crate::codec::{Malformed, Reader, Writer};
use crate::link::Body;
use crate::replication::{Replicas, limits::AT_HAND_BYTES};

/// Most bytes of batches in one answer, but for a single larger batch.
pub(crate) const MAX_READ_BYTES: usize = 8 << 20;
/// Longest that a leader waits until there is something to read.
pub(crate) const MAX_READ_WAIT: Duration = Duration::from_secs(10);
/// Longest text in an answer; longer ones are cut.
const MAX_TEXT: usize = 1024;

/// Why a leader reads nothing for others, nor for itself where it matters.
pub(crate) const SUCCEEDED: &str = "the controller has not been heard of: the partition may have another leader by now";

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) partition: PartitionId,
    pub(crate) from: Offset,
    /// 0: only the watermarks are wanted.
    pub(crate) max_bytes: usize,
    /// How long to wait until the high watermark is above `from`.
    pub(crate) wait: Duration,
}

impl Read {
    pub(super) fn write(&self) -> Body {
        let mut writer = Writer::new();
        writer.uuid(self.partition.topic).u32(self.partition.index).i64(self.from.0);
        writer.u32(u32::try_from(self.max_bytes).unwrap_or(u32::MAX));
        writer.u32(u32::try_from(self.wait.as_millis()).unwrap_or(u32::MAX));
        writer.finish().into()
    }

    /// # Errors
    /// The message cannot be read.
    pub(crate) fn decode(message: Bytes) -> Result<Read, Malformed> {
        let mut reader = Reader::new(message);
        let partition = PartitionId { topic: reader.uuid()?, index: reader.u32()? };
        let from = Offset(reader.i64()?);
        let max_bytes = usize::try_from(reader.u32()?).unwrap_or(usize::MAX).min(MAX_READ_BYTES);
        let wait = Duration::from_millis(u64::from(reader.u32()?)).min(MAX_READ_WAIT);
        Ok(Read { partition, from, max_bytes, wait })
    }

    /// What this node, as the partition's leader, has to say.
    pub(crate) async fn answer(self, replicas: &Replicas, holds_lease: impl Fn() -> bool) -> Body {
        let read = self.perform(replicas).await;
        write_answer(&if holds_lease() { read } else { Err(ReadError::Offline(SUCCEEDED.to_owned())) })
    }

    async fn perform(self, replicas: &Replicas) -> Result<Fetched, ReadError> {
        let elsewhere = || ReadError::Offline("the node that was asked does not lead the partition".to_owned());
        let partition = replicas.get(self.partition).ok_or_else(elsewhere)?.partition;
        if !partition.leads() {
            return Err(elsewhere());
        }
        if !self.wait.is_zero() {
            let mut watch = partition.watch();
            let above = watch.wait_for(|marks| marks.high_watermark > self.from);
            // Then the answer is that there is nothing.
            let _ = tokio::time::timeout(self.wait, above).await;
        }
        if self.max_bytes == 0 {
            return Ok(Fetched { batches: Bytes::new(), watermarks: partition.watermarks() });
        }
        if partition.bytes_from(self.from) <= AT_HAND_BYTES {
            return partition.read(self.from, self.max_bytes);
        }
        let read = tokio::task::spawn_blocking(move || partition.read(self.from, self.max_bytes)).await;
        read.unwrap_or_else(|error| Err(ReadError::Storage(error.to_string())))
    }
}

fn write_answer(answer: &Result<Fetched, ReadError>) -> Body {
    let mut writer = Writer::new();
    let mut batches = Vec::new();
    match answer {
        Ok(fetched) => {
            let Watermarks { log_start, local_start, high_watermark, log_end } = fetched.watermarks;
            writer.u8(0).i64(log_start.0).i64(local_start.0).i64(high_watermark.0).i64(log_end.0);
            batches.push(fetched.batches.clone());
        }
        Err(ReadError::OutOfRange { asked, start, end }) => {
            writer.u8(1).i64(asked.0).i64(start.0).i64(end.0);
        }
        Err(ReadError::Tiered { asked, local_start }) => {
            writer.u8(2).i64(asked.0).i64(local_start.0);
        }
        Err(ReadError::Corrupt { file, position, what, next }) => {
            writer.u8(3).u64(*position).i64(next.0).text(&format!("{file} ({what})"), MAX_TEXT);
        }
        Err(ReadError::Storage(why)) => {
            writer.u8(4).text(why, MAX_TEXT);
        }
        Err(ReadError::Offline(why)) => {
            writer.u8(5).text(why, MAX_TEXT);
        }
    }
    Body::new(writer.finish(), batches)
}

pub(super) fn read_answer(message: Bytes) -> Result<Result<Fetched, ReadError>, Malformed> {
    let mut reader = Reader::new(message);
    let offset = |reader: &mut Reader| reader.i64().map(Offset);
    Ok(match reader.u8()? {
        0 => {
            let watermarks = Watermarks {
                log_start: offset(&mut reader)?,
                local_start: offset(&mut reader)?,
                high_watermark: offset(&mut reader)?,
                log_end: offset(&mut reader)?,
            };
            Ok(Fetched { batches: reader.rest(), watermarks })
        }
        1 => Err(ReadError::OutOfRange {
            asked: offset(&mut reader)?,
            start: offset(&mut reader)?,
            end: offset(&mut reader)?,
        }),
        2 => Err(ReadError::Tiered { asked: offset(&mut reader)?, local_start: offset(&mut reader)? }),
        3 => {
            let (position, next) = (reader.u64()?, offset(&mut reader)?);
            let file = reader.string(MAX_TEXT)?;
            Err(ReadError::Corrupt { file, position, what: "as the partition's leader says", next })
        }
        4 => Err(ReadError::Storage(reader.string(MAX_TEXT)?)),
        // One of a later release too.
        _ => Err(ReadError::Offline(reader.string(MAX_TEXT)?)),
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn joined(body: &Body) -> Bytes {
        let mut all = body.head.to_vec();
        body.parts.iter().for_each(|part| all.extend_from_slice(part));
        all.into()
    }

    #[test]
    fn a_read_crosses_whole_and_asks_for_no_more_than_is_allowed() {
        let partition = PartitionId { topic: Uuid::from_u128(3), index: 9 };
        let read = Read { partition, from: Offset(7), max_bytes: 4096, wait: Duration::from_millis(500) };
        let bytes = joined(&read.write());
        assert_eq!(Read::decode(bytes.clone()).unwrap(), read);
        for cut in 0..bytes.len() {
            assert!(Read::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        let greedy = Read { max_bytes: usize::MAX, wait: Duration::from_secs(3600), ..read };
        let taken = Read::decode(joined(&greedy.write())).unwrap();
        assert_eq!((taken.max_bytes, taken.wait), (MAX_READ_BYTES, MAX_READ_WAIT));
    }

    #[test]
    fn answers_keep_what_readers_go_by() {
        let watermarks =
            Watermarks { log_start: Offset(1), local_start: Offset(2), high_watermark: Offset(3), log_end: Offset(4) };
        let answer = Ok(Fetched { batches: Bytes::from_static(b"batches"), watermarks });
        let read = read_answer(joined(&write_answer(&answer))).unwrap().unwrap();
        assert_eq!((read.batches, read.watermarks), (Bytes::from_static(b"batches"), watermarks));
        let refusals = [
            ReadError::OutOfRange { asked: Offset(9), start: Offset(1), end: Offset(3) },
            ReadError::Tiered { asked: Offset(1), local_start: Offset(2) },
            ReadError::Storage("why".to_owned()),
            ReadError::Offline("why".to_owned()),
        ];
        for refusal in refusals {
            assert_eq!(read_answer(joined(&write_answer(&Err(refusal.clone())))).unwrap().err(), Some(refusal));
        }
        let corrupt = ReadError::Corrupt { file: "f".to_owned(), position: 3, what: "crc", next: Offset(8) };
        let read = read_answer(joined(&write_answer(&Err(corrupt)))).unwrap().err();
        assert!(matches!(read, Some(ReadError::Corrupt { next: Offset(8), position: 3, .. })), "{read:?}");
    }
}
