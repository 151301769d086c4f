//! Opening the journal: replays every frame, cuts a torn tail, and tells damage from it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_disk::{File, Files};

use super::format::{self, Kind, State};
use super::journal::{Journal, Older, create};
use super::memory::Memory;
use super::{at, damage, newer};
use crate::quorum::disk::Disk;
use crate::quorum::frame;
use crate::quorum::limits;
use crate::quorum::raft::Vote;

/// Opens the journal in `folder`, making it if there is none and none has `begun`: a voter that forgot its votes could vote twice.
///
/// # Errors
/// IO errors; `InvalidData` for what is damaged, with file, position and what to do.
pub(super) fn open(disk: Disk, folder: PathBuf, begun: bool) -> io::Result<(Journal, Memory)> {
    let files = &disk.files;
    disk.write("the quorum's folder", || make_folder(files.as_ref(), &folder))?;
    let mut numbers: Vec<u64> = files.list(&folder)?.iter().filter_map(|name| format::number(name)).collect();
    numbers.sort_unstable();
    let mut memory = Memory::default();
    let mut older = VecDeque::new();
    let last = numbers.last().copied();
    let mut next = numbers.first().copied();
    let mut current = None;
    for number in numbers {
        let path = format::path(&folder, number);
        if next.replace(number + 1) != Some(number) {
            return Err(damage(&path, "the file before it is missing"));
        }
        let Some(read) = replay(files.as_ref(), &path, number, last == Some(number), &mut memory)? else { continue };
        if let Some((number, _, highest, _)) = current.replace((number, read.file, read.highest, read.len)) {
            older.push_back(Older { number, highest });
        }
    }
    let (number, file, highest, len) = match current {
        Some(current) => current,
        None if begun => return Err(damage(&folder, "the log that this node voted with is gone")),
        None => {
            let number = last.unwrap_or(1);
            let mut made = None;
            disk.write("the quorum's log", || {
                made = Some(create(files.as_ref(), &folder, number, &State::default())?);
                Ok(())
            })?;
            let (file, len) = made.ok_or_else(|| io::Error::other("the quorum's log was not made"))?;
            (number, file, None, len)
        }
    };
    let gap = memory.first().is_some_and(|first| first.index > memory.purged.map_or(0, |purged| purged.index + 1));
    if gap {
        return Err(damage(&folder, "the log's first entries are missing"));
    }
    // Restored as if it was not elected: a leader that was away has to be elected anew, and a follower has no leader
    // until it hears from one. What was voted stays.
    memory.vote = memory.vote.map(|vote| Vote { committed: false, ..vote });
    let file_bytes = limits::LOG_FILE_BYTES;
    let journal = Journal { disk, folder, older, file, number, highest, len, broken: None, file_bytes };
    Ok((journal, memory))
}

/// Makes the folder so that its name outlives a crash.
fn make_folder(files: &dyn Files, folder: &Path) -> io::Result<()> {
    files.create_dir_all(folder).map_err(at("making", folder))?;
    let parents = folder.ancestors().skip(1);
    parents.into_iter().try_for_each(|parent| files.sync_dir(parent)).map_err(at("syncing the folder above", folder))
}

struct Read {
    file: Arc<dyn File>,
    len: u64,
    highest: Option<u64>,
}

/// Replays one file into `memory`. `None`: a crash came while this last file was made; it holds nothing and is gone now.
fn replay(files: &dyn Files, path: &Path, number: u64, last: bool, memory: &mut Memory) -> io::Result<Option<Read>> {
    let file = files.open(path, false).map_err(at("opening", path))?;
    let bytes = read_all(file.as_ref()).map_err(at("reading", path))?;
    let whole = format::is_header(&bytes, number).map_err(|what| newer(path, &what))?;
    let first = whole.then(|| format::frame_at(&bytes, number, format::HEADER)).flatten();
    if first.is_none_or(|(kind, ..)| kind != Kind::State as u8) {
        if !last || format::next_frame(&bytes, number, 0).is_some() {
            return Err(damage(path, "damaged at position 0"));
        }
        files
            .remove(path)
            .and_then(|()| files.sync_dir(path.parent().unwrap_or(Path::new(""))))
            .map_err(at("removing", path))?;
        return Ok(None);
    }
    let (mut position, mut highest) = (format::HEADER, None);
    while let Some((kind, body, end)) = format::frame_at(&bytes, number, position) {
        let Some(kind) = Kind::of(kind) else {
            let what = format!("a frame of kind {kind} at position {position}, which this release does not know");
            return Err(newer(path, &what));
        };
        apply(kind, body, memory, &mut highest)
            .map_err(|what| damage(path, &format!("{what} at position {position}")))?;
        position = end;
    }
    if position < bytes.len() {
        let behind = format::next_frame(&bytes, number, position + 1);
        if !last || behind.is_some() {
            let what = format!("damaged at position {position}, and what follows was acknowledged");
            return Err(damage(path, &what));
        }
        let (path, torn) = (path.display(), bytes.len() - position);
        tracing::warn!(%path, position, torn, "cut a torn write, of a crash, off the end of the quorum's log");
        file.set_len(position as u64)?;
    }
    if last {
        // What was read may be in memory only, if a sync failed before the restart.
        file.sync().map_err(at("syncing", path))?;
    }
    Ok(Some(Read { file, len: position as u64, highest }))
}

fn apply(kind: Kind, body: &[u8], memory: &mut Memory, highest: &mut Option<u64>) -> Result<(), String> {
    let json = |error: serde_json::Error| format!("an unreadable frame ({error})");
    match kind {
        Kind::State => {
            let State { vote, purged } = serde_json::from_slice(body).map_err(json)?;
            memory.vote = vote;
            memory.purged = memory.purged.max(purged);
        }
        Kind::Vote => memory.vote = Some(serde_json::from_slice(body).map_err(json)?),
        Kind::Entries => {
            let entries = frame::take_entries(body)?;
            if !memory.follows(&entries) {
                return Err("entries that do not follow the ones before them".to_owned());
            }
            *highest = (*highest).max(entries.last().map(|entry| entry.log_id.index));
            memory.append(entries);
        }
        Kind::Truncate => {
            let index = body.try_into().map_err(|_| "an unreadable frame".to_owned())?;
            memory.truncate(u64::from_le_bytes(index));
        }
        Kind::Purge => memory.purge(serde_json::from_slice(body).map_err(json)?),
    }
    Ok(())
}

fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.len()?).map_err(io::Error::other)?;
    forebay_disk::read_bytes(file, 0, size)
}
