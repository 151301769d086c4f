//! A world that fails at a chosen step: object store, manifest and log behind one counter.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use forebay_log::record::{BatchBuilder, BatchHeader, Compression};
use forebay_log::{Epoch, Millis, Offset};
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use uuid::Uuid;

use super::super::{Change, LocalLog, ManifestStore, Segment};
use crate::manifest::{self, Entry, Leads, Scan};
use crate::parquet::{SegmentSource, SourceError, Stretch};
use crate::shape::Shape;

/// What happens at the chosen step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing is done, an error is answered.
    Fail,
    /// It is done, but an error is answered.
    AnswerLost,
    /// Nothing is done, now or later: the process is gone.
    CrashBefore,
    /// It is done, then the process is gone.
    CrashAfter,
}

#[derive(Debug)]
pub(super) struct Faults {
    steps: AtomicU64,
    at: AtomicU64,
    mode: Mode,
    dead: AtomicBool,
    pause: Mutex<Option<(u64, Arc<Gate>)>>,
}

/// A step that waits until it may go on.
#[derive(Debug, Default)]
pub(super) struct Gate {
    reached: AtomicBool,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Waits until the step is reached, or `task` has ended without.
    pub(super) async fn reached<T>(&self, task: &tokio::task::JoinHandle<T>) {
        while !self.reached.load(Ordering::SeqCst) && !task.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    pub(super) fn go_on(&self) {
        *self.open.lock().expect("lock") = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        self.reached.store(true, Ordering::SeqCst);
        let open = self.open.lock().expect("lock");
        drop(self.opened.wait_while(open, |open| !*open).expect("lock"));
    }
}

impl Faults {
    pub(super) fn new(at: u64, mode: Mode) -> Arc<Faults> {
        let (steps, at, dead, pause) =
            (AtomicU64::new(0), AtomicU64::new(at), AtomicBool::new(false), Mutex::default());
        Arc::new(Faults { steps, at, mode, dead, pause })
    }

    /// Whoever comes to this step stops there.
    pub(super) fn pause_at(&self, step: u64) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        *self.pause.lock().expect("lock") = Some((step, gate.clone()));
        gate
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn restart(&self) {
        self.dead.store(false, Ordering::SeqCst);
    }

    /// `Ok(true)`: do it, but the answer is lost.
    fn step(&self) -> std::result::Result<bool, String> {
        if self.dead.load(Ordering::SeqCst) {
            return Err("the process is gone".into());
        }
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        let pause = self.pause.lock().expect("lock").take_if(|(at, _)| *at == step);
        if let Some((_, gate)) = pause {
            gate.wait();
        }
        if step != self.at.load(Ordering::SeqCst) {
            return Ok(false);
        }
        self.dead.store(matches!(self.mode, Mode::CrashBefore | Mode::CrashAfter), Ordering::SeqCst);
        match self.mode {
            Mode::Fail | Mode::CrashBefore => Err("failed on purpose".into()),
            Mode::AnswerLost | Mode::CrashAfter => Ok(true),
        }
    }
}

fn store_error(what: String) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: what.into() }
}

/// An object store in memory that fails as told.
#[derive(Debug, Clone)]
pub(super) struct FaultyStore {
    pub(super) inner: Arc<InMemory>,
    faults: Arc<Faults>,
    outage: Arc<AtomicBool>,
}

impl FaultyStore {
    pub(super) fn new(faults: Arc<Faults>) -> FaultyStore {
        FaultyStore { inner: Arc::new(InMemory::new()), faults, outage: Arc::default() }
    }

    /// Whether the store is out of reach from now on.
    pub(super) fn set_outage(&self, outage: bool) {
        self.outage.store(outage, Ordering::SeqCst);
    }

    fn step(&self) -> std::result::Result<bool, String> {
        if self.outage.load(Ordering::SeqCst) { Err("out of reach".into()) } else { self.faults.step() }
    }

    async fn faulty<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let lost = self.step().map_err(store_error)?;
        let done = work.await;
        if lost { Err(store_error("answer lost".into())) } else { done }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.faulty(self.inner.put_opts(location, payload, opts)).await
    }
    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.faulty(self.inner.put_multipart_opts(location, opts)).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.faulty(self.inner.get_opts(location, options)).await
    }
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.faulty(self.inner.get_ranges(location, ranges)).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.step() {
            Err(error) => stream::once(async { Err(store_error(error)) }).boxed(),
            Ok(false) => self.inner.delete_stream(locations),
            Ok(true) => self.inner.delete_stream(locations).map(|_| Err(store_error("answer lost".into()))).boxed(),
        }
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.step() {
            Ok(false) => self.inner.list(prefix),
            _ => stream::once(async { Err(store_error("list failed".into())) }).boxed(),
        }
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.faulty(self.inner.list_with_delimiter(prefix)).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.faulty(self.inner.copy_opts(from, to, options)).await
    }
}

/// A manifest in memory, through the real encoding.
pub(super) struct FakeManifest {
    pub(super) entries: Mutex<BTreeMap<Bytes, Bytes>>,
    pub(super) faults: Arc<Faults>,
}

impl Scan for FakeManifest {
    fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        let entries = self.entries.lock().expect("lock");
        let found = entries.iter().filter(|(key, _)| key.starts_with(prefix));
        found.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl FakeManifest {
    /// One write as a state topic makes it, and whether its answer is lost.
    fn write(&self, writes: Vec<manifest::Write>) -> std::result::Result<(), String> {
        if writes.is_empty() {
            return Ok(());
        }
        let lost = self.faults.step()?;
        let mut entries = self.entries.lock().expect("lock");
        for (key, value) in writes {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        if lost { Err("answer lost".into()) } else { Ok(()) }
    }

    fn check(&self, topic_id: Uuid, leads: &Leads) -> std::result::Result<(), String> {
        match manifest::superseded(topic_id, leads, self).map_err(|error| error.to_string())?[..] {
            [] => Ok(()),
            [partition, ..] => Err(format!("partition {partition} has a later leader")),
        }
    }
}

#[async_trait]
impl ManifestStore for FakeManifest {
    async fn claim(&self, topic_id: Uuid, leads: &Leads) -> std::result::Result<(), String> {
        self.check(topic_id, leads)?;
        self.write(manifest::claim(topic_id, leads, self))?;
        self.check(topic_id, leads)?;
        self.write(manifest::adopt(topic_id, leads, self).map_err(|error| error.to_string())?)?;
        self.check(topic_id, leads)
    }

    fn load(&self, topic_id: Uuid, leads: &Leads) -> std::result::Result<(Vec<Entry>, Shape), String> {
        let entries = manifest::loaded(topic_id, leads, self).map_err(|error| error.to_string())?;
        self.check(topic_id, leads)?;
        Ok((entries, self.widened(topic_id, &Shape::default())?))
    }

    fn widened(&self, topic_id: Uuid, shape: &Shape) -> std::result::Result<Shape, String> {
        manifest::merged_shape(topic_id, shape, self).map_err(|error| error.to_string())
    }

    async fn persist(&self, topic_id: Uuid, leads: &Leads, changes: &[Change]) -> std::result::Result<(), String> {
        self.write(manifest::changed(topic_id, leads, changes, self).map_err(|error| error.to_string())?)?;
        self.check(topic_id, leads)
    }
}

/// A local log of closed segments, and what it was told.
pub(super) struct FakeLog {
    pub(super) faults: Arc<Faults>,
    pub(super) partitions: Vec<FakePartition>,
}

pub(super) struct FakePartition {
    pub(super) segments: Mutex<Vec<(Segment, Vec<Bytes>)>>,
    pub(super) log_start: Mutex<Offset>,
    pub(super) tiered: Mutex<Offset>,
    /// Whether the disk fails under its segments.
    pub(super) unreadable: AtomicBool,
    /// How often a segment was begun to be read.
    pub(super) tries: AtomicU64,
}

/// The payload of an offset: a new field from 30 on, one that does not fit at 7, garbage at 11, none at 13.
pub(super) fn payload(partition: u32, offset: i64) -> Option<Vec<u8>> {
    Some(match offset {
        7 => br#"{"n":"seven"}"#.to_vec(),
        11 => b"\xffgarbage".to_vec(),
        13 => return None,
        30.. => format!(r#"{{"n":{offset},"kwh":{partition}.5,"more":{{"x":"{offset}"}}}}"#).into_bytes(),
        _ => format!(r#"{{"n":{offset},"kwh":{partition}.5}}"#).into_bytes(),
    })
}

impl FakeLog {
    pub(super) fn new(faults: Arc<Faults>, partitions: u32) -> FakeLog {
        let empty = |_| FakePartition {
            segments: Mutex::default(),
            log_start: Mutex::default(),
            tiered: Mutex::default(),
            unreadable: AtomicBool::default(),
            tries: AtomicU64::default(),
        };
        FakeLog { faults, partitions: (0..partitions).map(empty).collect() }
    }

    /// Closes a segment of these offsets.
    pub(super) fn add(&self, partition: u32, offsets: Range<i64>, append_day: i64) {
        let mut batches = Vec::new();
        for base in offsets.clone().step_by(4) {
            let mut builder = BatchBuilder::new(Compression::Zstd);
            for offset in base..offsets.end.min(base + 4) {
                let value = payload(partition, offset);
                let delta = i32::try_from(offset - base).expect("near");
                builder.push(delta, Millis(offset), Some(b"key"), value.as_deref(), &[]);
            }
            batches.extend(builder.build(Offset(base), Epoch(0)));
        }
        let (base, end) = (Offset(offsets.start), Offset(offsets.end));
        let segment = Segment { base, end, bytes: 100, append_day };
        self.partitions[partition as usize].segments.lock().expect("lock").push((segment, batches));
    }
}

struct FakeSource {
    batches: Vec<Bytes>,
    unreadable: bool,
}

impl SegmentSource for FakeSource {
    fn read(&mut self, from: Offset) -> std::result::Result<Stretch, SourceError> {
        if self.unreadable {
            return Err(SourceError("Input/output error (os error 5)".into()));
        }
        let mut out = BytesMut::new();
        for batch in &self.batches {
            if BatchHeader::parse(batch)?.next_offset() > from && out.len() < 500 {
                out.extend_from_slice(batch);
            }
        }
        Ok(Stretch::Batches(out.freeze()))
    }
}

#[async_trait]
impl LocalLog for FakeLog {
    fn local(&self, partition: u32) -> (Offset, Vec<Segment>) {
        let partition = &self.partitions[partition as usize];
        let segments = partition.segments.lock().expect("lock").iter().map(|(segment, _)| segment.clone()).collect();
        (*partition.log_start.lock().expect("lock"), segments)
    }
    fn source(&self, partition: u32) -> Box<dyn SegmentSource> {
        let partition = &self.partitions[partition as usize];
        partition.tries.fetch_add(1, Ordering::SeqCst);
        let segments = partition.segments.lock().expect("lock");
        let batches = segments.iter().flat_map(|(_, batches)| batches.clone()).collect();
        Box::new(FakeSource { batches, unreadable: partition.unreadable.load(Ordering::SeqCst) })
    }
    async fn set_tiered(&self, partition: u32, end: Offset) -> std::result::Result<(), String> {
        let lost = self.faults.step()?;
        let mut tiered = self.partitions[partition as usize].tiered.lock().expect("lock");
        *tiered = end.max(*tiered);
        if lost { Err("answer lost".into()) } else { Ok(()) }
    }
}
