//! One conformance suite for every file system: the real one and the simulated one answer alike.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_disk::sim::{Faults, HookedFiles, SimFiles};
use forebay_disk::{Files, LogError, RealFiles};

fn conforms(files: &dyn Files) {
    let dir = Path::new("a/b");
    let path = dir.join("f");
    assert_eq!(files.open(&path, true).err().map(|e| e.kind()), Some(ErrorKind::NotFound), "no such directory");
    files.create_dir_all(dir).unwrap();
    files.create_dir_all(dir).unwrap();
    assert_eq!(files.open(&path, false).err().map(|e| e.kind()), Some(ErrorKind::NotFound));

    let file = files.open(&path, true).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(2, &[IoSlice::new(b"cd"), IoSlice::new(b"ef")]).unwrap();
    assert_eq!(file.len().unwrap(), 6);
    let mut buffer = [9; 8];
    assert_eq!(file.read_at(0, &mut buffer).unwrap(), 6);
    assert_eq!(&buffer[..6], b"\0\0cdef", "a hole reads as zeros");
    assert_eq!(file.read_at(6, &mut buffer).unwrap(), 0);
    let many: Vec<IoSlice<'_>> = ["", "a", "", "b", "c", "d"].map(|part| IoSlice::new(part.as_bytes())).to_vec();
    file.write_at(1, &many).unwrap();
    assert_eq!(file.read_at(0, &mut buffer).unwrap(), 6);
    assert_eq!(&buffer[..6], b"\0abcdf");
    file.write_at(1, &[IoSlice::new(b"\0cde")]).unwrap();
    file.set_len(4).unwrap();
    file.set_len(5).unwrap();
    assert_eq!(file.read_at(2, &mut buffer).unwrap(), 3);
    assert_eq!(&buffer[..3], b"cd\0", "what was cut off does not come back");
    let mut grown = Vec::with_capacity(16);
    grown.push(b'x');
    assert_eq!(file.read_into(1, &mut grown).unwrap(), 4);
    assert_eq!(grown, b"x\0cd\0", "a read into spare capacity keeps what is there");
    assert_eq!(file.read_into(5, &mut grown).unwrap(), 0);
    file.sync().unwrap();
    file.set_modified(1_700_000_000_123).unwrap();
    assert_eq!(file.modified().unwrap(), 1_700_000_000_123);

    files.open(&dir.join("e"), true).unwrap();
    files.sync_dir(dir).unwrap();
    assert_eq!(files.list(dir).unwrap(), [PathBuf::from("e"), PathBuf::from("f")]);
    files.rename(&path, &dir.join("e")).unwrap();
    assert_eq!(files.list(dir).unwrap(), [PathBuf::from("e")], "a rename replaces");
    assert_eq!(files.open(&dir.join("e"), false).unwrap().len().unwrap(), 5);
    files.remove(&dir.join("e")).unwrap();
    assert_eq!(files.remove(&dir.join("e")).err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    files.open(&path, true).unwrap();
    files.rename(dir, Path::new("a/c")).unwrap();
    assert_eq!(files.list(Path::new("a/c")).unwrap(), [PathBuf::from("f")], "a directory moves with its files");
    files.remove_dir_all(Path::new("a/c")).unwrap();
    assert_eq!(files.list(Path::new("a/c")).err().map(|e| e.kind()), Some(ErrorKind::NotFound));
    let gone = files.remove_dir_all(Path::new("a/c"));
    assert_eq!(gone.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
}

#[test]
fn the_real_file_system_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(RealFiles::open(dir.path()).unwrap().as_ref());
}

#[test]
fn the_simulated_file_system_conforms() {
    conforms(&SimFiles::new(1));
}

#[test]
fn a_wrapper_that_never_fails_conforms() {
    conforms(&HookedFiles::flaky(Arc::new(SimFiles::new(1)), "", 0, 1));
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let first = RealFiles::open(dir.path()).unwrap();
    assert!(matches!(RealFiles::open(dir.path()), Err(LogError::Locked)));
    first.close();
    let second = RealFiles::open(dir.path()).unwrap();
    drop(second);
    RealFiles::open(dir.path()).unwrap();
}

#[test]
fn a_crash_loses_names_and_bytes_that_were_not_synced_and_no_others() {
    let path = Path::new("f");
    let torn = (0..50).filter(|&seed| {
        let files = SimFiles::new(seed);
        let file = files.open(path, true).unwrap();
        file.write_at(0, &[IoSlice::new(&[1; 1024])]).unwrap();
        file.sync().unwrap();
        files.open(Path::new("unsynced"), true).unwrap();
        files.rename(Path::new("unsynced"), Path::new("renamed")).unwrap();
        files.sync_dir(Path::new("")).unwrap();
        files.rename(Path::new("renamed"), Path::new("lost")).unwrap();
        file.write_at(1024, &[IoSlice::new(&[2; 4096])]).unwrap();
        files.crash();
        assert_eq!(files.list(Path::new("")).unwrap(), [path, Path::new("renamed")]);
        let bytes = files.contents().remove(0).1;
        assert!(file.sync().is_err(), "open files do not outlive the machine");
        assert!(bytes[..1024].iter().all(|&b| b == 1));
        let kept = bytes[1024..].iter().filter(|&&b| b == 2).count();
        kept > 0 && kept < 4096
    });
    assert!(torn.count() > 25, "most unsynced writes tear");
}

#[test]
fn after_a_failed_sync_the_next_one_does_not_write_what_was_lost() {
    let lost = (0..20).filter(|&seed| {
        let files = SimFiles::new(seed);
        let file = files.open(Path::new("f"), true).unwrap();
        files.sync_dir(Path::new("")).unwrap();
        file.write_at(0, &[IoSlice::new(&[1; 4096])]).unwrap();
        files.set_faults(Faults { sync_per_mille: 1000, ..Faults::default() });
        file.sync().unwrap_err();
        files.set_faults(Faults::default());
        file.sync().unwrap();
        files.crash();
        files.contents().remove(0).1 != [1; 4096]
    });
    assert!(lost.count() > 15);
}

#[test]
fn a_full_disk_takes_the_first_part_and_says_so() {
    let files = SimFiles::new(1);
    files.set_faults(Faults { capacity: Some(100), ..Faults::default() });
    let file = files.open(Path::new("f"), true).unwrap();
    file.write_at(0, &[IoSlice::new(&[1; 90])]).unwrap();
    let full = file.write_at(90, &[IoSlice::new(&[2; 20])]).unwrap_err();
    assert_eq!((full.kind(), file.len().unwrap()), (ErrorKind::StorageFull, 100));
    file.write_at(0, &[IoSlice::new(&[3; 90])]).unwrap();
}
