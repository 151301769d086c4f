//! Finds and reads the rule files that a configuration names, with `*` and `?` in file names.

use std::io;
use std::path::{Path, PathBuf};

use super::RuleSet;
use super::load::parse;
use super::sources::{Folder, Source, Sources};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::limits;

/// Loads all rule files; blocking reads.
///
/// # Errors
/// Every mistake in every file, and the files that cannot be read.
pub fn load(patterns: &[PathBuf]) -> Result<RuleSet, Diagnostics> {
    read_all(patterns).map(|(set, _)| set)
}

/// As [`load`], with the texts that the set is made of.
///
/// # Errors
/// As [`load`].
pub fn read_all(patterns: &[PathBuf]) -> Result<(RuleSet, Sources), Diagnostics> {
    let (mut set, mut sources) = (RuleSet::default(), Sources::default());
    let mut diagnostics = Vec::new();
    for pattern in patterns {
        let files = match expand(pattern) {
            Ok(files) => files,
            Err(error) => {
                diagnostics.push(unreadable(pattern, &error));
                continue;
            }
        };
        for path in files {
            let file = path.display().to_string();
            if set.files.contains(&file) {
                continue;
            }
            match text(&path) {
                Ok(text) => {
                    let folder = Folder::of(&path);
                    diagnostics.extend(parse(&file, &text, &folder, &mut set));
                    sources.files.push(Source { name: file, text, tables: folder.tables() });
                }
                Err(error) => diagnostics.push(unreadable(&path, &error)),
            }
        }
    }
    if diagnostics.is_empty() { Ok((set, sources)) } else { Err(Diagnostics(diagnostics)) }
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let message = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    Diagnostic { file: path.display().to_string(), line: 1, column: 1, message, help: None }
}

/// Reads a file of at most the size of a table: the largest that a rule file may name.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limits::MAX_TABLE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// The files that a pattern names, sorted. Wildcards stand in the last part only and may match nothing; a plain path must exist.
fn expand(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let folder = match pattern.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if matches(&name, &entry.file_name().to_string_lossy()) && entry.path().is_file() {
            files.push(pattern.with_file_name(entry.file_name()));
        }
    }
    files.sort();
    Ok(files)
}

/// Whether `name` matches a pattern of `*` and `?`; a name that begins with a dot must be asked for with one.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((star_p, star_n)) = star {
            star = Some((star_p, star_n + 1));
            p = star_p + 1;
            n = star_n + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", ".a.yaml", false),
            ("*.yaml", "a.yml", false),
            ("a?c*", "abcdef", true),
            ("*b*d", "abcd", true),
            ("*b*d", "abce", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_plain_path_must_exist_and_a_pattern_may_match_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b.yaml"), "groups: []\n").unwrap();
        std::fs::write(folder.path().join("a.yaml"), "groups: []\n").unwrap();
        let found = load(&[folder.path().join("*.yaml"), folder.path().join("*.none")]).unwrap();
        assert_eq!(found.files.len(), 2);
        assert!(found.files[0].ends_with("a.yaml"));
        let missing = load(&[folder.path().join("c.yaml")]).unwrap_err();
        assert!(missing.to_string().ends_with("c.yaml:1:1: there is no such file"), "{missing}");
    }
}
