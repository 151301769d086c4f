//! An object store that can be made to fail, or to swallow every request as a network that drops packets does.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Works,
    Fails,
    /// No request is answered until this is over.
    Silent,
}

/// Works at first, and again once its [`Moods`] are dropped.
#[derive(Debug)]
pub(crate) struct MoodyStore {
    inner: Arc<dyn ObjectStore>,
    mood: Arc<watch::Sender<Mood>>,
}

/// Sets the store's mood; a test that ends leaves nobody waiting.
pub(crate) struct Moods(Arc<watch::Sender<Mood>>);

impl Moods {
    pub(crate) fn set(&self, mood: Mood) {
        self.0.send_replace(mood);
    }
}

impl Drop for Moods {
    fn drop(&mut self) {
        self.set(Mood::Works);
    }
}

impl MoodyStore {
    pub(crate) fn new(url: &str) -> (Arc<MoodyStore>, Moods) {
        let inner = forebay_tiering::store::open(url, &Default::default()).expect("a store");
        let mood = Arc::new(watch::Sender::new(Mood::Works));
        (Arc::new(MoodyStore { inner, mood: mood.clone() }), Moods(mood))
    }

    async fn answer(&self) -> Result<()> {
        let mut mood = self.mood.subscribe();
        let mood = *mood.wait_for(|mood| *mood != Mood::Silent).await.expect("a sender");
        if mood == Mood::Fails { Err(out_of_reach()) } else { Ok(()) }
    }
}

fn out_of_reach() -> Error {
    Error::Generic { store: "moody", source: "out of reach".into() }
}

impl fmt::Display for MoodyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moody")
    }
}

#[async_trait]
impl ObjectStore for MoodyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.answer().await?;
        self.inner.put_opts(location, payload, opts).await
    }
    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.answer().await?;
        self.inner.put_multipart_opts(location, opts).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.answer().await?;
        self.inner.get_opts(location, options).await
    }
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.answer().await?;
        self.inner.get_ranges(location, ranges).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match *self.mood.borrow() {
            Mood::Works => self.inner.delete_stream(locations),
            _ => stream::once(async { Err(out_of_reach()) }).boxed(),
        }
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match *self.mood.borrow() {
            Mood::Works => self.inner.list(prefix),
            _ => stream::once(async { Err(out_of_reach()) }).boxed(),
        }
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.answer().await?;
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.answer().await?;
        self.inner.copy_opts(from, to, options).await
    }
}
