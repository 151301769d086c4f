//! The scanner finds what serde_json finds, and survives bytes that are no JSON.

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> FieldPath {
    FieldPath(text.split('.').map(str::to_owned).collect())
}

fn texts(fields: &[&str], payload: &str) -> Result<Vec<Option<String>>, ScanError> {
    let mut set = FieldSet::new();
    let indexes: Vec<usize> = fields.iter().map(|field| set.slot(&path(field))).collect();
    let mut slots = Vec::new();
    set.scan(payload.as_bytes(), &mut slots)?;
    let row = Row { payload: payload.as_bytes(), slots: &slots };
    Ok(indexes.iter().map(|slot| row.text(*slot).map(Cow::into_owned)).collect())
}

#[test]
fn wanted_fields_are_found_and_the_rest_is_passed_over() {
    let payload =
        r#"{"meter":"MAC000002","x":[1,{"meter":"no"},"]"],"voltage":253.10,"power":{"l1":1.5,"l2":null},"ok":true}"#;
    assert_eq!(
        texts(&["voltage", "meter", "power.l1", "power.l2", "ok", "absent", "x"], payload).unwrap(),
        [Some("253.10"), Some("MAC000002"), Some("1.5"), None, Some("true"), None, None].map(|t| t.map(str::to_owned))
    );
}

#[test]
fn escapes_in_names_and_values_are_understood() {
    let found = texts(&["a\"b", "é"], r#"{"a\"b":"x\n\u00e9","\u00e9":1}"#).unwrap();
    assert_eq!(found, [Some("x\né".to_owned()), Some("1".to_owned())]);
}

/// As at ingest, for the time of a reading, and in the lake, whose columns hold the first: one reading means one thing.
#[test]
fn of_a_name_given_twice_the_first_one_counts() {
    assert_eq!(texts(&["a"], r#"{"a":1,"a":2}"#).unwrap(), [Some("1".to_owned())]);
    assert_eq!(texts(&["a"], r#"{"a":null,"a":2}"#).unwrap(), [None]);
    assert_eq!(texts(&["a.b", "a"], r#"{"a":{"b":1,"b":2},"a":{"b":3}}"#).unwrap(), [Some("1".to_owned()), None]);
    assert_eq!(texts(&["a.b"], r#"{"a":{},"a":{"b":1}}"#).unwrap(), [None]);
    assert_eq!(texts(&["a.b"], r#"{"a":1,"a":{"b":1}}"#).unwrap(), [None]);
}

#[test]
fn what_is_no_object_is_an_error() {
    for bad in
        ["", "[]", "1", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1} x", "{\"a\":\"", "{\"a\":tru}", "{a:1}"]
    {
        assert!(texts(&["a"], bad).is_err(), "{bad}");
    }
    assert!(texts(&["a"], &format!("{{\"b\":{}", "[".repeat(100_000))).is_err());
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1e9f64..1e9).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-c\"\\\\é]{1,2}", inner), 0..5).prop_map(|pairs| pairs.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_found_is_what_serde_json_finds(
        pairs in prop::collection::vec(("[a-c]", json()), 0..6),
        pretty in any::<bool>(),
    ) {
        let object: serde_json::Value = pairs.into_iter().collect();
        let payload = if pretty { serde_json::to_string_pretty(&object).unwrap() } else { object.to_string() };
        for field in ["a", "b", "c", "a.a", "a.b", "b.c.a"] {
            let wanted = field.split('.').try_fold(&object, |value, name| value.get(name));
            let found = texts(&[field], &payload).unwrap().remove(0);
            match wanted {
                Some(serde_json::Value::String(text)) => prop_assert_eq!(found.as_ref(), Some(text)),
                Some(serde_json::Value::Bool(value)) => prop_assert_eq!(found, Some(value.to_string())),
                Some(serde_json::Value::Number(value)) => prop_assert_eq!(found, Some(value.to_string())),
                _ => prop_assert_eq!(found, None),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut set = FieldSet::new();
        set.slot(&path("a"));
        set.slot(&path("a.b"));
        let mut slots = Vec::new();
        let _ = set.scan(&bytes, &mut slots);
        let mut object = b"{\"a\":".to_vec();
        object.extend_from_slice(&bytes);
        if set.scan(&object, &mut slots).is_ok() {
            let _ = Row { payload: &object, slots: &slots }.text(0);
        }
    }

    #[test]
    fn arbitrary_json_like_text_never_panics(text in "[{}\\[\\]:,\"\\\\a-c0-9.eE+ntrufals -]{0,60}") {
        let _ = texts(&["a", "a.b", "c"], &text);
    }
}
