//! The hot pieces of the log on disk: appends to a file system in memory, and fetches from the page cache.

#[path = "../../../tests/instructions/pieces.rs"]
mod pieces;
#[path = "../../../tests/instructions/readings.rs"]
mod readings;

use std::hint::black_box;
use std::sync::Arc;

use forebay_disk::sim::SimFiles;
use forebay_disk::{AppendData, Files, Log, LogOptions, Partition, RealFiles};
use forebay_log::record::RecordChunk;
use forebay_log::topic::CompressionType;
use forebay_log::{Millis, Offset, TopicConfig};
use pieces::Piece;
use tokio::runtime::Runtime;

const CHUNK: usize = 1000;
/// Bytes that a consumer asks for at once.
const FETCH: usize = 1 << 20;
/// Fetches or commits of one run: enough that what the log's threads do beside them is lost among them.
const TIMES: usize = 500;

const PIECES: &[Piece] = &[
    Piece { name: "commit_of_1000_readings", items: CHUNK, bytes: 0, counted: false, make: || commit(CHUNK, 1) },
    Piece { name: "commit_of_one_reading", items: TIMES, bytes: 0, counted: false, make: || commit(1, TIMES) },
    Piece { name: "fetch_of_a_megabyte", items: TIMES, bytes: TIMES * FETCH, counted: true, make: || fetch(FETCH) },
    Piece { name: "fetch_of_one_batch", items: TIMES, bytes: 0, counted: true, make: || fetch(1) },
];

fn main() {
    pieces::main(PIECES);
}

#[divan::bench(args = PIECES, max_time = 1)]
fn disk(bencher: divan::Bencher<'_, '_>, piece: &Piece) {
    pieces::time(bencher, piece);
}

fn chunk(payloads: &[String]) -> RecordChunk {
    let mut chunk = RecordChunk::new();
    for payload in payloads {
        let key = &payload.as_bytes()[10..19];
        chunk.push(Millis(1_233_446_400_000), Some(key), Some(payload.as_bytes()), &[("mqtt.qos", b"1")]);
    }
    chunk
}

fn open(files: Arc<dyn Files>, segment_bytes: u64) -> (Runtime, Arc<Partition>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let log = Log::open(files, LogOptions { shards: 1, fsync: true, alone: true }).expect("an empty directory");
    let config = TopicConfig {
        compression_type: CompressionType::None,
        segment_bytes,
        local_retention_bytes: Some(segment_bytes),
        retention_bytes: Some(segment_bytes),
        remote_storage_enable: false,
        ..TopicConfig::default()
    };
    runtime.block_on(log.create_topic("readings", 1, config)).expect("a new topic");
    let partition = Arc::clone(&log.topic("readings").expect("it was made").partitions[0]);
    // The log runs as long as the process.
    std::mem::forget(log);
    (runtime, partition)
}

/// Records in, ack out: the way to the shard's thread and back, the machine, the files, a sync that costs nothing.
fn commit(count: usize, times: usize) -> Box<dyn FnMut()> {
    let (runtime, partition) = open(Arc::new(SimFiles::new(1)), 4 << 20);
    let payloads = readings::payloads(count);
    Box::new(move || {
        for _ in 0..times {
            let appended = runtime.block_on(partition.append(AppendData::Chunk(chunk(&payloads))));
            black_box(appended).expect("it is kept");
        }
    })
}

/// Whole batches of about 100 KiB from one segment of 16 MiB.
fn fetch(max_bytes: usize) -> Box<dyn FnMut()> {
    let dir = tempfile::tempdir().expect("a directory");
    let (runtime, partition) = open(RealFiles::open(dir.path()).expect("a directory"), 64 << 20);
    let batch = 500;
    let payloads = readings::payloads(batch);
    for _ in 0..160 {
        runtime.block_on(partition.append(AppendData::Chunk(chunk(&payloads)))).expect("it is kept");
    }
    let mut from = Offset(0);
    Box::new(move || {
        let _keep = &dir;
        for _ in 0..TIMES {
            let fetched = partition.read(from, max_bytes).expect("it is there");
            assert!(!black_box(&fetched.batches).is_empty());
            from = Offset((from.0 + 10 * batch as i64) % (140 * batch as i64));
        }
    })
}
