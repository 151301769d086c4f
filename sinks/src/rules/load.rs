//! Reads one rule file into groups, rules and receivers, and finds every mistake in it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use marked_yaml::types::{MarkedMappingNode, Node};

use super::receivers::{self, Secret, required};
use super::{EventTime, Group, KeyField, Rule, RuleSet, Table, Tables};
use crate::diagnostic::Diagnostic;
use crate::expr::{self, Expr, ExprKind, FieldPath};
use crate::limits;
use crate::template::{Template, is_label_name};
use crate::yaml::{Doc, Key, span};

/// The files that a rule file names, by their paths in it.
pub trait Inputs {
    /// The text of a lookup table, at least so much of it that it shows if there is too much.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn table(&self, path: &str) -> io::Result<Vec<u8>>;

    /// A secret that lies in a file.
    ///
    /// # Errors
    /// Why it cannot be read, where that is a mistake in the rule file.
    fn secret(&self, path: &str) -> io::Result<Secret>;
}

/// For rules that name no files.
pub struct NoInputs;

impl Inputs for NoInputs {
    fn table(&self, _: &str) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn secret(&self, _: &str) -> io::Result<Secret> {
        Err(io::ErrorKind::NotFound.into())
    }
}

const WINDOWS: &str = "rules over windows of readings come in a later release";

/// Adds what a file holds to `set`; returns its mistakes, in the order of the text.
pub fn parse(file: &str, text: &str, inputs: &dyn Inputs, set: &mut RuleSet) -> Vec<Diagnostic> {
    let mut doc = Doc::new(file, text);
    if let Some(root) = doc.parse() {
        let silences = Key::Later("silences", "silences come in a later release");
        doc.check_keys(&root, &[Key::Known("groups"), Key::Known("receivers"), silences], "a rule file");
        match root.get_node("groups") {
            Some(node) => {
                if let Some(list) = doc.sequence(node, "`groups`") {
                    for item in list.iter() {
                        group(&mut doc, item, inputs, set);
                    }
                }
            }
            None if root.get_node("receivers").is_none() => {
                doc.at(1, 1, "a rule file has `groups` or `receivers`, this has none".into(), None);
            }
            None => {}
        }
        if let Some(node) = root.get_node("receivers") {
            for receiver in receivers::read(&mut doc, node, inputs) {
                if set.receivers.iter().all(|known| known.id() != receiver.id()) {
                    set.receivers.push(receiver);
                }
            }
        }
    }
    set.files.push(file.to_owned());
    doc.diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    doc.diagnostics
}

fn group(doc: &mut Doc<'_>, item: &Node, inputs: &dyn Inputs, set: &mut RuleSet) {
    let Some(map) = doc.mapping(item, "a group") else { return };
    let keys = ["name", "source", "key", "time", "tables", "rules"].map(Key::Known);
    doc.check_keys(map, &keys, "a group");
    let name = required(doc, map, "name", "a group").and_then(|node| {
        let name = doc.text(node, "`name`")?.as_str().to_owned();
        if let Some(other) = set.groups.iter().find(|group| group.name == name) {
            doc.error(node.span(), format!("there is another group `{name}` in {}", other.file), None);
        }
        Some(name)
    });
    let source = required(doc, map, "source", "a group").and_then(|node| {
        let topic = doc.text(node, "`source`")?.as_str().to_owned();
        if let Err(problem) = forebay_log::topic::check_topic_name(&topic) {
            doc.error(node.span(), format!("`source`: {problem}"), None);
        }
        Some(topic)
    });
    let key = required(doc, map, "key", "a group").map(|node| key(doc, node)).unwrap_or_default();
    let time = event_time(doc, map.get_node("time"));
    let tables = map.get_node("tables").map(|node| tables(doc, node, inputs)).unwrap_or_default();
    let mut rules = Vec::new();
    if let Some(node) = required(doc, map, "rules", "a group")
        && let Some(list) = doc.sequence(node, "`rules`")
    {
        let mut seen = HashMap::new();
        for item in list.iter() {
            rules.extend(rule(doc, item, &key, &tables, &mut seen));
        }
    }
    let (Some(name), Some(source)) = (name, source) else { return };
    set.groups.push(Arc::new(Group { file: doc.file.to_owned(), name, source, key, time, tables, rules }));
}

fn field(doc: &mut Doc<'_>, node: &Node, what: &str) -> Option<FieldPath> {
    let scalar = doc.text(node, what)?;
    let error = match expr::parse(scalar.as_str()) {
        Ok(Expr { kind: ExprKind::Field(path), .. }) => return Some(path),
        Ok(_) => {
            doc.error(node.span(), format!("{what} names a field, such as `meter` or `head.id`"), None);
            return None;
        }
        Err(error) => error,
    };
    doc.error_inside(scalar, error.at, format!("{what}: {}", error.message), error.help);
    None
}

fn key(doc: &mut Doc<'_>, node: &Node) -> Vec<KeyField> {
    let Some(list) = doc.sequence(node, "`key`") else { return Vec::new() };
    if list.is_empty() {
        doc.error(node.span(), "`key` names at least one field", None);
    }
    let mut key: Vec<KeyField> = Vec::new();
    for item in list.iter() {
        let Some(path) = field(doc, item, "`key`") else { continue };
        let label: String = path.0.join("_").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if key.iter().any(|other| other.label == label) {
            doc.error(span(item), format!("`key` has `{label}` twice"), None);
        }
        key.push(KeyField { path, label });
    }
    key
}

fn event_time(doc: &mut Doc<'_>, node: Option<&Node>) -> EventTime {
    let mut time = EventTime {
        field: None,
        lateness_ms: limits::DEFAULT_LATENESS_MS,
        max_future_ms: limits::DEFAULT_MAX_FUTURE_MS,
    };
    let Some(node) = node else { return time };
    let Some(map) = doc.mapping(node, "`time`") else { return time };
    doc.check_keys(map, &["field", "lateness", "max_future"].map(Key::Known), "`time`");
    time.field = map.get_node("field").and_then(|node| field(doc, node, "`field`"));
    if let Some(millis) = map.get_node("lateness").and_then(|node| doc.duration(node, "`lateness`")) {
        time.lateness_ms = millis;
    }
    if let Some(millis) = map.get_node("max_future").and_then(|node| doc.duration(node, "`max_future`")) {
        time.max_future_ms = millis;
    }
    time
}

fn tables(doc: &mut Doc<'_>, node: &Node, inputs: &dyn Inputs) -> Tables {
    let mut tables = Tables::new();
    let Some(map) = doc.mapping(node, "`tables`") else { return tables };
    for (name, body) in map.iter() {
        let what = format!("table `{}`", name.as_str());
        let table = doc.mapping(body, &what).and_then(|body| table(doc, body, &what, inputs));
        tables.insert(name.as_str().to_owned(), table.map(Arc::new));
    }
    tables
}

fn table(doc: &mut Doc<'_>, body: &MarkedMappingNode, what: &str, inputs: &dyn Inputs) -> Option<Table> {
    let topic = Key::Later("topic", "tables from a compacted topic come in a later release");
    doc.check_keys(body, &[Key::Known("file"), Key::Known("key"), topic], what);
    if body.get_node("topic").is_some() {
        return None;
    }
    let file_node = required(doc, body, "file", what)?;
    let key_node = required(doc, body, "key", what)?;
    let file = doc.text(file_node, "`file`")?.as_str();
    let key = doc.text(key_node, "`key`")?.as_str();
    let problem = match inputs.table(file) {
        Err(error) => format!("{what}: {file}: {error}"),
        Ok(csv) if csv.len() > limits::MAX_TABLE_BYTES => {
            format!("{what}: {file} is larger than {} bytes", limits::MAX_TABLE_BYTES)
        }
        Ok(csv) => match Table::parse(&csv, key) {
            Ok(table) => return Some(table),
            Err(error) => format!("{what}: {file}, {error}"),
        },
    };
    doc.error(file_node.span(), problem, None);
    None
}

const RULE_KEYS: [Key; 10] = [
    Key::Known("alert"),
    Key::Known("expr"),
    Key::Known("clear"),
    Key::Known("for"),
    Key::Known("keep_firing_for"),
    Key::Known("labels"),
    Key::Known("annotations"),
    Key::Later("by", WINDOWS),
    Key::Later("absent", "rules about silent meters come in a later release"),
    Key::Later("min_coverage", WINDOWS),
];

fn rule(
    doc: &mut Doc<'_>,
    item: &Node,
    key: &[KeyField],
    tables: &Tables,
    seen: &mut HashMap<String, usize>,
) -> Option<Rule> {
    let map = doc.mapping(item, "a rule")?;
    let before = doc.diagnostics.len();
    doc.check_keys(map, &RULE_KEYS, "a rule");
    let alert = required(doc, map, "alert", "a rule").and_then(|node| {
        let alert = doc.text(node, "`alert`")?.as_str().to_owned();
        let line = node.span().start().map_or(0, marked_yaml::Marker::line);
        if let Some(first) = seen.insert(alert.clone(), line) {
            let message = format!("alert `{alert}` is in this group twice (first in line {first})");
            doc.error(node.span(), message, Some("give the second one a name of its own".into()));
        }
        Some(alert)
    });
    // A rule about absence has no condition; that key was refused above.
    let expr = if map.get_node("absent").is_some() { None } else { required(doc, map, "expr", "a rule") };
    let expr = expr.and_then(|node| condition(doc, node, "`expr`", tables));
    let clear = map.get_node("clear").and_then(|node| condition(doc, node, "`clear`", tables));
    let mut duration =
        |name: &str| map.get_node(name).and_then(|node| doc.duration(node, &format!("`{name}`"))).unwrap_or(0);
    let (for_ms, keep_firing_for_ms) = (duration("for"), duration("keep_firing_for"));
    let labels = templates(doc, map, "labels", key);
    let annotations = templates(doc, map, "annotations", &[]);
    if doc.diagnostics.len() > before {
        return None;
    }
    Some(Rule { alert: alert?, expr: expr?, clear, for_ms, keep_firing_for_ms, labels, annotations })
}

fn condition(doc: &mut Doc<'_>, node: &Node, what: &str, tables: &Tables) -> Option<Expr> {
    let scalar = doc.text(node, what)?;
    let (expr, errors) = match expr::parse(scalar.as_str()) {
        Ok(expr) => {
            let errors = expr::check(&expr, tables);
            (Some(expr), errors)
        }
        Err(error) => (None, vec![error]),
    };
    let good = errors.is_empty();
    for error in errors {
        doc.error_inside(scalar, error.at, format!("{what}: {}", error.message), error.help);
    }
    expr.filter(|_| good)
}

fn templates(doc: &mut Doc<'_>, map: &MarkedMappingNode, name: &str, key: &[KeyField]) -> Vec<(String, Template)> {
    let mut found = Vec::new();
    let Some(node) = map.get_node(name) else { return found };
    let Some(map) = doc.mapping(node, &format!("`{name}`")) else { return found };
    for (label, value) in map.iter() {
        let text = label.as_str();
        if !is_label_name(text) {
            let message = format!("`{text}` in `{name}` is not a label name: letters, digits and `_`");
            doc.error(label.span(), message, None);
        } else if text == "alertname" || key.iter().any(|field| field.label == text) {
            doc.error(label.span(), format!("label `{text}` is set by the alert itself"), None);
        }
        let Node::Scalar(scalar) = value else {
            doc.error(value.span(), format!("`{text}` must be text"), None);
            continue;
        };
        match Template::parse(scalar.as_str()) {
            Ok(template) => found.push((text.to_owned(), template)),
            Err(error) => doc.error_inside(scalar, error.at, format!("`{text}`: {}", error.message), error.help),
        }
    }
    found
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
