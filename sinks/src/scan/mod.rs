//! Finds the fields that rules need in a JSON reading: one pass over the bytes, no tree, no allocation per reading.
//!
//! Source: RFC 8259. Of a name given twice the first one counts, as at ingest and in the lake. What no rule needs is skipped, with its brackets and
//! strings balanced but not checked further.

use std::borrow::Cow;
use std::ops::Range;

use crate::expr::FieldPath;

/// Deepest nesting of objects that hold wanted fields, and of skipped brackets.
const MAX_DEPTH: usize = 128;

/// Bytes that are not a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object: {what} at byte {at}")]
pub struct ScanError {
    pub at: usize,
    pub what: &'static str,
}

/// What a reading holds at one path. Places are byte ranges of the payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slot {
    /// Absent or null.
    Missing,
    Bool(bool),
    Number {
        value: f64,
        start: u32,
        end: u32,
    },
    /// Between the quotes.
    Text {
        start: u32,
        end: u32,
        escaped: bool,
    },
    /// An object or a list.
    Nested,
}

/// The fields that a set of rules needs, as a tree of names; each has a slot.
#[derive(Debug, Clone, Default)]
pub struct FieldSet {
    /// The first is the root.
    nodes: Vec<Names>,
}

#[derive(Debug, Clone, Default)]
struct Names {
    children: Vec<(Box<str>, usize)>,
}

/// The slots of one reading with the bytes they point into.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    pub payload: &'a [u8],
    /// `None`: the name was not given.
    pub slots: &'a [Option<Slot>],
}

impl FieldSet {
    pub fn new() -> FieldSet {
        FieldSet { nodes: vec![Names::default()] }
    }

    /// The slot of a field; the same path has one slot however often it is asked for.
    pub fn slot(&mut self, path: &FieldPath) -> usize {
        let mut node = 0;
        for name in &path.0 {
            let found = self.nodes[node].children.iter().find(|(child, _)| **child == **name).map(|(_, index)| *index);
            node = found.unwrap_or_else(|| {
                self.nodes.push(Names::default());
                let index = self.nodes.len() - 1;
                self.nodes[node].children.push((name.as_str().into(), index));
                index
            });
        }
        node
    }

    /// The slot of a field that was asked for before.
    pub fn find(&self, path: &FieldPath) -> Option<usize> {
        let mut node = 0;
        for name in &path.0 {
            node = self.nodes[node].children.iter().find(|(child, _)| **child == **name)?.1;
        }
        Some(node)
    }

    /// Fills `slots` (one for each field, and for each object that holds some) from `payload`.
    ///
    /// # Errors
    /// The payload is not a JSON object, or its nesting is beyond reason.
    pub fn scan(&self, payload: &[u8], slots: &mut Vec<Option<Slot>>) -> Result<(), ScanError> {
        slots.clear();
        slots.resize(self.nodes.len(), None);
        let mut scanner = Scanner { bytes: payload, at: 0 };
        scanner.space();
        if u32::try_from(payload.len()).is_err() || scanner.peek() != Some(b'{') {
            return Err(scanner.error("an object is expected"));
        }
        scanner.object(self, 0, slots, 0)?;
        scanner.space();
        if scanner.at < payload.len() { Err(scanner.error("something follows the object")) } else { Ok(()) }
    }
}

impl<'a> Row<'a> {
    pub fn get(&self, slot: usize) -> Slot {
        self.slots.get(slot).copied().flatten().unwrap_or(Slot::Missing)
    }

    fn bytes(&self, start: u32, end: u32) -> &'a [u8] {
        self.payload.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The field as text: of a number, as it was written. `None` for missing and nested ones.
    pub fn text(&self, slot: usize) -> Option<Cow<'a, str>> {
        match self.get(slot) {
            Slot::Missing | Slot::Nested => None,
            Slot::Bool(value) => Some(Cow::Borrowed(if value { "true" } else { "false" })),
            Slot::Number { start, end, .. } => std::str::from_utf8(self.bytes(start, end)).ok().map(Cow::Borrowed),
            Slot::Text { start, end, escaped } => string(self.bytes(start, end), escaped),
        }
    }
}

/// The text between quotes; `None` if it is not UTF-8 or its escapes are broken.
fn string(raw: &[u8], escaped: bool) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(raw).ok()?;
    if !escaped {
        return Some(Cow::Borrowed(text));
    }
    serde_json::from_str::<String>(&format!("\"{text}\"")).ok().map(Cow::Owned)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
    fn error(&self, what: &'static str) -> ScanError {
        ScanError { at: self.at, what }
    }
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn object(
        &mut self,
        fields: &FieldSet,
        node: usize,
        slots: &mut [Option<Slot>],
        depth: usize,
    ) -> Result<(), ScanError> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.error("a name is expected"));
            }
            let (name, escaped) = self.quoted()?;
            let raw = &self.bytes[name];
            let child = fields.nodes[node].children.iter().find(|(child, _)| {
                if escaped { string(raw, true).is_some_and(|name| *name == **child) } else { child.as_bytes() == raw }
            });
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.error("`:` is expected"));
            }
            self.at += 1;
            self.space();
            match child {
                Some((_, child)) if slots[*child].is_none() => self.wanted(fields, *child, slots, depth)?,
                _ => self.skip()?,
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error("`,` or `}` is expected")),
            }
        }
    }

    fn wanted(
        &mut self,
        fields: &FieldSet,
        node: usize,
        slots: &mut [Option<Slot>],
        depth: usize,
    ) -> Result<(), ScanError> {
        let value = match self.peek() {
            Some(b'"') => {
                let (place, escaped) = self.quoted()?;
                Slot::Text { start: place.start as u32, end: place.end as u32, escaped }
            }
            Some(b'{') if !fields.nodes[node].children.is_empty() => {
                self.object(fields, node, slots, depth + 1)?;
                Slot::Nested
            }
            Some(b'{' | b'[') => {
                self.skip()?;
                Slot::Nested
            }
            Some(_) => self.plain()?,
            None => return Err(self.error("a value is expected")),
        };
        slots[node] = Some(value);
        Ok(())
    }

    /// The range between the quotes, and whether it holds escapes.
    fn quoted(&mut self) -> Result<(Range<usize>, bool), ScanError> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((start..self.at - 1, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..=0x1f) => return Err(self.error("a control character in text")),
                Some(_) => self.at += 1,
                None => {
                    self.at = self.bytes.len();
                    return Err(self.error("text is not closed"));
                }
            }
        }
    }

    /// A number, true, false or null.
    fn plain(&mut self) -> Result<Slot, ScanError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.')) {
            self.at += 1;
        }
        let wrong = ScanError { at: start, what: "a value is expected" };
        match &self.bytes[start..self.at] {
            b"true" => Ok(Slot::Bool(true)),
            b"false" => Ok(Slot::Bool(false)),
            b"null" => Ok(Slot::Missing),
            raw @ [b'0'..=b'9' | b'-', ..] => {
                let text = std::str::from_utf8(raw).map_err(|_| wrong)?;
                let value: f64 = text.parse().map_err(|_| wrong)?;
                // A number beyond f64 cannot be compared: as good as missing.
                if !value.is_finite() {
                    return Ok(Slot::Missing);
                }
                Ok(Slot::Number { value, start: start as u32, end: self.at as u32 })
            }
            _ => Err(wrong),
        }
    }

    fn skip(&mut self) -> Result<(), ScanError> {
        let mut depth = 0usize;
        loop {
            self.space();
            match self.peek() {
                Some(b'"') => {
                    self.quoted()?;
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(self.error("nested too deep"));
                    }
                    self.at += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => self.at += 1,
                Some(_) => {
                    self.plain()?;
                }
                None => return Err(self.error("a value is not closed")),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
