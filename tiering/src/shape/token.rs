//! The tokens of JSON as they stand in a payload: what is to come next, texts with their escapes, numbers as written.

use std::borrow::Cow;

/// The type of the value that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Object,
    Array,
    Text,
    Number,
    Bool,
    Null,
}

impl Next {
    /// The type's name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Next::Object => "object",
            Next::Array => "array",
            Next::Text => "string",
            Next::Number => "number",
            Next::Bool => "boolean",
            Next::Null => "null",
        }
    }
}

/// The text between two quotes, escapes untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quoted<'a> {
    pub(super) raw: &'a str,
    pub(super) escaped: bool,
}

impl<'a> Quoted<'a> {
    /// The text meant; `None` if it is no Unicode text (a lone surrogate).
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return Some(Cow::Borrowed(self.raw));
        }
        let mut out = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            let escape = *rest.as_bytes().get(at + 1)?;
            rest = &rest[at + 2..];
            let plain = match escape {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let high = hex4(rest)?;
                    rest = &rest[4..];
                    if (0xd800..0xdc00).contains(&high) {
                        let low = hex4(rest.strip_prefix("\\u")?)?;
                        rest = &rest[6..];
                        if !(0xdc00..0xe000).contains(&low) {
                            return None;
                        }
                        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
                    } else {
                        char::from_u32(high)?
                    }
                }
                same => char::from(same),
            };
            out.push(plain);
        }
        out.push_str(rest);
        Some(Cow::Owned(out))
    }
}

/// Four hexadecimal digits at the start.
pub(super) fn hex4(text: &str) -> Option<u32> {
    let digits = text.get(..4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// A number as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number<'a> {
    pub(super) text: &'a str,
    /// Digits before an exponent, leading zeros counted; at [`Number::EXACT_DIGITS`] or fewer `mantissa` is all of them.
    pub(super) digits: usize,
    pub(super) mantissa: u64,
    /// Digits after the point; `None`: there is no point.
    pub(super) places: Option<usize>,
    pub(super) exponent: bool,
}

/// Powers of ten that a double holds exactly.
const TENS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

impl Number<'_> {
    /// So many decimal digits survive the way into a double and back, whatever they are: no two such numbers become the
    /// same double, so the shortest text of that double has just these digits.
    pub(super) const EXACT_DIGITS: usize = 15;

    /// Neither fraction nor exponent.
    pub(super) fn integral(self) -> bool {
        self.places.is_none() && !self.exponent
    }

    pub(super) fn negative(self) -> bool {
        self.text.starts_with('-')
    }

    /// Few digits and no exponent.
    pub(super) fn plain(self) -> bool {
        self.digits <= Self::EXACT_DIGITS && !self.exponent
    }

    pub(super) fn bigint(self) -> Option<i64> {
        if !self.integral() {
            None
        } else if self.digits <= Self::EXACT_DIGITS {
            let size = self.mantissa.cast_signed();
            Some(if self.negative() { -size } else { size })
        } else {
            self.text.parse().ok()
        }
    }

    pub(super) fn double(self) -> Option<f64> {
        if self.plain() {
            // Both operands are exact, so the quotient is the nearest double, as it must be.
            let size = self.mantissa as f64 / TENS[self.places.unwrap_or(0)];
            return Some(if self.negative() { -size } else { size });
        }
        self.text.parse().ok().filter(|value: &f64| value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_the_text_they_mean() {
        let text = |raw| Quoted { raw, escaped: true }.text().map(Cow::into_owned);
        assert_eq!(text("a\\u00e9\\ud83d\\ude00\\n\\/").as_deref(), Some("aé😀\n/"));
        assert_eq!(text("\\ud800"), None);
        assert_eq!(text("\\ud800\\u0041"), None);
    }
}
