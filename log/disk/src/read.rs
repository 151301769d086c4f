//! Reading stored batches on the caller's thread: no lock is held during a read, every batch is checked.

use std::io;

use bytes::Bytes;
use forebay_log::limits::{BATCH_HEADER_BYTES, INDEX_INTERVAL_BYTES, MAX_READ_BYTES};
use forebay_log::record::{BatchHeader, RecordReader};
use forebay_log::{Millis, Offset, ReadError};

use crate::files::{File, read_bytes};
use crate::segment_file::{Expected, Hint, SegmentFile};

/// A stretch of a segment in memory.
struct Window<'a> {
    segment: &'a SegmentFile,
    file: &'a dyn File,
    end: u64,
    start: u64,
    bytes: Bytes,
}

impl Window<'_> {
    /// At least `want` bytes from `position` on, less only at the segment's end; reads `ahead` more at once.
    fn get(&mut self, position: u64, want: usize, ahead: usize) -> Result<Bytes, ReadError> {
        let left = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        let want = want.min(left);
        let skip = position.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = skip
            && skip + want <= self.bytes.len()
        {
            return Ok(self.bytes.slice(skip..));
        }
        let size = want.max(ahead.min(left));
        let buffer = read_bytes(self.file, position, size).map_err(|e| failed(self.segment, &e))?;
        if buffer.len() < want {
            return Err(corrupt(
                self.segment,
                position + buffer.len() as u64,
                "file is shorter than its durable length",
                Offset(-1),
            ));
        }
        self.start = position;
        self.bytes = Bytes::from(buffer);
        Ok(self.bytes.clone())
    }
}

fn failed(segment: &SegmentFile, error: &io::Error) -> ReadError {
    ReadError::Storage(format!("{}: {error}", segment.path().display()))
}

/// `next`: where reading goes on; the offset asked for stands when that is behind this segment.
fn corrupt(segment: &SegmentFile, position: u64, what: &'static str, next: Offset) -> ReadError {
    let file = segment.path().display().to_string();
    if segment.log_damage() {
        tracing::error!(%file, position, what, "corrupt batch: it is not served");
    }
    ReadError::Corrupt { file, position, what, next }
}

/// Whole batches of `segment` from the one that holds `from`, below `limit`, at least one, up to `max_bytes`. Empty when that
/// one ends above `limit`.
pub(crate) fn read_batches(
    segment: &SegmentFile,
    from: Offset,
    limit: Offset,
    max_bytes: usize,
) -> Result<Bytes, ReadError> {
    let end = segment.readable();
    let file = segment.file().map_err(|e| failed(segment, &e))?;
    let mut window = Window { segment, file: file.as_ref(), end, start: 0, bytes: Bytes::new() };
    let asked = Asked { from, limit, max_bytes: max_bytes.min(MAX_READ_BYTES) };
    let hint = segment.hint(from).map_err(|e| failed(segment, &e))?;
    let damage = match walk(&mut window, hint, &asked)? {
        Walked::Found(batches) => return Ok(batches),
        Walked::Damaged(damage) => damage,
    };
    let good = segment.good_ranges(end).map_err(|e| failed(segment, &e))?;
    let behind = good.partition_point(|range| range.next_offset <= from);
    let next = good.get(behind).map_or(from, |range| range.base_offset);
    if let Some(range) = good.get(behind).filter(|range| range.base_offset <= from) {
        window.end = range.bytes.end;
        let first = Hint { position: range.bytes.start, expected: Expected::Base(range.base_offset) };
        if let Walked::Found(batches) = walk(&mut window, first, &asked)? {
            return Ok(batches);
        }
        return Err(corrupt(segment, damage.position, damage.what, range.next_offset));
    }
    let gap = behind.checked_sub(1).and_then(|before| good.get(before)).map_or(0, |range| range.bytes.end);
    Err(corrupt(segment, gap, damage.what, next))
}

/// What a read wants.
struct Asked {
    from: Offset,
    limit: Offset,
    max_bytes: usize,
}

enum Walked {
    Found(Bytes),
    Damaged(Damage),
}

/// What is wrong where.
struct Damage {
    position: u64,
    what: &'static str,
}

/// Walks from `hint` to the batch that holds `asked.from` and takes it and those behind it. The checksum does not cover the base
/// offset: each batch must begin where the one before it ended.
fn walk(window: &mut Window<'_>, hint: Hint, asked: &Asked) -> Result<Walked, ReadError> {
    let damaged = |position, what| Ok(Walked::Damaged(Damage { position, what }));
    let Hint { mut position, mut expected } = hint;
    let ahead = asked.max_bytes.saturating_add(2 * INDEX_INTERVAL_BYTES);
    let first = loop {
        if position >= window.end {
            return damaged(position, "no whole batch where one was written");
        }
        let bytes = window.get(position, BATCH_HEADER_BYTES, ahead)?;
        match BatchHeader::parse(&bytes) {
            Ok(header) if !expected.is_met(&header) => return damaged(position, "its offset does not follow"),
            Ok(header) if header.last_offset() >= asked.from => break header,
            Ok(header) => {
                position += header.size as u64;
                expected = Expected::Base(header.next_offset());
            }
            Err(_) => return damaged(position, "not a batch"),
        }
    };
    if position + first.size as u64 > window.end {
        return damaged(position, "batch reaches beyond the end of its segment");
    }
    let stretch = window.get(position, first.size, asked.max_bytes)?;
    // Its length and its offsets are only known to be right when its checksum is.
    if stretch.get(..first.size).is_none_or(|batch| first.check_crc(batch).is_err()) {
        return damaged(position, "checksum mismatch");
    }
    let (mut taken, mut next) = (0, first.base_offset);
    while let Ok(header) = BatchHeader::parse(&stretch[taken..])
        && header.base_offset == next
        && header.next_offset() <= asked.limit
        && (taken == 0 || taken + header.size <= asked.max_bytes)
        && let Some(batch) = stretch.get(taken..taken + header.size)
    {
        if taken > 0 && header.check_crc(batch).is_err() {
            break;
        }
        taken += header.size;
        next = header.next_offset();
    }
    Ok(Walked::Found(stretch.slice(..taken)))
}

/// The first record of `segment` below `limit`, at or after `start`, with a timestamp at or after `at`.
pub(crate) fn find_time(
    segment: &SegmentFile,
    start: Offset,
    limit: Offset,
    at: Millis,
) -> Result<Option<(Offset, Millis)>, ReadError> {
    let hint = segment.offset_before(at).map_err(|e| failed(segment, &e))?;
    let mut next = start.max(hint);
    while next < limit {
        let batches = read_batches(segment, next, limit, 1 << 20)?;
        if batches.is_empty() {
            return Ok(None);
        }
        for batch in forebay_log::record::Batches::new(batches) {
            let (header, batch) =
                batch.map_err(|_| corrupt(segment, 0, "batches changed while they were read", next))?;
            next = header.next_offset();
            if header.max_timestamp < at {
                continue;
            }
            let undecodable = |_| corrupt(segment, 0, "records of a batch cannot be decoded", next);
            for record in RecordReader::new(&header, &batch).map_err(undecodable)? {
                let record = record.map_err(undecodable)?;
                if record.offset >= start && record.timestamp >= at {
                    return Ok(Some((record.offset, record.timestamp)));
                }
            }
        }
    }
    Ok(None)
}
