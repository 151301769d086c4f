//! What a crash left of files that were being written to the local object store.
//!
//! Their names end in `#` and digits: no listing shows them, no object has such a name, and none of the names comes again.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

/// Most names that one sweep looks at: far more than a lake has.
const MAX_NAMES: usize = 2_000_000;
/// What was written to later than this before the start may still be in work, by another node that shares the store.
const MARGIN: Duration = Duration::from_secs(60);

/// Removes what was left below `root` before now, in a thread of its own.
pub(super) fn sweep_in_background(root: PathBuf) {
    let before = SystemTime::now() - MARGIN;
    let work = move || {
        let removed = sweep(&root, before);
        if removed > 0 {
            tracing::info!(root = %root.display(), removed, "removed what a crash left of files being written");
        }
    };
    if let Err(error) = thread::Builder::new().name("lake-leftovers".to_owned()).spawn(work) {
        tracing::warn!(%error, "what a crash left in the object store is not looked for");
    }
}

/// How many files were removed. What cannot be read or removed stays for the next start.
fn sweep(root: &Path, before: SystemTime) -> usize {
    let (mut folders, mut names, mut removed) = (vec![root.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            names += 1;
            if names > MAX_NAMES {
                return removed;
            }
            // The kind of a link is a link: what lies outside is left alone.
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.file_name().to_str().is_some_and(is_leftover) {
                let old = entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at < before);
                removed += usize::from(old && fs::remove_file(entry.path()).is_ok());
            }
        }
    }
    removed
}

fn is_leftover(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(object, number)| {
        // Only what we or the table's log write: others may keep files below the root too.
        let is_ours = [".parquet", ".json", "_last_checkpoint"].iter().any(|end| object.ends_with(end));
        is_ours && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
