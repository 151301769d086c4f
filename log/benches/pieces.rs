//! The hot pieces of the pure log: records encoded, batches built, compressed, checked and read, and an append through the machine.

#[path = "../../tests/instructions/pieces.rs"]
mod pieces;
#[path = "../../tests/instructions/readings.rs"]
mod readings;

use std::hint::black_box;

use bytes::Bytes;
use forebay_log::partition::{Append, AppendData, Effect, EpochCache, Event, Leadership, Partition, Persist};
use forebay_log::partition::{Producers, Restored, Starts};
use forebay_log::partitioner::partition_for_key;
use forebay_log::record::{BatchBuilder, BatchHeader, Compression, RecordChunk, RecordReader};
use forebay_log::topic::CompressionType;
use forebay_log::{Epoch, Millis, Offset, PartitionEpoch, TopicConfig};
use pieces::Piece;

/// Readings of one batch: what a busy group commit gathers for a partition.
const BATCH: usize = 1000;

const PIECES: &[Piece] = &[
    Piece { name: "partition_of_a_key", items: BATCH, bytes: 0, counted: true, make: partition_of_a_key },
    Piece { name: "reading_into_a_chunk", items: BATCH, bytes: 0, counted: true, make: into_chunk },
    Piece { name: "batch_none", items: BATCH, bytes: 0, counted: true, make: || build(Compression::None) },
    Piece { name: "batch_lz4", items: BATCH, bytes: 0, counted: true, make: || build(Compression::Lz4) },
    Piece { name: "batch_snappy", items: BATCH, bytes: 0, counted: false, make: || build(Compression::Snappy) },
    Piece { name: "batch_zstd", items: BATCH, bytes: 0, counted: true, make: || build(Compression::Zstd) },
    Piece { name: "compress_zstd_1", items: BATCH, bytes: 0, counted: false, make: || zstd_level(1) },
    Piece { name: "compress_zstd_3", items: BATCH, bytes: 0, counted: false, make: || zstd_level(3) },
    Piece { name: "checksum_of_a_megabyte", items: 1, bytes: 1 << 20, counted: true, make: checksum },
    Piece { name: "append_through_the_machine", items: BATCH, bytes: 0, counted: true, make: append },
    Piece { name: "records_of_a_plain_batch", items: BATCH, bytes: 0, counted: true, make: || read(Compression::None) },
    Piece { name: "records_of_a_zstd_batch", items: BATCH, bytes: 0, counted: true, make: || read(Compression::Zstd) },
];

fn main() {
    pieces::main(PIECES);
}

#[divan::bench(args = PIECES, max_time = 1)]
fn log(bencher: divan::Bencher<'_, '_>, piece: &Piece) {
    pieces::time(bencher, piece);
}

/// Readings as the MQTT door stores them: the meter as key, topic, client and QoS as headers.
fn chunk(payloads: &[String]) -> RecordChunk {
    let mut chunk = RecordChunk::new();
    for (payload, index) in payloads.iter().zip(0i64..) {
        let key = &payload.as_bytes()[10..19];
        let topic: &[u8] = b"meters/MAC000000/readings";
        let headers: [(&str, &[u8]); 3] = [("mqtt.topic", topic), ("mqtt.client", key), ("mqtt.qos", b"1")];
        chunk.push(Millis(1_233_446_400_000 + index), Some(key), Some(payload.as_bytes()), &headers);
    }
    chunk
}

fn batch(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    builder.push_chunk(&chunk(&readings::payloads(BATCH)));
    builder.build(Offset(0), Epoch(0)).expect("there are records")
}

fn partition_of_a_key() -> Box<dyn FnMut()> {
    let keys: Vec<String> = (0..BATCH).map(readings::meter).collect();
    Box::new(move || {
        for key in &keys {
            black_box(partition_for_key(black_box(key.as_bytes()), 8));
        }
    })
}

fn into_chunk() -> Box<dyn FnMut()> {
    let payloads = readings::payloads(BATCH);
    Box::new(move || {
        black_box(chunk(black_box(&payloads)));
    })
}

fn build(compression: Compression) -> Box<dyn FnMut()> {
    let chunk = chunk(&readings::payloads(BATCH));
    Box::new(move || {
        let mut builder = BatchBuilder::new(compression);
        builder.push_chunk(black_box(&chunk));
        black_box(builder.build(Offset(7), Epoch(1)));
    })
}

/// The codec alone, at a level: which one the log uses is a constant.
fn zstd_level(level: i32) -> Box<dyn FnMut()> {
    let records = batch(Compression::None);
    let mut compressor = zstd::bulk::Compressor::new(level).expect("a level");
    let mut out = vec![0; zstd::zstd_safe::compress_bound(records.len())];
    Box::new(move || {
        black_box(compressor.compress_to_buffer(black_box(&records[..]), &mut out)).expect("there is room");
    })
}

fn checksum() -> Box<dyn FnMut()> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(0, Millis(0), None, Some(&vec![b'x'; 1 << 20]), &[]);
    let batch = builder.build(Offset(0), Epoch(0)).expect("there is a record");
    let header = BatchHeader::parse(&batch).expect("a batch");
    Box::new(move || black_box(header.check_crc(black_box(&batch))).expect("whole"))
}

/// Ten chunks of ten connections become one uncompressed batch, durable at once, and their acks.
fn append() -> Box<dyn FnMut()> {
    let config =
        TopicConfig { compression_type: CompressionType::None, segment_bytes: 1 << 30, ..TopicConfig::default() };
    let restored = Restored {
        segments: Vec::new(),
        log_end: Offset(0),
        high_watermark: Offset(0),
        starts: Starts::default(),
        epochs: EpochCache::default(),
        producers: Producers::default(),
    };
    let now = Millis(1_767_225_600_000);
    let mut partition: Partition<usize> = Partition::new(config, now, restored);
    let alone = Leadership {
        epoch: Epoch(0),
        partition_epoch: PartitionEpoch(0),
        followers: Vec::new(),
        in_sync: Vec::new(),
        max_lag_ms: 10_000,
    };
    partition.handle(now, Event::Lead(alone), &mut Vec::new());
    let payloads = readings::payloads(BATCH);
    let mut effects = Vec::new();
    Box::new(move || {
        let parts = payloads.chunks(BATCH / 10).enumerate();
        let appends =
            parts.map(|(token, part)| Append { data: AppendData::Chunk(chunk(part)), all: true, token }).collect();
        partition.handle(now, Event::Append(appends), &mut effects);
        let mut answered = 0;
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Persist(Persist { work, then }) => {
                        black_box(work);
                        partition.handle(now, Event::Persisted(then), &mut effects);
                    }
                    Effect::Done(..) => answered += 1,
                    _ => {}
                }
            }
        }
        assert_eq!(answered, 10);
    })
}

fn read(compression: Compression) -> Box<dyn FnMut()> {
    let batch = batch(compression);
    Box::new(move || {
        let header = BatchHeader::parse(black_box(&batch)).expect("a batch");
        let records = RecordReader::new(&header, &batch).expect("it decompresses");
        assert_eq!(records.inspect(|record| assert!(black_box(record).is_ok())).count(), BATCH);
    })
}
