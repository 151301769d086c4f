//! Unit tests of rules in promtool's notation (`promtool test rules`), run on the engine that the node runs.
//!
//! A series is a field of readings: `voltage{meter="m1"}` with the values `251 252` makes readings with the fields `meter` and
//! `voltage`; series with the same labels share a reading. Times begin at 1970-01-01T00:00:00Z and go into the fields
//! that the rules take time from. Rules are evaluated with each reading, whatever `evaluation_interval` says: it is only the
//! default of `interval`.

mod file;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use forebay_log::Millis;
use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::duration;
use crate::engine::{Engine, Reading};
use crate::rules::{self, RuleSet};
use crate::transition::{State, Transition, format_time};

use file::{Check, Expected, Test};

/// How the tests of a file went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub checks: usize,
    /// What was expected and what fired instead, with the place in the file.
    pub failures: Vec<Diagnostic>,
}

/// Runs a file of tests; blocking reads. Rule files are found relative to it.
///
/// # Errors
/// Mistakes in the file or in the rule files it names.
pub fn run_file(path: &Path) -> Result<Report, Diagnostics> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot be read: {error}");
        Diagnostics(vec![Diagnostic { file: name.clone(), line: 1, column: 1, message, help: None }])
    })?;
    let (tests, mistakes) = file::parse(&name, &text);
    if !mistakes.is_empty() {
        return Err(Diagnostics(mistakes));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let patterns: Vec<PathBuf> = tests.rule_files.iter().map(|file| folder.join(file)).collect();
    let rules = rules::load(&patterns)?;
    let mut report = Report::default();
    for test in &tests.tests {
        run(&name, &rules, test, &mut report);
    }
    Ok(report)
}

fn run(file: &str, rules: &RuleSet, test: &Test, report: &mut Report) {
    let readings = readings(rules, test);
    let mut engines: Vec<Engine> = rules.sources().iter().map(|topic| Engine::new(rules, topic, 0, 0)).collect();
    let mut checks: Vec<&Check> = test.checks.iter().collect();
    checks.sort_by_key(|check| check.at_ms);
    let mut next = readings.iter().enumerate().peekable();
    let mut changes = Vec::new();
    for check in checks {
        while let Some((offset, (at, value))) = next.next_if(|(_, (at, _))| *at <= check.at_ms) {
            for engine in &mut engines {
                let reading = Reading { offset: offset as i64, timestamp: Millis(*at), value: Some(value) };
                engine.feed(reading, Millis(*at), &mut changes);
            }
            changes.clear();
        }
        report.checks += 1;
        let firing = engines.iter().flat_map(Engine::active).filter(|alert| alert.state == State::Firing);
        let found: BTreeSet<Expected> = firing.filter(|alert| alert.alert == check.alert).map(shown).collect();
        let expected: BTreeSet<Expected> = check.expected.iter().cloned().collect();
        if found != expected {
            report.failures.push(failure(file, check, &expected, &found));
        }
    }
}

fn shown(alert: &Transition) -> Expected {
    Expected { labels: alert.labels.clone(), annotations: alert.annotations.clone() }
}

/// Labels of a series, in the order of the file.
type Labels = Vec<(String, String)>;

/// All readings of a test in the order of time, as JSON.
fn readings(rules: &RuleSet, test: &Test) -> Vec<(i64, Vec<u8>)> {
    let time_fields: BTreeSet<&Vec<String>> =
        rules.groups.iter().filter_map(|group| group.time.field.as_ref()).map(|path| &path.0).collect();
    let mut merged: BTreeMap<(i64, &Labels), Map<String, Value>> = BTreeMap::new();
    for (name, values) in &test.series {
        for (index, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let at = test.interval_ms.saturating_mul(index as i64);
            let reading = merged.entry((at, &name.labels)).or_insert_with(|| {
                let mut fields = Map::new();
                for (label, text) in &name.labels {
                    fields.insert(label.clone(), Value::from(text.as_str()));
                }
                for path in &time_fields {
                    put(&mut fields, path, Value::from(format_time(Millis(at))));
                }
                fields
            });
            let path: Vec<String> = name.field.split('.').map(str::to_owned).collect();
            put(reading, &path, number(*value));
        }
    }
    merged.into_iter().map(|((at, _), fields)| (at, Value::Object(fields).to_string().into_bytes())).collect()
}

/// A number as a meter would write it: whole ones without a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { Value::from(value as i64) } else { Value::from(value) }
}

/// Sets a field, making the objects on its path.
fn put(fields: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            fields.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = fields.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn failure(file: &str, check: &Check, expected: &BTreeSet<Expected>, found: &BTreeSet<Expected>) -> Diagnostic {
    let list = |alerts: &BTreeSet<Expected>| {
        if alerts.is_empty() {
            return "nothing".to_owned();
        }
        let one = |alert: &Expected| format!("labels {:?} annotations {:?}", alert.labels, alert.annotations);
        alerts.iter().map(one).collect::<Vec<_>>().join("\n    ")
    };
    Diagnostic {
        file: file.to_owned(),
        line: check.line,
        column: check.column,
        message: format!("{} at {} is not as expected", check.alert, duration::print(check.at_ms)),
        help: Some(format!("expected {}\n  firing   {}", list(expected), list(found))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "groups:\n- name: g\n  source: t\n  key: [meter]\n  time: {field: ts}\n  rules:\n  - alert: Over\n    \
                         expr: voltage > 250 and power.l1 > 0\n    for: 2m\n    annotations: {summary: \"{{ voltage }} V\"}\n";

    fn run_text(values: &str, expected: &str) -> Result<Report, Diagnostics> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("r.yaml"), RULES).expect("written");
        let test = format!(
            "rule_files: [r.yaml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n  - series: \
             'voltage{{meter=\"m1\"}}'\n    values: '{values}'\n  - series: 'power.l1{{meter=\"m1\"}}'\n    values: '1x9'\n  \
             alert_rule_test:\n  - eval_time: 1m\n    alertname: Over\n    exp_alerts: []\n  - eval_time: 3m\n    \
             alertname: Over\n    exp_alerts: {expected}\n"
        );
        let path = folder.path().join("t.yaml");
        std::fs::write(&path, test).expect("written");
        run_file(&path)
    }

    #[test]
    fn a_test_passes_when_the_alerts_fire_as_expected() {
        let expected = "[{exp_labels: {meter: m1}, exp_annotations: {summary: 252 V}}]";
        let report = run_text("249 251 251 252 252", expected).expect("no mistakes");
        assert_eq!(report, Report { checks: 2, failures: vec![] });
    }

    #[test]
    fn a_test_that_fails_tells_what_fired_instead() {
        let report = run_text("251+1x9", "[]").expect("no mistakes");
        assert_eq!((report.checks, report.failures.len()), (2, 1));
        let text = report.failures[0].to_string();
        assert!(text.contains("t.yaml:14:5: Over at 3m is not as expected"), "{text}");
        assert!(text.contains("expected nothing") && text.contains("\"meter\": \"m1\""), "{text}");
    }

    #[test]
    fn a_mistake_in_a_test_file_is_named_with_its_place() {
        let error = run_text("251 oops", "[]").expect_err("a mistake");
        assert!(error.to_string().contains("t.yaml:7:13: `oops` is not a value"), "{error}");
    }
}
