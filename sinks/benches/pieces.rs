//! The hot pieces of alert rules: a reading scanned for the fields of rules, and the rules evaluated over it.

#[path = "../../tests/instructions/pieces.rs"]
mod pieces;
#[path = "../../tests/instructions/readings.rs"]
mod readings;

use std::hint::black_box;

use forebay_log::Millis;
use forebay_sinks::expr::FieldPath;
use forebay_sinks::rules::{NoInputs, RuleSet, parse};
use forebay_sinks::scan::FieldSet;
use forebay_sinks::{Engine, Reading};
use pieces::Piece;

const METERS: usize = 10_000;

/// Ten thresholds, as a distribution network operator sets them.
const THRESHOLDS: [(&str, &str); 10] = [
    ("Overvoltage", "voltage > 253"),
    ("Undervoltage", "voltage < 207"),
    ("HighVoltage", "voltage > 250"),
    ("LowVoltage", "voltage < 216"),
    ("Overload", "power_kw > 9.2"),
    ("FeedIn", "power_kw < 0"),
    ("Overcurrent", "current_a > 60"),
    ("Reactive", "reactive_power_kvar > 0.9"),
    ("Boiler", "sub_metering_3_wh > 60"),
    ("Kitchen", "sub_metering_1_wh > 80"),
];

const PIECES: &[Piece] = &[
    Piece { name: "ten_threshold_rules_over_10000_meters", items: METERS, bytes: 0, counted: true, make: thresholds },
    Piece { name: "scan_of_a_reading", items: METERS, bytes: 0, counted: true, make: scan },
];

fn main() {
    pieces::main(PIECES);
}

#[divan::bench(args = PIECES, max_time = 2)]
fn sinks(bencher: divan::Bencher<'_, '_>, piece: &Piece) {
    pieces::time(bencher, piece);
}

/// Each run feeds one reading of each meter, a minute later than those of the run before.
fn thresholds() -> Box<dyn FnMut()> {
    let mut text =
        "groups:\n- name: network\n  source: readings\n  key: [meter]\n  time: {field: ts}\n  rules:\n".to_owned();
    for (alert, expr) in THRESHOLDS {
        text.push_str(&format!("  - alert: {alert}\n    expr: {expr}\n    for: 3m\n    labels: {{severity: major}}\n"));
    }
    let mut rules = RuleSet::default();
    assert_eq!(parse("rules", &text, &NoInputs, &mut rules), []);
    let mut engine = Engine::new(&rules, "readings", 0, 0);
    let mut payloads: Vec<Vec<u8>> = readings::payloads(METERS).into_iter().map(String::into_bytes).collect();
    let (mut minute, mut offset, mut transitions) = (0i64, 0i64, Vec::new());
    Box::new(move || {
        minute += 1;
        let (hour, day) = (minute / 60 % 24, 1 + minute / 1440 % 28);
        let ts = format!("20{:02}-02-{day:02}T{hour:02}:{:02}", 10 + minute / 1440 / 28, minute % 60);
        // The record's time is of no importance: a clock before 2000 counts as not set.
        let now = Millis(minute * 60_000);
        for payload in &mut payloads {
            payload[AT_TIME..AT_TIME + ts.len()].copy_from_slice(ts.as_bytes());
            engine.feed(Reading { offset, timestamp: now, value: Some(payload) }, now, &mut transitions);
            offset += 1;
        }
        assert_eq!(engine.take_tally().evaluated, METERS as u64);
        transitions.clear();
    })
}

/// Where a payload's time begins.
const AT_TIME: usize = "{\"meter\":\"MAC000000\",\"ts\":\"".len();

/// The fields of the ten rules, of their key and of their time.
fn scan() -> Box<dyn FnMut()> {
    let mut fields = FieldSet::new();
    for name in [
        "meter",
        "ts",
        "voltage",
        "power_kw",
        "current_a",
        "reactive_power_kvar",
        "sub_metering_1_wh",
        "sub_metering_3_wh",
    ] {
        fields.slot(&FieldPath(vec![name.to_owned()]));
    }
    let payloads = readings::payloads(METERS);
    let mut slots = Vec::new();
    Box::new(move || {
        for payload in &payloads {
            fields.scan(black_box(payload.as_bytes()), &mut slots).expect("a JSON object");
            black_box(&slots);
        }
    })
}
