//! What the tests of the log share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_disk::{Files, Log, LogOptions, Partition, RealFiles};
use forebay_log::Millis;
use forebay_log::record::{Batches, RecordChunk, RecordReader};

/// Opens the log in `dir`, synced, on two shards.
pub(crate) fn open(dir: &Path) -> Log {
    open_on(RealFiles::open(dir).unwrap(), true)
}

/// Opens the log on these files, on two shards.
pub(crate) fn open_on(files: Arc<dyn Files>, fsync: bool) -> Log {
    Log::open(files, LogOptions { shards: 2, fsync, alone: true }).unwrap()
}

/// A chunk of records with these values.
pub(crate) fn chunk(values: &[&str]) -> RecordChunk {
    let mut chunk = RecordChunk::new();
    for value in values {
        chunk.push(Millis(1_700_000_000_000), None, Some(value.as_bytes()), &[]);
    }
    chunk
}

/// The values of all records on the local disk, with their offsets checked to be consecutive.
pub(crate) fn values(partition: &Partition) -> Vec<String> {
    let mut values = Vec::new();
    let mut next = partition.watermarks().local_start;
    while next < partition.watermarks().high_watermark {
        for batch in Batches::new(partition.read(next, 4096).unwrap().batches) {
            let (header, batch) = batch.unwrap();
            for record in RecordReader::new(&header, &batch).unwrap().map(Result::unwrap) {
                assert_eq!(record.offset, next, "offsets are consecutive");
                next = next.next();
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            }
        }
    }
    values
}

/// Files of partition 0 of the topic `t`, by name.
pub(crate) fn files_of(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("log/t-0")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort();
    paths
}

/// Flips a bit.
pub(crate) fn flip(path: &Path, position: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[position] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}
