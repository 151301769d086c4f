//! The topics that there are, and those that a group reads: by name and by regular expression.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};

use crate::group::{GroupError, Name};

/// Bytes that a compiled expression may take; it is compiled when the topics change, and let go.
const PATTERN_BYTES: usize = 256 << 10;
/// Different expressions in one group.
const MAX_PATTERNS: usize = 100;

/// A topic's id, which outlives no deletion (KIP-516).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    pub topic: TopicId,
    pub index: i32,
}

/// Partitions, each one once.
pub type Partitions = BTreeSet<Partition>;

/// What a group has to know of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub id: TopicId,
    pub partitions: i32,
}

/// All topics at one moment.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Another one whenever anything else is.
    pub version: u64,
    pub topics: BTreeMap<Name, Shape>,
    /// Those that no regular expression finds: the program's own.
    pub hidden: BTreeSet<Name>,
}

/// An expression as its members gave it, and what it finds.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    found: BTreeMap<Name, BTreeSet<Name>>,
    /// The catalog that they were looked up in.
    seen: Option<u64>,
}

/// Compiles an expression, which has to match a topic's whole name.
///
/// # Errors
/// It is none of RE2's syntax, or too large.
fn compile(pattern: &str) -> Result<Regex, GroupError> {
    let whole = RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_BYTES).build();
    whole.map_err(|_| GroupError::InvalidRegularExpression)
}

/// The topics that an expression finds; one that another program has stored and that is none finds nothing.
fn search(pattern: &str, catalog: &Catalog) -> BTreeSet<Name> {
    let Ok(regex) = compile(pattern) else { return BTreeSet::new() };
    let shown = catalog.topics.keys().filter(|topic| !catalog.hidden.contains(*topic));
    shown.filter(|topic| regex.is_match(topic)).cloned().collect()
}

impl Patterns {
    /// Whether a member may have this expression.
    ///
    /// # Errors
    /// [`GroupError::InvalidRegularExpression`]: it is none, or one too many.
    pub(super) fn admit(&self, pattern: &str) -> Result<(), GroupError> {
        if pattern.is_empty() || self.found.contains_key(pattern) {
            return Ok(());
        }
        compile(pattern)?;
        if self.found.len() < MAX_PATTERNS { Ok(()) } else { Err(GroupError::InvalidRegularExpression) }
    }

    /// Whether the topics have changed since [`Patterns::resolve`].
    pub(super) fn outdated(&self, catalog: &Catalog) -> bool {
        self.seen != Some(catalog.version)
    }

    /// Looks up `used`, and forgets all others.
    pub(super) fn resolve(&mut self, used: BTreeSet<Name>, catalog: &Catalog) {
        let known = if self.outdated(catalog) { BTreeMap::new() } else { std::mem::take(&mut self.found) };
        let find = |pattern: Name| {
            let found = known.get(&pattern).cloned().unwrap_or_else(|| search(&pattern, catalog));
            (pattern, found)
        };
        self.found = used.into_iter().map(find).collect();
        self.seen = Some(catalog.version);
    }

    pub(super) fn found(&self, pattern: &str) -> Option<&BTreeSet<Name>> {
        self.found.get(pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(version: u64, topics: &[&str]) -> Catalog {
        let shape = |n: usize| Shape { id: TopicId([n as u8; 16]), partitions: 1 };
        let topics = topics.iter().enumerate().map(|(n, name)| (Name::from(*name), shape(n))).collect();
        Catalog { version, topics, hidden: ["_own".into()].into() }
    }

    #[test]
    fn an_expression_matches_whole_names_and_sees_new_topics() {
        let mut patterns = Patterns::default();
        let used = || BTreeSet::from([Name::from("meter.*|x")]);
        patterns.resolve(used(), &catalog(1, &["meters", "a_meter", "x", "xx", "_own"]));
        let found = |patterns: &Patterns| patterns.found("meter.*|x").cloned().unwrap_or_default();
        assert_eq!(found(&patterns), ["meters".into(), "x".into()].into());
        patterns.resolve(used(), &catalog(2, &["meters", "meter2"]));
        assert_eq!(found(&patterns), ["meters".into(), "meter2".into()].into());
        patterns.resolve([Name::from(".*")].into(), &catalog(3, &["_own", "a"]));
        assert_eq!(patterns.found(".*"), Some(&["a".into()].into()));
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused() {
        let patterns = Patterns::default();
        for bad in ["(", "a{1000}{1000}", "(?=a)"] {
            assert_eq!(patterns.admit(bad), Err(GroupError::InvalidRegularExpression), "{bad}");
        }
        assert_eq!(patterns.admit("a+"), Ok(()));
    }
}
