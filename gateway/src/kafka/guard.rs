//! Walks a request by its schema before it is decoded, so that no length on the wire is believed.
//!
//! The generated decoders allocate an array by the count that stands in front of it: four bytes can ask for gigabytes.
//! The walk visits every element that a count promises, so after it each count is known to be true and the number of
//! elements to be within a budget. A walk that accepts a request has consumed exactly the bytes that the decoder will.

use bytes::Bytes;
use kafka_protocol::protocol::Decodable;

use super::limits::MAX_REQUEST_ELEMENTS;

/// The bytes are not a request of this API and version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("the request ends inside a field")]
    Truncated,
    #[error("a length is negative or too large")]
    Length,
    #[error("the request has more than {MAX_REQUEST_ELEMENTS} elements")]
    TooManyElements,
    #[error("a tagged field is not as long as it says")]
    TagSize,
    #[error("{0}")]
    Malformed(String),
}

/// What stands on the wire for one field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// So many bytes: integers, booleans, UUIDs.
    Fixed(usize),
    /// A string, nullable or not.
    String,
    /// Bytes, nullable or not.
    Bytes,
    /// An array, nullable or not.
    Array(&'static Kind),
    Struct(&'static Struct),
    /// A struct behind a byte that is 1 if it is there.
    Nullable(&'static Struct),
}

/// A field of a struct and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    from: i16,
    to: i16,
    kind: Kind,
}

impl Field {
    /// A field of all versions.
    pub(crate) const fn new(kind: Kind) -> Field {
        Field { from: 0, to: i16::MAX, kind }
    }
    /// First version that has it.
    pub(crate) const fn from(self, version: i16) -> Field {
        Field { from: version, ..self }
    }
    /// Last version that has it.
    pub(crate) const fn to(self, version: i16) -> Field {
        Field { to: version, ..self }
    }
}

/// A tagged field that the decoder knows: its tag, the first version that has it, its kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag(pub(crate) u32, pub(crate) i16, pub(crate) Kind);

/// The fields of a request or of a struct in it.
#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) fields: &'static [Field],
    pub(crate) tags: &'static [Tag],
}

pub(crate) const INT8: Kind = Kind::Fixed(1);
pub(crate) const BOOL: Kind = Kind::Fixed(1);
pub(crate) const INT16: Kind = Kind::Fixed(2);
pub(crate) const INT32: Kind = Kind::Fixed(4);
/// A topic by name and some of its partitions.
pub(crate) static TOPIC_PARTITIONS: Struct =
    Struct { fields: &[Field::new(Kind::String), Field::new(Kind::Array(&INT32))], tags: &[] };
pub(crate) const INT64: Kind = Kind::Fixed(8);
pub(crate) const UUID: Kind = Kind::Fixed(16);

/// Decodes a request after walking it. `flexible`: the version has compact lengths and tagged fields (KIP-482).
pub(crate) fn decode<M: Decodable>(
    schema: &Struct,
    flexible: bool,
    version: i16,
    mut body: Bytes,
) -> Result<M, BadRequest> {
    walk(schema, flexible, version, &body)?;
    M::decode(&mut body, version).map_err(|e| BadRequest::Malformed(e.to_string()))
}

/// Walks a request; returns how many bytes it takes.
pub(crate) fn walk(schema: &Struct, flexible: bool, version: i16, body: &[u8]) -> Result<usize, BadRequest> {
    let mut walker = Walker { rest: body, flexible, version, budget: MAX_REQUEST_ELEMENTS };
    walker.structure(schema)?;
    Ok(body.len() - walker.rest.len())
}

struct Walker<'a> {
    rest: &'a [u8],
    flexible: bool,
    version: i16,
    budget: usize,
}

impl Walker<'_> {
    fn structure(&mut self, schema: &Struct) -> Result<(), BadRequest> {
        for field in schema.fields {
            if (field.from..=field.to).contains(&self.version) {
                self.kind(&field.kind)?;
            }
        }
        if self.flexible { self.tags(schema.tags) } else { Ok(()) }
    }

    fn kind(&mut self, kind: &Kind) -> Result<(), BadRequest> {
        match kind {
            Kind::Fixed(n) => self.skip(*n),
            Kind::String => {
                let length = if self.flexible { self.compact_length()? } else { self.short_length()? };
                self.skip(length.unwrap_or(0))
            }
            Kind::Bytes => {
                let length = if self.flexible { self.compact_length()? } else { self.long_length()? };
                self.skip(length.unwrap_or(0))
            }
            Kind::Array(element) => {
                let length = if self.flexible { self.compact_length()? } else { self.long_length()? }.unwrap_or(0);
                self.spend(length)?;
                for _ in 0..length {
                    self.kind(element)?;
                }
                Ok(())
            }
            Kind::Struct(schema) => self.structure(schema),
            Kind::Nullable(schema) => {
                let there = *self.rest.first().ok_or(BadRequest::Truncated)?;
                self.skip(1)?;
                if there == 1 { self.structure(schema) } else { Ok(()) }
            }
        }
    }

    fn tags(&mut self, known: &[Tag]) -> Result<(), BadRequest> {
        let count = self.varint()?;
        self.spend(count as usize)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            match known.iter().find(|Tag(number, from, _)| *number == tag && self.version >= *from) {
                Some(Tag(_, _, kind)) => {
                    let before = self.rest.len();
                    self.kind(kind)?;
                    if before - self.rest.len() != size {
                        return Err(BadRequest::TagSize);
                    }
                }
                None => self.skip(size)?,
            }
        }
        Ok(())
    }

    fn spend(&mut self, elements: usize) -> Result<(), BadRequest> {
        if elements > self.rest.len() {
            return Err(BadRequest::Truncated);
        }
        self.budget = self.budget.checked_sub(elements).ok_or(BadRequest::TooManyElements)?;
        Ok(())
    }

    fn skip(&mut self, n: usize) -> Result<(), BadRequest> {
        self.rest = self.rest.get(n..).ok_or(BadRequest::Truncated)?;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadRequest> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(BadRequest::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// An unsigned varint of at most 32 bits.
    fn varint(&mut self) -> Result<u32, BadRequest> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            if shift == 28 && byte > 0x0f {
                return Err(BadRequest::Length);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    /// `None` is null: 0 on the wire, where n stands for n - 1.
    fn compact_length(&mut self) -> Result<Option<usize>, BadRequest> {
        Ok((self.varint()? as usize).checked_sub(1))
    }

    fn short_length(&mut self) -> Result<Option<usize>, BadRequest> {
        signed_length(i64::from(i16::from_be_bytes(self.take()?)))
    }

    fn long_length(&mut self) -> Result<Option<usize>, BadRequest> {
        signed_length(i64::from(i32::from_be_bytes(self.take()?)))
    }
}

fn signed_length(length: i64) -> Result<Option<usize>, BadRequest> {
    match length {
        -1 => Ok(None),
        n => usize::try_from(n).map(Some).map_err(|_| BadRequest::Length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NAMES: Struct = Struct { fields: &[Field::new(Kind::Array(&Kind::String))], tags: &[Tag(0, 2, INT32)] };

    #[test]
    fn a_count_that_the_bytes_cannot_hold_is_refused_before_any_allocation() {
        assert_eq!(walk(&NAMES, false, 1, &[0x7f, 0xff, 0xff, 0xff]), Err(BadRequest::Truncated));
        assert_eq!(walk(&NAMES, true, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(BadRequest::Truncated));
    }

    #[test]
    fn more_elements_than_the_budget_are_refused() {
        let count = (MAX_REQUEST_ELEMENTS + 1) as u32;
        let mut body = count.to_be_bytes().to_vec();
        body.resize(4 + count as usize * 2, 0);
        assert_eq!(walk(&NAMES, false, 1, &body), Err(BadRequest::TooManyElements));
    }

    #[test]
    fn null_and_empty_arrays_are_accepted_and_other_negative_lengths_are_not() {
        assert_eq!(walk(&NAMES, false, 1, &(-1i32).to_be_bytes()), Ok(4));
        assert_eq!(walk(&NAMES, false, 1, &0i32.to_be_bytes()), Ok(4));
        assert_eq!(walk(&NAMES, false, 1, &(-2i32).to_be_bytes()), Err(BadRequest::Length));
    }

    #[test]
    fn a_known_tag_must_be_as_long_as_it_says_and_an_unknown_one_is_skipped() {
        assert_eq!(walk(&NAMES, true, 2, &[0, 1, 0, 4, 9, 9, 9, 9]), Ok(8));
        assert_eq!(walk(&NAMES, true, 2, &[0, 1, 0, 3, 9, 9, 9, 9]), Err(BadRequest::TagSize));
        assert_eq!(walk(&NAMES, true, 2, &[0, 1, 7, 2, 9, 9]), Ok(6));
        assert_eq!(walk(&NAMES, true, 1, &[0, 1, 0, 3, 9, 9, 9]), Ok(7));
    }
}
