//! Opens the object store that `[object_store]` names.

mod leftovers;
mod local;

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

pub use local::DurableLocal;

/// Tries of one request before it counts as failed; the offload waits and repeats the whole step.
const REQUEST_RETRIES: usize = 3;
/// Longest time for one request, all its tries included.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Why an object store cannot be opened; all are mistakes in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("object_store.url {url:?}: {what}")]
    Url { url: String, what: String },
    #[error("object_store.{key}: not a setting of this store")]
    Option { key: String },
    #[error("object_store: {0}")]
    Store(#[from] object_store::Error),
}

/// Opens the store at `url`: `file:PATH` (relative to the working directory) or `s3://BUCKET/PREFIX`, with options as
/// object_store names them. No object is read or written yet, so a store out of reach is found out later.
///
/// # Errors
/// The URL or an option is not one of a store that this program speaks to.
pub fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let problem = |what: String| OpenError::Url { url: url.to_owned(), what };
    if let Some(path) = url.strip_prefix("file:") {
        let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
        let store = DurableLocal::new(FsPath::new(path))?;
        leftovers::sweep_in_background(store.root().to_owned());
        return Ok(Arc::new(store));
    }
    let parsed = Url::parse(url).map_err(|error| problem(error.to_string()))?;
    match ObjectStoreScheme::parse(&parsed) {
        Ok((ObjectStoreScheme::AmazonS3, prefix)) => {
            let retry =
                RetryConfig { max_retries: REQUEST_RETRIES, retry_timeout: REQUEST_TIME, ..RetryConfig::default() };
            let mut builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
            for (key, value) in options {
                let known: AmazonS3ConfigKey = key.parse().map_err(|_| OpenError::Option { key: key.clone() })?;
                builder = builder.with_config(known, value);
            }
            Ok(under(builder.build()?, prefix))
        }
        Ok((ObjectStoreScheme::Memory, prefix)) => Ok(under(object_store::memory::InMemory::new(), prefix)),
        Ok((scheme, _)) => Err(problem(format!("{scheme:?} is not supported: use file: or s3:"))),
        Err(error) => Err(problem(error.to_string())),
    }
}

fn under(store: impl ObjectStore, prefix: Path) -> Arc<dyn ObjectStore> {
    if prefix.as_ref().is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_or_option_of_no_known_store_is_named() {
        let error = |url: &str, key: Option<&str>| {
            let options = key.map(|key| (key.to_owned(), "x".to_owned())).into_iter().collect();
            open(url, &options).expect_err("not a store").to_string()
        };
        assert!(error("ftp://host/x", None).contains("ftp://host/x"));
        assert!(error("no url", None).contains("no url"));
        assert_eq!(error("s3://bucket/x", Some("endpont")), "object_store.endpont: not a setting of this store");
        assert!(open("s3://bucket/p", &BTreeMap::from([("region".into(), "eu-1".into())])).is_ok());
    }
}
