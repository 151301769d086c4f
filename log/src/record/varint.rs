//! Variable-length zigzag integers of the v2 record format.
//!
//! Source: Kafka's "Message Format", after Protocol Buffers' `sint32` and `sint64`.

use bytes::BufMut;

/// Bytes of the longest encoding of 64 bits.
const MAX_BYTES: usize = 10;

/// Appends `value`.
pub(super) fn put(buffer: &mut impl BufMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        buffer.put_u8(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest.to_le_bytes()[0]);
}

/// Bytes that [`put`] writes for `value`.
pub(super) fn size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// The integer at the start of `bytes` and the bytes it took; `None` when it is cut off or longer than 64 bits.
pub(super) fn get(bytes: &[u8]) -> Option<(i64, usize)> {
    // Most lengths and deltas take one byte.
    if let Some(&byte) = bytes.first()
        && byte & 0x80 == 0
    {
        return Some((unzigzag(u64::from(byte)), 1));
    }
    let mut value: u64 = 0;
    for (index, &byte) in bytes.iter().take(MAX_BYTES).enumerate() {
        let low = u64::from(byte & 0x7f);
        if index == MAX_BYTES - 1 && low > 1 {
            return None;
        }
        value |= low << (7 * index);
        if byte & 0x80 == 0 {
            return Some((unzigzag(value), index + 1));
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_numbers_of_both_signs_take_one_byte() {
        for (value, byte) in [(0i64, 0u8), (-1, 1), (1, 2), (-2, 3), (63, 126), (-64, 127)] {
            let mut buffer = Vec::new();
            put(&mut buffer, value);
            assert_eq!(buffer, [byte], "{value}");
        }
    }

    #[test]
    fn a_cut_off_or_overlong_integer_is_refused() {
        assert_eq!(get(&[]), None);
        assert_eq!(get(&[0x80, 0x80]), None);
        assert_eq!(get(&[0xff; 11]), None);
    }

    proptest! {
        #[test]
        fn every_integer_comes_back_in_the_promised_size(value in any::<i64>()) {
            let mut buffer = Vec::new();
            put(&mut buffer, value);
            prop_assert_eq!(buffer.len(), size(value));
            prop_assert_eq!(get(&buffer), Some((value, buffer.len())));
        }
    }
}
