//! Text with `{{ field }}` in it: labels, annotations and the topics of receivers.
//!
//! Inside the braces stand a field of the reading (`power.l1`), `alertname`, `$value`, or a label as `$labels.meter`, as in
//! Prometheus. What the reading lacks becomes empty text.

use std::borrow::Cow;

use crate::expr::{self, ExprError, ExprKind, FieldPath};
use crate::limits::MAX_TEMPLATE_VALUE_BYTES;

/// A parsed template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    pub parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// `{{ alertname }}`
    AlertName,
    /// `{{ $value }}`
    Value,
    /// `{{ $labels.name }}`
    Label(String),
    Field(FieldPath),
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// What stands between braces is none of the things above; with its byte offset.
    pub fn parse(text: &str) -> Result<Template, ExprError> {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(open) = text[at..].find("{{") {
            if open > 0 {
                parts.push(Part::Text(text[at..at + open].to_owned()));
            }
            let inside = at + open + 2;
            let close =
                text[inside..].find("}}").ok_or_else(|| ExprError::new(at + open, "`{{` is not closed with `}}`"))?;
            parts.push(part(&text[inside..inside + close], inside)?);
            at = inside + close + 2;
        }
        if at < text.len() {
            parts.push(Part::Text(text[at..].to_owned()));
        }
        Ok(Template { parts })
    }

    /// Puts the pieces together; `resolve` gives the value of those that are not plain text.
    pub fn render<'a>(&self, resolve: impl Fn(&Part) -> Option<Cow<'a, str>>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                other => {
                    if let Some(value) = resolve(other) {
                        out.push_str(cut(&value));
                    }
                }
            }
        }
        out
    }
}

/// The longest start of `text` within the limit that ends between characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEMPLATE_VALUE_BYTES)]
}

fn part(inside: &str, at: usize) -> Result<Part, ExprError> {
    let name = inside.trim();
    let name_at = at + (inside.len() - inside.trim_start().len());
    match name {
        "alertname" | "$labels.alertname" => return Ok(Part::AlertName),
        "$value" => return Ok(Part::Value),
        _ => {}
    }
    if let Some(label) = name.strip_prefix("$labels.") {
        if is_label_name(label) {
            return Ok(Part::Label(label.to_owned()));
        }
        return Err(ExprError::new(name_at, format!("`{label}` is not a label name")));
    }
    if name.contains('|') || name.starts_with(['.', '$']) {
        return Err(ExprError::new(name_at, format!("`{name}` is not supported in a template"))
            .help("write a field of the reading, alertname, $value or $labels.NAME"));
    }
    match expr::parse(name) {
        Ok(parsed) => match parsed.kind {
            ExprKind::Field(path) => Ok(Part::Field(path)),
            _ => Err(ExprError::new(name_at, "a template takes a field, not an expression")),
        },
        Err(error) => Err(ExprError { at: name_at + error.at, ..error }),
    }
}

/// Prometheus's label names: letters, digits and `_`, not beginning with a digit.
pub fn is_label_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_inserted_and_missing_ones_are_empty() {
        let template = Template::parse("{{ meter }} at {{ power.l1 }} V{{x}} ({{ $value }}, {{ alertname }})").unwrap();
        let text = template.render(|part| match part {
            Part::Field(path) if path.0 == ["meter"] => Some("m1".into()),
            Part::Field(path) if path.0 == ["power", "l1"] => Some("253".into()),
            Part::Value => Some("254".into()),
            Part::AlertName => Some("Over".into()),
            _ => None,
        });
        assert_eq!(text, "m1 at 253 V (254, Over)");
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        for (text, at) in [("x {{ a", 2), ("{{ a + 1 }}", 3), ("{{ a | b }}", 3), ("{{ }}", 3), ("{{ a..b }}", 5)] {
            assert_eq!(Template::parse(text).map_err(|e| e.at), Err(at), "{text}");
        }
    }

    #[test]
    fn an_inserted_value_is_cut_at_the_limit_between_characters() {
        let template = Template::parse("{{ a }}").unwrap();
        let text = template.render(|_| Some("é".repeat(2000).into()));
        assert_eq!(text.len(), MAX_TEMPLATE_VALUE_BYTES);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,20}(\\{\\{)?.{0,20}(\\}\\})?.{0,10}") {
            if let Err(error) = Template::parse(&text) {
                prop_assert!(error.at <= text.len());
            }
        }
    }
}
