//! Reads a file of unit tests in promtool's notation.

use std::collections::BTreeMap;

use marked_yaml::types::{MarkedMappingNode, Node};

use super::series::{self, SeriesName};
use crate::diagnostic::Diagnostic;
use crate::yaml::{Doc, Key, span, span_of};

/// A file of tests.
#[derive(Debug, Default)]
pub(super) struct TestFile {
    pub(super) rule_files: Vec<String>,
    pub(super) tests: Vec<Test>,
}

/// One test: series that are replayed, and what must fire when.
#[derive(Debug)]
pub(super) struct Test {
    /// Milliseconds between two values of a series.
    pub(super) interval_ms: i64,
    pub(super) series: Vec<(SeriesName, Vec<Option<f64>>)>,
    pub(super) checks: Vec<Check>,
}

/// Which alerts of a name fire at a time.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) at_ms: i64,
    pub(super) alert: String,
    pub(super) expected: Vec<Expected>,
}

/// Labels and annotations of an alert.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Expected {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

const MINUTE: i64 = 60_000;

/// Parses a file; the mistakes in it.
pub(super) fn parse(file: &str, text: &str) -> (TestFile, Vec<Diagnostic>) {
    let mut doc = Doc::new(file, text);
    let mut found = TestFile::default();
    if let Some(root) = doc.parse() {
        read(&mut doc, &root, &mut found);
    }
    (found, doc.diagnostics)
}

fn read(doc: &mut Doc<'_>, root: &MarkedMappingNode, found: &mut TestFile) {
    let keys = ["rule_files", "evaluation_interval", "tests"].map(Key::Known);
    doc.check_keys(root, &keys, "a test file");
    let interval = root.get_node("evaluation_interval").and_then(|node| doc.duration(node, "`evaluation_interval`"));
    for item in list(doc, root, "rule_files") {
        found.rule_files.extend(doc.text(item, "`rule_files`").map(|text| text.as_str().to_owned()));
    }
    for item in list(doc, root, "tests") {
        let Some(map) = doc.mapping(item, "a test") else { continue };
        let later = Key::Later("promql_expr_test", "tests of expressions alone come in a later release");
        let keys = ["name", "interval", "input_series", "alert_rule_test"].map(Key::Known);
        doc.check_keys(map, &keys.into_iter().chain([later]).collect::<Vec<_>>(), "a test");
        let own = map.get_node("interval").and_then(|node| doc.duration(node, "`interval`"));
        let interval_ms = own.or(interval).unwrap_or(MINUTE);
        if interval_ms == 0 {
            doc.error(span(item), "`interval` must be more than 0", None);
        }
        let mut test = Test { interval_ms, series: Vec::new(), checks: Vec::new() };
        for item in list(doc, map, "input_series") {
            test.series.extend(read_series(doc, item));
        }
        for item in list(doc, map, "alert_rule_test") {
            test.checks.extend(read_check(doc, item));
        }
        found.tests.push(test);
    }
}

fn list<'n>(doc: &mut Doc<'_>, map: &'n MarkedMappingNode, key: &str) -> Vec<&'n Node> {
    let Some(node) = map.get_node(key) else {
        doc.error(span_of(map), format!("`{key}` is missing"), None);
        return Vec::new();
    };
    doc.sequence(node, &format!("`{key}`")).map(|list| list.iter().collect()).unwrap_or_default()
}

fn text<'n>(doc: &mut Doc<'_>, map: &'n MarkedMappingNode, key: &str) -> Option<(&'n Node, String)> {
    let Some(node) = map.get_node(key) else {
        doc.error(span_of(map), format!("`{key}` is missing"), None);
        return None;
    };
    doc.text(node, &format!("`{key}`")).map(|text| (node, text.as_str().to_owned()))
}

fn read_series(doc: &mut Doc<'_>, item: &Node) -> Option<(SeriesName, Vec<Option<f64>>)> {
    let map = doc.mapping(item, "a series")?;
    doc.check_keys(map, &["series", "values"].map(Key::Known), "a series");
    let (name_node, name) = text(doc, map, "series")?;
    let (values_node, values) = text(doc, map, "values")?;
    let name = series::name(&name).map_err(|problem| doc.error(name_node.span(), problem, None)).ok()?;
    let values = series::values(&values).map_err(|problem| doc.error(values_node.span(), problem, None)).ok()?;
    Some((name, values))
}

fn read_check(doc: &mut Doc<'_>, item: &Node) -> Option<Check> {
    let map = doc.mapping(item, "`alert_rule_test`")?;
    doc.check_keys(map, &["eval_time", "alertname", "exp_alerts"].map(Key::Known), "`alert_rule_test`");
    let (_, alert) = text(doc, map, "alertname")?;
    let (time, _) = text(doc, map, "eval_time")?;
    let at_ms = doc.duration(time, "`eval_time`")?;
    let mut expected = Vec::new();
    if let Some(node) = map.get_node("exp_alerts") {
        for item in doc.sequence(node, "`exp_alerts`").map(|list| list.iter().collect::<Vec<_>>()).unwrap_or_default() {
            let Some(alert) = doc.mapping(item, "an expected alert") else { continue };
            doc.check_keys(alert, &["exp_labels", "exp_annotations"].map(Key::Known), "an expected alert");
            let labels = texts(doc, alert, "exp_labels");
            expected.push(Expected { labels, annotations: texts(doc, alert, "exp_annotations") });
        }
    }
    let (line, column) = span(item).start().map_or((1, 1), |mark| (mark.line(), mark.column()));
    Some(Check { line, column, at_ms, alert, expected })
}

fn texts(doc: &mut Doc<'_>, map: &MarkedMappingNode, key: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Some(map) = map.get_node(key).and_then(|node| doc.mapping(node, &format!("`{key}`"))) else { return found };
    for (name, value) in map.iter() {
        match value {
            Node::Scalar(text) => {
                found.insert(name.as_str().to_owned(), text.as_str().to_owned());
            }
            other => doc.error(other.span(), format!("`{}` must be text", name.as_str()), None),
        }
    }
    found
}
