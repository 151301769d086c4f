//! The messages of replication as bytes: `PULL`, its answer, and `ENDS`.

use bytes::Bytes;
use forebay_log::limits::MAX_CLUSTER_PARTITIONS;
use forebay_log::partition::{Anew, ColdSegment, EpochCache, LeaderMarks, Starts};
use forebay_log::replication::{End, Part, PartBody, PartitionId, Pull, PullRefusal, Want};
use forebay_log::{Epoch, Millis, Offset};

use crate::codec::{Malformed, Reader, Writer};
use crate::link::Body;

/// Most bytes of a text in an answer.
const MAX_TEXT: usize = 4096;
/// Most bytes of the leader epochs of one log.
const MAX_EPOCHS_BYTES: usize = 8 << 20;
/// Most bytes of batches of one part.
const MAX_BATCHES_BYTES: usize = 80 << 20;

const BATCHES: u8 = 0;
const DIVERGES: u8 = 1;
const ANEW: u8 = 2;
const REFUSED: u8 = 3;

const NOT_LEADER: u8 = 0;
const FENCED_EPOCH: u8 = 1;
const UNKNOWN_EPOCH: u8 = 2;
const STORAGE: u8 = 3;

fn write_partition(writer: &mut Writer, partition: PartitionId) {
    writer.uuid(partition.topic).u32(partition.index);
}

fn read_partition(reader: &mut Reader) -> Result<PartitionId, Malformed> {
    Ok(PartitionId { topic: reader.uuid()?, index: reader.u32()? })
}

pub(super) fn write_pull(pull: &Pull) -> Body {
    let mut writer = Writer::default();
    writer.u64(pull.session).u32(pull.sequence).count(pull.wants.len());
    for want in &pull.wants {
        write_partition(&mut writer, want.partition);
        writer.i32(want.epoch.0).i64(want.from.0).i32(want.last_epoch.map_or(-1, |epoch| epoch.0));
    }
    writer.count(pull.drops.len());
    pull.drops.iter().for_each(|partition| write_partition(&mut writer, *partition));
    writer.finish().into()
}

pub(super) fn read_pull(body: Bytes) -> Result<Pull, Malformed> {
    let mut reader = Reader::new(body);
    let (session, sequence) = (reader.u64()?, reader.u32()?);
    let mut wants = Vec::new();
    for _ in 0..reader.count(MAX_CLUSTER_PARTITIONS)? {
        let partition = read_partition(&mut reader)?;
        let (epoch, from) = (Epoch(reader.i32()?), Offset(reader.i64()?));
        let last_epoch = Some(Epoch(reader.i32()?)).filter(|epoch| epoch.0 >= 0);
        wants.push(Want { partition, epoch, from, last_epoch });
    }
    let mut drops = Vec::new();
    for _ in 0..reader.count(MAX_CLUSTER_PARTITIONS)? {
        drops.push(read_partition(&mut reader)?);
    }
    Ok(Pull { session, sequence, wants, drops })
}

pub(super) fn write_ends(ends: &[End]) -> Body {
    let mut writer = Writer::default();
    writer.count(ends.len());
    for end in ends {
        write_partition(&mut writer, end.partition);
        writer.i32(end.epoch.0).i64(end.end.0);
    }
    writer.finish().into()
}

pub(super) fn read_ends(body: Bytes) -> Result<Vec<End>, Malformed> {
    let mut reader = Reader::new(body);
    let mut ends = Vec::new();
    for _ in 0..reader.count(MAX_CLUSTER_PARTITIONS)? {
        let partition = read_partition(&mut reader)?;
        ends.push(End { partition, epoch: Epoch(reader.i32()?), end: Offset(reader.i64()?) });
    }
    Ok(ends)
}

/// The parts' heads in front, then all batches as they are stored. `None`: the session is lost.
pub(super) fn write_answer(parts: Option<&[Part]>) -> Body {
    let mut writer = Writer::default();
    let Some(parts) = parts else {
        writer.bool(false);
        return writer.finish().into();
    };
    writer.bool(true).count(parts.len());
    let mut all = Vec::new();
    for Part { partition, epoch, body } in parts {
        write_partition(&mut writer, *partition);
        writer.i32(epoch.0);
        match body {
            PartBody::Batches { from, marks, batches } => {
                writer.u8(BATCHES).i64(from.0);
                writer.i64(marks.high_watermark.0).i64(marks.log_start.0).i64(marks.tiered.0);
                writer.u32(u32::try_from(batches.len()).unwrap_or(u32::MAX));
                all.push(batches.clone());
            }
            PartBody::Diverges { epoch, end } => {
                writer.u8(DIVERGES).i32(epoch.0).i64(end.0);
            }
            PartBody::Anew { at, anew } => {
                writer.u8(ANEW).i64(at.0);
                write_anew(&mut writer, anew);
            }
            PartBody::Refused(why) => {
                writer.u8(REFUSED);
                write_refusal(&mut writer, why);
            }
        }
    }
    Body::new(writer.finish(), all)
}

fn write_refusal(writer: &mut Writer, why: &PullRefusal) {
    match why {
        PullRefusal::NotLeader => writer.u8(NOT_LEADER),
        PullRefusal::FencedEpoch => writer.u8(FENCED_EPOCH),
        PullRefusal::UnknownEpoch => writer.u8(UNKNOWN_EPOCH),
        PullRefusal::Storage(text) => writer.u8(STORAGE).text(text, MAX_TEXT),
    };
}

pub(super) fn read_answer(body: Bytes) -> Result<Option<Vec<Part>>, Malformed> {
    let mut reader = Reader::new(body);
    if !reader.bool()? {
        return Ok(None);
    }
    let mut parts = Vec::new();
    let mut lengths = Vec::new();
    for _ in 0..reader.count(MAX_CLUSTER_PARTITIONS)? {
        let partition = read_partition(&mut reader)?;
        let epoch = Epoch(reader.i32()?);
        let body = match reader.u8()? {
            BATCHES => {
                let from = Offset(reader.i64()?);
                let marks = LeaderMarks {
                    high_watermark: Offset(reader.i64()?),
                    log_start: Offset(reader.i64()?),
                    tiered: Offset(reader.i64()?),
                };
                lengths.push((parts.len(), reader.u32()? as usize));
                PartBody::Batches { from, marks, batches: Bytes::new() }
            }
            DIVERGES => PartBody::Diverges { epoch: Epoch(reader.i32()?), end: Offset(reader.i64()?) },
            ANEW => PartBody::Anew { at: Offset(reader.i64()?), anew: read_anew(&mut reader)? },
            REFUSED => PartBody::Refused(match reader.u8()? {
                NOT_LEADER => PullRefusal::NotLeader,
                FENCED_EPOCH => PullRefusal::FencedEpoch,
                UNKNOWN_EPOCH => PullRefusal::UnknownEpoch,
                STORAGE => PullRefusal::Storage(reader.string(MAX_TEXT)?),
                other => return Err(Malformed::BadValue { what: "refusal of a pull", value: other.into() }),
            }),
            other => return Err(Malformed::BadValue { what: "part of an answer", value: other.into() }),
        };
        parts.push(Part { partition, epoch, body });
    }
    let mut rest = reader.rest();
    for (part, length) in lengths {
        if length > MAX_BATCHES_BYTES || length > rest.len() {
            return Err(Malformed::TooShort);
        }
        if let PartBody::Batches { batches, .. } = &mut parts[part].body {
            *batches = rest.split_to(length);
        }
    }
    Ok(Some(parts))
}

fn write_anew(writer: &mut Writer, anew: &Anew) {
    let Anew { starts, epochs } = anew;
    writer.i64(starts.log_start.0).i64(starts.tiered.0).i64(starts.compacted.0).count(starts.cold.len());
    for cold in &starts.cold {
        writer.i64(cold.end_offset.0).u64(cold.bytes).i64(cold.appended.0);
    }
    writer.string(&epochs.to_text());
}

fn read_anew(reader: &mut Reader) -> Result<Anew, Malformed> {
    let mut starts = Starts {
        log_start: Offset(reader.i64()?),
        tiered: Offset(reader.i64()?),
        compacted: Offset(reader.i64()?),
        cold: Vec::new(),
    };
    for _ in 0..reader.count(forebay_log::limits::MAX_COLD_SEGMENTS)? {
        let (end_offset, bytes, appended) = (Offset(reader.i64()?), reader.u64()?, Millis(reader.i64()?));
        starts.cold.push(ColdSegment { end_offset, bytes, appended });
    }
    let text = reader.string(MAX_EPOCHS_BYTES)?;
    let epochs = EpochCache::from_text(&text).ok_or(Malformed::BadValue { what: "list of leader epochs", value: 0 })?;
    Ok(Anew { starts, epochs })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn partition() -> impl Strategy<Value = PartitionId> {
        (any::<u128>(), 0u32..4096).prop_map(|(topic, index)| PartitionId { topic: Uuid::from_u128(topic), index })
    }

    fn anew() -> impl Strategy<Value = Anew> {
        let cold = prop::collection::vec((0i64..1 << 40, any::<u64>(), any::<i64>()), 0..4);
        (0i64..1 << 40, 0i64..1 << 40, cold, 0i32..5).prop_map(|(log_start, tiered, cold, epochs)| {
            let cold = cold.into_iter().map(|(end, bytes, appended)| ColdSegment {
                end_offset: Offset(end),
                bytes,
                appended: Millis(appended),
            });
            let mut cache = EpochCache::default();
            for epoch in 0..epochs {
                cache.assign(Epoch(epoch), Offset(i64::from(epoch) * 10));
            }
            let (log_start, tiered, compacted) = (Offset(log_start), Offset(tiered), Offset(0));
            Anew { starts: Starts { log_start, tiered, compacted, cold: cold.collect() }, epochs: cache }
        })
    }

    fn body() -> impl Strategy<Value = PartBody> {
        let refusal = prop_oneof![
            Just(PullRefusal::NotLeader),
            Just(PullRefusal::FencedEpoch),
            Just(PullRefusal::UnknownEpoch),
            "\\PC{0,40}".prop_map(PullRefusal::Storage),
        ];
        let batches = (any::<[i64; 4]>(), prop::collection::vec(any::<u8>(), 0..50));
        prop_oneof![
            batches.prop_map(|([from, high, start, tiered], bytes)| PartBody::Batches {
                from: Offset(from),
                marks: LeaderMarks { high_watermark: Offset(high), log_start: Offset(start), tiered: Offset(tiered) },
                batches: bytes.into(),
            }),
            (any::<i32>(), any::<i64>())
                .prop_map(|(epoch, end)| PartBody::Diverges { epoch: Epoch(epoch), end: Offset(end) }),
            (any::<i64>(), anew()).prop_map(|(at, anew)| PartBody::Anew { at: Offset(at), anew }),
            refusal.prop_map(PartBody::Refused),
        ]
    }

    fn joined(body: &Body) -> Bytes {
        let mut all = body.head.to_vec();
        body.parts.iter().for_each(|part| all.extend_from_slice(part));
        all.into()
    }

    proptest! {
        #[test]
        fn an_answer_comes_back_and_a_cut_one_is_an_error(
            parts in prop::collection::vec((partition(), any::<i32>(), body()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let parts: Vec<Part> =
                parts.into_iter().map(|(partition, epoch, body)| Part { partition, epoch: Epoch(epoch), body }).collect();
            let bytes = joined(&write_answer(Some(&parts)));
            prop_assert_eq!(read_answer(bytes.clone()), Ok(Some(parts)));
            let short = bytes.slice(..cut.index(bytes.len()));
            prop_assert!(read_answer(short).is_err());
        }

        #[test]
        fn a_pull_comes_back(
            session in any::<u64>(),
            sequence in any::<u32>(),
            wants in prop::collection::vec((partition(), any::<i32>(), any::<i64>(), prop::option::of(0i32..i32::MAX)), 0..5),
            drops in prop::collection::vec(partition(), 0..5),
        ) {
            let want = |(partition, epoch, from, last): (PartitionId, i32, i64, Option<i32>)| Want {
                partition,
                epoch: Epoch(epoch),
                from: Offset(from),
                last_epoch: last.map(Epoch),
            };
            let pull = Pull { session, sequence, wants: wants.into_iter().map(want).collect(), drops };
            prop_assert_eq!(read_pull(joined(&write_pull(&pull))), Ok(pull));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = (read_pull(bytes.clone()), read_ends(bytes.clone()), read_answer(bytes));
        }
    }
}
