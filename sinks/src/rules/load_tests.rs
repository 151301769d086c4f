//! Rule files are read as written, and every mistake is named with line and column.

use proptest::prelude::*;

use super::*;
use crate::rules::ReceiverConfig;

struct Files;

impl Inputs for Files {
    fn table(&self, path: &str) -> io::Result<Vec<u8>> {
        match path {
            "limits.csv" => Ok(b"meter,v_max\nm1,250\n".to_vec()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        }
    }

    fn secret(&self, path: &str) -> io::Result<Secret> {
        match path {
            "hook.key" => Secret::of_file(b"secret\n".to_vec()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        }
    }
}

fn read(text: &str) -> (RuleSet, Vec<String>) {
    let mut set = RuleSet::default();
    let found = parse("f.yaml", text, &Files, &mut set);
    (set, found.iter().map(ToString::to_string).collect())
}

const GOOD: &str = r#"
groups:
- name: voltage
  source: readings
  key: [meter]
  time: {field: ts, lateness: 10m, max_future: 60s}
  tables: {limits: {file: limits.csv, key: meter}}
  rules:
  - alert: Overvoltage
    expr: voltage > lookup(limits, meter, v_max, 253)
    clear: voltage < 250          # hysteresis
    for: 3m
    keep_firing_for: 1m
    labels: {severity: major, feeder: "{{ feeder }}"}
    annotations: {summary: "{{ meter }} at {{ voltage }} V"}
receivers:
- webhook: {url: "http://127.0.0.1:9000/hook", hmac_secret: "file:hook.key"}
- alertmanager: {url: "http://127.0.0.1:9093/"}
- mqtt: {topic: "alerts/{{ alertname }}/{{ meter }}"}
- kafka: {topic: alerts}
"#;

#[test]
fn a_whole_file_is_read() {
    let (set, errors) = read(GOOD);
    assert_eq!(errors, [""; 0]);
    let group = &set.groups[0];
    assert_eq!(
        (group.name.as_str(), group.source.as_str(), group.key[0].label.as_str()),
        ("voltage", "readings", "meter")
    );
    assert_eq!((group.time.lateness_ms, group.time.max_future_ms), (600_000, 60_000));
    let rule = &group.rules[0];
    assert_eq!((rule.for_ms, rule.keep_firing_for_ms), (180_000, 60_000));
    assert_eq!(rule.expr.to_string(), "voltage > lookup(limits, meter, v_max, 253)");
    let ids: Vec<String> = set.receivers.iter().map(ReceiverConfig::id).collect();
    assert_eq!(
        ids,
        [
            "webhook:http://127.0.0.1:9000/hook",
            "alertmanager:http://127.0.0.1:9093",
            "mqtt:alerts/{{ alertname }}/{{ meter }}",
            "kafka:alerts"
        ]
    );
    let ReceiverConfig::Webhook { hmac_secret: Some(secret), .. } = &set.receivers[0] else { panic!("no secret") };
    assert_eq!(secret, &Secret::Known(b"secret".to_vec()));
    assert_eq!(format!("{secret:?}"), "Secret(..)");
}

#[track_caller]
fn one_error(change: (&str, &str), expected: &str) {
    let text = GOOD.replacen(change.0, change.1, 1);
    assert_ne!(text, GOOD, "{} is not in the file", change.0);
    let (_, errors) = read(&text);
    assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:#?}\nexpected {expected}");
}

#[test]
fn each_mistake_is_named_with_its_place_and_what_was_meant() {
    one_error(("    expr: v", "    exprr: v"), "f.yaml:10:5: unknown key `exprr` in a rule\n  did you mean `expr`?");
    one_error(("    for:", "    fro:"), "f.yaml:12:5: unknown key `fro` in a rule\n  did you mean `for`?");
    one_error(("for: 3m", "for: 3 minutes"), "f.yaml:12:10: `for`: `3 minutes` is not a duration");
    one_error(
        ("voltage > lookup", "voltage > lokup"),
        "f.yaml:10:21: `expr`: unknown function `lokup`\n  did you mean `lookup`?",
    );
    one_error(
        ("v_max, 253", "vmax, 253"),
        "f.yaml:10:43: `expr`: table `limits` has no column `vmax`\n  did you mean `v_max`?",
    );
    one_error(("lookup(limits", "lookup(limit"), "f.yaml:10:21: `expr`: there is no table `limit`");
    one_error(("voltage < 250 ", "voltage < "), "f.yaml:11:21: `clear`: the expression ends");
    one_error(("limits.csv", "limit.csv"), "f.yaml:7:27: table `limits`: limit.csv: no such file");
    one_error(("{{ feeder }}", "{{ feeder + 1 }}"), "f.yaml:14:43: `feeder`: a template takes a field");
    one_error(("  source: readings\n", ""), "f.yaml:3:3: a group needs `source`");
    one_error(("key: [meter]", "key: meter"), "f.yaml:5:8: `key` must be a list, not text");
    one_error(("voltage > lookup", "voltage + lookup"), "f.yaml:10:11: `expr`: this is a number, not a condition");
    one_error(("http://127.0.0.1:9000", "ftp://127.0.0.1:9000"), "is not a URL to post to");
    one_error(("hook.key", "hook.kee"), "`hmac_secret`: hook.kee: no such file");
    one_error(("severity: major", "meter: major"), "f.yaml:14:14: label `meter` is set by the alert itself");
    one_error(("alerts/{{", "alerts/#/{{"), "no wildcards");
    one_error(("{topic: alerts}", "{topic: _alerts}"), "the program's own");
    one_error(
        ("receivers:", "receiver:"),
        "f.yaml:16:1: unknown key `receiver` in a rule file\n  did you mean `receivers`?",
    );
}

#[test]
fn what_comes_later_is_refused_by_name_and_never_ignored() {
    one_error(("    for: 3m", "    min_coverage: 0.95"), "f.yaml:12:5: `min_coverage` is not supported yet");
    one_error(("    for: 3m", "    by: [feeder]"), "f.yaml:12:5: `by` is not supported yet");
    one_error(("expr: voltage > lookup(limits, meter, v_max, 253)", "absent: 30m"), "`absent` is not supported yet");
    one_error(
        ("voltage > lookup(limits, meter, v_max, 253)", "sum(power_kw) over 15m > 400"),
        "f.yaml:10:11: `expr`: window functions (`sum(...) over 15m`) are not supported yet",
    );
    one_error(("{file: limits.csv, key: meter}", "{topic: limits}"), "tables from a compacted topic");
    one_error(("receivers:", "silences: []\nreceivers:"), "`silences` is not supported yet");
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let text =
        GOOD.replace("voltage > lookup", "voltage > lokup").replace("for: 3m", "for: x").replace("labels:", "lables:");
    let (_, errors) = read(&text);
    assert!(errors.len() == 3, "{errors:#?}");
}

#[test]
fn names_may_not_repeat() {
    let twice =
        "groups:\n- {name: g, source: t, key: [m], rules: [{alert: A, expr: a > 1}, {alert: A, expr: a > 2}]}\n";
    let (_, errors) = read(twice);
    assert!(errors[0].contains("alert `A` is in this group twice (first in line 2)"), "{errors:?}");
    let groups = "groups:\n- {name: g, source: t, key: [m], rules: []}\n- {name: g, source: t, key: [m], rules: []}\n";
    assert!(read(groups).1[0].starts_with("f.yaml:3:10: there is another group `g`"), "{:?}", read(groups).1);
}

proptest! {
    #[test]
    fn a_file_with_a_piece_cut_out_or_put_in_never_panics(
        at in 0usize..900, cut in 0usize..40, put in "[a-z{}\\[\\]:,\"'|>& \n-]{0,12}",
    ) {
        let at = at.min(GOOD.len());
        let end = (at + cut).min(GOOD.len());
        let text = format!("{}{}{}", &GOOD[..at], put, &GOOD[end..]);
        let (set, errors) = read(&text);
        let lines = text.lines().count() + 1;
        for error in &errors {
            let line: usize = error.split(':').nth(1).and_then(|line| line.parse().ok()).unwrap_or(0);
            prop_assert!(line >= 1 && line <= lines, "{error}");
        }
        prop_assert!(!errors.is_empty() || set.files.len() == 1);
    }

    #[test]
    fn arbitrary_bytes_as_text_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = read(&String::from_utf8_lossy(&bytes));
    }
}
