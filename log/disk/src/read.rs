//! Reading stored batches on the caller's thread: no lock is held during a read, every batch is checked.

use std::io;

use bytes::Bytes;
use forebay_log::limits::{BATCH_HEADER_BYTES, INDEX_INTERVAL_BYTES, MAX_READ_BYTES};
use forebay_log::record::{BatchHeader, RecordReader};
use forebay_log::segment::scan;
use forebay_log::{Millis, Offset, ReadError};

use crate::files::{File, read_full};
use crate::segment_file::SegmentFile;

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
        let mut buffer = vec![0; want.max(ahead.min(left))];
        let got = read_full(self.file, position, &mut buffer).map_err(|e| failed(self.segment, &e))?;
        if got < want {
            return Err(corrupt(self.segment, position + got as u64, "file is shorter than its durable length"));
        }
        buffer.truncate(got);
        self.start = position;
        self.bytes = Bytes::from(buffer);
        Ok(self.bytes.clone())
    }
}

fn failed(segment: &SegmentFile, error: &io::Error) -> ReadError {
    ReadError::Storage(format!("{}: {error}", segment.path().display()))
}

fn corrupt(segment: &SegmentFile, position: u64, what: &'static str) -> ReadError {
    let file = segment.path().display().to_string();
    if segment.log_damage() {
        tracing::error!(%file, position, what, "corrupt batch: it is not served");
    }
    ReadError::Corrupt { file, position, what, next: segment.base }
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
    let max_bytes = max_bytes.min(MAX_READ_BYTES);
    let start = segment.position(from).map_err(|e| failed(segment, &e))?;
    let (start, first) = find(&mut window, start, from, max_bytes)?;
    let stretch = window.get(start, first.size, max_bytes)?;
    let mut taken = 0;
    while let Ok(header) = BatchHeader::parse(&stretch[taken..])
        && header.next_offset() <= limit
        && (taken == 0 || taken + header.size <= max_bytes)
        && let Some(batch) = stretch.get(taken..taken + header.size)
    {
        if header.check_crc(batch).is_err() {
            if taken == 0 {
                return Err(corrupt(segment, start, "checksum mismatch"));
            }
            break;
        }
        taken += header.size;
    }
    Ok(stretch.slice(..taken))
}

/// The batch that holds `from`, walking headers from `position`.
fn find(
    window: &mut Window<'_>,
    mut position: u64,
    from: Offset,
    max_bytes: usize,
) -> Result<(u64, BatchHeader), ReadError> {
    let ahead = max_bytes.saturating_add(2 * INDEX_INTERVAL_BYTES);
    while position < window.end {
        let bytes = window.get(position, BATCH_HEADER_BYTES, ahead)?;
        match BatchHeader::parse(&bytes) {
            Ok(header) if header.base_offset <= from && header.last_offset() >= from => {
                return if position + header.size as u64 <= window.end {
                    Ok((position, header))
                } else {
                    Err(corrupt(window.segment, position, "batch reaches beyond the end of its segment"))
                };
            }
            Ok(header) if header.last_offset() < from => position += header.size as u64,
            // Not a batch, or one further on: something before it is damaged.
            _ => break,
        }
    }
    find_behind_damage(window, from)
}

/// The batch that holds `from` in a damaged segment, by checking all of it.
fn find_behind_damage(window: &Window<'_>, from: Offset) -> Result<(u64, BatchHeader), ReadError> {
    let (mut found, mut damage) = (None, 0);
    let mut expected = window.segment.base;
    let read = |position, buffer: &mut [u8]| read_full(window.file, position, buffer);
    let scanned = scan(window.segment.base, window.end, read, |header, position| {
        if header.base_offset <= from && from <= header.last_offset() {
            found = Some((position, *header));
        }
        if header.next_offset() <= from {
            (expected, damage) = (header.next_offset(), position + header.size as u64);
        }
    });
    scanned.map_err(|e| failed(window.segment, &e))?;
    found.ok_or_else(|| corrupt(window.segment, damage, "no whole batch where one was written"))
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
            let (header, batch) = batch.map_err(|_| corrupt(segment, 0, "batches changed while they were read"))?;
            next = header.next_offset();
            if header.max_timestamp < at {
                continue;
            }
            let undecodable = |_| corrupt(segment, 0, "records of a batch cannot be decoded");
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
