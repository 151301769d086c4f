//! What a configuration key is: its name, type, unit, range, default and one line of documentation.

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The table it stands in; empty for the keys at the top of the file.
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    /// The default as it would be written in the file; empty: none.
    pub default: &'static str,
    pub doc: &'static str,
}

/// The type of a key's value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    /// Bytes: a plain number, or one with `KiB`, `MiB`, `GiB`, `TiB`.
    Size {
        min: i64,
        max: i64,
        special: Special,
    },
    /// A time: a plain number in `unit`, or one with `ms`, `s`, `m`, `h`, `d`.
    Time {
        unit: TimeUnit,
        min: i64,
        max: i64,
        special: Special,
    },
    /// A decimal from 0 to 1.
    Ratio,
    Text,
    /// Text that is never printed; `file:PATH` reads it from a file.
    Secret,
    Path,
    /// A list of files, wildcards allowed.
    Paths,
    /// A list of texts.
    List,
    /// `IP:PORT`, or "off".
    Address,
    Choice(&'static [&'static str]),
    /// A list of some of these.
    Choices(&'static [&'static str]),
    /// The array of tables `[[routes]]`.
    Routes,
}

/// Numbers below the range that have a meaning of their own, as in Kafka.
pub(super) type Special = &'static [(i64, &'static str)];

/// What a plain number of a time means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    Milliseconds,
    Seconds,
}

impl Key {
    /// The key as it is written in messages and after `--set`: `section.name`.
    #[must_use]
    pub(super) fn path(&self) -> String {
        if self.section.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }
}

impl Kind {
    /// The type, unit and range, for `config docs` and for messages.
    #[must_use]
    pub(super) fn describe(&self) -> String {
        let with_special = |mut text: String, special: Special| {
            for (number, meaning) in special {
                text.push_str(&format!(", {number} = {meaning}"));
            }
            text
        };
        match *self {
            Kind::Bool => "true or false".to_owned(),
            Kind::Integer { min, max } => format!("integer, {min} to {max}"),
            Kind::Size { special, .. } => with_special("size in bytes, or with KiB, MiB, GiB, TiB".to_owned(), special),
            Kind::Time { unit, special, .. } => {
                let unit = match unit {
                    TimeUnit::Milliseconds => "milliseconds",
                    TimeUnit::Seconds => "seconds",
                };
                with_special(format!("time in {unit}, or with ms, s, m, h, d"), special)
            }
            Kind::Ratio => "a number from 0 to 1".to_owned(),
            Kind::Text => "text".to_owned(),
            Kind::Secret => "text, or \"file:PATH\" to read it from a file".to_owned(),
            Kind::Path => "path".to_owned(),
            Kind::Paths => "list of paths, wildcards allowed".to_owned(),
            Kind::List => "list of texts".to_owned(),
            Kind::Address => "IP:PORT, or \"off\"".to_owned(),
            Kind::Choice(choices) => choices.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(" or "),
            Kind::Choices(choices) => format!("list of {}", choices.join(", ")),
            Kind::Routes => "array of tables".to_owned(),
        }
    }
}
