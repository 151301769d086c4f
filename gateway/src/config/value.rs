//! From a value as it was written to a checked one: sizes, times, addresses and the rest.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use forebay_log::topic::Ratio;

use super::key::{Kind, Special, TimeUnit};

/// A value as a source gave it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    /// As it was written.
    Float(String),
    Bool(bool),
    List(Vec<Raw>),
    /// Names, values and lines.
    Table(Vec<(String, Raw, usize)>),
    /// From `--set` or the environment: its type is what the key wants.
    Untyped(String),
    /// A TOML type that no key has: a date.
    Other(&'static str),
}

impl Raw {
    fn type_name(&self) -> &'static str {
        match self {
            Raw::Text(_) | Raw::Untyped(_) => "text",
            Raw::Integer(_) => "a number",
            Raw::Float(_) => "a number with a fraction",
            Raw::Bool(_) => "true/false",
            Raw::List(_) => "a list",
            Raw::Table(_) => "a table",
            Raw::Other(name) => name,
        }
    }
}

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    /// Bytes, milliseconds or seconds where the key has that unit.
    Integer(i64),
    Text(String),
    Path(PathBuf),
    Paths(Vec<PathBuf>),
    List(Vec<String>),
    Address(Option<SocketAddr>),
}

/// Checks `raw` against `kind`. Relative paths become relative to `base`.
///
/// # Errors
/// What is wrong and what is expected, for a person.
pub(super) fn check(kind: Kind, raw: &Raw, base: &Path) -> Result<Value, String> {
    let wrong = || format!("expected {}, found {}", kind.describe(), raw.type_name());
    match (kind, raw) {
        (Kind::Bool, Raw::Bool(value)) => Ok(Value::Bool(*value)),
        (Kind::Bool, Raw::Untyped(text)) => match text.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("expected true or false, found \"{text}\"")),
        },
        (Kind::Integer { min, max }, _) => {
            let number = match raw {
                Raw::Integer(number) => *number,
                Raw::Untyped(text) => text.parse().map_err(|_| format!("\"{text}\" is not an integer"))?,
                _ => return Err(wrong()),
            };
            in_range(number, min, max, &[]).map(Value::Integer)
        }
        (Kind::Size { min, max, special }, _) => {
            let number = match raw {
                Raw::Integer(number) => *number,
                Raw::Text(text) | Raw::Untyped(text) => parse_size(text)?,
                _ => return Err(wrong()),
            };
            in_range(number, min, max, special).map(Value::Integer)
        }
        (Kind::Time { unit, min, max, special }, _) => {
            let number = match raw {
                Raw::Integer(number) => *number,
                Raw::Text(text) | Raw::Untyped(text) => parse_time(text, unit)?,
                _ => return Err(wrong()),
            };
            in_range(number, min, max, special).map(Value::Integer)
        }
        (Kind::Ratio, Raw::Float(text) | Raw::Untyped(text)) => {
            let ratio = Ratio::from_text(text).ok_or_else(|| format!("expected {}, found {text}", kind.describe()))?;
            Ok(Value::Text(ratio.to_string()))
        }
        (Kind::Ratio, Raw::Integer(number @ (0 | 1))) => Ok(Value::Text(format!("{number}.0"))),
        (Kind::Text, Raw::Text(text) | Raw::Untyped(text)) => Ok(Value::Text(text.clone())),
        (Kind::Secret, Raw::Text(text) | Raw::Untyped(text)) => read_secret(text, base).map(Value::Text),
        (Kind::Path, Raw::Text(text) | Raw::Untyped(text)) if !text.is_empty() => Ok(Value::Path(base.join(text))),
        (Kind::Path, Raw::Text(_) | Raw::Untyped(_)) => Err("the path is empty".to_owned()),
        (Kind::Paths, Raw::List(items)) => {
            let paths = items.iter().map(|item| match item {
                Raw::Text(text) if !text.is_empty() => Ok(base.join(text)),
                _ => Err(format!("expected a list of paths, found {} in it", item.type_name())),
            });
            Ok(Value::Paths(paths.collect::<Result<_, _>>()?))
        }
        (Kind::Paths, Raw::Untyped(text)) => {
            Ok(Value::Paths(text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(|p| base.join(p)).collect()))
        }
        (Kind::List, Raw::List(items)) => {
            let texts = items.iter().map(|item| match item {
                Raw::Text(text) => Ok(text.clone()),
                _ => Err(format!("expected a list of texts, found {} in it", item.type_name())),
            });
            Ok(Value::List(texts.collect::<Result<_, _>>()?))
        }
        (Kind::List, Raw::Untyped(text)) => {
            let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
            Ok(Value::List(texts.map(str::to_owned).collect()))
        }
        (Kind::Address, Raw::Text(text) | Raw::Untyped(text)) => parse_address(text).map(Value::Address),
        (Kind::Choice(choices), Raw::Text(text) | Raw::Untyped(text)) => {
            if choices.contains(&text.as_str()) {
                return Ok(Value::Text(text.clone()));
            }
            Err(format!("expected {}, found \"{text}\"", kind.describe()))
        }
        (Kind::Choices(choices), Raw::List(items)) => {
            let texts = items.iter().map(|item| match item {
                Raw::Text(text) => Ok(text.as_str()),
                _ => Err(format!("expected {}, found {} in it", kind.describe(), item.type_name())),
            });
            chosen(kind, choices, &texts.collect::<Result<Vec<_>, _>>()?)
        }
        (Kind::Choices(choices), Raw::Text(text) | Raw::Untyped(text)) => {
            chosen(kind, choices, &text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect::<Vec<_>>())
        }
        _ => Err(wrong()),
    }
}

fn chosen(kind: Kind, choices: &[&str], texts: &[&str]) -> Result<Value, String> {
    match texts.iter().find(|text| !choices.contains(text)) {
        Some(wrong) => Err(format!("expected {}, found \"{wrong}\" in it", kind.describe())),
        None => Ok(Value::List(texts.iter().map(|text| (*text).to_owned()).collect())),
    }
}

fn in_range(number: i64, min: i64, max: i64, special: Special) -> Result<i64, String> {
    if (min..=max).contains(&number) || special.iter().any(|(allowed, _)| *allowed == number) {
        return Ok(number);
    }
    if min == max {
        return Err(format!("{number} is not possible: with one node only {min} is"));
    }
    let also: String = special.iter().map(|(n, meaning)| format!(", or {n} = {meaning}")).collect();
    Err(format!("{number} is out of range: {min} to {max}{also}"))
}

/// Splits `64MiB` into 64 and `MiB`.
fn split_number(text: &str) -> Result<(i64, &str), String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '-' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number =
        number.replace('_', "").parse().map_err(|_| format!("\"{text}\" does not start with a whole number"))?;
    Ok((number, unit.trim()))
}

/// Parses a size: `1048576`, `1024KiB`, `1MiB`.
///
/// # Errors
/// What is wrong, for a person.
pub(super) fn parse_size(text: &str) -> Result<i64, String> {
    let (number, unit) = split_number(text)?;
    let factor: i64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(format!("\"{unit}\" in \"{text}\" is not a unit of size: KiB, MiB, GiB, TiB are")),
    };
    number.checked_mul(factor).ok_or_else(|| format!("\"{text}\" is too large"))
}

/// Parses a time into `unit`: `90`, `1500ms`, `10s`, `5m`, `2h`, `7d`.
///
/// # Errors
/// What is wrong, for a person.
pub fn parse_time(text: &str, unit: TimeUnit) -> Result<i64, String> {
    let (number, suffix) = split_number(text)?;
    let factor: i64 = match suffix {
        "" => return Ok(number),
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("\"{suffix}\" in \"{text}\" is not a unit of time: ms, s, m, h, d are")),
    };
    let millis = number.checked_mul(factor).ok_or_else(|| format!("\"{text}\" is too long"))?;
    match unit {
        TimeUnit::Milliseconds => Ok(millis),
        TimeUnit::Seconds if millis % 1000 == 0 => Ok(millis / 1000),
        TimeUnit::Seconds => Err(format!("\"{text}\" is not a whole number of seconds")),
    }
}

fn parse_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map(Some).map_err(|_| format!("expected IP:PORT or \"off\", found \"{text}\""))
}

pub(super) fn read_secret(text: &str, base: &Path) -> Result<String, String> {
    let Some(path) = text.strip_prefix("file:") else { return Ok(text.to_owned()) };
    read_secret_file(&base.join(path))
}

/// The text of a file, without the end of its last line.
pub(super) fn read_secret_file(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(secret) => Ok(secret.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_take_units_and_plain_numbers() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("10 GiB"), Ok(10 << 30));
        assert_eq!(parse_size("1048588"), Ok(1_048_588));
        assert_eq!(parse_time("7d", TimeUnit::Milliseconds), Ok(604_800_000));
        assert_eq!(parse_time("1500", TimeUnit::Milliseconds), Ok(1500));
        assert_eq!(parse_time("2h", TimeUnit::Seconds), Ok(7200));
        assert_eq!(parse_time("-1", TimeUnit::Milliseconds), Ok(-1));
    }

    #[test]
    fn a_unit_that_is_not_one_is_named_with_those_that_are() {
        assert!(parse_size("64MB").is_err_and(|e| e.contains("MB") && e.contains("MiB")));
        assert!(parse_time("10min", TimeUnit::Milliseconds).is_err_and(|e| e.contains("min") && e.contains("h, d")));
        assert!(parse_time("1500ms", TimeUnit::Seconds).is_err());
        assert!(parse_size("99999999999TiB").is_err());
        assert!(parse_size("MiB").is_err());
    }

    #[test]
    fn addresses_are_ip_and_port_or_off() {
        assert_eq!(parse_address("off"), Ok(None));
        assert_eq!(parse_address("localhost:1883"), Ok("127.0.0.1:1883".parse().ok()));
        assert_eq!(parse_address("[::1]:0"), Ok("[::1]:0".parse().ok()));
        assert!(parse_address("1883").is_err());
    }
}
