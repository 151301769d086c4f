//! Readings a second on one core: from a segment to Parquet, and back.

mod readings;

use std::sync::Arc;

use forebay_log::Offset;
use forebay_log::record::RecordReader;
use forebay_tiering::parquet::{ColdReader, Job, SegmentSource, Stretch, copy_segment, infer_segment, write_segment};
use forebay_tiering::shape::{Inference, Shape, Shaper};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use readings::{Segment, fleet, real};

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("ns") / 1e9
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

fn records(segment: &Segment) -> Vec<forebay_log::record::Record> {
    let mut source = segment.source();
    let (mut next, mut out) = (Offset(0), Vec::new());
    while next < segment.end() {
        let Stretch::Batches(bytes) = source.read(next).expect("readable") else { panic!("damaged") };
        for batch in forebay_log::record::Batches::new(bytes) {
            let (header, batch) = batch.expect("whole");
            out.extend(RecordReader::new(&header, &batch).expect("readable").map(|r| r.expect("a record")));
            next = header.next_offset();
        }
    }
    out
}

fn main() {
    let count = std::env::var("READINGS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let only = std::env::var("ONLY").unwrap_or_default();
    for (name, messages) in [("fleet", fleet(count, "")), ("fleet, spaces", fleet(count, "   ")), ("real", real(count))]
    {
        if !name.contains(&only) {
            continue;
        }
        let segment = Segment::of(&messages);
        let (n, end) = (segment.records, segment.end());
        println!(
            "{name}: {n} readings of {} bytes, {} bytes each in the segment",
            segment.payload_bytes / n,
            segment.bytes() / n
        );
        let all = measure("read records", n, || records(&segment));
        let shape = measure("infer (payloads in memory)", n, || {
            let mut inference = Inference::new(Shape::default());
            all.iter().filter_map(|r| r.value.as_ref()).for_each(|p| inference.observe(p));
            Arc::new(inference.finish())
        });
        measure("shape (records in memory)", n, || {
            for chunk in all.chunks(8192) {
                let mut shaper = Shaper::new(shape.clone(), shape.schema(), 0);
                for r in chunk {
                    let headers = r.headers.iter().map(|h| (h.name.as_ref(), h.value.as_deref()));
                    shaper.push(r.offset, r.timestamp, r.key.as_deref(), r.value.as_deref(), headers);
                }
                std::hint::black_box(shaper.take().expect("a batch"));
            }
        });
        drop(all);
        let settled = measure("infer_segment", n, || {
            infer_segment(&mut segment.source(), Offset(0), end, shape.as_ref().clone()).expect("readable")
        });
        let settled = Arc::new(settled);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let path = Path::from("t/a.parquet");
        let store = Arc::new(InMemory::new());
        let written = measure("write_segment", n, || {
            runtime.block_on(async {
                let mut source = segment.source();
                let job = Job {
                    store: store.clone(),
                    path: &path,
                    source: &mut source,
                    partition: 0,
                    range: (Offset(0), end),
                };
                write_segment(job, settled.clone()).await.expect("written")
            })
        });
        println!("  {} bytes of Parquet each", written.bytes as usize / n);
        measure("whole", n, || {
            runtime.block_on(async {
                let mut source = segment.source();

                let job = Job {
                    store: store.clone(),
                    path: &path,
                    source: &mut source,
                    partition: 0,
                    range: (Offset(0), end),
                };
                copy_segment(job, shape.as_ref().clone()).await.expect("written")
            })
        });
        measure("cold read", n, || {
            runtime.block_on(async {
                let reader = ColdReader::new(store.clone());
                let mut next = Offset(0);
                while next < end {
                    let bytes = reader.read(&path, next, 1 << 20).await.expect("readable");
                    for batch in forebay_log::record::Batches::new(bytes) {
                        next = batch.expect("whole").0.next_offset();
                    }
                }
            })
        });
        let _ = runtime.block_on(store.head(&path));
    }
}
