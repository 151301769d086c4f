//! The checked settings of all sources, each with its origin: what `config show` prints and a [`Config`] is built from.
//!
//! [`Config`]: super::Config

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use forebay_log::topic::{check_topic_name, is_internal};
use object_store::ClientConfigKey;
use object_store::aws::AmazonS3ConfigKey;

use super::error::{ConfigError, Origin, Problem};
use super::kafka::UserConfig;
use super::key::{Key, Kind};
use super::keys::{self, KEYS, OBJECT_STORE, TOPIC_DEFAULTS, TOPICS, USERS};
use super::source::{self, Setting, Sources};
use super::suggest;
use super::types::RouteConfig;
use super::value::{self, Raw, Value};
use crate::security::limits::MAX_NAME_BYTES;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct Entry {
    pub value: Value,
    pub origin: Origin,
}

/// Every setting that some source made.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    keys: BTreeMap<(&'static str, &'static str), Entry>,
    /// `[topics.NAME]`, by topic and config.
    pub topics: BTreeMap<String, BTreeMap<&'static str, Entry>>,
    /// Keys of `[object_store]` beyond the documented ones.
    pub store_options: BTreeMap<String, Entry>,
    pub routes: Vec<(RouteConfig, Origin)>,
    /// `[users]`, by name.
    pub users: BTreeMap<String, (UserConfig, Origin)>,
}

impl Settings {
    /// Reads all sources; later ones win.
    ///
    /// # Errors
    /// Every mistake found in them.
    pub fn read(sources: &Sources) -> Result<Settings, ConfigError> {
        let mut problems = Vec::new();
        let mut layers = Vec::new();
        if let Some(path) = &sources.file {
            match source::read_file(path) {
                Ok(settings) => layers.push(settings),
                Err(problem) => problems.push(problem),
            }
        }
        layers.push(sources.env.iter().filter_map(|(name, value)| source::read_env(name, value)).flatten().collect());
        for flag in &sources.set {
            match source::read_flag(flag) {
                Ok(settings) => layers.push(settings),
                Err(problem) => problems.push(problem),
            }
        }
        let mut settings = Settings::default();
        for layer in layers {
            if layer.iter().any(is_route) {
                settings.routes.clear();
            }
            for setting in layer {
                if let Err(problem) = settings.add(setting) {
                    problems.push(problem);
                }
            }
        }
        if let Some(data_dir) = &sources.data_dir {
            let origin = Origin::Flag("--data-dir".to_owned());
            settings.keys.insert(("node", "data_dir"), Entry { value: Value::Path(data_dir.clone()), origin });
        }
        if problems.is_empty() { Ok(settings) } else { Err(ConfigError { problems }) }
    }

    /// The value of a key, or its default; `None` when it has neither.
    #[must_use]
    pub fn get(&self, section: &str, name: &str) -> Option<Value> {
        match self.entry(section, name) {
            Some(entry) => Some(entry.value.clone()),
            None => default_of(keys::find(section, name)?),
        }
    }

    /// What a source set, without defaults.
    #[must_use]
    pub fn entry(&self, section: &str, name: &str) -> Option<&Entry> {
        let key = keys::find(section, name)?;
        self.keys.get(&(key.section, key.name))
    }

    /// The origin of a key's value.
    #[must_use]
    pub fn origin(&self, section: &str, name: &str) -> Origin {
        self.entry(section, name).map_or(Origin::Default, |entry| entry.origin.clone())
    }

    fn add(&mut self, mut setting: Setting) -> Result<(), Problem> {
        // It belongs to all listeners, so people look for it beside them; it may stand in either place.
        if setting.section == "listeners" && setting.name == "allow_anonymous" {
            setting.section.clear();
        }
        if is_route(&setting) {
            let route = route(&setting)?;
            self.routes.push((route, setting.origin));
            return Ok(());
        }
        if let Some(topic) = setting.topic.clone() {
            return self.add_topic(topic, setting);
        }
        if setting.section == USERS {
            return self.add_user(setting);
        }
        match keys::find(&setting.section, &setting.name) {
            Some(key) => {
                let value = checked(key, &setting, &key.path())?;
                self.keys.insert((key.section, key.name), Entry { value, origin: setting.origin });
                Ok(())
            }
            None if setting.section == OBJECT_STORE && is_store_option(&setting.name) => self.add_store_option(setting),
            None => Err(unknown(&setting)),
        }
    }

    fn add_topic(&mut self, topic: String, setting: Setting) -> Result<(), Problem> {
        let refuse = |what: String| Problem { origin: setting.origin.clone(), what, help: None };
        check_topic_name(&topic).map_err(|why| refuse(format!("[{TOPICS}.{topic}]: {why}")))?;
        if is_internal(&topic) {
            return Err(refuse(format!("[{TOPICS}.{topic}]: this topic belongs to Forebay itself")));
        }
        let configs = self.topics.entry(topic.clone()).or_default();
        if setting.name.is_empty() {
            return Ok(());
        }
        let Some(key) = keys::find(TOPIC_DEFAULTS, &setting.name) else { return Err(unknown(&setting)) };
        let value = checked(key, &setting, &format!("{TOPICS}.{topic}.{}", key.name))?;
        configs.insert(key.name, Entry { value, origin: setting.origin });
        Ok(())
    }

    fn add_user(&mut self, setting: Setting) -> Result<(), Problem> {
        let Setting { name, raw, origin, .. } = setting;
        let refuse = |what: &str, help: Option<&str>| Problem {
            origin: origin.clone(),
            what: format!("{USERS}.{name}: {what}"),
            help: help.map(str::to_owned),
        };
        let (Raw::Text(text) | Raw::Untyped(text)) = &raw else {
            return Err(refuse("expected a password", Some("write name = \"password\", or name = \"file:PATH\"")));
        };
        let password = value::read_secret(text, &origin.base()).map_err(|why| refuse(&why, None))?;
        if password.is_empty() || name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(refuse("a user has a name and a password", None));
        }
        let file = text.strip_prefix("file:").map(|path| origin.base().join(path));
        self.users.insert(name, (UserConfig { password, file }, origin));
        Ok(())
    }

    fn add_store_option(&mut self, setting: Setting) -> Result<(), Problem> {
        let text = match &setting.raw {
            Raw::Bool(value) => value.to_string(),
            Raw::Integer(value) => value.to_string(),
            _ => String::new(),
        };
        let value = if text.is_empty() {
            let key = Key { section: OBJECT_STORE, name: "", kind: Kind::Secret, default: "", doc: "" };
            checked(&key, &setting, &format!("{OBJECT_STORE}.{}", setting.name))?
        } else {
            Value::Text(text)
        };
        self.store_options.insert(setting.name, Entry { value, origin: setting.origin });
        Ok(())
    }
}

/// A key's default as a value.
#[must_use]
pub(super) fn default_of(key: &Key) -> Option<Value> {
    if key.default.is_empty() {
        return None;
    }
    value::check(key.kind, &Raw::Untyped(key.default.to_owned()), Path::new("")).ok()
}

fn is_route(setting: &Setting) -> bool {
    setting.section.is_empty() && setting.name == "routes"
}

fn is_store_option(name: &str) -> bool {
    AmazonS3ConfigKey::from_str(name).is_ok() || ClientConfigKey::from_str(name).is_ok()
}

fn checked(key: &Key, setting: &Setting, path: &str) -> Result<Value, Problem> {
    value::check(key.kind, &setting.raw, &setting.origin.base()).map_err(|why| Problem {
        origin: setting.origin.clone(),
        what: format!("{path}: {why}"),
        help: None,
    })
}

fn unknown(setting: &Setting) -> Problem {
    let Setting { section, topic, name, .. } = setting;
    let path = [section.as_str(), topic.as_deref().unwrap_or(""), name.as_str()];
    let path = path.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(".");
    Problem {
        origin: setting.origin.clone(),
        what: format!("unknown key {path}"),
        help: Some(suggest::unknown_key(section, topic.as_deref(), name)),
    }
}

fn route(setting: &Setting) -> Result<RouteConfig, Problem> {
    let at = |line: usize| match &setting.origin {
        Origin::File(path, _) => Origin::File(path.clone(), line),
        origin => origin.clone(),
    };
    let refuse = |what: String| Problem {
        origin: setting.origin.clone(),
        what: format!("routes: {what}"),
        help: Some("a route is [[routes]] with filter = \"meters/+/readings\" and topic = \"readings\"".to_owned()),
    };
    let Raw::Table(fields) = &setting.raw else { return Err(refuse("expected tables".to_owned())) };
    let (mut filter, mut topic, mut key, mut timestamp) = (None, None, None, None);
    for (name, raw, line) in fields {
        let slot = match name.as_str() {
            "filter" => &mut filter,
            "topic" => &mut topic,
            "key" => &mut key,
            "timestamp" => &mut timestamp,
            _ => {
                return Err(Problem {
                    origin: at(*line),
                    what: format!("unknown key routes.{name}"),
                    help: Some(suggest::unknown_route_key(name)),
                });
            }
        };
        let Raw::Text(text) = raw else {
            return Err(Problem { origin: at(*line), what: format!("routes.{name}: expected text"), help: None });
        };
        if name == "topic"
            && let Err(why) = check_topic_name(text)
        {
            return Err(Problem { origin: at(*line), what: format!("routes.topic: {why}"), help: None });
        }
        *slot = Some(text.clone());
    }
    let filter = filter.ok_or_else(|| refuse("a route has no filter".to_owned()))?;
    let topic = topic.ok_or_else(|| refuse("a route has no topic".to_owned()))?;
    Ok(RouteConfig { filter, topic, key, timestamp })
}

/// All keys outside `[topics.NAME]` and `[[routes]]`, in the order of the documentation.
pub(super) fn plain_keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| !matches!(key.kind, Kind::Routes))
}
