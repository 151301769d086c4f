//! Segments through an object and back: offsets, gaps, times, any bytes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use forebay_log::record::{BatchBuilder, Batches, Compression, Record, RecordReader};
use forebay_log::{Epoch, Millis, Offset};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use proptest::prelude::*;

use super::*;
use crate::shape::Shape;

/// A log made of given records: each inner list is a batch.
struct Fake(Vec<Bytes>);

struct Given {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Fake {
    fn new(records: &[Given], per_batch: usize) -> Fake {
        let batches = records.chunks(per_batch).map(|chunk| {
            let mut builder = BatchBuilder::new(Compression::Zstd);
            for record in chunk {
                let headers: Vec<_> = record.headers.iter().map(|(n, v)| (n.as_slice(), v.as_deref())).collect();
                let delta = i32::try_from(record.offset - chunk[0].offset).expect("near");
                let time = Millis(record.timestamp);
                builder.push(delta, time, record.key.as_deref(), record.value.as_deref(), &headers);
            }
            builder.build(Offset(chunk[0].offset), Epoch(7)).expect("records")
        });
        Fake(batches.collect())
    }
}

impl SegmentSource for Fake {
    fn read(&mut self, from: Offset) -> Result<Stretch, SourceError> {
        let mut out = BytesMut::new();
        for batch in &self.0 {
            let header = forebay_log::record::BatchHeader::parse(batch)?;
            if header.next_offset() > from && out.len() < 4096 {
                out.extend_from_slice(batch);
            }
        }
        Ok(Stretch::Batches(out.freeze()))
    }
}

fn given(offset: i64, value: Option<Vec<u8>>) -> Given {
    Given {
        offset,
        timestamp: 1_700_000_000_000 + offset * 10,
        key: (offset % 5 != 0).then(|| format!("m{}", offset % 7).into_bytes()),
        value,
        headers: (0..offset % 3).map(|n| (b"h".to_vec(), (n == 0).then(|| vec![0xff, n as u8]))).collect(),
    }
}

fn readings(count: i64) -> Vec<Given> {
    (0..count)
        .map(|n| {
            let offset = n + n / 10;
            given(offset, Some(format!(r#"{{"meter":"m{}","kwh":{}.25,"n":{n}}}"#, n % 7, n % 100).into_bytes()))
        })
        .collect()
}

async fn written(records: &[Given], per_batch: usize) -> (ColdReader, Path, Written) {
    let store = Arc::new(InMemory::new());
    let path = Path::from("t/_date=2024-01-01/part-00003-0.parquet");
    let range = (Offset(records[0].offset), Offset(records[records.len() - 1].offset + 1));
    let mut source = Fake::new(records, per_batch);
    let shape = infer_segment(&mut source, range.0, range.1, Shape::default()).expect("readable");
    let done = write(store.clone(), &path, &mut source, range, shape).await.expect("written");
    (ColdReader::new(store), path, done)
}

async fn write(
    store: Arc<InMemory>,
    path: &Path,
    source: &mut dyn SegmentSource,
    range: (Offset, Offset),
    shape: Shape,
) -> Result<Written, ObjectError> {
    write_segment(Job { store, path, source, partition: 3, range }, Arc::new(shape)).await
}

fn decode(bytes: Bytes) -> Vec<Record> {
    let mut records = Vec::new();
    for batch in Batches::new(bytes) {
        let (header, batch) = batch.expect("a whole batch");
        header.check_crc(&batch).expect("its checksum");
        assert_eq!(header.leader_epoch, Epoch(-1), "which leader took it is not in the object");
        records.extend(RecordReader::new(&header, &batch).expect("readable").map(|record| record.expect("a record")));
    }
    records
}

fn same(record: &Record, given: &Given) {
    assert_eq!((record.offset.0, record.timestamp.0), (given.offset, given.timestamp));
    assert_eq!(record.key.as_deref(), given.key.as_deref());
    assert_eq!(record.value.as_deref(), given.value.as_deref());
    let headers: Vec<_> =
        record.headers.iter().map(|h| (h.name.to_vec(), h.value.as_ref().map(|v| v.to_vec()))).collect();
    assert_eq!(headers, given.headers);
}

async fn read_all(reader: &ColdReader, path: &Path, from: i64, max_bytes: usize) -> Vec<Record> {
    let (mut records, mut next) = (Vec::new(), Offset(from));
    loop {
        let read = decode(reader.read(path, next, max_bytes).await.expect("readable"));
        let Some(last) = read.last() else { return records };
        next = last.offset.next();
        records.extend(read.into_iter().filter(|record| record.offset.0 >= from));
    }
}

#[tokio::test]
async fn every_record_is_read_back_from_any_offset_gaps_kept() {
    let records = readings(3000);
    let (reader, path, done) = written(&records, 100).await;
    assert_eq!((done.rows, done.errors), (3000, 0));
    assert_eq!(done.min_timestamp, Millis(records[0].timestamp));
    for from in [0, 1, 10, 11, 1500, 3298] {
        for max_bytes in [1, 70_000, 10 << 20] {
            let read = read_all(&reader, &path, from, max_bytes).await;
            let expected: Vec<_> = records.iter().filter(|record| record.offset >= from).collect();
            assert_eq!(read.len(), expected.len(), "from {from}");
            read.iter().zip(expected).for_each(|(record, given)| same(record, given));
        }
    }
    let check = reader.check(&path).await.expect("readable");
    assert_eq!(check, ObjectCheck { rows: 3000, first: Some(Offset(0)), last: Some(Offset(3298)), ascending: true });
}

#[tokio::test]
async fn large_segments_have_several_row_groups_and_a_time_finds_its_record() {
    let payload = |n: i64| Some(format!(r#"{{"n":{n},"pad":"{}"}}"#, "x".repeat(2000)).into_bytes());
    let records: Vec<_> = (0..12_000).map(|n| given(n, payload(n))).collect();
    let (reader, path, _) = written(&records, 500).await;
    assert!(reader.footer(&path).await.expect("readable").groups.len() > 1);
    let at = Millis(records[11_000].timestamp - 5);
    let found = reader.offset_for_time(&path, at).await.expect("readable");
    assert_eq!(found, Some((Offset(11_000), Millis(records[11_000].timestamp))));
    assert_eq!(reader.offset_for_time(&path, Millis(i64::MAX)).await.expect("readable"), None);
    let read = decode(reader.read(&path, Offset(11_500), 100).await.expect("readable"));
    assert!(read.iter().any(|record| record.offset.0 == 11_500));
}

#[tokio::test]
async fn statistics_for_delta_hold_the_extents() {
    let (_, _, done) = written(&readings(50), 10).await;
    let stats: serde_json::Value = serde_json::from_str(&done.stats).expect("JSON");
    assert_eq!(stats["numRecords"], 50);
    assert_eq!(stats["minValues"]["_offset"], 0);
    assert_eq!(stats["maxValues"]["_offset"], 53);
    assert_eq!(stats["maxValues"]["kwh"], 49.25);
    assert_eq!(stats["minValues"]["_timestamp"], "2023-11-14T22:13:20.000Z");
    assert_eq!(stats["nullCount"]["meter"], 0);
}

#[tokio::test]
async fn a_missing_object_and_a_damaged_one_are_told_apart() {
    let store = Arc::new(InMemory::new());
    let reader = ColdReader::new(store.clone());
    let path = Path::from("x");
    assert!(matches!(
        reader.read(&path, Offset(0), 1).await,
        Err(ObjectError::Store(object_store::Error::NotFound { .. }))
    ));
    object_store::ObjectStoreExt::put(store.as_ref(), &path, Bytes::from_static(b"PAR1 not really").into())
        .await
        .expect("put");
    assert!(matches!(reader.read(&path, Offset(0), 1).await, Err(ObjectError::Format { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_bytes_come_back_from_the_object(
        values in proptest::collection::vec(proptest::option::of(any::<Vec<u8>>()), 1..30),
        texts in proptest::collection::vec("\\{\"[ab]\":(1|2.5|\"x\"|null|\\{\"c\":\\[1,2\\]\\}|[a-z]{0,3})\\}", 0..30),
        per_batch in 1usize..7,
    ) {
        let values = values.into_iter().chain(texts.into_iter().map(|text| Some(text.into_bytes())));
        let records: Vec<_> = values.enumerate().map(|(n, value)| given(n as i64, value)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let read = runtime.block_on(async {
            let (reader, path, _) = written(&records, per_batch).await;
            read_all(&reader, &path, 0, 1 << 20).await
        });
        prop_assert_eq!(read.len(), records.len());
        read.iter().zip(&records).for_each(|(record, given)| same(record, given));
    }
}

#[tokio::test]
async fn times_at_the_ends_of_the_scale_leave_records_readable() {
    let mut records = readings(4);
    for (record, timestamp) in records.iter_mut().zip([-1, i64::MAX, i64::MIN, i64::MAX / 1000]) {
        record.timestamp = timestamp;
    }
    let (reader, path, done) = written(&records, 2).await;
    assert_eq!((done.rows, done.errors), (4, 0));
    let back = decode(reader.read(&path, Offset(0), 1 << 20).await.expect("readable"));
    let values: Vec<_> = back.iter().map(|record| record.value.as_deref().map(<[u8]>::to_vec)).collect();
    assert_eq!(values, records.iter().map(|record| record.value.clone()).collect::<Vec<_>>());
    // Microseconds of 64 bits end in the year 294247: beyond it the nearest time stands.
    let ends = [-1, i64::MAX / 1000, i64::MIN / 1000 - 1, i64::MAX / 1000];
    assert_eq!(back.iter().map(|record| record.timestamp.0).collect::<Vec<_>>(), ends);
}

#[tokio::test]
async fn bytes_that_are_no_object_of_ours_are_refused_and_cost_little() {
    let store = Arc::new(InMemory::new());
    let path = Path::from("t/damaged.parquet");
    let mut source = Fake::new(&readings(50), 10);
    let range = (Offset(0), Offset(50));
    let shape = infer_segment(&mut source, range.0, range.1, Shape::default()).expect("readable");
    write(store.clone(), &path, &mut source, range, shape).await.expect("written");
    let good = store.get(&path).await.expect("there").bytes().await.expect("whole");
    let reader_of = |bytes: Vec<u8>| {
        let (store, path) = (store.clone(), path.clone());
        async move {
            store.put(&path, bytes.into()).await.expect("put");
            ColdReader::new(store).read(&path, Offset(0), 1 << 20).await
        }
    };
    assert!(reader_of(good.to_vec()).await.is_ok());
    for cut in [0, 3, 8, good.len() / 2, good.len() - 1] {
        assert!(reader_of(good[..cut].to_vec()).await.is_err(), "cut to {cut}");
    }
    for at in (good.len() - 600..good.len()).step_by(7) {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0xff;
        // Refused, or a byte that nobody reads: never a panic.
        let _ = reader_of(bytes).await;
    }
}

/// A log with one batch that cannot be read and one whose records cannot be decoded, though its checksum holds.
struct Damaged(Fake);

impl SegmentSource for Damaged {
    fn read(&mut self, from: Offset) -> Result<Stretch, SourceError> {
        if (20..30).contains(&from.0) {
            return Ok(Stretch::Damaged { next: Offset(30), cause: "0.log at byte 7: checksum mismatch".into() });
        }
        let holder = usize::try_from(from.0 / 10).expect("an index");
        Ok(Stretch::Batches(self.0.0.get(holder).cloned().unwrap_or_default()))
    }
}

#[tokio::test]
async fn records_that_cannot_be_read_are_left_out_and_told_of() {
    let records: Vec<_> = (0..60).map(|n| given(n, Some(format!("{{\"n\":{n}}}").into_bytes()))).collect();
    let mut log = Fake::new(&records, 10);
    let mut undecodable = log.0[4].to_vec();
    let body = undecodable.len() - 20;
    undecodable[61..body].fill(0xff);
    log.0[4] = undecodable.into();
    let (store, path) = (Arc::new(InMemory::new()), Path::from("t/gaps.parquet"));
    let (mut source, range) = (Damaged(log), (Offset(3), Offset(57)));
    let shape = infer_segment(&mut source, range.0, range.1, Shape::default()).expect("readable");
    let done = write(store.clone(), &path, &mut source, range, shape).await.expect("written");
    assert_eq!((done.rows, done.lost.offsets), (34, 20));
    assert_eq!(done.lost.gaps, [(Offset(20), Offset(30)), (Offset(40), Offset(50))]);
    assert_eq!(done.lost.cause, "0.log at byte 7: checksum mismatch");
    let reader = ColdReader::new(store);
    let read = read_all(&reader, &path, 0, 100).await;
    let expected = records.iter().filter(|record| matches!(record.offset, 3..20 | 30..40 | 50..57));
    assert_eq!(read.len(), 34);
    read.iter().zip(expected).for_each(|(record, given)| same(record, given));
    let behind = decode(reader.read(&path, Offset(45), 1).await.expect("readable"));
    let first = behind.iter().map(|record| record.offset).find(|offset| *offset >= Offset(45));
    assert_eq!(first, Some(Offset(50)), "a read inside a gap finds what is behind it");
}

/// Copies readings as the next segment of a topic; they must come back, and all of `shape`'s fields be there.
async fn copied(payloads: impl Iterator<Item = String>, shape: Shape) -> (Written, Shape) {
    let records: Vec<_> = (0..).zip(payloads).map(|(n, payload)| given(n, Some(payload.into_bytes()))).collect();
    let (store, path) = (Arc::new(InMemory::new()), Path::from("t/next.parquet"));
    let mut source = Fake::new(&records, 100);
    let range = (Offset(0), Offset(records.len() as i64));
    let job = Job { store: store.clone(), path: &path, source: &mut source, partition: 3, range };
    let done = copy_segment(job, shape).await.expect("copied");
    let reader = ColdReader::new(store);
    let read = read_all(&reader, &path, 0, 1 << 20).await;
    assert_eq!(read.len(), records.len());
    read.iter().zip(&records).for_each(|(record, given)| same(record, given));
    assert_eq!(reader.footer(&path).await.expect("readable").shape.field_count(), done.1.field_count());
    done
}

#[tokio::test]
async fn a_field_that_comes_up_late_in_a_segment_gets_its_column() {
    let plain = |n: i64| format!(r#"{{"n":{n},"pad":"{}"}}"#, "x".repeat(1000));
    let (_, first) = copied((0..10).map(plain), Shape::default()).await;
    assert_eq!(first.field_count(), 2);
    // A row group is written by then.
    let late = |n: i64| if n == 20_000 { r#"{"n":1,"extra":{"unit":"V"}}"#.to_owned() } else { plain(n) };
    let (done, second) = copied((0..20_100).map(late), first.clone()).await;
    assert_eq!((done.rows, done.errors), (20_100, 0));
    let keys: Vec<_> = second.fields.iter().map(|field| field.key.as_str()).collect();
    assert_eq!(keys, ["n", "extra", "pad"]);
    let (_, third) = copied((0..10).map(plain), second.clone()).await;
    assert_eq!(third, second, "a table's fields stay");
}

#[tokio::test]
async fn the_way_numbers_are_written_is_known_to_the_next_segment() {
    use crate::shape::{Kind, NumberStyle};
    let padded = |n: i64| format!(r#"{{"v":{}.{:02}}}"#, n / 100, n % 100);
    let short = |n: i64| format!(r#"{{"v": {}.5}}"#, n);
    let (_, first) = copied((0..300).map(padded), Shape::default()).await;
    assert_eq!((first.fields[0].kind.clone(), first.spaced), (Kind::Double(NumberStyle::Fixed(2)), false));
    let (kept, second) = copied((0..300).map(short), first).await;
    assert_eq!((second.fields[0].kind.clone(), second.spaced), (Kind::Double(NumberStyle::Shortest), true));
    let (known, third) = copied((0..300).map(short), second.clone()).await;
    assert_eq!(third, second);
    assert!(
        known.bytes < kept.bytes,
        "from then on the columns reproduce the payloads: {} {}",
        known.bytes,
        kept.bytes
    );
}
