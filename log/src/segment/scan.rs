//! Walks the batches of a segment file, checking each: finds its good end, its damage, and rebuilds its indexes.

use std::ops::Range;

use super::Indexes;
use crate::limits::{BATCH_HEADER_BYTES, MAX_BATCH_BYTES};
use crate::record::{BatchHeader, BatchProblem};
use crate::units::Offset;

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;
/// Where the magic byte stands in a batch.
const MAGIC_AT: usize = 16;
/// Bytes of candidates checksummed while looking for the next good batch, per byte of file: bounds the search when
/// damaged bytes are full of false headers.
const RESYNC_CHECKSUM_FACTOR: u64 = 16;

/// A run of good batches, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoodRange {
    /// In the file.
    pub bytes: Range<u64>,
    pub base_offset: Offset,
    /// The offset after the last record.
    pub next_offset: Offset,
    pub batches: u64,
}

/// Bytes that hold no good batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRange {
    /// In the file.
    pub bytes: Range<u64>,
    /// What is wrong where it starts.
    pub problem: ScanProblem,
}

/// Why a batch is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanProblem {
    #[error(transparent)]
    Batch(#[from] BatchProblem),
    #[error("offset {found} does not follow {expected}")]
    Order { expected: Offset, found: Offset },
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// In file order; neighbours have a bad range between them.
    pub good: Vec<GoodRange>,
    /// In file order. One that reaches the end of the file is a torn tail; any other is damage amid good batches.
    pub bad: Vec<BadRange>,
    /// Of the good batches.
    pub indexes: Indexes,
}

impl Scan {
    /// The first position that holds no good batch: the end of the file when all is well.
    #[must_use]
    pub fn good_end(&self) -> u64 {
        match (self.bad.first(), self.good.last()) {
            (Some(bad), _) => bad.bytes.start,
            (None, Some(good)) => good.bytes.end,
            (None, None) => 0,
        }
    }

    /// The offset after the last good record; `None` when there is none.
    #[must_use]
    pub fn next_offset(&self) -> Option<Offset> {
        self.good.last().map(|good| good.next_offset)
    }
}

/// Scans the `len` bytes of the segment that starts at offset `base`. `read` fills the buffer from a file position and tells
/// how many bytes it got (0 at the end); `visit` sees each good batch's header and position, in order.
///
/// # Errors
/// Only those of `read`: damage is a finding, not an error.
pub fn scan<E>(
    base: Offset,
    len: u64,
    read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
    mut visit: impl FnMut(&BatchHeader, u64),
) -> Result<Scan, E> {
    let mut window = Window { read, len, start: 0, bytes: Vec::new() };
    let mut scan = Scan { good: Vec::new(), bad: Vec::new(), indexes: Indexes::new(base) };
    let mut expected = base;
    let mut checksum_budget = len.saturating_mul(RESYNC_CHECKSUM_FACTOR);
    let mut position = 0;
    let mut behind_damage = false;
    while position < window.len {
        // Offsets have no gaps, so a later one is damage too: the checksum does not cover the base offset.
        let found = match check(&mut window, position, expected)? {
            Ok(header) if header.base_offset != expected && !behind_damage => {
                Err(ScanProblem::Order { expected, found: header.base_offset })
            }
            found => found,
        };
        behind_damage = found.is_err();
        match found {
            Ok(header) => {
                let end = position + header.size as u64;
                extend(&mut scan.good, &header, position..end);
                scan.indexes.on_append(&header, position);
                visit(&header, position);
                expected = header.next_offset();
                position = end;
            }
            Err(problem) => {
                let end = resync(&mut window, position, expected, &mut checksum_budget)?.unwrap_or(window.len);
                scan.bad.push(BadRange { bytes: position..end, problem });
                position = end;
            }
        }
    }
    Ok(scan)
}

fn extend(good: &mut Vec<GoodRange>, header: &BatchHeader, bytes: Range<u64>) {
    match good.last_mut() {
        Some(last) if last.bytes.end == bytes.start => {
            last.bytes.end = bytes.end;
            last.next_offset = header.next_offset();
            last.batches += 1;
        }
        _ => good.push(GoodRange {
            bytes,
            base_offset: header.base_offset,
            next_offset: header.next_offset(),
            batches: 1,
        }),
    }
}

/// The good batch at `position`, or what is wrong with it.
fn check<E, R: FnMut(u64, &mut [u8]) -> Result<usize, E>>(
    window: &mut Window<R>,
    position: u64,
    expected: Offset,
) -> Result<Result<BatchHeader, ScanProblem>, E> {
    let header = match BatchHeader::parse(window.get(position, BATCH_HEADER_BYTES)?) {
        Ok(header) => header,
        Err(problem) => return Ok(Err(problem.into())),
    };
    if let Err(problem) = header.check_crc(window.get(position, header.size)?) {
        return Ok(Err(problem.into()));
    }
    // The checksum does not cover the offset, so it is checked against its neighbours.
    if header.base_offset < expected {
        return Ok(Err(ScanProblem::Order { expected, found: header.base_offset }));
    }
    Ok(Ok(header))
}

/// The next position behind `bad` where a good batch starts.
fn resync<E, R: FnMut(u64, &mut [u8]) -> Result<usize, E>>(
    window: &mut Window<R>,
    bad: u64,
    expected: Offset,
    checksum_budget: &mut u64,
) -> Result<Option<u64>, E> {
    // Damage inside a batch leaves its length whole: look behind it first, not at bytes of its records.
    if let Ok(header) = BatchHeader::parse(window.get(bad, BATCH_HEADER_BYTES)?) {
        let behind = bad + header.size as u64;
        if behind < window.len && check(window, behind, expected)?.is_ok() {
            return Ok(Some(behind));
        }
    }
    let mut position = bad + 1;
    while position + BATCH_HEADER_BYTES as u64 <= window.len {
        let bytes = window.held(position)?;
        let Some(skip) = bytes.get(MAGIC_AT..).and_then(|rest| rest.iter().position(|&b| b == 2)) else {
            position += (bytes.len().saturating_sub(MAGIC_AT)).max(1) as u64;
            continue;
        };
        let candidate = position + skip as u64;
        position = candidate + 1;
        let Ok(header) = BatchHeader::parse(&bytes[skip..]) else { continue };
        let size = header.size as u64;
        if header.base_offset < expected || candidate + size > window.len {
            continue;
        }
        let Some(left) = checksum_budget.checked_sub(size) else { return Ok(None) };
        *checksum_budget = left;
        if check(window, candidate, expected)?.is_ok() {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

/// A piece of the file in memory, read on as needed.
struct Window<R> {
    read: R,
    /// Of the file; shrinks when the file turns out to be shorter.
    len: u64,
    /// File position of `bytes[0]`.
    start: u64,
    bytes: Vec<u8>,
}

impl<E, R: FnMut(u64, &mut [u8]) -> Result<usize, E>> Window<R> {
    /// Up to `count` bytes from `position`; fewer only at the end of the file.
    fn get(&mut self, position: u64, count: usize) -> Result<&[u8], E> {
        debug_assert!(count <= MAX_BATCH_BYTES.max(WINDOW_BYTES));
        let left = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let count = count.min(left);
        let held = position
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|&skip| skip <= self.bytes.len());
        let skip = match held {
            Some(skip) if skip + count <= self.bytes.len() => skip,
            held => {
                self.fill(position, held, count.max(WINDOW_BYTES).min(left))?;
                0
            }
        };
        let end = (skip + count).min(self.bytes.len());
        Ok(&self.bytes[skip..end])
    }

    /// What is held from `position` on: at least a header, but at the end of the file.
    fn held(&mut self, position: u64) -> Result<&[u8], E> {
        let skip = usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let held = if position < self.start { 0 } else { self.bytes.len().saturating_sub(skip) };
        self.get(position, if held < BATCH_HEADER_BYTES { WINDOW_BYTES } else { held })
    }

    /// Moves the window to `position` and fills it to `count` bytes, keeping what it holds from `held` on.
    fn fill(&mut self, position: u64, held: Option<usize>, count: usize) -> Result<(), E> {
        match held {
            Some(skip) => drop(self.bytes.drain(..skip)),
            None => self.bytes.clear(),
        }
        self.start = position;
        let mut filled = self.bytes.len();
        self.bytes.resize(count.max(filled), 0);
        while filled < count {
            let got = (self.read)(position + filled as u64, &mut self.bytes[filled..])?;
            if got == 0 {
                self.len = position + filled as u64;
                break;
            }
            filled += got;
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
