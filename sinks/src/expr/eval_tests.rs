//! Conditions hold, do not hold, or are unknown, as the reading tells.

use std::sync::Arc;

use super::*;
use crate::expr::{check, compile, parse};
use crate::rules::{Table, Tables};
use crate::scan::FieldSet;

fn tables() -> Tables {
    let limits = Table::parse(b"meter,v_max,feeder\nm1,250,F1\nm2,,F2\n7,240,F3\n", "meter").expect("table");
    Tables::from([("limits".to_owned(), Some(Arc::new(limits)))])
}

fn run(text: &str, payload: &str) -> (Truth, Option<f64>) {
    let tables = tables();
    let expr = parse(text).expect(text);
    assert_eq!(check(&expr, &tables), [], "{text}");
    let mut fields = FieldSet::new();
    let program = compile(&expr, &mut fields, &tables);
    let mut slots = Vec::new();
    fields.scan(payload.as_bytes(), &mut slots).expect("json");
    let row = Row { payload: payload.as_bytes(), slots: &slots };
    (program.condition(&row), program.value(&row))
}

const READING: &str = r#"{"meter":"m1","voltage":253.5,"power":{"l1":1.5,"l2":-2},"ok":true,"n":null,"id":7,"zero":0}"#;

#[test]
fn conditions_are_decided_by_the_reading() {
    for (text, truth) in [
        ("voltage > 253", Truth::True),
        ("voltage > 253.5", Truth::False),
        ("voltage >= 253.5 and ok", Truth::True),
        ("not ok or power.l1 + power.l2 == -0.5", Truth::True),
        ("abs(power.l2) > max(power.l1, 1)", Truth::True),
        ("meter in [\"m1\", \"m9\"]", Truth::True),
        ("meter not in [\"m1\"]", Truth::False),
        ("id % 4 == 3", Truth::True),
        ("meter < \"m2\"", Truth::True),
        ("has(power.l1) and not has(n)", Truth::True),
        ("voltage > lookup(limits, meter, v_max, 253)", Truth::True),
        ("lookup(limits, \"m2\", v_max, 253) == 253", Truth::True),
        ("lookup(limits, \"none\", v_max) > 1", Truth::Unknown),
        ("lookup(limits, id, v_max) == 240", Truth::True),
        ("lookup(limits, meter, feeder) == \"F1\"", Truth::True),
    ] {
        assert_eq!(run(text, READING).0, truth, "{text}");
    }
}

#[test]
fn what_the_reading_does_not_tell_is_unknown() {
    for (text, truth) in [
        ("n > 1", Truth::Unknown),
        ("absent == 1", Truth::Unknown),
        ("not (absent == 1)", Truth::Unknown),
        ("absent > 1 and voltage < 0", Truth::False),
        ("absent > 1 or ok", Truth::True),
        ("absent > 1 or voltage < 0", Truth::Unknown),
        ("voltage / zero > 1", Truth::Unknown),
        ("meter > 1", Truth::Wrong),
        ("meter > 1 or ok", Truth::True),
        ("power == 1", Truth::Wrong),
        ("voltage", Truth::Wrong),
        ("ok", Truth::True),
    ] {
        assert_eq!(run(text, READING).0, truth, "{text}");
    }
}

#[test]
fn the_value_shown_is_the_left_side_of_the_first_comparison() {
    assert_eq!(run("voltage > 253 and power.l1 > 0", READING).1, Some(253.5));
    assert_eq!(run("ok and power.l1 * 2 > 1", READING).1, Some(3.0));
    assert_eq!(run("ok", READING).1, None);
    assert_eq!(run("meter == \"m1\"", READING).1, None);
}

#[test]
fn what_can_never_work_is_found_before_any_reading() {
    let tables = tables();
    for (text, at, part) in [
        ("voltage + 1", 0, "not a condition"),
        ("\"a\" > 1", 0, "never holds"),
        ("(voltage > 1) + 1 > 2", 1, "takes a number"),
        ("not 5", 4, "takes true or false"),
        ("lookup(limit, meter, v_max) > 1", 0, "no table"),
        ("1 < lookup(limits, meter, vmax)", 26, "no column"),
        ("lookup(limits, meter, feeder) > 1", 0, "never holds"),
        ("ok > true", 0, "orders numbers"),
        ("min(voltage) > 1", 0, "two values"),
    ] {
        let errors = check(&parse(text).expect(text), &tables);
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert_eq!(errors[0].at, at, "{text}: {errors:?}");
        assert!(errors[0].message.contains(part), "{text}: {errors:?}");
    }
    let error = &check(&parse("1 < lookup(limits, meter, vmax)").expect("parses"), &tables)[0];
    assert_eq!(error.help.as_deref(), Some("did you mean `v_max`?"));
}
