//! The journal's files: a header, then frames, each of which is one change and is there whole or not at all.
//!
//! ```text
//! 0000000001.log   header: magic 8 | version u32 | number of the file u64 | CRC-32C u32     (all little endian)
//!                  frame:  marker u32 | length u32 | CRC-32C u32 | kind u8 | body
//!                          State      JSON, first in each file: the vote and what was purged when the file began
//!                          Vote       JSON
//!                          Entries    entries of one append
//!                          Truncate   u64: this index and all above are gone
//!                          Purge      JSON of a log id: this one and all below are gone
//! ```
//! The CRC covers the number of the file and the frame's position as well, so that no bytes inside an entry can be taken
//! for a frame. An append is one frame: behind a torn one there is never a whole one, unless something is damaged.

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};

use crate::quorum::raft::{LogId, Vote};

const MAGIC: &[u8; 8] = b"FBQUORUM";
const VERSION: u32 = 1;
/// Bytes of a file's header.
pub(super) const HEADER: usize = 8 + 4 + 8 + 4;
const MARKER: [u8; 4] = *b"\xfbqf\x01";
/// Bytes in front of a frame's kind and body.
const FRAME_HEAD: usize = 4 + 4 + 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    State = 1,
    Vote = 2,
    Entries = 3,
    Truncate = 4,
    Purge = 5,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Kind> {
        [Kind::State, Kind::Vote, Kind::Entries, Kind::Truncate, Kind::Purge]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What a file needs from the ones before it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
}

pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.log"))
}

/// The number in a file's name, if it is a file of the journal.
pub(super) fn number(name: &Path) -> Option<u64> {
    name.to_str()?.strip_suffix(".log")?.parse().ok()
}

pub(super) fn header(number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER);
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    out.put_u64_le(number);
    out.put_u32_le(crc32c::crc32c(&out));
    out
}

/// Whether a file begins as it has to.
///
/// # Errors
/// When another release has written it.
pub(super) fn is_header(bytes: &[u8], number: u64) -> Result<bool, String> {
    let Some(mut head) = bytes.get(..HEADER) else { return Ok(false) };
    let crc = crc32c::crc32c(&head[..HEADER - 4]);
    let magic = head.copy_to_bytes(MAGIC.len());
    let (version, named, stored) = (head.get_u32_le(), head.get_u64_le(), head.get_u32_le());
    if magic.as_ref() != MAGIC || stored != crc {
        return Ok(false);
    }
    if version != VERSION {
        return Err(format!("is of version {version}; this release reads version {VERSION}"));
    }
    Ok(named == number)
}

fn checksum(file: u64, position: u64, content: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&file.to_le_bytes());
    place[8..].copy_from_slice(&position.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), content)
}

/// A frame for `position` of the file.
///
/// # Errors
/// When the body is too long.
pub(super) fn frame(file: u64, position: u64, kind: Kind, body: &[u8]) -> Result<Vec<u8>, String> {
    let len = u32::try_from(1 + body.len()).map_err(|_| "a frame is too long".to_owned())?;
    let mut out = Vec::with_capacity(FRAME_HEAD + 1 + body.len());
    out.put_slice(&MARKER);
    out.put_u32_le(len);
    out.put_u32_le(0);
    out.put_u8(kind as u8);
    out.put_slice(body);
    let crc = checksum(file, position, &out[FRAME_HEAD..]);
    out[8..FRAME_HEAD].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// The whole frame at `position`: its kind, its body, and where it ends.
pub(super) fn frame_at(bytes: &[u8], file: u64, position: usize) -> Option<(u8, &[u8], usize)> {
    let mut head = bytes.get(position..position.checked_add(FRAME_HEAD)?)?;
    if head.get(..4)? != MARKER {
        return None;
    }
    head.advance(4);
    let (len, crc) = (head.get_u32_le(), head.get_u32_le());
    let start = position + FRAME_HEAD;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    let content = bytes.get(start..end)?;
    if checksum(file, position as u64, content) != crc {
        return None;
    }
    let (kind, body) = content.split_first()?;
    Some((*kind, body, end))
}

/// Where the first whole frame at or behind `from` begins.
pub(super) fn next_frame(bytes: &[u8], file: u64, from: usize) -> Option<usize> {
    (from..bytes.len()).find(|&position| frame_at(bytes, file, position).is_some())
}
