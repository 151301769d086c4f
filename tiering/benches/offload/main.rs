//! Readings a second of one core: from a segment to Parquet, each stage alone, and back.
//!
//! `cargo bench -p forebay-tiering --bench offload`. Counted is the thread's CPU time where the system tells it (Linux), so that
//! what else runs on the machine disturbs little; medians of five.

mod readings;

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use forebay_log::record::{Batches, RecordReader, RecordRef};
use forebay_log::{Millis, Offset};
use forebay_tiering::parquet::{ColdReader, Job, SegmentSource, Stretch, copy_segment};
use forebay_tiering::shape::{Inference, Shape, Shaper};
use object_store::memory::InMemory;
use object_store::path::Path;
use readings::{Message, Segment, fleet, real};

/// Rows of one record batch, about as many as a copy shapes together.
const SHAPED_TOGETHER: usize = 8192;

/// Seconds that this thread has run.
fn cpu() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = stat.and_then(|stat| stat.split(' ').next()?.parse::<f64>().ok());
    ns.map_or_else(|| START.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

fn measure<T>(what: &str, records: usize, mut work: impl FnMut() -> T) -> T {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..5 {
        let began = cpu();
        last = Some(work());
        times.push(cpu() - began);
    }
    times.sort_by(f64::total_cmp);
    let time = times[2];
    println!("  {what:<28} {:>9.0}/s  {:>6.0} ns each", records as f64 / time, time * 1e9 / records as f64);
    last.expect("a run")
}

/// All records of a segment, as the copy reads them.
fn walk(segment: &Segment, mut take: impl FnMut(&RecordRef<'_>)) {
    let (mut source, mut next) = (segment.source(), Offset(0));
    while next < segment.end() {
        let Stretch::Batches(bytes) = source.read(next).expect("readable") else { panic!("damaged") };
        for batch in Batches::new(bytes) {
            let (header, batch) = batch.expect("whole");
            let mut records = RecordReader::new(&header, &batch).expect("readable");
            while let Some(record) = records.next_ref() {
                take(std::hint::black_box(&record.expect("a record")));
            }
            next = header.next_offset();
        }
    }
}

/// A record of its own.
struct Owned {
    offset: Offset,
    timestamp: Millis,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn records(segment: &Segment) -> Vec<Owned> {
    let mut all = Vec::new();
    walk(segment, |record| {
        all.push(Owned {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
        });
    });
    all
}

fn main() {
    let count = std::env::var("READINGS").ok().and_then(|count| count.parse().ok()).unwrap_or(200_000);
    measure_all("fleet, 200 bytes", &fleet(count, ""));
    measure_all("the same, spaces in it: payloads stay in `_value`", &fleet(count, "   "));
    measure_all("real readings", &real(count));
}

fn measure_all(name: &str, messages: &[Message]) {
    let segment = Segment::of(messages);
    let (n, end) = (segment.records, segment.end());
    println!("{name}: {n} of {} bytes, {} each in the segment", segment.payload_bytes / n, segment.bytes() / n);
    measure("read, check, unpack", n, || walk(&segment, |_| ()));
    let all = records(&segment);
    let shape = measure("infer", n, || {
        let mut inference = Inference::new(Shape::default());
        all.iter().filter_map(|record| record.value.as_ref()).for_each(|payload| inference.observe(payload));
        Arc::new(inference.finish())
    });
    measure("JSON to columns", n, || {
        let mut shaper = Shaper::new(shape.clone(), shape.schema(), 0);
        for chunk in all.chunks(SHAPED_TOGETHER) {
            for record in chunk {
                let headers = record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                shaper.push(record.offset, record.timestamp, key, value, headers);
            }
            std::hint::black_box(shaper.take().expect("a batch"));
        }
    });
    drop(all);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (path, store) = (Path::from("t/a.parquet"), Arc::new(InMemory::new()));
    let copy = |shape: Shape| {
        let mut source = segment.source();
        let range = (Offset(0), end);
        let job = Job { store: store.clone(), path: &path, source: &mut source, partition: 0, range };
        runtime.block_on(copy_segment(job, shape)).expect("copied").0
    };
    measure("a topic's first segment", n, || copy(Shape::default()));
    let written = measure("segment to Parquet", n, || copy(shape.as_ref().clone()));
    println!("  {} bytes of Parquet each", written.bytes as usize / n);
    measure("cold read", n, || {
        let reader = ColdReader::new(store.clone());
        let mut next = Offset(0);
        while next < end {
            let bytes = runtime.block_on(reader.read(&path, next, 1 << 20)).expect("readable");
            for batch in Batches::new(bytes) {
                next = batch.expect("whole").0.next_offset();
            }
        }
    });
}
