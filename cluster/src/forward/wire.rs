//! Forwarded appends and their answers as bytes.

use bytes::Bytes;
use forebay_disk::{AppendData, Appended};
use forebay_log::limits::MAX_BATCH_BYTES;
use forebay_log::record::RecordChunk;
use forebay_log::replication::PartitionId;
use forebay_log::{AppendError, Epoch, Millis, Offset};

use super::sender::Append;
use crate::codec::{Malformed, Reader, Writer};
use crate::link::Body;
use crate::writers::Writer as By;

const CHUNK: u8 = 0;
const BATCHES: u8 = 1;
/// Most bytes of the first part of a chunk.
const MAX_HEAD_BYTES: usize = MAX_BATCH_BYTES;

/// The texts of refusals that a peer sends; longer ones are cut.
const MAX_TEXT: usize = 1024;

/// From this version on an append names its writer.
const WITH_WRITERS: u16 = 2;
/// Most appends of one message.
pub(super) const MAX_APPENDS: usize = 256;

/// What is known of all appends first, then their records as they are.
pub(super) fn write_appends(appends: Vec<(Append, AppendData)>, version: u16) -> Body {
    let mut writer = Writer::with_capacity(96 * appends.len());
    writer.count(appends.len());
    let mut payloads = Vec::with_capacity(appends.len());
    for (Append { partition, epoch, all, chain, writer: by }, data) in appends {
        writer.uuid(partition.topic).u32(partition.index).i32(epoch.0).bool(all).u64(chain);
        if version >= WITH_WRITERS {
            writer.option(by, |out, by| by.write(out));
        }
        let (head, payload) = parts(data);
        write_head(&mut writer, head.as_deref());
        writer.u64(payload.len() as u64);
        payloads.push(payload);
    }
    Body::new(writer.finish(), payloads)
}

pub(super) fn read_appends(body: Bytes, version: u16) -> Result<Vec<(Append, AppendData)>, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.count(MAX_APPENDS)?;
    let mut heads = Vec::with_capacity(count);
    for _ in 0..count {
        let partition = PartitionId { topic: reader.uuid()?, index: reader.u32()? };
        let (epoch, all, chain) = (Epoch(reader.i32()?), reader.bool()?, reader.u64()?);
        let writer = if version >= WITH_WRITERS { reader.option(By::read)? } else { None };
        let append = Append { partition, epoch, all, chain, writer };
        let head = read_head(&mut reader)?;
        heads.push((append, head, reader.u64()?));
    }
    let mut payloads = reader.rest();
    let mut appends = Vec::with_capacity(count);
    for (append, head, length) in heads {
        let bad = || Malformed::BadValue { what: "length of records", value: length };
        let length = usize::try_from(length).ok().filter(|length| *length <= payloads.len()).ok_or_else(bad)?;
        appends.push((append, data(head, payloads.split_to(length))?));
    }
    match payloads.len() {
        0 => Ok(appends),
        left => Err(Malformed::BadValue { what: "bytes behind the appends", value: left as u64 }),
    }
}

/// What was written so far, and the records of one append behind it.
pub(super) fn write_data(mut writer: Writer, data: AppendData) -> Body {
    let (head, payload) = parts(data);
    write_head(&mut writer, head.as_deref());
    Body::new(writer.finish(), vec![payload])
}

/// The records, which are all that is left.
pub(super) fn read_data(mut reader: Reader) -> Result<AppendData, Malformed> {
    let head = read_head(&mut reader)?;
    data(head, reader.rest())
}

/// An append's records as they are sent: what comes first if they are a chunk, and the rest.
fn parts(data: AppendData) -> (Option<Vec<u8>>, Bytes) {
    match data {
        AppendData::Chunk(chunk) => {
            let (head, bodies) = chunk.into_parts();
            (Some(head), Bytes::from(bodies))
        }
        AppendData::Batches(batches) => (None, batches),
    }
}

fn write_head(writer: &mut Writer, head: Option<&[u8]>) {
    match head {
        Some(head) => writer.u8(CHUNK).bytes(head),
        None => writer.u8(BATCHES),
    };
}

fn read_head(reader: &mut Reader) -> Result<Option<Bytes>, Malformed> {
    match reader.u8()? {
        CHUNK => Ok(Some(reader.bytes(MAX_HEAD_BYTES)?)),
        BATCHES => Ok(None),
        other => Err(Malformed::BadValue { what: "kind of append", value: other.into() }),
    }
}

fn data(head: Option<Bytes>, payload: Bytes) -> Result<AppendData, Malformed> {
    let Some(head) = head else { return Ok(AppendData::Batches(payload)) };
    let bad = Malformed::BadValue { what: "chunk of records", value: head.len() as u64 };
    RecordChunk::from_parts(&head, payload.into()).map(AppendData::Chunk).ok_or(bad)
}

pub(super) fn write_answers(answers: &[Result<Appended, AppendError>]) -> Body {
    let mut writer = Writer::with_capacity(32 * answers.len());
    writer.count(answers.len());
    answers.iter().for_each(|answer| write_answer(&mut writer, answer));
    writer.finish().into()
}

/// The answers to `count` appends.
pub(super) fn read_answers(body: Bytes, count: usize) -> Result<Vec<Result<Appended, AppendError>>, Malformed> {
    let mut reader = Reader::new(body);
    let found = reader.count(MAX_APPENDS)?;
    if found != count {
        return Err(Malformed::BadValue { what: "number of answers", value: found as u64 });
    }
    let answers = (0..count).map(|_| read_answer(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    reader.finish()?;
    Ok(answers)
}

fn write_answer(writer: &mut Writer, answer: &Result<Appended, AppendError>) {
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
}

fn read_answer(reader: &mut Reader) -> Result<Result<Appended, AppendError>, Malformed> {
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
        14 => AppendError::Unknown(text),
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
        // To whoever sends again they are the same.
        AppendError::NotLeader | AppendError::AwaitsEarlier => (6, 0, 0),
        AppendError::NotEnoughReplicas => (7, 0, 0),
        AppendError::NotEnoughReplicasAfterAppend => (8, 0, 0),
        AppendError::FencedLeaderEpoch => (9, 0, 0),
        AppendError::OutOfOrderSequence => (10, 0, 0),
        AppendError::ProducerFenced => (11, 0, 0),
        AppendError::Closed => (12, 0, 0),
        AppendError::Storage(_) => (13, 0, 0),
        AppendError::Unknown(_) => (14, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::NodeId;
    use uuid::Uuid;

    use super::*;

    fn joined(body: &Body) -> Bytes {
        let mut all = body.head.to_vec();
        body.parts.iter().for_each(|part| all.extend_from_slice(part));
        all.into()
    }

    #[test]
    fn appends_cross_whole_and_cut_ones_are_refused() {
        let chunk = || {
            let mut chunk = RecordChunk::new();
            chunk.push(Millis(5), Some(b"key"), Some(b"value"), &[("h", b"1")]);
            AppendData::Chunk(chunk)
        };
        let append = |index, chain| {
            let partition = PartitionId { topic: Uuid::from_u128(3), index };
            let writer = (chain == 7).then_some(By { node: NodeId(3), incarnation: 4, number: 5 });
            Append { partition, epoch: Epoch(4), all: index == 9, chain, writer }
        };
        let batches = Bytes::from_static(b"batches");
        let sent = || {
            vec![
                (append(9, 8), chunk()),
                (append(2, 0), AppendData::Batches(batches.clone())),
                (append(9, 7), AppendData::Batches(Bytes::new())),
            ]
        };
        let old = joined(&write_appends(sent(), 1));
        let bytes = joined(&write_appends(sent(), 2));
        let mut read = read_appends(bytes.clone(), 2).unwrap().into_iter();
        let (first, data) = read.next().unwrap();
        assert!(matches!(data, AppendData::Chunk(chunk) if chunk.len() == 1 && chunk.is_keyed()));
        let (second, data) = read.next().unwrap();
        assert!(matches!(data, AppendData::Batches(read) if read == batches));
        let (third, data) = read.next().unwrap();
        assert!(matches!(data, AppendData::Batches(read) if read.is_empty()));
        assert_eq!([first, second, third], [append(9, 8), append(2, 0), append(9, 7)]);
        for cut in 0..bytes.len() {
            assert!(read_appends(bytes.slice(..cut), 2).is_err(), "cut at {cut}");
        }
        let more = [&bytes[..], b"x"].concat();
        assert!(read_appends(more.into(), 2).is_err());
        let old = read_appends(old, 1).unwrap();
        assert_eq!(old.iter().map(|(append, _)| append.writer).collect::<Vec<_>>(), [None; 3]);
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
            Err(AppendError::Unknown("why".to_owned())),
            Err(AppendError::NotLeader),
            Err(AppendError::NotEnoughReplicas),
            Err(AppendError::NotEnoughReplicasAfterAppend),
            Err(AppendError::OutOfOrderSequence),
            Err(AppendError::ProducerFenced),
        ];
        let bytes = joined(&write_answers(&answers));
        let read = read_answers(bytes.clone(), answers.len()).unwrap();
        for (read, answer) in read.iter().zip(&answers) {
            match (answer, read) {
                (Err(AppendError::Offline(_)), Err(AppendError::Offline(why)))
                | (Err(AppendError::Unknown(_)), Err(AppendError::Unknown(why))) => assert!(why.contains("why")),
                _ => assert_eq!(read, answer),
            }
        }
        assert!(read_answers(bytes, answers.len() - 1).is_err());
    }
}
