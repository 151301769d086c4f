//! Finds one value in a JSON payload without parsing the rest into a tree: it skips over what it passes.
//!
//! Source: RFC 6901 (JSON Pointer). The payload is not validated; the lake's decoder does that, after the log.

use std::borrow::Cow;

/// A compiled JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    name: String,
    /// The same as the index of an array, when it is one.
    index: Option<usize>,
}

impl Pointer {
    pub(super) fn parse(pointer: &str) -> Result<Pointer, String> {
        let Some(tokens) = pointer.strip_prefix('/') else {
            return Err(format!("\"{pointer}\" is not a JSON pointer: it must start with '/', such as \"/ts\""));
        };
        let token = |text: &str| Token {
            name: text.replace("~1", "/").replace("~0", "~"),
            index: match text.as_bytes() {
                [b'0', _, ..] => None,
                digits if digits.iter().all(u8::is_ascii_digit) => text.parse().ok(),
                _ => None,
            },
        };
        Ok(Pointer { tokens: tokens.split('/').map(token).collect() })
    }

    /// The raw JSON of the value that the pointer means, without white space around it.
    pub(super) fn find<'a>(&self, json: &'a [u8]) -> Option<&'a [u8]> {
        let mut scanner = Scanner { json, at: 0 };
        for token in &self.tokens {
            scanner.skip_space();
            match scanner.next()? {
                b'{' => scanner.enter_object(&token.name)?,
                b'[' => scanner.enter_array(token.index?)?,
                _ => return None,
            }
        }
        scanner.skip_space();
        let start = scanner.at;
        scanner.skip_value()?;
        json.get(start..scanner.at)
    }
}

/// A position in JSON text. Every step is forward, so a search is one pass and needs no stack.
struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps on to the value of the member `name`; the opening brace is behind.
    fn enter_object(&mut self, name: &str) -> Option<()> {
        loop {
            self.skip_space();
            let start = self.at;
            if self.next()? != b'"' {
                return None;
            }
            self.skip_string()?;
            let found = key_is(&self.json[start..self.at], name);
            self.skip_space();
            if self.next()? != b':' {
                return None;
            }
            if found {
                return Some(());
            }
            self.skip_value()?;
            self.skip_space();
            if self.next()? != b',' {
                return None;
            }
        }
    }

    /// Steps on to the element `index`; the opening bracket is behind.
    fn enter_array(&mut self, index: usize) -> Option<()> {
        for _ in 0..index {
            self.skip_value()?;
            self.skip_space();
            if self.next()? != b',' {
                return None;
            }
        }
        Some(())
    }

    fn skip_value(&mut self) -> Option<()> {
        self.skip_space();
        match self.next()? {
            b'"' => self.skip_string(),
            b'{' | b'[' => self.skip_container(),
            b',' | b':' | b'}' | b']' => None,
            _ => {
                while !matches!(self.peek(), None | Some(b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r')) {
                    self.at += 1;
                }
                Some(())
            }
        }
    }

    /// The opening quote is behind.
    fn skip_string(&mut self) -> Option<()> {
        loop {
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.at += 1,
                _ => {}
            }
        }
    }

    /// The opening brace or bracket is behind.
    fn skip_container(&mut self) -> Option<()> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.next()? {
                b'"' => self.skip_string()?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
        Some(())
    }
}

/// Whether a member's raw key, with its quotes, means `name`.
fn key_is(raw: &[u8], name: &str) -> bool {
    if raw.contains(&b'\\') {
        return serde_json::from_slice::<Cow<'_, str>>(raw).is_ok_and(|key| key == name);
    }
    raw.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) == Some(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn find(pointer: &str, json: &str) -> Option<String> {
        let pointer = Pointer::parse(pointer).unwrap_or_else(|why| panic!("{why}"));
        pointer.find(json.as_bytes()).map(|raw| String::from_utf8_lossy(raw).into_owned())
    }

    #[test]
    fn members_and_elements_are_found_whatever_stands_before_them() {
        let json =
            r#" { "a\"}" : {"ts":"no"}, "list" : [1, [2,"]"], {"ts" : "2013" }], "t\u0073" : -1.5e3 , "a/b":null} "#;
        for (pointer, found) in [
            ("/ts", Some("-1.5e3")),
            ("/list/2/ts", Some("\"2013\"")),
            ("/list/1", Some("[2,\"]\"]")),
            ("/list/01", None),
            ("/list/3", None),
            ("/a~1b", Some("null")),
            ("/missing", None),
            ("/ts/deeper", None),
        ] {
            assert_eq!(find(pointer, json).as_deref(), found, "{pointer}");
        }
    }

    #[test]
    fn a_pointer_without_a_slash_is_refused() {
        assert!(Pointer::parse("ts").is_err());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from),
            "[\\\\\"{}\\[\\],:\n\u{1F600}a]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[\\\\\"/~0-2a-c\n\u{e9}]{0,3}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// Every pointer into `value`, with what it means.
    fn pointers(value: &Value, at: &str, out: &mut Vec<(String, Value)>) {
        if !at.is_empty() {
            out.push((at.to_owned(), value.clone()));
        }
        match value {
            Value::Object(members) => {
                for (name, inner) in members {
                    pointers(inner, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), out);
                }
            }
            Value::Array(elements) => {
                for (index, inner) in elements.iter().enumerate() {
                    pointers(inner, &format!("{at}/{index}"), out);
                }
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn every_value_of_a_document_is_found_as_serde_json_finds_it(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap_or_default();
            // What the text means, not what it was made from: serde_json's floats may differ in the last digit.
            let value: Value = serde_json::from_str(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let mut all = Vec::new();
            pointers(&value, "", &mut all);
            for (pointer, inner) in all {
                prop_assert_eq!(value.pointer(&pointer), Some(&inner));
                let raw = find(&pointer, &text).unwrap_or_default();
                let found: Option<Value> = serde_json::from_str(&raw).ok();
                prop_assert_eq!(found, Some(inner), "{} in {}", pointer, text);
            }
        }

        #[test]
        fn any_bytes_are_searched_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[{}\\[\\]\":,\\\\a0 ]{0,60}") {
            for pointer in ["/a", "/0/a", "/a/0/0"] {
                let pointer = Pointer::parse(pointer).unwrap_or_else(|why| panic!("{why}"));
                let _ = pointer.find(&bytes);
                let _ = pointer.find(text.as_bytes());
            }
        }
    }
}
