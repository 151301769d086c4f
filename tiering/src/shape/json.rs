//! A strict, borrowing JSON reader: hands out tokens of one payload in place, so that columns are filled in one pass.
//!
//! Source: RFC 8259. Stricter than most in one thing: nesting is bounded.

use super::token::{Next, Number, Quoted, hex4};

/// Objects and arrays may nest this deep; more is refused, so that recursion is bounded.
pub const MAX_DEPTH: usize = 64;

/// Why a payload is not JSON, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {position}")]
pub(super) struct Syntax {
    pub what: &'static str,
    pub position: usize,
}

/// Reads one payload from front to back.
#[derive(Clone)]
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Space was passed over between tokens.
    pub(super) spaced: bool,
}

impl<'a> Parser<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Result<Parser<'a>, Syntax> {
        let text = std::str::from_utf8(payload)
            .map_err(|error| Syntax { what: "not UTF-8", position: error.valid_up_to() })?;
        Ok(Parser { text, at: 0, spaced: false })
    }

    pub(super) fn fail<T>(&self, what: &'static str) -> Result<T, Syntax> {
        Err(Syntax { what, position: self.at })
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
            self.spaced = true;
        }
    }

    /// The type of the next value.
    pub(super) fn peek(&mut self) -> Result<Next, Syntax> {
        self.skip_space();
        match self.byte() {
            Some(b'{') => Ok(Next::Object),
            Some(b'[') => Ok(Next::Array),
            Some(b'"') => Ok(Next::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Next::Number),
            Some(b't' | b'f') => Ok(Next::Bool),
            Some(b'n') => Ok(Next::Null),
            Some(_) => self.fail("not a JSON value"),
            None => self.fail("the payload ends too early"),
        }
    }

    /// Takes `token` if just this comes next.
    pub(super) fn take(&mut self, token: &[u8]) -> bool {
        let next = self.text.as_bytes()[self.at..].starts_with(token);
        if next {
            self.at += token.len();
        }
        next
    }

    /// Enters the object or array whose bracket comes next.
    pub(super) fn enter(&mut self) {
        self.at += 1;
    }

    /// In an object: the next key, its colon taken; `None` at the end, the brace taken.
    pub(super) fn key(&mut self, first: bool) -> Result<Option<Quoted<'a>>, Syntax> {
        if !self.more(first, b'}')? {
            return Ok(None);
        }
        if self.byte() != Some(b'"') {
            return self.fail("expected a key");
        }
        let key = self.quoted()?;
        self.skip_space();
        if self.byte() != Some(b':') {
            return self.fail("expected ':'");
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// In an array: whether an element follows; at the end the bracket is taken.
    pub(super) fn element(&mut self, first: bool) -> Result<bool, Syntax> {
        self.more(first, b']')
    }

    fn more(&mut self, first: bool, close: u8) -> Result<bool, Syntax> {
        self.skip_space();
        match self.byte() {
            Some(byte) if byte == close => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !first => {
                self.at += 1;
                self.skip_space();
            }
            Some(_) if first => {}
            Some(_) => return self.fail("expected ',' or the end"),
            None => return self.fail("the payload ends too early"),
        }
        Ok(true)
    }

    /// The string whose quote comes next.
    pub(super) fn quoted(&mut self) -> Result<Quoted<'a>, Syntax> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.pass_plain();
            match self.byte() {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Quoted { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    match self.byte() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') if self.text.get(self.at + 1..).and_then(hex4).is_some() => self.at += 5,
                        _ => return self.fail("bad escape"),
                    }
                }
                Some(0..=0x1f) => return self.fail("control character in a string"),
                Some(_) => self.at += 1,
                None => return self.fail("the payload ends in a string"),
            }
        }
    }

    /// Passes over bytes that stand for themselves in a string, eight at a time: neither quote, backslash nor control.
    fn pass_plain(&mut self) {
        const ONES: u64 = u64::MAX / 0xff;
        const HIGHS: u64 = ONES << 7;
        // A set high bit marks a byte below the limit; one above a marked byte may be marked falsely.
        let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
        while let Some(eight) = self.text.as_bytes()[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            let quote = below(word ^ (ONES * u64::from(b'"')), 1);
            let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
            let special = quote | backslash | below(word, 0x20);
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
    }

    /// Digits from here on, at least one, added to `number`.
    fn digits(&mut self, number: &mut Number<'_>) -> Result<(), Syntax> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(digit) = bytes.get(self.at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
            number.mantissa = number.mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        number.digits += self.at - start;
        if self.at == start { self.fail("bad number") } else { Ok(()) }
    }

    pub(super) fn number(&mut self) -> Result<Number<'a>, Syntax> {
        let start = self.at;
        let mut number = Number { text: "", digits: 0, mantissa: 0, places: None, exponent: false };
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
            number.digits = 1;
        } else {
            self.digits(&mut number)?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            let point = self.at;
            self.digits(&mut number)?;
            number.places = Some(self.at - point);
        }
        if let Some(b'e' | b'E') = self.byte() {
            number.exponent = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            let mut exponent = number;
            self.digits(&mut exponent)?;
        }
        number.text = &self.text[start..self.at];
        Ok(number)
    }

    fn word(&mut self, word: &'static str) -> Result<(), Syntax> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        self.fail("not a JSON value")
    }

    pub(super) fn bool(&mut self) -> Result<bool, Syntax> {
        if self.byte() == Some(b't') { self.word("true").map(|()| true) } else { self.word("false").map(|()| false) }
    }

    pub(super) fn null(&mut self) -> Result<(), Syntax> {
        self.word("null")
    }

    /// Takes the next value, whatever it is; tells whether it holds any scalar but null.
    pub(super) fn skip(&mut self) -> Result<bool, Syntax> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<bool, Syntax> {
        if depth > MAX_DEPTH {
            return self.fail("nested too deep");
        }
        let mut holds = false;
        match self.peek()? {
            Next::Object => {
                self.enter();
                let mut first = true;
                while self.key(first)?.is_some() {
                    first = false;
                    holds |= self.skip_nested(depth + 1)?;
                }
            }
            Next::Array => {
                self.enter();
                let mut first = true;
                while self.element(first)? {
                    first = false;
                    holds |= self.skip_nested(depth + 1)?;
                }
            }
            Next::Text => {
                self.quoted()?;
                holds = true;
            }
            Next::Number => {
                self.number()?;
                holds = true;
            }
            Next::Bool => {
                self.bool()?;
                holds = true;
            }
            Next::Null => self.null()?,
        }
        Ok(holds)
    }

    /// Nothing but space may follow the payload's value.
    pub(super) fn end(&mut self) -> Result<(), Syntax> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.fail("more after the end of the value") }
    }

    /// Whether the byte that comes next is a space: how the writer of this payload sets its separators.
    pub(super) fn at_space(&self) -> bool {
        self.byte() == Some(b' ')
    }
}

/// Checks that `payload` is one JSON object, nothing more.
pub(super) fn check_object(payload: &[u8]) -> Result<(), String> {
    if payload.is_empty() {
        return Err("empty payload".to_owned());
    }
    let mut parser = Parser::new(payload).map_err(|error| format!("not JSON: {error}"))?;
    let mut check = || -> Result<Next, Syntax> {
        let next = parser.peek()?;
        parser.skip()?;
        parser.end()?;
        Ok(next)
    };
    match check() {
        Ok(Next::Object) => Ok(()),
        Ok(other) => Err(format!("not a JSON object: {}", other.name())),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_and_refuses_what_serde_json_does() {
        for text in [
            "{}",
            "{\"a\":1}",
            " { \"a\" : [ 1 , 2.5e-3 , true , null ] } ",
            "{\"a\":\"\\u00e9\\n\"}",
            "{\"a\":01}",
            "{\"a\":1,}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":1}x",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":nul}",
            "{'a':1}",
            "{\"a\"}",
            "{\"a\":",
            "{",
            "{\"a\":\"\\x\"}",
            "{\"a\":-}",
            "{\"a\":1.}",
            "{\"a\":\"\\ud83d\\ude00\"}",
        ] {
            let theirs = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(check_object(text.as_bytes()).is_ok(), theirs, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(check_object(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = check_object(&bytes);
        }

        #[test]
        fn near_json_is_judged_as_serde_json_judges_it(text in "[{}\\[\\]\",:0-9a-e.+\\-tfn\\\\ ]{0,24}") {
            let text = format!("{{\"k\":{text}}}");
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // serde_json refuses numbers beyond f64 and lone surrogates; the grammar does not.
            if theirs.is_ok() {
                prop_assert!(check_object(text.as_bytes()).is_ok());
            }
        }
    }
}
