//! From waiting appends to one write: chunks gathered into compressed batches, producers' batches placed as they are.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::event::{Ack, Append, AppendData, Appended, Effect, Outcome, Placed};
use super::producers::{Changed, Gaps, Producers, Verdict};
use crate::error::AppendError;
use crate::limits::{BATCH_HEADER_BYTES, GATHER_BATCH_BYTES, GATHER_BATCH_RECORDS, MAX_BATCH_BYTES};
use crate::record::{
    BatchBuilder, BatchHeader, BatchProblem, Batches, Compression, RecordChunk, validate, validate_records,
};
use crate::topic::TopicConfig;
use crate::units::{Epoch, Millis, Offset};

/// Bytes in front of a batch that the checksum does not cover and the log writes: base offset, length, leader epoch.
const PATCHED_BYTES: usize = 16;

/// One or more whole batches with their offsets, stored all or none.
#[derive(Debug)]
pub(super) struct Built<T> {
    pub(super) slices: Vec<Bytes>,
    pub(super) headers: Vec<BatchHeader>,
    pub(super) bytes: u64,
    pub(super) acks: Vec<Ack<T>>,
}

impl<T> Built<T> {
    pub(super) fn records(&self) -> i64 {
        match (self.headers.first(), self.headers.last()) {
            (Some(first), Some(last)) => last.next_offset().0 - first.base_offset.0,
            _ => 0,
        }
    }

    /// The batches' places when the first stands at `position`.
    pub(super) fn placed(&self, position: u64) -> impl Iterator<Item = Placed> + '_ {
        self.headers.iter().scan(position, |next, &header| {
            let placed = Placed { position: *next, header };
            *next += header.size as u64;
            Some(placed)
        })
    }
}

/// Checks batches that a producer sent, before they may be stored as they are: sizes against `max.message.bytes`, magic,
/// CRC, counts, and every record inside: one that cannot be decoded would be unreadable at its offset for ever. Costs a
/// decompression; run it on the caller's thread.
///
/// # Errors
/// What a door answers: [`AppendError::Corrupt`], [`AppendError::Invalid`] or [`AppendError::TooLarge`].
pub fn check_batches(batches: &Bytes, config: &TopicConfig) -> Result<(), AppendError> {
    if batches.is_empty() {
        return Err(AppendError::Invalid("no batch"));
    }
    for batch in Batches::new(batches.clone()) {
        let (header, batch) = batch.map_err(refusal)?;
        if header.producer_id >= 0 {
            check_producer(&header, batches)?;
        }
        if header.size > config.max_message_bytes {
            return Err(AppendError::TooLarge { bytes: header.size, limit: config.max_message_bytes });
        }
        validate(&batch).map_err(refusal)?;
        validate_records(&header, &batch, config.compact).map_err(refusal)?;
    }
    Ok(())
}

/// What an idempotent producer sends is judged batch by batch, so each must come alone.
fn check_producer(header: &BatchHeader, batches: &Bytes) -> Result<(), AppendError> {
    if header.producer_epoch < 0 || header.base_sequence < 0 {
        return Err(AppendError::Invalid("a producer id without epoch and sequence number"));
    }
    if header.size != batches.len() {
        return Err(AppendError::Invalid("more than one batch of an idempotent producer in one append"));
    }
    Ok(())
}

fn refusal(problem: BatchProblem) -> AppendError {
    match problem {
        BatchProblem::Incomplete => AppendError::Corrupt("incomplete batch"),
        BatchProblem::Checksum => AppendError::Corrupt("checksum mismatch"),
        BatchProblem::Length(_) => AppendError::Corrupt("batch length out of range"),
        BatchProblem::Magic(_) => AppendError::Invalid("only record batches of magic 2 are stored"),
        BatchProblem::Malformed(what) => AppendError::Invalid(what),
    }
}

fn codec(config: &TopicConfig) -> Compression {
    // Gathered records came without a codec of their own.
    config.compression_type.codec().unwrap_or(Compression::None)
}

/// What building looks at besides the appends.
pub(super) struct Rules<'a> {
    pub(super) config: &'a TopicConfig,
    pub(super) epoch: Epoch,
    /// The timestamp of all that is appended, where that is the leader's.
    pub(super) append_time: Option<Millis>,
    pub(super) producers: &'a Producers,
    /// Of the write being built.
    pub(super) changed: &'a Changed,
    /// Batches were refused of late that may come again.
    pub(super) refused: bool,
    pub(super) now: Millis,
}

/// Takes appends from the front of `queue` until one unit is built for `base`: a gathered batch, or one producer's
/// batches. Appends that cannot be stored are refused on the way; those that are stored already go to `repeats`. `None`
/// when the queue is empty.
pub(super) fn build_next<T>(
    queue: &mut VecDeque<Append<T>>,
    rules: &Rules<'_>,
    gaps: &mut Gaps,
    base: Offset,
    repeats: &mut Vec<Ack<T>>,
    effects: &mut Vec<Effect<T>>,
) -> Option<Built<T>> {
    loop {
        let Append { data, all, token } = queue.pop_front()?;
        let built = match data {
            AppendData::Chunk(chunk) => gather(chunk, all, token, queue, rules, base),
            AppendData::Batches(batches) => match judge(&batches, rules) {
                Ok((Verdict::Store, producer)) => {
                    gaps.close(producer);
                    place(&batches, all, token, base, rules)
                }
                Ok((Verdict::Duplicate(at), _)) => {
                    repeats.push(Ack { token, at, all });
                    continue;
                }
                Ok((Verdict::Gap(producer, expected), _)) => {
                    Err((vec![token], gaps.refusal(producer, expected, rules.now)))
                }
                Ok((Verdict::Refuse(error), _)) | Err(error) => Err((vec![token], error)),
            },
        };
        match built {
            Ok(built) => return Some(built),
            Err((tokens, error)) => {
                effects.extend(tokens.into_iter().map(|token| Effect::Done(token, Outcome::Refused(error.clone()))));
            }
        }
    }
}

/// Only the first batch, and whose it is: one of an idempotent producer comes alone.
fn judge(batches: &Bytes, rules: &Rules<'_>) -> Result<(Verdict, i64), AppendError> {
    let header = BatchHeader::parse(batches).map_err(refusal)?;
    Ok((rules.producers.judge(rules.changed, rules.refused, &header), header.producer_id))
}

type Refused<T> = (Vec<T>, AppendError);

fn gather<T>(
    first: RecordChunk,
    all: bool,
    token: T,
    queue: &mut VecDeque<Append<T>>,
    rules: &Rules<'_>,
    base: Offset,
) -> Result<Built<T>, Refused<T>> {
    let &Rules { config, epoch, append_time, .. } = rules;
    if first.is_empty() {
        return Err((vec![token], AppendError::Invalid("no records")));
    }
    if first.bytes() > MAX_BATCH_BYTES {
        let error = AppendError::TooLarge { bytes: first.bytes(), limit: config.max_message_bytes };
        return Err((vec![token], error));
    }
    let limit = GATHER_BATCH_BYTES.min(config.max_message_bytes);
    let mut builder = BatchBuilder::new(codec(config));
    let mut acks = Vec::new();
    let mut add = |builder: &mut BatchBuilder, chunk: &RecordChunk, all: bool, token: T| {
        let base_offset = base.plus(builder.push_chunk(chunk) as i64);
        let at = Appended { base_offset, last_offset: base_offset.plus(chunk.len() as i64 - 1), append_time };
        acks.push(Ack { token, at, all });
    };
    add(&mut builder, &first, all, token);
    while let Some(Append { data: AppendData::Chunk(chunk), .. }) = queue.front()
        && !chunk.is_empty()
        && builder.bytes() + chunk.bytes() + BATCH_HEADER_BYTES <= limit
        && builder.len() + chunk.len() <= GATHER_BATCH_RECORDS
    {
        if let Some(Append { data: AppendData::Chunk(chunk), all, token }) = queue.pop_front() {
            add(&mut builder, &chunk, all, token);
        }
    }
    if let Some(time) = append_time {
        builder.stamp(time);
    }
    let built = builder.build(base, epoch).unwrap_or_default();
    let error = match BatchHeader::parse(&built) {
        Ok(header) if header.size <= config.max_message_bytes => {
            return Ok(Built { bytes: built.len() as u64, slices: vec![built], headers: vec![header], acks });
        }
        Ok(header) => AppendError::TooLarge { bytes: header.size, limit: config.max_message_bytes },
        Err(problem) => refusal(problem),
    };
    Err((acks.into_iter().map(|ack| ack.token).collect(), error))
}

/// Gives a producer's batches their offsets; all but the first 16 bytes of each is shared with what came.
fn place<T>(batches: &Bytes, all: bool, token: T, base: Offset, rules: &Rules<'_>) -> Result<Built<T>, Refused<T>> {
    let &Rules { epoch, append_time, .. } = rules;
    let mut built = Built { slices: Vec::new(), headers: Vec::new(), bytes: 0, acks: Vec::new() };
    let mut next = base;
    let mut patches = BytesMut::new();
    for batch in Batches::new(batches.clone()) {
        let (mut header, batch) = match batch {
            Ok(batch) => batch,
            Err(problem) => return Err((vec![token], refusal(problem))),
        };
        header.base_offset = next;
        header.leader_epoch = epoch;
        next = header.next_offset();
        if let Some(time) = append_time {
            let stamped = header.stamped(&batch, time);
            built.bytes += header.size as u64;
            built.slices.extend(stamped.1);
            built.headers.push(stamped.0);
            continue;
        }
        patches.reserve(PATCHED_BYTES);
        patches.put_i64(header.base_offset.0);
        patches.put_slice(&batch[8..12]);
        patches.put_i32(epoch.0);
        built.slices.push(patches.split().freeze());
        built.slices.push(batch.slice(PATCHED_BYTES..));
        built.bytes += header.size as u64;
        built.headers.push(header);
    }
    if built.headers.is_empty() {
        return Err((vec![token], AppendError::Invalid("no batch")));
    }
    let at = Appended { base_offset: base, last_offset: next.plus(-1), append_time };
    built.acks.push(Ack { token, at, all });
    Ok(built)
}
