//! Header names as text that loses nothing: they should be UTF-8, but a producer may send any bytes.
//!
//! Bytes that are no UTF-8 become characters of the private use area U+F780 to U+F7FF, and so does every byte of a
//! character of that area itself; so the way back is unambiguous.

const AREA: u32 = 0xf700;

fn in_area(c: char) -> bool {
    (AREA + 0x80..=AREA + 0xff).contains(&u32::from(c))
}

fn stand_in(out: &mut String, bytes: &[u8]) {
    out.extend(bytes.iter().filter_map(|byte| char::from_u32(AREA + u32::from(*byte))));
}

pub(super) fn to_text(name: &[u8], out: &mut String) {
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if in_area(c) {
                stand_in(out, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                out.push(c);
            }
        }
        stand_in(out, chunk.invalid());
    }
}

pub(super) fn to_bytes(name: &str, out: &mut Vec<u8>) {
    for c in name.chars() {
        if in_area(c) {
            out.push((u32::from(c) - AREA) as u8);
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_name_comes_back(name: Vec<u8>, text in "[a\u{f700}-\u{f7ff}é]{0,8}") {
            for bytes in [name.as_slice(), text.as_bytes()] {
                let mut through = String::new();
                to_text(bytes, &mut through);
                let mut back = Vec::new();
                to_bytes(&through, &mut back);
                prop_assert_eq!(back.as_slice(), bytes);
            }
        }
    }
}
