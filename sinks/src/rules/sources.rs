//! The texts that a rule set is made of: with them it can be made where its files are not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::load::{Inputs, parse};
use super::receivers::Secret;
use super::{RuleSet, files};
use crate::diagnostic::Diagnostics;
use crate::transition::hex;

/// Rule files in their order, and the lookup tables that they name. What they name by `file:` as a secret is not among it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    pub files: Vec<Source>,
}

/// A rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its path where it was read.
    pub name: String,
    pub text: String,
    /// The tables' texts, by their paths as the file writes them.
    pub tables: BTreeMap<String, String>,
}

impl Sources {
    /// Makes the rule set, of these texts and of nothing else but secrets: those are looked for on this node, relative to where the
    /// rule file was read. One that is not there keeps its receiver waiting, and the rules of nobody.
    ///
    /// # Errors
    /// What is wrong with the texts: they were right for the release that read the files.
    pub fn parse(&self) -> Result<RuleSet, Diagnostics> {
        let mut set = RuleSet::default();
        let mut diagnostics = Vec::new();
        for source in &self.files {
            diagnostics.extend(parse(&source.name, &source.text, source, &mut set));
        }
        if diagnostics.is_empty() { Ok(set) } else { Err(Diagnostics(diagnostics)) }
    }

    /// Tells these texts from others, wherever the files lie.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        for Source { name: _, text, tables } in &self.files {
            add(text);
            add(&tables.len().to_string());
            tables.iter().for_each(|(path, table)| {
                add(path);
                add(table);
            });
        }
        hex(&hash.finalize()[..16])
    }

    /// All texts and names together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let tables =
            |source: &Source| source.tables.iter().map(|(path, table)| path.len() + table.len()).sum::<usize>();
        self.files.iter().map(|source| source.name.len() + source.text.len() + tables(source)).sum()
    }

    /// Rule files and tables.
    #[must_use]
    pub fn count(&self) -> usize {
        self.files.iter().map(|source| 1 + source.tables.len()).sum()
    }
}

impl Inputs for Source {
    fn table(&self, path: &str) -> io::Result<Vec<u8>> {
        let table = self.tables.get(path).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it was not kept"))?;
        Ok(table.clone().into_bytes())
    }

    fn secret(&self, path: &str) -> io::Result<Secret> {
        let at = folder(Path::new(&self.name)).join(path);
        let missing =
            |error: io::Error| Secret::Missing(format!("hmac_secret: {} on this node: {error}", at.display()));
        Ok(files::read(&at).and_then(Secret::of_file).unwrap_or_else(missing))
    }
}

/// A rule file's folder, and the tables that were read in it.
pub(super) struct Folder {
    at: PathBuf,
    tables: RefCell<BTreeMap<String, String>>,
}

impl Folder {
    pub(super) fn of(file: &Path) -> Folder {
        Folder { at: folder(file).to_owned(), tables: RefCell::default() }
    }

    pub(super) fn tables(self) -> BTreeMap<String, String> {
        self.tables.into_inner()
    }
}

impl Inputs for Folder {
    fn table(&self, path: &str) -> io::Result<Vec<u8>> {
        let bytes = files::read(&self.at.join(path))?;
        // What is no UTF-8 is no table either.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            self.tables.borrow_mut().insert(path.to_owned(), text.to_owned());
        }
        Ok(bytes)
    }

    fn secret(&self, path: &str) -> io::Result<Secret> {
        Secret::of_file(files::read(&self.at.join(path))?)
    }
}

fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{ReceiverConfig, read_all};

    const RULES: &str = "
groups:
- name: g
  source: t
  key: [m]
  tables: {limits: {file: tables/limits.csv, key: m}}
  rules: [{alert: A, expr: \"v > lookup(limits, m, max, 5)\"}]
receivers:
- webhook: {url: \"http://127.0.0.1:1/\", hmac_secret: \"file:hook.key\"}
";

    fn place() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tables")).unwrap();
        std::fs::write(folder.path().join("rules.yaml"), RULES).unwrap();
        std::fs::write(folder.path().join("tables/limits.csv"), "m,max\na,7\n").unwrap();
        std::fs::write(folder.path().join("hook.key"), "key\n").unwrap();
        folder
    }

    fn secret(set: &RuleSet) -> &Secret {
        let ReceiverConfig::Webhook { hmac_secret: Some(secret), .. } = &set.receivers[0] else { panic!("no secret") };
        secret
    }

    #[test]
    fn a_set_is_made_again_of_its_texts_where_its_files_are_not() {
        let place = place();
        let (set, sources) = read_all(&[place.path().join("*.yaml")]).unwrap();
        assert_eq!((secret(&set), sources.count()), (&Secret::Known(b"key".to_vec()), 2));
        assert_eq!(sources.parse().unwrap().receivers, set.receivers, "the secret is here");
        drop(place);
        let again = sources.parse().unwrap();
        assert_eq!(again.groups[0].tables["limits"], set.groups[0].tables["limits"]);
        let Secret::Missing(why) = secret(&again) else { panic!("the secret is where its file is") };
        assert!(why.contains("hook.key on this node: No such file"), "{why}");
    }

    #[test]
    fn a_digest_tells_texts_and_not_places() {
        let digest = |place: &tempfile::TempDir| read_all(&[place.path().join("*.yaml")]).unwrap().1.digest();
        let (one, other) = (place(), place());
        let before = digest(&one);
        assert_eq!(before, digest(&other));
        std::fs::write(other.path().join("tables/limits.csv"), "m,max\na,8\n").unwrap();
        assert_ne!(before, digest(&other));
        assert_ne!(before, Sources::default().digest());
    }
}
