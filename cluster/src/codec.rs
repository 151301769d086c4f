//! Reads and writes the messages between nodes: big endian, every length checked against what is there and what is
//! allowed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// Bytes that are not the message that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the message ends too early")]
    TooShort,
    #[error("a length of {length} is over the {max} that are allowed")]
    TooLong { length: usize, max: usize },
    #[error("a text is not UTF-8")]
    NotUtf8,
    #[error("{value} is no {what}")]
    BadValue { what: &'static str, value: u64 },
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
}

/// Takes a message apart, front to back. What it returns as [`Bytes`] shares the message's memory.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
}

macro_rules! read_number {
    ($($name:ident -> $type:ty),+ $(,)?) => {$(
        /// # Errors
        /// The message ends before it.
        pub fn $name(&mut self) -> Result<$type, Malformed> {
            Ok(<$type>::from_be_bytes(self.array()?))
        }
    )+};
}

impl Reader {
    pub fn new(message: Bytes) -> Reader {
        Reader { rest: message }
    }

    read_number!(u8 -> u8, u16 -> u16, u32 -> u32, u64 -> u64, i32 -> i32, i64 -> i64);

    /// # Errors
    /// The message ends before them.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array = *self.rest.first_chunk::<N>().ok_or(Malformed::TooShort)?;
        self.rest.advance(N);
        Ok(array)
    }

    /// One byte, 0 or 1.
    ///
    /// # Errors
    /// The message ends before it, or it is another number.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(Malformed::BadValue { what: "boolean", value: value.into() }),
        }
    }

    /// # Errors
    /// The message ends before it.
    pub fn uuid(&mut self) -> Result<Uuid, Malformed> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// Bytes after their length as u32.
    ///
    /// # Errors
    /// They are more than `max`, or the message ends before them.
    pub fn bytes(&mut self, max: usize) -> Result<Bytes, Malformed> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(Malformed::TooLong { length, max });
        }
        if length > self.rest.len() {
            return Err(Malformed::TooShort);
        }
        Ok(self.rest.split_to(length))
    }

    /// A text after its length in bytes as u32.
    ///
    /// # Errors
    /// It is more than `max` bytes long, the message ends before it, or it is not UTF-8.
    pub fn string(&mut self, max: usize) -> Result<String, Malformed> {
        let bytes = self.bytes(max)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| Malformed::NotUtf8)
    }

    /// How many elements follow, as u32. Each takes at least one byte, so a count larger than the rest of the message
    /// is an error here, before anybody makes room for it.
    ///
    /// # Errors
    /// They are more than `max` or than the message can hold.
    pub fn count(&mut self, max: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        match count {
            _ if count > max => Err(Malformed::TooLong { length: count, max }),
            _ if count > self.rest.len() => Err(Malformed::TooShort),
            _ => Ok(count),
        }
    }

    /// What is there after a byte that says so.
    ///
    /// # Errors
    /// As `read` and [`Reader::bool`].
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Reader) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// All that is left, which may be nothing.
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Nothing may be left. A message that a later release may add to at its end does not ask for this.
    ///
    /// # Errors
    /// Something is left.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing(self.rest.len())) }
    }
}

/// Puts a message together. What [`Reader`] reads, in the same order.
#[derive(Debug, Default)]
pub struct Writer {
    message: BytesMut,
}

macro_rules! write_number {
    ($($name:ident($type:ty) = $put:ident),+ $(,)?) => {$(
        pub fn $name(&mut self, value: $type) -> &mut Writer {
            self.message.$put(value);
            self
        }
    )+};
}

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }

    pub fn with_capacity(bytes: usize) -> Writer {
        Writer { message: BytesMut::with_capacity(bytes) }
    }

    write_number!(
        u8(u8) = put_u8,
        u16(u16) = put_u16,
        u32(u32) = put_u32,
        u64(u64) = put_u64,
        i32(i32) = put_i32,
        i64(i64) = put_i64,
        array(&[u8]) = put_slice,
    );

    pub fn bool(&mut self, value: bool) -> &mut Writer {
        self.u8(value.into())
    }

    pub fn uuid(&mut self, value: Uuid) -> &mut Writer {
        self.array(value.as_bytes())
    }

    /// Bytes after their length. A frame cannot hold 4 GiB; what is longer is refused by any reader.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Writer {
        self.count(value.len()).array(value)
    }

    pub fn string(&mut self, value: &str) -> &mut Writer {
        self.bytes(value.as_bytes())
    }

    /// A text for people: what is beyond `max` bytes is cut off.
    pub fn text(&mut self, value: &str, max: usize) -> &mut Writer {
        self.string(&value[..value.floor_char_boundary(max)])
    }

    pub fn count(&mut self, count: usize) -> &mut Writer {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) -> &mut Writer {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.message.len()
    }

    pub fn is_empty(&self) -> bool {
        self.message.is_empty()
    }

    pub fn finish(self) -> Bytes {
        self.message.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (a, b, c, d, e, f) in any::<(u8, u16, u32, u64, i32, i64)>(),
            (g, id, text, raw) in (any::<bool>(), any::<u128>(), ".{0,40}", vec(any::<u8>(), 0..60)),
            (some, list) in (any::<Option<u64>>(), vec(any::<i32>(), 0..9)),
        ) {
            let mut writer = Writer::new();
            writer.u8(a).u16(b).u32(c).u64(d).i32(e).i64(f).bool(g).uuid(Uuid::from_u128(id)).string(&text).bytes(&raw);
            writer.option(some, |writer, value| { writer.u64(value); });
            writer.count(list.len());
            list.iter().for_each(|value| { writer.i32(*value); });
            let message = writer.finish();
            let read = |message: Bytes| -> Result<_, Malformed> {
                let mut r = Reader::new(message);
                let numbers = (r.u8()?, r.u16()?, r.u32()?, r.u64()?, r.i32()?, r.i64()?);
                let values = (r.bool()?, r.uuid()?.as_u128(), r.string(160)?, r.bytes(60)?.to_vec());
                let some = r.option(Reader::u64)?;
                let list = (0..r.count(9)?).map(|_| r.i32()).collect::<Result<Vec<_>, _>>()?;
                r.finish()?;
                Ok((numbers, values, some, list))
            };
            prop_assert_eq!(read(message.clone()), Ok(((a, b, c, d, e, f), (g, id, text, raw), some, list)));
            for end in 0..message.len() {
                prop_assert!(read(message.slice(..end)).is_err(), "cut at {}", end);
            }
        }
    }

    #[test]
    fn lengths_are_believed_only_as_far_as_they_are_allowed_and_there() {
        let with = |length: u32, rest: &[u8]| {
            let mut writer = Writer::new();
            writer.u32(length).array(rest);
            Reader::new(writer.finish())
        };
        assert_eq!(with(4, b"abcd").bytes(3), Err(Malformed::TooLong { length: 4, max: 3 }));
        assert_eq!(with(5, b"abcd").bytes(9), Err(Malformed::TooShort));
        assert_eq!(with(u32::MAX, b"abcd").count(usize::MAX), Err(Malformed::TooShort));
        assert_eq!(with(2, b"\xff\xfe").string(9), Err(Malformed::NotUtf8));
        let mut cut = Writer::new();
        cut.text("aé", 2).text("é", 2);
        let mut read = Reader::new(cut.finish());
        assert_eq!((read.string(2), read.string(2)), (Ok("a".to_owned()), Ok("é".to_owned())), "between characters");
        assert_eq!(with(1, b"a").finish(), Err(Malformed::Trailing(5)));
        assert!(Reader::new(Bytes::from_static(&[2])).bool().is_err());
    }
}
