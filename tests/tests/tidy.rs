//! The house rules that a machine can check: file length, module headers, words, and the arrows between crates.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, without its inline unit tests.
const MAX_LINES: usize = 400;
/// Longest file altogether.
const MAX_LINES_WITH_TESTS: usize = 560;

/// Crates and the workspace crates that each may use, as ARCHITECTURE.md draws them.
const ARROWS: &[(&str, &[&str])] = &[
    ("log", &[]),
    ("log/disk", &["forebay-log"]),
    ("cluster", &["forebay-log", "forebay-disk"]),
    ("tiering", &["forebay-log"]),
    ("sinks", &["forebay-log", "forebay-tiering"]),
    ("gateway", &["forebay-log", "forebay-cluster", "forebay-tiering", "forebay-sinks"]),
    ("tests/simulation", &["forebay-log", "forebay-disk", "forebay-tiering", "forebay-sinks"]),
    ("examples", &[]),
];

/// Folders of product code, whose modules ARCHITECTURE.md names.
const PRODUCT: &[&str] = &["log/src", "log/disk/src", "cluster/src", "tiering/src", "sinks/src", "gateway/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    files(&root, "rs", &mut found);
    found.sort();
    assert!(found.len() > 50, "the tree was not found");
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap_or_default();
            (path.strip_prefix(&root).unwrap_or(&path).display().to_string(), text)
        })
        .collect()
}

#[track_caller]
fn assert_none(what: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{what}:\n  {}", offenders.join("\n  "));
}

#[test]
fn files_hold_one_idea_each() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        let code = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if code > MAX_LINES || lines > MAX_LINES_WITH_TESTS {
            long.push(format!("{path}: {code} lines of code, {lines} in all"));
        }
    }
    assert_none("too long, split by idea", &long);
}

#[test]
fn every_module_opens_with_what_it_is_for() {
    let bare: Vec<String> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| path).collect();
    assert_none("no `//!` line at the top", &bare);
}

#[test]
fn no_unfinished_or_dead_code() {
    let banned = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let markers = ["FIX", "XX"].map(|start| format!("{start}{}", if start == "FIX" { "ME" } else { "X" }));
    let mut found = Vec::new();
    for (path, text) in sources() {
        if path.contains("utils") {
            found.push(format!("{path}: a name that says nothing"));
        }
        for (number, line) in text.lines().enumerate() {
            let dead = line.contains("allow(dead_code)") && !path.ends_with("tidy.rs");
            if dead || banned.iter().chain(&markers).any(|word| line.contains(word.as_str())) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none("unfinished or dead", &found);
}

#[test]
fn arrows_between_crates_point_one_way() {
    for (folder, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap_or_default();
        assert!(manifest.contains("[dependencies]"), "{folder}/Cargo.toml was not read");
        let product = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in product.lines().filter(|line| line.starts_with("forebay-") || line.starts_with("forebay.")) {
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&used), "{folder} may not use {used}");
        }
    }
}

#[test]
fn planted_bugs_are_for_the_simulation_alone() {
    let mut manifests = Vec::new();
    files(&root(), "toml", &mut manifests);
    let plants = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default().contains("features = [\"flaws\"]");
    let who: Vec<PathBuf> = manifests.into_iter().filter(plants).collect();
    assert_eq!(who, [root().join("tests/simulation/Cargo.toml")], "nobody else may switch them on");
}

#[test]
fn the_log_core_is_pure() {
    let impure = ["tokio", "std::fs", "std::net", "SystemTime::now", "Instant::now", "std::thread", "rand::"];
    let mut found = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("log/src")) {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            if impure.iter().any(|word| line.contains(word)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none("IO or a clock in the pure core", &found);
}

#[test]
fn product_code_does_not_unwrap() {
    let mut found = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| PRODUCT.iter().any(|dir| path.starts_with(dir))) {
        if path.contains("/tests") || path.ends_with("tests.rs") {
            continue;
        }
        let code = text.lines().enumerate().take_while(|(_, line)| *line != "#[cfg(test)]");
        for (number, line) in code.filter(|(_, line)| !line.trim_start().starts_with("//")) {
            if line.contains(".unwrap()") {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none("unwrap outside tests", &found);
}

#[test]
fn architecture_names_every_module() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    let mut missing = Vec::new();
    for folder in PRODUCT {
        let dir = root().join(folder);
        for path in fs::read_dir(&dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            let code = path.is_dir() || path.extension().is_some_and(|e| e == "rs");
            if code && !matches!(name.as_str(), "lib" | "main") && !map.contains(&format!("`{name}`")) {
                missing.push(format!("{folder}/{name}"));
            }
        }
    }
    assert_none("not named in ARCHITECTURE.md", &missing);
}

#[test]
fn nothing_names_the_machine_it_was_made_on() {
    let homes = ["work", "root", "home"].map(|dir| format!("/{dir}/"));
    let shared = format!("../{}", "shared");
    let mut all = Vec::new();
    for extension in ["rs", "md", "toml", "py", "sh", "yaml", "html"] {
        files(&root(), extension, &mut all);
    }
    let mut found = Vec::new();
    for path in all {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if homes.iter().any(|home| line.contains(home.as_str())) || line.contains(&shared) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("paths of one machine", &found);
}
