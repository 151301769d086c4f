//! The sources of settings: a TOML file, `FOREBAY__SECTION__KEY` variables and `--set section.key=value`, all brought
//! to one form.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Origin, Problem};
use super::keys::{KEYS, TOPIC_DEFAULTS, TOPICS};
use super::value::Raw;

/// What environment variables of the configuration start with.
pub const ENV_PREFIX: &str = "FOREBAY__";

/// Where a configuration comes from; later ones win: defaults, file, environment, `set`, `data_dir`.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// `section.key=value`, as given to `--set`.
    pub set: Vec<String>,
    /// Environment variables; those without the prefix `FOREBAY__` are passed over.
    pub env: Vec<(String, String)>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
}

/// One setting before its key is known to exist.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// Empty for keys at the top of the file.
    pub section: String,
    /// In `[topics.NAME]`: the topic's name.
    pub topic: Option<String>,
    /// Dotted keys flattened; empty when only the table `[topics.NAME]` was opened.
    pub name: String,
    pub raw: Raw,
    pub origin: Origin,
}

/// Reads the file's settings.
///
/// # Errors
/// An unreadable file, or TOML that does not parse (with its line).
pub(super) fn read_file(path: &Path) -> Result<Vec<Setting>, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| Problem {
        origin: Origin::Default,
        what: format!("cannot read the config file {}: {error}", path.display()),
        help: None,
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Setting>, Problem> {
    let file: Arc<Path> = Arc::from(path);
    let at = |position: usize| Origin::File(file.clone(), line_of(text, position));
    let document = DeTable::parse(text).map_err(|error| Problem {
        origin: at(error.span().map_or(0, |span| span.start)),
        what: format!("not valid TOML: {}", error.message()),
        help: None,
    })?;
    let mut walk = Walk { text, file: &file, out: Vec::new() };
    for (key, value) in document.get_ref().iter() {
        let section = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Array(routes) if section == "routes" => {
                for route in routes.iter() {
                    walk.push("", None, "routes".to_owned(), route, route.span().start);
                }
            }
            DeValue::Table(topics) if section == TOPICS => {
                for (name, table) in topics.iter() {
                    let topic = Some(name.get_ref().to_string());
                    match table.get_ref() {
                        DeValue::Table(keys) => {
                            walk.push(section, topic.clone(), String::new(), table, name.span().start);
                            walk.table(section, topic, "", keys);
                        }
                        _ => walk.push(section, None, name.get_ref().to_string(), table, name.span().start),
                    }
                }
            }
            DeValue::Table(keys) => walk.table(section, None, "", keys),
            _ => walk.push("", None, section.to_owned(), value, key.span().start),
        }
    }
    Ok(walk.out)
}

struct Walk<'a> {
    text: &'a str,
    file: &'a Arc<Path>,
    out: Vec<Setting>,
}

impl Walk<'_> {
    /// Flattens the nested tables that dotted keys make.
    fn table(&mut self, section: &str, topic: Option<String>, prefix: &str, keys: &DeTable<'_>) {
        for (key, value) in keys.iter() {
            let name = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.table(section, topic.clone(), &format!("{name}."), inner),
                _ => self.push(section, topic.clone(), name, value, key.span().start),
            }
        }
    }

    fn push(
        &mut self,
        section: &str,
        topic: Option<String>,
        name: String,
        value: &Spanned<DeValue<'_>>,
        position: usize,
    ) {
        let origin = Origin::File(self.file.clone(), line_of(self.text, position));
        let raw = raw_of(value.get_ref(), self.text);
        self.out.push(Setting { section: section.to_owned(), topic, name, raw, origin });
    }
}

fn raw_of(value: &DeValue<'_>, text: &str) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Integer(number),
            Err(_) => Raw::Other("a number that is too large"),
        },
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Float(number) => Raw::Float(number.as_str().to_owned()),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw_of(item.get_ref(), text)).collect()),
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &Spanned<std::borrow::Cow<'_, str>> = key;
                (key.get_ref().to_string(), raw_of(value.get_ref(), text), line_of(text, key.span().start))
            };
            Raw::Table(table.iter().map(entry).collect())
        }
    }
}

fn line_of(text: &str, position: usize) -> usize {
    1 + text.bytes().take(position).filter(|byte| *byte == b'\n').count()
}

/// Reads one `section.key=value` of `--set`.
///
/// # Errors
/// No `=` in it.
pub(super) fn read_flag(flag: &str) -> Result<Vec<Setting>, Problem> {
    let origin = Origin::Flag(format!("--set {flag}"));
    let Some((path, value)) = flag.split_once('=') else {
        return Err(Problem {
            origin,
            what: "there is no '=' in it".to_owned(),
            help: Some("write --set section.key=value".to_owned()),
        });
    };
    let path = path.trim();
    let (section, rest) = path.split_once('.').unwrap_or(("", path));
    let (topic, name) = if section == TOPICS { split_topic(rest) } else { (None, rest.to_owned()) };
    Ok(typed(Setting { section: section.to_owned(), topic, name, raw: Raw::Untyped(value.to_owned()), origin }))
}

/// A topic's name may hold dots, as its configs do: the longest config that ends the path is meant.
fn split_topic(rest: &str) -> (Option<String>, String) {
    let configs = KEYS.iter().filter(|key| key.section == TOPIC_DEFAULTS);
    let split = configs.filter_map(|key| {
        let topic = rest.strip_suffix(key.name)?.strip_suffix('.')?;
        Some((topic, key.name))
    });
    match split.max_by_key(|(_, name)| name.len()) {
        Some((topic, name)) => (Some(topic.to_owned()), name.to_owned()),
        None => match rest.split_once('.') {
            Some((topic, name)) => (Some(topic.to_owned()), name.to_owned()),
            None => (None, rest.to_owned()),
        },
    }
}

/// Reads one environment variable; `None` when it is none of ours.
#[must_use]
pub(super) fn read_env(variable: &str, value: &str) -> Option<Vec<Setting>> {
    let path = variable.strip_prefix(ENV_PREFIX)?.to_lowercase();
    let mut parts = path.split("__");
    let first = parts.next().unwrap_or_default();
    let mut rest: Vec<&str> = parts.collect();
    let (section, topic) = match first {
        _ if rest.is_empty() => {
            rest.push(first);
            ("", None)
        }
        TOPICS if rest.len() > 1 => (first, Some(rest.remove(0).to_owned())),
        _ => (first, None),
    };
    let joined = rest.join("_");
    let keys_of = if topic.is_some() { TOPIC_DEFAULTS } else { section };
    let known = KEYS.iter().find(|key| key.section == keys_of && key.name.replace('.', "_") == joined);
    let name = known.map_or(joined, |key| key.name.to_owned());
    let origin = Origin::Env(variable.to_owned());
    Some(typed(Setting { section: section.to_owned(), topic, name, raw: Raw::Untyped(value.to_owned()), origin }))
}

/// Lists cannot be told from text without their brackets: a value that starts with one is read as TOML.
fn typed(mut setting: Setting) -> Vec<Setting> {
    if let Raw::Untyped(text) = &setting.raw
        && text.trim_start().starts_with('[')
        && let Ok(value) = DeValue::parse(text.trim())
        && let DeValue::Array(_) = value.get_ref()
    {
        setting.raw = raw_of(value.get_ref(), text);
    }
    match (&setting.raw, setting.name.as_str()) {
        (Raw::List(routes), "routes") if setting.section.is_empty() => {
            routes.iter().map(|route| Setting { raw: route.clone(), ..setting.clone() }).collect()
        }
        _ => vec![setting],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_keys_are_flattened_and_keep_their_lines() {
        let text = "[topic_defaults]\nnum.partitions = 4\n\n[topics.readings]\nlocal.retention.ms = \"1d\"\n";
        let settings = parse(Path::new("forebay.toml"), text).unwrap();
        let found: Vec<_> = settings
            .iter()
            .map(|s| (s.section.as_str(), s.topic.as_deref(), s.name.as_str(), s.origin.to_string()))
            .collect();
        assert!(found.contains(&("topic_defaults", None, "num.partitions", "forebay.toml:2".to_owned())));
        assert!(found.contains(&("topics", Some("readings"), "local.retention.ms", "forebay.toml:5".to_owned())));
    }

    #[test]
    fn a_flag_may_name_a_topic_with_dots() {
        let settings = read_flag("topics.a.b.num.partitions=3").unwrap();
        assert_eq!(settings[0].topic.as_deref(), Some("a.b"));
        assert_eq!(settings[0].name, "num.partitions");
    }

    #[test]
    fn the_environment_writes_dots_as_underscores() {
        let settings = read_env("FOREBAY__TOPIC_DEFAULTS__NUM_PARTITIONS", "3").unwrap();
        assert_eq!((settings[0].section.as_str(), settings[0].name.as_str()), ("topic_defaults", "num.partitions"));
        let settings = read_env("FOREBAY__TOPICS__READINGS__SEGMENT_BYTES", "1MiB").unwrap();
        assert_eq!(settings[0].topic.as_deref(), Some("readings"));
        assert!(read_env("PATH", "/bin").is_none());
    }
}
