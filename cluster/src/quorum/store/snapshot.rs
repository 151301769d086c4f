//! The snapshot's file: the whole state as of one entry, replaced as a whole.
//!
//! `snapshot`: magic 8 | version u32 | length of the head u32 | head (JSON) | state | CRC-32C u32 over all before it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut};
use tokio::sync::watch;

use super::{at, damage, newer};
use crate::quorum::disk::Disk;
use crate::quorum::raft::{LogId, SnapshotMeta};

const MAGIC: &[u8; 8] = b"FBQSNAP\0";
const VERSION: u32 = 1;
const HEAD: usize = 8 + 4 + 4;
const CRC: usize = 4;

/// How far the snapshot on disk reaches.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::quorum) struct Covered {
    pub(in crate::quorum) last: Option<LogId>,
    /// Whoever writes snapshots has ended: nothing that waits for one may go on waiting.
    pub(in crate::quorum) ended: bool,
}

/// Where the snapshot is. Reading and writing block. Clones share it.
#[derive(Clone)]
pub(in crate::quorum) struct SnapshotFile {
    disk: Disk,
    path: PathBuf,
    covered: Arc<watch::Sender<Covered>>,
    /// One snapshot may be built while another one is installed.
    writing: Arc<Mutex<()>>,
}

impl SnapshotFile {
    pub(in crate::quorum) fn new(disk: Disk, folder: &Path) -> SnapshotFile {
        SnapshotFile { disk, path: folder.join("snapshot"), covered: Arc::default(), writing: Arc::default() }
    }

    /// How far the snapshot reaches that is durable.
    pub(in crate::quorum) fn covered(&self) -> watch::Receiver<Covered> {
        self.covered.subscribe()
    }

    /// There will be no snapshot any more, or again.
    pub(in crate::quorum) fn set_ended(&self, ended: bool) {
        self.covered.send_modify(|covered| covered.ended = ended);
    }

    /// Replaces the snapshot, unless the one that is there reaches further: what that one covers may be purged already. A crash
    /// leaves the old or the new one.
    ///
    /// # Errors
    /// IO errors.
    pub(in crate::quorum) fn write(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.covered.borrow().last > meta.last_log_id {
            return Ok(());
        }
        let head = serde_json::to_vec(meta)?;
        let mut bytes = Vec::with_capacity(HEAD + head.len() + state.len() + CRC);
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(VERSION);
        bytes.put_u32_le(u32::try_from(head.len()).map_err(io::Error::other)?);
        bytes.put_slice(&head);
        bytes.put_slice(state);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        self.disk.write("the quorum's snapshot", || {
            forebay_disk::replace_file(self.disk.files.as_ref(), &self.path, &bytes).map_err(at("writing", &self.path))
        })?;
        self.covered.send_modify(|covered| covered.last = meta.last_log_id);
        Ok(())
    }

    /// The snapshot, if there is one.
    ///
    /// # Errors
    /// IO errors; `InvalidData` when it is damaged.
    pub(in crate::quorum) fn read(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        let read = forebay_disk::read_file(self.disk.files.as_ref(), &self.path).map_err(at("reading", &self.path))?;
        let Some(mut bytes) = read else { return Ok(None) };
        let (meta, from) = match parse(&bytes).map_err(|what| damage(&self.path, &what))? {
            Ok(parsed) => parsed,
            Err(version) => {
                let what = format!("is of version {version}; this release reads version {VERSION}");
                return Err(newer(&self.path, &what));
            }
        };
        self.covered.send_modify(|covered| covered.last = covered.last.max(meta.last_log_id));
        bytes.truncate(bytes.len() - CRC);
        Ok(Some((meta, bytes.split_off(from))))
    }
}

/// The head, and where the state begins; or the version, when this release does not read it.
fn parse(bytes: &[u8]) -> Result<Result<(SnapshotMeta, usize), u32>, String> {
    let (content, mut crc) = bytes.len().checked_sub(CRC).map(|at| bytes.split_at(at)).ok_or("it ends early")?;
    if crc32c::crc32c(content) != crc.get_u32_le() {
        return Err("checksum mismatch".to_owned());
    }
    let mut head = content.get(..HEAD).ok_or("it ends early")?;
    if !head.starts_with(MAGIC) {
        return Err("not a snapshot".to_owned());
    }
    head.advance(MAGIC.len());
    let (version, len) = (head.get_u32_le(), head.get_u32_le());
    if version != VERSION {
        return Ok(Err(version));
    }
    let from = usize::try_from(len).ok().and_then(|len| HEAD.checked_add(len)).ok_or("it ends early")?;
    let meta = serde_json::from_slice(content.get(HEAD..from).ok_or("it ends early")?);
    Ok(Ok((meta.map_err(|error| error.to_string())?, from)))
}
