//! The cluster's rule set as the controller keeps it: settings of a namespace in the cluster's metadata.
//!
//! `set` says which files there are, `text/DIGEST` is the text of one, so that a change brings along only what it changes, and
//! `node/ID` is which files a node had when it last offered or followed.

use std::collections::{BTreeMap, BTreeSet};

use forebay_log::NodeId;
use forebay_log::cluster::Image;
use forebay_sinks::rules::{Source, Sources};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::limits::{MAX_KEPT_BYTES, MAX_KEPT_FILES};
use crate::base64;
use crate::settings::Entry;

pub(super) const NAMESPACE: &str = "rules";
pub(super) const SET: &str = "set";
/// What `set` is written in. A later one is for later releases.
const VERSION: u32 = 1;

/// Which rule set it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStamp {
    /// Counts the sets that the cluster has had.
    pub revision: u64,
    /// The node whose files they were.
    pub node: i32,
    /// Tells its texts from others.
    pub digest: String,
}

/// The value of `set`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    version: u32,
    #[serde(flatten)]
    pub(super) stamp: RuleStamp,
    files: Vec<ListedFile>,
}

/// A rule file; texts are named by the keys that they have as settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ListedFile {
    name: String,
    text: String,
    tables: BTreeMap<String, String>,
}

/// The value of `node/ID`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// The node's data directory: one with another is as one that has never been there.
    directory: Uuid,
    digest: String,
}

/// Why files cannot be the cluster's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unkept {
    #[error(
        "the rule files and their tables are {bytes} bytes in {files} files; the controller keeps {MAX_KEPT_BYTES} bytes in \
         {MAX_KEPT_FILES} files at most"
    )]
    TooMuch { bytes: usize, files: usize },
    #[error("{0}")]
    Unreadable(String),
}

/// A change of the settings: what must still be so, and what becomes of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) expected: Vec<Entry>,
    pub(super) changes: Vec<Entry>,
}

impl Listed {
    /// The set that the controller holds, if it holds one.
    ///
    /// # Errors
    /// A later release has written it.
    pub(super) fn read(image: &Image) -> Result<Option<Listed>, Unkept> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Some(text) = image.setting(NAMESPACE, SET) else { return Ok(None) };
        let strange =
            |error: serde_json::Error| Unkept::Unreadable(format!("the cluster's rules cannot be read: {error}"));
        let Versioned { version } = serde_json::from_str(text).map_err(strange)?;
        if version > VERSION {
            let why = format!("the cluster's rules are kept in version {version}; this release reads {VERSION}");
            return Err(Unkept::Unreadable(why));
        }
        serde_json::from_str(text).map(Some).map_err(strange)
    }

    /// The texts of the set.
    ///
    /// # Errors
    /// One of them is not there.
    pub(super) fn sources(&self, image: &Image) -> Result<Sources, Unkept> {
        let text = |key: &str| {
            let missing = || Unkept::Unreadable(format!("of the cluster's rules the text {key} is missing"));
            image.setting(NAMESPACE, key).map(str::to_owned).ok_or_else(missing)
        };
        let source = |file: &ListedFile| {
            let tables = file.tables.iter().map(|(path, key)| Ok((path.clone(), text(key)?)));
            Ok(Source { name: file.name.clone(), text: text(&file.text)?, tables: tables.collect::<Result<_, _>>()? })
        };
        Ok(Sources { files: self.files.iter().map(source).collect::<Result<_, _>>()? })
    }
}

/// Whether the controller holds a set, readable or not.
pub(super) fn is_held(image: &Image) -> bool {
    image.setting(NAMESPACE, SET).is_some()
}

/// Which set the controller holds, if this release can read it.
pub(crate) fn held_stamp(image: &Image) -> Option<RuleStamp> {
    Some(Listed::read(image).ok()??.stamp)
}

/// Which files the node had when it last offered or followed, with its present data directory.
pub(super) fn noted(image: &Image, node: NodeId) -> Option<String> {
    let noted: Noted = serde_json::from_str(image.setting(NAMESPACE, &node_key(node))?).ok()?;
    (noted.directory == directory(image, node)).then_some(noted.digest)
}

/// Notes that the node has had these files.
pub(super) fn note(image: &Image, node: NodeId, digest: &str) -> Change {
    let noted = Noted { directory: directory(image, node), digest: digest.to_owned() };
    Change { expected: Vec::new(), changes: vec![(node_key(node), Some(json(&noted)))] }
}

/// Makes files (of this digest) the cluster's and notes that the node has them.
///
/// # Errors
/// They are too much, or what there is now is of a later release.
pub(super) fn offer(image: &Image, node: NodeId, own: &Sources, digest: &str) -> Result<Change, Unkept> {
    let (bytes, files) = (own.bytes(), own.count());
    if bytes > MAX_KEPT_BYTES || files > MAX_KEPT_FILES {
        return Err(Unkept::TooMuch { bytes, files });
    }
    let before = Listed::read(image)?.map(|listed| listed.stamp);
    let stamp = RuleStamp {
        revision: before.as_ref().map_or(1, |before| before.revision + 1),
        node: node.0,
        digest: digest.to_owned(),
    };
    let mut change = note(image, node, &stamp.digest);
    change.expected.push((SET.to_owned(), image.setting(NAMESPACE, SET).map(str::to_owned)));
    if before.is_some_and(|before| before.digest == stamp.digest) {
        return Ok(change);
    }
    let mut texts = BTreeMap::new();
    let mut keep = |text: &str| {
        let key = text_key(text);
        texts.insert(key.clone(), text.to_owned());
        key
    };
    let files = own.files.iter().map(|file| ListedFile {
        name: file.name.clone(),
        text: keep(&file.text),
        tables: file.tables.iter().map(|(path, table)| (path.clone(), keep(table))).collect(),
    });
    let listed = Listed { version: VERSION, files: files.collect(), stamp };
    let there: BTreeSet<&str> = image.settings(NAMESPACE).map(|(key, _)| key).filter(|key| is_text(key)).collect();
    let gone = there.iter().filter(|key| !texts.contains_key(**key)).map(|key| ((*key).to_owned(), None));
    change.changes.extend(gone);
    let new = texts.into_iter().filter(|(key, _)| !there.contains(key.as_str()));
    change.changes.extend(new.map(|(key, text)| (key, Some(text))));
    change.changes.push((SET.to_owned(), Some(json(&listed))));
    Ok(change)
}

fn directory(image: &Image, node: NodeId) -> Uuid {
    let registration = image.node(node).and_then(|node| node.registration.as_ref());
    registration.map(|registration| registration.directory).unwrap_or_default()
}

fn node_key(node: NodeId) -> String {
    format!("node/{node}")
}

fn text_key(text: &str) -> String {
    format!("text/{}", base64::encode(digest(&SHA256, text.as_bytes()).as_ref()))
}

fn is_text(key: &str) -> bool {
    key.starts_with("text/")
}

/// Of texts and numbers: there is nothing in them that JSON cannot hold.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
