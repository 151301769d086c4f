//! A forwarded append and its answer as bytes.

use bytes::Bytes;
use forebay_disk::{AppendData, Appended};
use forebay_log::limits::MAX_BATCH_BYTES;
use forebay_log::record::RecordChunk;
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, Millis, Offset};

use super::sender::Append;
use crate::codec::{Malformed, Reader, Writer};
use crate::link::Body;

const CHUNK: u8 = 0;
const BATCHES: u8 = 1;
/// Most bytes of the first part of a chunk.
const MAX_HEAD_BYTES: usize = MAX_BATCH_BYTES;

/// The texts of refusals that a peer sends; longer ones are cut.
const MAX_TEXT: usize = 1024;

pub(super) fn write_append(append: &Append, head: &Bytes, payload: &Bytes, chunk: bool) -> Body {
    let Append { partition, epoch, all, chain } = append;
    let mut writer = Writer::with_capacity(64 + head.len());
    writer.uuid(partition.topic).u32(partition.index).i32(epoch.0).bool(*all).u64(*chain);
    write_data(writer, head, payload, chunk)
}

/// What was written so far, and the records behind it.
pub(super) fn write_data(mut writer: Writer, head: &Bytes, payload: &Bytes, chunk: bool) -> Body {
    if chunk {
        writer.u8(CHUNK).bytes(head);
    } else {
        writer.u8(BATCHES);
    }
    Body::new(writer.finish(), vec![payload.clone()])
}

pub(super) fn read_append(body: Bytes) -> Result<(Append, AppendData), Malformed> {
    let mut reader = Reader::new(body);
    let partition = PartitionId { topic: reader.uuid()?, index: reader.u32()? };
    let append = Append { partition, epoch: Epoch(reader.i32()?), all: reader.bool()?, chain: reader.u64()? };
    Ok((append, read_data(reader)?))
}

/// The records, which are all that is left.
pub(super) fn read_data(mut reader: Reader) -> Result<AppendData, Malformed> {
    Ok(match reader.u8()? {
        CHUNK => {
            let head = reader.bytes(MAX_HEAD_BYTES)?;
            let bodies = reader.rest().into();
            let bad = Malformed::BadValue { what: "chunk of records", value: head.len() as u64 };
            AppendData::Chunk(RecordChunk::from_parts(&head, bodies).ok_or(bad)?)
        }
        BATCHES => AppendData::Batches(reader.rest()),
        other => return Err(Malformed::BadValue { what: "kind of append", value: other.into() }),
    })
}

/// An append's records as they are sent: what comes first, the rest, and whether they are a chunk.
pub(super) fn parts(data: AppendData) -> (Bytes, Bytes, bool) {
    match data {
        AppendData::Chunk(chunk) => {
            let (head, bodies) = chunk.into_parts();
            (Bytes::from(head), Bytes::from(bodies), true)
        }
        AppendData::Batches(batches) => (Bytes::new(), batches, false),
    }
}

pub(super) fn write_answer(answer: &Result<Appended, AppendError>) -> Body {
    let mut writer = Writer::new();
    match answer {
        Ok(Appended { base_offset, last_offset, append_time }) => {
            writer.u8(0).i64(base_offset.0).i64(last_offset.0);
            writer.option(*append_time, |writer, time| {
                writer.i64(time.0);
            });
        }
        Err(error) => {
            let (code, a, b) = code(error);
            let text = error.to_string();
            let text: String = text.char_indices().take_while(|(at, _)| *at < MAX_TEXT - 4).map(|(_, c)| c).collect();
            writer.u8(code).u64(a).u64(b).string(&text);
        }
    }
    writer.finish().into()
}

pub(super) fn read_answer(body: Bytes) -> Result<Result<Appended, AppendError>, Malformed> {
    let mut reader = Reader::new(body);
    let code = reader.u8()?;
    if code == 0 {
        let (base_offset, last_offset) = (Offset(reader.i64()?), Offset(reader.i64()?));
        let append_time = reader.option(Reader::i64)?.map(Millis);
        return Ok(Ok(Appended { base_offset, last_offset, append_time }));
    }
    let (a, b) = (reader.u64()?, reader.u64()?);
    let text = reader.string(MAX_TEXT)?;
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Ok(Err(match code {
        1 => AppendError::Corrupt("refused by the partition's leader"),
        2 => AppendError::Invalid("refused by the partition's leader"),
        3 => AppendError::TooLarge { bytes: size(a), limit: size(b) },
        4 => AppendError::DiskFull,
        5 => AppendError::Offline(text),
        6 => AppendError::NotLeader,
        7 => AppendError::NotEnoughReplicas,
        8 => AppendError::NotEnoughReplicasAfterAppend,
        9 => AppendError::FencedLeaderEpoch,
        10 => AppendError::OutOfOrderSequence,
        11 => AppendError::ProducerFenced,
        12 => AppendError::NotLeader,
        // One of a later release too: it is not kept, and why is in the text.
        _ => AppendError::Storage(text),
    }))
}

/// The code of a refusal, and the numbers that belong to it. 0 is none.
fn code(error: &AppendError) -> (u8, u64, u64) {
    match error {
        AppendError::Corrupt(_) => (1, 0, 0),
        AppendError::Invalid(_) => (2, 0, 0),
        AppendError::TooLarge { bytes, limit } => (3, *bytes as u64, *limit as u64),
        AppendError::DiskFull => (4, 0, 0),
        AppendError::Offline(_) => (5, 0, 0),
        AppendError::NotLeader => (6, 0, 0),
        AppendError::NotEnoughReplicas => (7, 0, 0),
        AppendError::NotEnoughReplicasAfterAppend => (8, 0, 0),
        AppendError::FencedLeaderEpoch => (9, 0, 0),
        AppendError::OutOfOrderSequence => (10, 0, 0),
        AppendError::ProducerFenced => (11, 0, 0),
        AppendError::Closed => (12, 0, 0),
        AppendError::Storage(_) => (13, 0, 0),
    }
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
    fn an_append_crosses_whole_and_cut_ones_are_refused() {
        let mut chunk = RecordChunk::new();
        chunk.push(Millis(5), Some(b"key"), Some(b"value"), &[("h", b"1")]);
        let (head, bodies) = chunk.into_parts();
        let partition = PartitionId { topic: Uuid::from_u128(3), index: 9 };
        let append = Append { partition, epoch: Epoch(4), all: true, chain: 8 };
        let bytes = joined(&write_append(&append, &head.into(), &bodies.into(), true));
        let (read, data) = read_append(bytes.clone()).unwrap();
        assert_eq!(read, append);
        assert!(matches!(data, AppendData::Chunk(chunk) if chunk.len() == 1 && chunk.is_keyed()));
        for cut in 0..bytes.len() {
            assert!(read_append(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn answers_keep_what_doors_tell_their_clients() {
        let at = Appended { base_offset: Offset(3), last_offset: Offset(5), append_time: Some(Millis(9)) };
        let answers = [
            Ok(at),
            Ok(Appended { append_time: None, ..at }),
            Err(AppendError::TooLarge { bytes: 5, limit: 3 }),
            Err(AppendError::DiskFull),
            Err(AppendError::Offline("why".to_owned())),
            Err(AppendError::NotLeader),
            Err(AppendError::NotEnoughReplicas),
            Err(AppendError::NotEnoughReplicasAfterAppend),
            Err(AppendError::OutOfOrderSequence),
            Err(AppendError::ProducerFenced),
        ];
        for answer in answers {
            let read = read_answer(joined(&write_answer(&answer))).unwrap();
            match (&answer, &read) {
                (Err(AppendError::Offline(_)), Err(AppendError::Offline(why))) => assert!(why.contains("why")),
                _ => assert_eq!(read, answer),
            }
        }
    }
}
