//! The object store on a local disk, made to survive power loss: an object is synced before its writer is told that it is there.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// `object_store`'s local file system leaves syncing to the page cache; a Delta commit or a segment whose local copy is let
/// go must not.
#[derive(Debug, Clone)]
pub struct DurableLocal {
    inner: Arc<PrefixStore<LocalFileSystem>>,
    root: PathBuf,
    /// Distinguishes temporary files.
    counter: Arc<AtomicU64>,
}

fn io_error(error: io::Error) -> Error {
    Error::Generic { store: "local", source: Box::new(error) }
}

impl DurableLocal {
    /// A store below `root`, which is made when the first object is written.
    ///
    /// # Errors
    /// The path cannot be made absolute.
    pub fn new(root: &FsPath) -> Result<DurableLocal> {
        let root = std::path::absolute(root).map_err(io_error)?;
        let prefix = Path::from_absolute_path(&root)?;
        let inner = Arc::new(PrefixStore::new(LocalFileSystem::new(), prefix));
        // Nodes that share the folder are in one process (tests), or in containers where each has the same process id: two that write
        // the same name beside each other must not write the same temporary file. `leftovers` removes those that a crash left.
        let (_, begin) = uuid::Uuid::new_v4().as_u64_pair();
        Ok(DurableLocal { inner, root, counter: Arc::new(AtomicU64::new(begin)) })
    }

    pub(super) fn root(&self) -> &FsPath {
        &self.root
    }

    fn file(&self, location: &Path) -> PathBuf {
        location.parts().fold(self.root.clone(), |path, part| path.join(part.as_ref()))
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(io_error(io::Error::other(error))),
        }
    }
}

/// A listing in the order of names, as cloud stores give it and the Delta log's readers expect it.
fn sorted(listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let whole = async move {
        let mut objects: Vec<ObjectMeta> = listing.try_collect().await?;
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, Error>(stream::iter(objects.into_iter().map(Ok)))
    };
    stream::once(whole).try_flatten().boxed()
}

/// Makes the names of a file and of the folders above it durable, up to `root`.
fn sync_names(root: &FsPath, file: &FsPath) -> io::Result<()> {
    for folder in file.ancestors().skip(1) {
        File::open(folder)?.sync_all()?;
        if folder == root {
            break;
        }
    }
    Ok(())
}

/// Writes beside the target, syncs, and only then gives it its name.
fn put(root: &FsPath, target: &FsPath, temporary: &FsPath, payload: &PutPayload, create: bool) -> Result<()> {
    let write = || -> io::Result<()> {
        let missing: Vec<&FsPath> = root.ancestors().take_while(|folder| !folder.exists()).collect();
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        for above in missing.iter().filter_map(|folder| folder.parent()) {
            File::open(above)?.sync_all()?;
        }
        let mut file = File::create(temporary)?;
        for chunk in payload {
            file.write_all(chunk)?;
        }
        file.sync_all()?;
        if create {
            fs::hard_link(temporary, target)?;
            fs::remove_file(temporary)?;
        } else {
            fs::rename(temporary, target)?;
        }
        sync_names(root, target)
    };
    write().map_err(|error| {
        // Nothing of a failed write stays; that it cannot be removed either changes nothing for the caller.
        let _ = fs::remove_file(temporary);
        if create && error.kind() == io::ErrorKind::AlreadyExists {
            return Error::AlreadyExists { path: target.display().to_string(), source: Box::new(error) };
        }
        io_error(error)
    })
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.inner.put_opts(location, payload, opts).await,
        };
        let (root, target) = (self.root.clone(), self.file(location));
        // Names that end in '#' and digits are hidden from listings.
        let mut temporary = target.clone().into_os_string();
        temporary.push(format!("#{}", self.counter.fetch_add(1, Ordering::Relaxed)));
        Self::blocking(move || put(&root, &target, FsPath::new(&temporary), &payload, create)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(SyncedUpload { inner, root: self.root.clone(), target: self.file(location) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// An upload in parts whose file is synced before it counts as complete.
#[derive(Debug)]
struct SyncedUpload {
    inner: Box<dyn MultipartUpload>,
    root: PathBuf,
    target: PathBuf,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let (root, target) = (self.root.clone(), self.target.clone());
        let sync =
            move || File::open(&target).and_then(|file| file.sync_all()).and_then(|()| sync_names(&root, &target));
        DurableLocal::blocking(move || sync().map_err(io_error)).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::{ObjectStoreExt, WriteMultipart};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_nodes_that_create_an_object_at_the_same_time_one_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let stores = [(); 2].map(|()| DurableLocal::new(folder.path()).expect("a path"));
        for number in 0..200 {
            let path = Path::from(format!("_delta_log/{number:020}.json"));
            let create = |store: &DurableLocal, text: &'static str| {
                let (store, path) = (store.clone(), path.clone());
                tokio::spawn(async move {
                    store.put_opts(&path, text.repeat(1000).into(), PutOptions::from(PutMode::Create)).await
                })
            };
            let (one, two) = (create(&stores[0], "one"), create(&stores[1], "two"));
            let created = [one.await.expect("no panic"), two.await.expect("no panic")];
            let text = match &created {
                [Ok(_), Err(Error::AlreadyExists { .. })] => "one",
                [Err(Error::AlreadyExists { .. }), Ok(_)] => "two",
                other => panic!("{other:?}"),
            };
            let there = stores[0].get(&path).await.expect("there").bytes().await.expect("readable");
            assert_eq!(there, text.repeat(1000), "object {number}");
        }
    }

    #[tokio::test]
    async fn objects_are_written_whole_created_once_and_listed_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = DurableLocal::new(&folder.path().join("not/yet there")).expect("a path");
        let path = Path::from("t/_date=2024-01-01/a.json");
        assert!(matches!(store.get(&path).await, Err(Error::NotFound { .. })));
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&path, "one".into(), create()).await.expect("created");
        assert!(matches!(store.put_opts(&path, "two".into(), create()).await, Err(Error::AlreadyExists { .. })));
        assert_eq!(store.get(&path).await.expect("there").bytes().await.expect("readable"), "one");
        store.put(&path, "three".into()).await.expect("overwritten");
        let mut upload = WriteMultipart::new(store.put_multipart(&Path::from("t/b")).await.expect("begun"));
        upload.write(&[7; 10_000_000]);
        upload.finish().await.expect("complete");
        let listed: Vec<_> = store.list(None).try_collect::<Vec<_>>().await.expect("listable");
        let listed: Vec<_> = listed.iter().map(|meta| (meta.location.as_ref(), meta.size)).collect();
        assert_eq!(listed, [("t/_date=2024-01-01/a.json", 5), ("t/b", 10_000_000)]);
    }

    #[tokio::test]
    async fn what_a_power_cut_left_of_a_copy_goes_at_the_next_start_and_nothing_else_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, outside) = (folder.path().join("lake"), folder.path().join("outside"));
        let write = |path: PathBuf| {
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
            let written = File::create(&path).and_then(|file| file.set_modified(long_ago));
            written.expect("written");
            path
        };
        let left = [
            "t/_date=2024-01-01/part-00000-1.parquet#1",
            "t/_date=2024-01-01/part-00000-2.parquet#12345678901",
            "t/_delta_log/00000000000000000001.json#7",
        ];
        let left = left.map(|path| write(root.join(path)));
        let kept = [
            "t/_date=2024-01-01/part-00000-1.parquet",
            "t/notes#draft",
            "t/song#1",
            "t/#1",
            "t/a#",
            "t/folder#1/a.parquet",
        ];
        let kept = kept.map(|path| write(root.join(path)));
        let elsewhere = write(outside.join("a.parquet#1"));
        std::os::unix::fs::symlink(&outside, root.join("linked")).expect("linked");

        let _store = super::super::open(&format!("file:{}", root.display()), &Default::default()).expect("a store");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while left.iter().any(|path| path.exists()) {
            assert!(std::time::Instant::now() < deadline, "the leftovers stay");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(kept.iter().chain([&elsewhere]).all(|path| path.exists()));
    }
}
