//! Batches come back as they were written, through every codec, and no bytes make the parsers panic or hoard.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::limits::MAX_TIMESTAMP_MS;
use crate::units::{Epoch, Millis, Offset};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

type Header = (String, Vec<u8>);
type Input = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>);

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let header = ("[a-z.]{0,8}", vec(any::<u8>(), 0..8));
    vec(
        (any::<i64>(), option::of(vec(any::<u8>(), 0..20)), option::of(vec(any::<u8>(), 0..200)), vec(header, 0..4)),
        1..40,
    )
}

fn codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(CODECS.to_vec())
}

fn chunk(inputs: &[Input]) -> RecordChunk {
    let mut chunk = RecordChunk::new();
    for (timestamp, key, value, headers) in inputs {
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
        chunk.push(Millis(*timestamp), key.as_deref(), value.as_deref(), &headers);
    }
    chunk
}

fn build(codec: Compression, inputs: &[Input]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    builder.push_chunk(&chunk(inputs));
    builder.build(Offset(1000), Epoch(7)).unwrap_or_default()
}

fn read_all(batch: &Bytes) -> Result<Vec<Record>, BatchProblem> {
    RecordReader::new(&BatchHeader::parse(batch)?, batch)?.collect()
}

#[test]
fn a_batch_has_the_bytes_that_kafka_gives_it() {
    let mut chunk = RecordChunk::new();
    chunk.push(Millis(1_500_000_000_000), Some(b"k"), Some(b"v"), &[("h", b"x")]);
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.push_chunk(&chunk);
    let batch = builder.build(Offset(5), Epoch(3)).unwrap_or_default();
    // Base offset, length 62, epoch, magic.
    assert_eq!(batch[..17], [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 62, 0, 0, 0, 3, 2]);
    // Record: length 12, attributes, deltas, key, value, one header. Too small for zstd to help, so stored plain.
    assert_eq!(batch[61..], [24, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 2, b'x'][..]);
    assert_eq!(batch[21..23], [0, 0]);
    assert_eq!(batch.len(), 61 + 13);
}

#[test]
fn patching_moves_a_batch_without_breaking_its_checksum() {
    let mut batch = build(Compression::Lz4, &[(1, None, Some(vec![1; 100]), Vec::new())]).to_vec();
    BatchHeader::patch(&mut batch, Offset(77), Epoch(9));
    let header = BatchHeader::parse(&batch).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!((header.base_offset, header.leader_epoch), (Offset(77), Epoch(9)));
    assert_eq!(header.check_crc(&batch), Ok(()));
}

#[test]
fn a_cold_batch_keeps_the_gaps_between_its_offsets() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.push(0, Millis(5), None, Some(b"a"), &[]);
    builder.push(4, Millis(3), None, None, &[(b"h", None)]);
    let batch = builder.build(Offset(10), Epoch(0)).unwrap_or_default();
    let header = BatchHeader::parse(&batch).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!((header.next_offset(), header.record_count, header.max_timestamp), (Offset(15), 2, Millis(5)));
    let offsets: Vec<Offset> = read_all(&batch).unwrap_or_default().iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [Offset(10), Offset(14)]);
}

#[test]
fn nothing_gathered_builds_nothing() {
    assert_eq!(BatchBuilder::new(Compression::Zstd).build(Offset(0), Epoch(0)), None);
}

#[test]
fn a_producers_batch_must_number_its_records_without_gaps() {
    let good = build(Compression::Gzip, &[(1, None, None, Vec::new()), (2, None, None, Vec::new())]);
    let header = validate(&good).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(validate_records(&header, &good, false), Ok(()));

    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(0, Millis(0), None, None, &[]);
    builder.push(2, Millis(0), None, None, &[]);
    let gap = builder.build(Offset(0), Epoch(0)).unwrap_or_default();
    assert!(matches!(validate(&gap), Err(BatchProblem::Malformed(_))));

    let mut flipped = good.to_vec();
    flipped[70] ^= 1;
    assert_eq!(validate(&flipped), Err(BatchProblem::Checksum));
    assert_eq!(validate(&good[..good.len() - 1]), Err(BatchProblem::Incomplete));
}

#[test]
fn batches_walk_a_buffer_and_stop_at_a_torn_one() {
    let one = build(Compression::None, &[(1, None, Some(b"x".to_vec()), Vec::new())]);
    let buffer = Bytes::from([&one[..], &one[..], &one[..30]].concat());
    let items: Vec<_> = Batches::new(buffer).collect();
    assert_eq!(items.len(), 3);
    assert!(items[0].is_ok() && items[1].is_ok());
    assert_eq!(items[2], Err(BatchProblem::Incomplete));
}

proptest! {
    #[test]
    fn records_come_back_through_every_codec(codec in codec(), inputs in inputs()) {
        let batch = build(codec, &inputs);
        let header = validate(&batch).map_err(|p| TestCaseError::fail(p.to_string()))?;
        let storable = inputs.iter().all(|input| input.0.unsigned_abs() <= MAX_TIMESTAMP_MS.unsigned_abs());
        prop_assert_eq!(validate_records(&header, &batch, false).is_ok(), storable);
        prop_assert_eq!(Some(header.max_timestamp.0), inputs.iter().map(|i| i.0).max());
        let records = read_all(&batch).map_err(|p| TestCaseError::fail(p.to_string()))?;
        prop_assert_eq!(records.len(), inputs.len());
        for (index, (record, (timestamp, key, value, headers))) in records.iter().zip(&inputs).enumerate() {
            prop_assert_eq!(record.offset, Offset(1000 + index as i64));
            prop_assert_eq!(record.timestamp, Millis(*timestamp));
            prop_assert_eq!(record.key.as_deref(), key.as_deref());
            prop_assert_eq!(record.value.as_deref(), value.as_deref());
            let found: Vec<Header> = record.headers.iter()
                .map(|h| (String::from_utf8_lossy(&h.name).into_owned(), h.value.as_deref().unwrap_or_default().to_vec()))
                .collect();
            prop_assert_eq!(&found, headers);
        }
    }

    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in vec(any::<u8>(), 0..200)) {
        for (header, batch) in Batches::new(Bytes::from(bytes)).flatten() {
            let _ = header.check_crc(&batch);
            let _ = read_all(&batch);
        }
    }

    #[test]
    fn a_mutated_batch_never_panics_and_never_passes_unless_it_is_harmless(
        codec in codec(),
        inputs in inputs(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let good = build(codec, &inputs);
        let mut bytes = good.to_vec();
        let at = at.index(bytes.len());
        let changed = bytes[at] != value;
        bytes[at] = value;
        // Offset and epoch (0..8, 12..16) are the broker's to write, so no checksum covers them.
        let covered = (8..12).contains(&at) || at >= 16;
        prop_assert_eq!(validate(&bytes).is_err(), changed && covered);
        // The readers must survive even bytes whose checksum was made to hold.
        let _ = read_all(&Bytes::copy_from_slice(&bytes));
        let _ = read_all(&good.slice(..cut.index(good.len())));
    }
}
