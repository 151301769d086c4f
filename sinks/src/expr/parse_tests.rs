//! Expressions read as written, mistakes are named with their place, and arbitrary text is survived.

use proptest::prelude::*;

use super::*;

fn printed(text: &str) -> String {
    match parse(text) {
        Ok(expr) => expr.to_string(),
        Err(error) => panic!("{text}: {error:?}"),
    }
}

fn error(text: &str) -> ExprError {
    match parse(text) {
        Ok(expr) => panic!("{text} was read as {expr}"),
        Err(error) => error,
    }
}

#[test]
fn operators_bind_as_people_expect() {
    for (text, same_as) in [
        ("a + b * c > d and e or f", "(((a + (b * c)) > d) and e) or f"),
        ("not a == b", "not (a == b)"),
        ("!fault && voltage>1", "(not fault) and (voltage > 1)"),
        ("a - b - c", "(a - b) - c"),
        ("-a * b", "(-a) * b"),
        ("a || b && c", "a or (b and c)"),
        ("meter not in [\"a\", 'b']", "not (meter in [\"a\", \"b\"])"),
    ] {
        assert_eq!(parse(text), parse(same_as), "{text}");
    }
}

#[test]
fn the_printed_form_is_canonical() {
    assert_eq!(printed("voltage>lookup(limits,meter,v_max,253)"), "voltage > lookup(limits, meter, v_max, 253)");
    assert_eq!(printed("(a+b)*c"), "(a + b) * c");
    assert_eq!(printed("`energy(kWh/hh)` >= .5 and has(power.l1)"), "`energy(kWh/hh)` >= 0.5 and has(power.l1)");
    assert_eq!(printed("max(l1, l2, abs(l3)) > 1e3"), "max(l1, l2, abs(l3)) > 1000");
    assert_eq!(printed("a == 'it''s'".replace("''", "\\'").as_str()), "a == \"it's\"");
}

#[test]
fn a_mistake_is_named_with_its_place() {
    for (text, at, part) in [
        ("voltage >", 9, "ends"),
        ("voltage > 1 +* 2", 13, "`*`"),
        ("voltage = 1", 8, "`=`"),
        ("(voltage > 1", 12, "`)` is missing"),
        ("1 < voltage < 2", 12, "chain"),
        ("lokup(limits, meter, v)", 0, "unknown function `lokup`"),
        ("sum(power_kw) over 15m > 400", 0, "not supported yet"),
        ("1 > 0 and max(a, b) over 15m > 1", 10, "not supported yet"),
        ("voltage > 15m", 10, "duration"),
        ("voltage > 12abc", 10, "not a number"),
        ("a == \"x", 5, "not closed"),
        ("a in [b]", 6, "a list holds"),
        ("a andd b", 2, "operator is missing"),
        ("a.", 2, "field name"),
        ("a > 1e999", 4, "number"),
        ("a § b", 2, "no meaning"),
        ("a unless b", 2, "unless"),
        ("meter =~ 'x.*'", 6, "regular expression"),
    ] {
        let error = error(text);
        assert_eq!(error.at, at, "{text}: {error:?}");
        assert!(error.message.contains(part), "{text}: {error:?}");
    }
    assert_eq!(error("lokup(a, b, c)").help.as_deref(), Some("did you mean `lookup`?"));
    assert_eq!(error("a andd b").help.as_deref(), Some("did you mean `and`?"));
}

#[test]
fn nesting_and_length_are_bounded() {
    assert!(error(&"(".repeat(5000)).message.contains("nested"));
    assert!(error(&"-".repeat(5000)).message.contains("nested"));
    assert!(error(&format!("a{}", " + a".repeat(4000))).message.contains("in a row"));
    assert!(error(&"a".repeat(limits::MAX_EXPR_BYTES + 1)).message.contains("bytes"));
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_][a-z0-9_]{0,6}", Just("and".to_owned()), Just("over".to_owned()), "[^`]{1,5}"]
}

fn literals() -> impl Strategy<Value = Expr> {
    let number = prop_oneof![0.0f64..1e6, Just(0.0), Just(1e300), Just(1e-300), Just(253.0)];
    prop_oneof![
        number.prop_map(ExprKind::Number),
        ".{0,6}".prop_map(ExprKind::Text),
        any::<bool>().prop_map(ExprKind::Bool)
    ]
    .prop_map(|kind| Expr { kind, at: 0 })
}

fn expressions() -> impl Strategy<Value = Expr> {
    let path = || prop::collection::vec(names(), 1..3).prop_map(FieldPath);
    let leaf = prop_oneof![
        literals(),
        path().prop_map(|path| Expr { kind: ExprKind::Field(path), at: 0 }),
        path().prop_map(|path| Expr { kind: ExprKind::Has(path), at: 0 }),
    ];
    leaf.prop_recursive(5, 40, 3, move |inner| {
        use BinaryOp::*;
        let op = prop::sample::select(vec![Or, And, Eq, Ne, Lt, Le, Gt, Ge, Add, Sub, Mul, Div, Rem]);
        let boxed = inner.clone().prop_map(Box::new).boxed();
        prop_oneof![
            (op, boxed.clone(), boxed.clone()).prop_map(|(op, a, b)| ExprKind::Binary(op, a, b)),
            boxed.clone().prop_map(ExprKind::Not),
            boxed.clone().prop_map(ExprKind::Negative),
            (boxed.clone(), prop::collection::vec(literals(), 1..3)).prop_map(|(a, list)| ExprKind::In(a, list)),
            prop::collection::vec(inner, 2..4).prop_map(|args| ExprKind::Call(Function::Max, args)),
            boxed.clone().prop_map(|arg| ExprKind::Call(Function::Abs, vec![*arg])),
            (names(), boxed.clone(), names(), prop::option::of(boxed)).prop_map(|(table, key, column, default)| {
                ExprKind::Lookup { table, key, column, column_at: 0, default }
            }),
        ]
        .prop_map(|kind| Expr { kind, at: 0 })
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back_the_same(expr in expressions()) {
        let text = expr.to_string();
        let again = parse(&text);
        prop_assert_eq!(again.as_ref(), Ok(&expr), "{}", text);
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn arbitrary_tokens_never_panic_and_errors_lie_inside(
        words in prop::collection::vec(prop::sample::select(vec![
            "a", "b.c", "(", ")", "[", "]", ",", "and", "or", "not", "in", "-", "+", ">", "==", "1", "2.5", "15m",
            "'x'", "`y z`", "lookup", "has", "abs", "min", "sum", "over", "by", ".", "!", "é",
        ]), 0..20)
    ) {
        let text = words.join(" ");
        if let Err(error) = parse(&text) {
            prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at));
        }
    }
}
