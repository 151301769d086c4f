//! A torn tail is cut; damage before what was acknowledged is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_disk::Files;
use forebay_disk::sim::SimFiles;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};

use super::{entry, open};
use crate::quorum::disk::Disk;
use crate::quorum::raft::{SnapshotMeta, log_id};
use crate::quorum::store::SnapshotFile;

/// A log of `count` entries of about 1 KiB in files of 4 KiB.
async fn filled(count: u64) -> SimFiles {
    let files = SimFiles::new(7);
    let mut store = open(Arc::new(files.clone())).unwrap();
    for index in 0..count {
        store.blocking_append([entry(1, index, vec![b'x'; 1000])]).await.unwrap();
    }
    files
}

fn logs(files: &SimFiles) -> Vec<(PathBuf, Vec<u8>)> {
    files.contents().into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "log")).collect()
}

fn refused(files: &SimFiles) -> String {
    open(Arc::new(files.clone())).err().map(|error| error.to_string()).expect("refused")
}

#[tokio::test]
async fn damage_before_whole_entries_is_told_with_file_and_position() {
    let files = filled(3).await;
    files.flip(Path::new("quorum/0000000001.log"), 1500, 1).unwrap();
    let error = refused(&files);
    assert!(error.contains("quorum/0000000001.log: damaged at position 1"), "{error}");
    assert!(error.contains("restore it from a backup"), "{error}");
}

#[tokio::test]
async fn damage_in_a_closed_file_is_told_even_at_its_end() {
    let files = filled(9).await;
    let (path, bytes) = logs(&files)[0].clone();
    files.flip(&path, bytes.len() as u64 - 1, 1).unwrap();
    assert!(refused(&files).contains("0000000001.log: damaged at position"));
}

#[tokio::test]
async fn every_byte_counts() {
    let files = filled(2).await;
    let (path, bytes) = logs(&files)[0].clone();
    for position in 0..bytes.len() as u64 {
        files.flip(&path, position, 0x40).unwrap();
        // The last entry looks torn then; everything before it is not lost silently.
        if let Ok(store) = open(Arc::new(files.clone())) {
            assert_eq!(store.memory().last(), Some(log_id(1, 0)), "position {position}");
            assert!(position > 1000);
            return;
        }
        files.flip(&path, position, 0x40).unwrap();
    }
}

#[tokio::test]
async fn a_torn_last_entry_is_cut_and_written_over() {
    let files = filled(3).await;
    let (path, bytes) = logs(&files)[0].clone();
    files.flip(&path, bytes.len() as u64 - 10, 1).unwrap();
    let mut store = open(Arc::new(files.clone())).unwrap();
    assert_eq!(store.memory().last(), Some(log_id(1, 1)));
    store.blocking_append([entry(2, 2, vec![b'y'; 10])]).await.unwrap();
    assert_eq!(open(Arc::new(files)).unwrap().memory().last(), Some(log_id(2, 2)));
}

#[tokio::test]
async fn a_missing_file_is_told() {
    let files = filled(12).await;
    assert!(logs(&files).len() >= 3);
    files.remove(Path::new("quorum/0000000002.log")).unwrap();
    assert!(refused(&files).contains("0000000003.log: the file before it is missing"));
    files.remove(Path::new("quorum/0000000001.log")).unwrap();
    assert!(refused(&files).contains("the log's first entries are missing"));
}

#[tokio::test]
async fn purged_files_are_removed() {
    let files = filled(12).await;
    let before = logs(&files).len();
    let mut store = open(Arc::new(files.clone())).unwrap();
    store.purge(log_id(1, 10)).await.unwrap();
    assert!(logs(&files).len() < before);
    let store = open(Arc::new(files)).unwrap();
    let memory = store.memory();
    assert_eq!((memory.first(), memory.purged), (Some(log_id(1, 11)), Some(log_id(1, 10))));
}

#[test]
fn a_snapshot_comes_back_and_any_flipped_byte_is_noticed() {
    let files = SimFiles::new(1);
    let file = SnapshotFile::new(Disk::new(Arc::new(files.clone()), |write| write()), Path::new(""));
    assert!(file.read().unwrap().is_none());
    let meta = SnapshotMeta { last_log_id: Some(log_id(3, 4)), ..SnapshotMeta::default() };
    file.write(&meta, b"state").unwrap();
    let (found, state) = file.read().unwrap().unwrap();
    assert_eq!((found, state.as_slice()), (meta, &b"state"[..]));
    let len = files.contents()[0].1.len() as u64;
    for position in 0..len {
        files.flip(Path::new("snapshot"), position, 1).unwrap();
        assert!(file.read().unwrap_err().to_string().contains("snapshot: checksum mismatch"));
        files.flip(Path::new("snapshot"), position, 1).unwrap();
    }
}

#[test]
fn files_of_a_later_release_are_no_damage() {
    let files = SimFiles::new(2);
    let write = |path: &str, mut bytes: Vec<u8>| {
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        let file = files.open(Path::new(path), true).unwrap();
        file.write_at(0, &[std::io::IoSlice::new(&bytes)]).unwrap();
    };
    files.create_dir_all(Path::new("quorum")).unwrap();
    write("quorum/0000000001.log", [&b"FBQUORUM"[..], &2_u32.to_le_bytes(), &1_u64.to_le_bytes()].concat());
    write("snapshot", [&b"FBQSNAP\0"[..], &2_u32.to_le_bytes(), &0_u32.to_le_bytes(), b"of its own kind"].concat());
    let snapshot = SnapshotFile::new(Disk::new(Arc::new(files.clone()), |write| write()), Path::new(""));
    for error in [refused(&files), snapshot.read().unwrap_err().to_string()] {
        assert!(error.contains("version 2") && error.ends_with("start the release that wrote it"), "{error}");
    }
}
