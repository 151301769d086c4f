//! The hot pieces of the lake: payloads into columns, a segment into Parquet, and back into batches for a consumer.

#[path = "offload/readings.rs"]
#[expect(dead_code, reason = "sizes are for the offload bench")]
mod fleet;
#[path = "../../tests/instructions/pieces.rs"]
mod pieces;

use std::hint::black_box;
use std::sync::Arc;

use fleet::{Message, Segment, fleet, real};
use forebay_log::record::Batches;
use forebay_log::{Millis, Offset};
use forebay_tiering::parquet::{ColdReader, Job, copy_segment};
use forebay_tiering::shape::{Inference, Shape, Shaper};
use object_store::memory::InMemory;
use object_store::path::Path;
use pieces::Piece;

/// Rows of one record batch, about as many as a copy shapes together.
const ROWS: usize = 8192;

const PIECES: &[Piece] = &[
    Piece { name: "fields_of_a_reading", items: ROWS, bytes: 0, counted: true, make: || infer(fleet(ROWS, "")) },
    Piece { name: "fleet_reading_to_columns", items: ROWS, bytes: 0, counted: true, make: || columns(fleet(ROWS, "")) },
    Piece { name: "real_reading_to_columns", items: ROWS, bytes: 0, counted: true, make: || columns(real(ROWS)) },
    Piece { name: "reading_of_a_segment_to_parquet", items: ROWS, bytes: 0, counted: true, make: to_parquet },
    Piece { name: "reading_of_parquet_to_batches", items: ROWS, bytes: 0, counted: true, make: to_batches },
];

fn main() {
    pieces::main(PIECES);
}

#[divan::bench(args = PIECES, max_time = 1)]
fn tiering(bencher: divan::Bencher<'_, '_>, piece: &Piece) {
    pieces::time(bencher, piece);
}

fn shape_of(messages: &[Message]) -> Shape {
    let mut inference = Inference::new(Shape::default());
    messages.iter().for_each(|message| inference.observe(message.payload.as_bytes()));
    inference.finish()
}

fn infer(messages: Vec<Message>) -> Box<dyn FnMut()> {
    Box::new(move || drop(black_box(shape_of(&messages))))
}

fn columns(messages: Vec<Message>) -> Box<dyn FnMut()> {
    let shape = Arc::new(shape_of(&messages));
    Box::new(move || {
        let mut shaper = Shaper::new(shape.clone(), shape.schema(), 0);
        for (Message { meter, payload }, offset) in messages.iter().zip(0i64..) {
            let headers = [(&b"mqtt.client"[..], Some(meter.as_bytes()))].into_iter();
            let (key, value) = (Some(meter.as_bytes()), Some(payload.as_bytes()));
            shaper.push(Offset(offset), Millis(offset), key, value, headers);
        }
        black_box(shaper.take().expect("a batch"));
    })
}

/// One run copies a segment of which the table has all fields already.
fn to_parquet() -> Box<dyn FnMut()> {
    let (messages, runtime) = (fleet(ROWS, ""), runtime());
    let (shape, segment) = (shape_of(&messages), Segment::of(&messages));
    Box::new(move || {
        let (path, store) = (Path::from("t/a.parquet"), Arc::new(InMemory::new()));
        let mut source = segment.source();
        let range = (Offset(0), segment.end());
        let job = Job { store, path: &path, source: &mut source, partition: 0, range };
        black_box(runtime.block_on(copy_segment(job, shape.clone())).expect("copied"));
    })
}

fn to_batches() -> Box<dyn FnMut()> {
    let (messages, runtime) = (fleet(ROWS, ""), runtime());
    let (path, store) = (Path::from("t/a.parquet"), Arc::new(InMemory::new()));
    let segment = Segment::of(&messages);
    let range = (Offset(0), segment.end());
    let job = Job { store: store.clone(), path: &path, source: &mut segment.source(), partition: 0, range };
    runtime.block_on(copy_segment(job, shape_of(&messages))).expect("copied");
    Box::new(move || {
        let reader = ColdReader::new(store.clone());
        let mut next = Offset(0);
        while next < range.1 {
            let bytes = runtime.block_on(reader.read(&path, next, 1 << 20)).expect("readable");
            for batch in Batches::new(bytes) {
                next = batch.expect("whole").0.next_offset();
            }
        }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}
