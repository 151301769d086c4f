//! `config docs` and `config show`: the key table, and the settings in force as TOML that can be read back.

use std::fmt::Write;

use super::error::{ConfigError, Origin};
use super::key::{Key, Kind, TimeUnit};
use super::keys::{KEYS, OBJECT_STORE, ROUTE_KEYS, TOPIC_DEFAULTS, TOPICS, USERS};
use super::settings::{Settings, plain_keys};
use super::value::Value;

const HIDDEN: &str = "\"(hidden)\"";

const USERS_DOC: &str = "
[users]    # who may log in to listeners.kafka; further ones are made by kafka-configs --entity-type users
# alice = \"...\"
    # text, or \"file:PATH\" to read it from a file, again at each SIGHUP; the user's password
";

/// Every key with type, unit, default and meaning: a configuration file that changes nothing.
#[must_use]
pub fn docs() -> String {
    let mut out = String::from(
        "# Every key, its default and its type. Set a key in the file given to --config, by\n\
         # --set section.key=value, or by the variable FOREBAY__SECTION__KEY (dots as underscores).\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            if section == "kafka" {
                out.push_str(USERS_DOC);
            }
            section = key.section;
            if !section.is_empty() {
                let _ = write!(out, "\n[{section}]");
                out.push_str(match section {
                    TOPIC_DEFAULTS => {
                        "    # configs of every topic; [topics.NAME] sets them for one and creates it at start"
                    }
                    OBJECT_STORE => "    # further keys as object_store names them (aws_..., timeout, proxy_url)",
                    _ => "",
                });
                out.push('\n');
            }
        }
        if matches!(key.kind, Kind::Routes) {
            let _ = writeln!(out, "\n# [[routes]]    # {}", key.doc);
            for (name, doc) in ROUTE_KEYS {
                let _ = writeln!(out, "# {name} = \"...\"\n    # text; {doc}");
            }
            continue;
        }
        let setting = match default_text(key) {
            Some(default) => format!("{} = {default}", key.name),
            None => format!("# {} =", key.name),
        };
        let _ = writeln!(out, "{setting}\n    # {}; {}", key.kind.describe(), key.doc);
    }
    out
}

fn default_text(key: &Key) -> Option<String> {
    match (key.kind, key.default) {
        (Kind::Paths, "") => Some("[]".to_owned()),
        (_, "") => None,
        (Kind::Bool | Kind::Integer { .. } | Kind::Ratio, default) => Some(default.to_owned()),
        (Kind::Choices(_), default) => {
            Some(format!("[{}]", default.split(',').map(quoted).collect::<Vec<_>>().join(", ")))
        }
        (Kind::Size { .. } | Kind::Time { .. }, default) if default.parse::<i64>().is_ok() => Some(default.to_owned()),
        (_, default) => Some(quoted(default)),
    }
}

/// The settings in force, each with its origin when it is not the default. Secrets are hidden.
///
/// # Errors
/// Settings that make no configuration.
pub fn show(settings: &Settings) -> Result<String, ConfigError> {
    let url = Value::Text(settings.build()?.object_store.url);
    let mut out = String::new();
    let mut section = "";
    for key in plain_keys() {
        let Some(value) = settings.get(key.section, key.name) else { continue };
        if key.section != section {
            section = key.section;
            let _ = writeln!(out, "\n[{section}]");
        }
        let value = if (key.section, key.name) == (OBJECT_STORE, "url") { url.clone() } else { value };
        line(&mut out, key.name, &toml_text(key.kind, &value), &settings.origin(key.section, key.name));
        if key.section == OBJECT_STORE && key.name == "url" {
            for (name, entry) in &settings.store_options {
                line(&mut out, name, HIDDEN, &entry.origin);
            }
        }
    }
    for (topic, configs) in &settings.topics {
        let _ = writeln!(out, "\n[{TOPICS}.{}]", quoted(topic));
        for (name, entry) in configs {
            let kind = super::keys::find(TOPIC_DEFAULTS, name).map_or(Kind::Text, |key| key.kind);
            line(&mut out, name, &toml_text(kind, &entry.value), &entry.origin);
        }
    }
    if !settings.users.is_empty() {
        let _ = writeln!(out, "\n[{USERS}]");
    }
    for (user, (_, origin)) in &settings.users {
        line(&mut out, &quoted(user), HIDDEN, origin);
    }
    for (route, origin) in &settings.routes {
        let _ = writeln!(out, "\n[[routes]]  # {origin}");
        let _ = writeln!(out, "filter = {}\ntopic = {}", quoted(&route.filter), quoted(&route.topic));
        for (name, value) in [("key", &route.key), ("timestamp", &route.timestamp)] {
            if let Some(value) = value {
                let _ = writeln!(out, "{name} = {}", quoted(value));
            }
        }
    }
    Ok(out.trim_start().to_owned())
}

fn line(out: &mut String, name: &str, value: &str, origin: &Origin) {
    let _ = match origin {
        Origin::Default => writeln!(out, "{name} = {value}"),
        // Without its value, which may be a secret.
        Origin::Flag(flag) => writeln!(out, "{name} = {value}  # {}", flag.split('=').next().unwrap_or_default()),
        origin => writeln!(out, "{name} = {value}  # {origin}"),
    };
}

fn toml_text(kind: Kind, value: &Value) -> String {
    match (kind, value) {
        (Kind::Secret, _) => HIDDEN.to_owned(),
        (_, Value::Bool(value)) => value.to_string(),
        (Kind::Size { .. }, Value::Integer(bytes)) => {
            with_unit(*bytes, &[(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")])
        }
        (Kind::Time { unit, .. }, Value::Integer(time)) => {
            let millis = if unit == TimeUnit::Seconds { time.saturating_mul(1000) } else { *time };
            let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
            if *time < 0 { time.to_string() } else { with_unit(millis, &units) }
        }
        (_, Value::Integer(number)) => number.to_string(),
        (Kind::Ratio, Value::Text(number)) => number.clone(),
        (_, Value::Text(text)) => quoted(text),
        (_, Value::Path(path)) => quoted(&path.display().to_string()),
        (_, Value::Paths(paths)) => {
            let paths: Vec<_> = paths.iter().map(|path| quoted(&path.display().to_string())).collect();
            format!("[{}]", paths.join(", "))
        }
        (_, Value::List(items)) => {
            format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
        }
        (_, Value::Address(Some(address))) => quoted(&address.to_string()),
        (_, Value::Address(None)) => quoted("off"),
    }
}

/// The number in the largest unit that divides it.
fn with_unit(number: i64, units: &[(i64, &str)]) -> String {
    match units.iter().find(|(factor, _)| number > 0 && number % factor == 0) {
        Some((factor, unit)) => quoted(&format!("{}{unit}", number / factor)),
        None => number.to_string(),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
