//! A route's topic filter and the templates filled from its wildcards.
//!
//! Source: MQTT 5.0 section 4.7 (topic names and filters).

use std::borrow::Cow;
use std::fmt::Write as _;

/// Most wildcards of one filter, so that matching needs no allocation.
const MAX_WILDCARDS: usize = 16;

#[derive(Debug, PartialEq, Eq)]
enum Level {
    Text(String),
    /// `+`: one level
    One,
    /// `#`: all that follows, this level and the one before it included
    Rest,
}

/// A topic filter, compiled.
#[derive(Debug)]
pub(super) struct Filter {
    levels: Vec<Level>,
}

/// What the wildcards of a filter stood for in one topic.
pub(super) struct Captures<'t> {
    values: [&'t str; MAX_WILDCARDS],
    count: usize,
}

impl<'t> Captures<'t> {
    fn push(&mut self, value: &'t str) {
        if let Some(slot) = self.values.get_mut(self.count) {
            *slot = value;
            self.count += 1;
        }
    }

    fn get(&self, index: usize) -> &'t str {
        self.values.get(index).copied().unwrap_or_default()
    }
}

impl Filter {
    pub(super) fn parse(filter: &str) -> Result<Filter, String> {
        if filter.is_empty() {
            return Err("a topic filter cannot be empty".into());
        }
        let count = filter.split('/').count();
        let mut levels = Vec::with_capacity(count);
        for (index, level) in filter.split('/').enumerate() {
            levels.push(match level {
                "+" => Level::One,
                "#" if index + 1 == count => Level::Rest,
                "#" => return Err(format!("\"{filter}\": '#' must be the last level")),
                text if text.contains(['+', '#']) => {
                    return Err(format!("\"{filter}\": '+' and '#' must be a whole level"));
                }
                text => Level::Text(text.to_owned()),
            });
        }
        let filter = Filter { levels };
        if filter.wildcards() > MAX_WILDCARDS {
            return Err(format!("more than {MAX_WILDCARDS} wildcards"));
        }
        Ok(filter)
    }

    pub(super) fn wildcards(&self) -> usize {
        self.levels.iter().filter(|level| !matches!(level, Level::Text(_))).count()
    }

    /// The wildcards' values when `topic` matches. A leading wildcard does not match `$` topics [MQTT-4.7.2-1].
    pub(super) fn captures<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let mut captures = Captures { values: [""; MAX_WILDCARDS], count: 0 };
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Text(_))) {
            return None;
        }
        let mut rest = Some(topic);
        for level in &self.levels {
            if *level == Level::Rest {
                captures.push(rest.unwrap_or_default());
                return Some(captures);
            }
            let (here, after) = match rest?.split_once('/') {
                Some((here, after)) => (here, Some(after)),
                None => (rest?, None),
            };
            match level {
                Level::Text(text) if text != here => return None,
                Level::Text(_) => {}
                Level::One | Level::Rest => captures.push(here),
            }
            rest = after;
        }
        rest.is_none().then_some(captures)
    }
}

#[derive(Debug)]
enum Piece {
    Text(String),
    /// Index of the wildcard, from 0.
    Wildcard(usize),
}

/// A text with `{1}`, `{2}` for the values of a filter's wildcards.
#[derive(Debug)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// `wildcards`: how many the filter has.
    pub(super) fn parse(template: &str, wildcards: usize) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (number, after) = after.split_once('}').ok_or_else(|| format!("\"{template}\": '{{' without '}}'"))?;
            let index = match number.parse::<usize>() {
                Ok(number) if (1..=wildcards).contains(&number) => number - 1,
                Ok(number) => {
                    return Err(format!("{{{number}}}: the filter has {wildcards} wildcard(s), counted from 1"));
                }
                Err(_) => return Err(format!("{{{number}}} is not the number of a wildcard, such as {{1}}")),
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Wildcard(index));
            rest = after;
        }
        if !rest.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Template { pieces })
    }

    /// The filled template; borrowed when it is one piece, as keys mostly are.
    pub(super) fn fill<'a>(&'a self, captures: &Captures<'a>) -> Cow<'a, [u8]> {
        match &self.pieces[..] {
            [Piece::Text(text)] => Cow::Borrowed(text.as_bytes()),
            [Piece::Wildcard(index)] => Cow::Borrowed(captures.get(*index).as_bytes()),
            pieces => {
                let mut filled = String::new();
                for piece in pieces {
                    let _ = match piece {
                        Piece::Text(text) => filled.write_str(text),
                        Piece::Wildcard(index) => filled.write_str(captures.get(*index)),
                    };
                }
                Cow::Owned(filled.into_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(filter: &str, topic: &str) -> Option<Vec<String>> {
        let filter = Filter::parse(filter).unwrap_or_else(|why| panic!("{why}"));
        filter.captures(topic).map(|c| c.values[..c.count].iter().map(|v| (*v).to_owned()).collect())
    }

    #[test]
    fn wildcards_match_as_mqtt_says() {
        for (filter, topic, expected) in [
            ("meters/+/readings", "meters/m1/readings", Some(vec!["m1"])),
            ("meters/+/readings", "meters/m1/x/readings", None),
            ("meters/+/readings", "meters/m1", None),
            ("meters/+", "meters/", Some(vec![""])),
            ("+/+", "/finance", Some(vec!["", "finance"])),
            ("+", "/finance", None),
            ("sport/#", "sport", Some(vec![""])),
            ("sport/#", "sport/a/b", Some(vec!["a/b"])),
            ("sport/+/#", "sport/a/b/c", Some(vec!["a", "b/c"])),
            ("#", "a/b", Some(vec!["a/b"])),
            ("#", "$SYS/uptime", None),
            ("+/uptime", "$SYS/uptime", None),
            ("$SYS/#", "$SYS/uptime", Some(vec!["uptime"])),
            ("exact", "exact", Some(vec![])),
        ] {
            let expected = expected.map(|v| v.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(values(filter, topic), expected, "{filter} on {topic}");
        }
    }

    #[test]
    fn filters_that_mqtt_forbids_are_refused() {
        for filter in ["", "a/#/b", "a#", "a+/b", "#/a"] {
            assert!(Filter::parse(filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn templates_take_the_wildcards_values() {
        let filter = Filter::parse("site/+/meters/+/#").unwrap_or_else(|why| panic!("{why}"));
        let captures = filter.captures("site/7/meters/m1/phase/2").unwrap_or_else(|| panic!("matches"));
        for (template, filled) in [("{2}", "m1"), ("fixed", "fixed"), ("{1}-{2}:{3}", "7-m1:phase/2"), ("", "")] {
            let template = Template::parse(template, filter.wildcards()).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(template.fill(&captures), filled.as_bytes());
        }
    }

    #[test]
    fn a_template_beyond_the_filters_wildcards_is_refused() {
        for template in ["{0}", "{3}", "{x}", "{1"] {
            assert!(Template::parse(template, 2).is_err(), "{template}");
        }
    }
}
