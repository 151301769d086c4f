//! The principal of a client certificate: its subject as Java writes it (RFC 2253), which is what Kafka's ACLs name.

use std::fmt::Write;

/// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const INTEGER: u8 = 0x02;
const EXPLICIT_0: u8 = 0xa0;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const T61: u8 = 0x14;
const IA5: u8 = 0x16;
const UNIVERSAL: u8 = 0x1c;
const BMP: u8 = 0x1e;

/// Object ids that have a name in RFC 2253, as they are encoded.
const KEYWORDS: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

/// `User:CN=meter,O=Utility` of a certificate in DER; `None` when it is none.
pub(crate) fn of_certificate(der: &[u8]) -> Option<String> {
    Some(format!("User:{}", name(subject(der)?)?))
}

/// Takes one value off the front: its tag, its content, and all of its bytes.
fn take<'a>(from: &mut &'a [u8]) -> Option<(u8, &'a [u8], &'a [u8])> {
    let whole = *from;
    let (&tag, rest) = whole.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (digits.iter().fold(0usize, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some((tag, content, &whole[..whole.len() - rest.len()]))
}

fn expect<'a>(from: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    take(from).filter(|(tag, ..)| *tag == wanted).map(|(_, content, _)| content)
}

/// The subject of a certificate (RFC 5280, 4.1): what stands between the validity and the key.
fn subject(mut der: &[u8]) -> Option<&[u8]> {
    let mut certificate = expect(&mut der, SEQUENCE)?;
    let mut to_be_signed = expect(&mut certificate, SEQUENCE)?;
    if to_be_signed.first() == Some(&EXPLICIT_0) {
        take(&mut to_be_signed)?;
    }
    expect(&mut to_be_signed, INTEGER)?;
    for _algorithm_issuer_validity in 0..3 {
        expect(&mut to_be_signed, SEQUENCE)?;
    }
    expect(&mut to_be_signed, SEQUENCE)
}

/// The last part stands first.
fn name(mut parts: &[u8]) -> Option<String> {
    let mut written = Vec::new();
    while !parts.is_empty() {
        let mut pairs = expect(&mut parts, SET)?;
        let mut part = Vec::new();
        while !pairs.is_empty() {
            part.push(pair(expect(&mut pairs, SEQUENCE)?)?);
        }
        written.push(part.join("+"));
    }
    written.reverse();
    Some(written.join(","))
}

fn pair(mut pair: &[u8]) -> Option<String> {
    let id = expect(&mut pair, OBJECT_ID)?;
    let (tag, content, whole) = take(&mut pair)?;
    let keyword = KEYWORDS.iter().find(|(known, _)| *known == id).map(|(_, keyword)| *keyword);
    match (keyword, text(tag, content)) {
        (Some(keyword), Some(text)) => Some(format!("{keyword}={}", escape(&text))),
        (keyword, _) => {
            let mut hex = String::new();
            for byte in whole {
                let _ = write!(hex, "{byte:02x}");
            }
            Some(format!("{}=#{hex}", keyword.map_or_else(|| dotted(id), str::to_owned)))
        }
    }
}

fn text(tag: u8, content: &[u8]) -> Option<String> {
    match tag {
        UTF8 | PRINTABLE | IA5 => String::from_utf8(content.to_vec()).ok(),
        T61 => Some(content.iter().copied().map(char::from).collect()),
        BMP => {
            let units: Vec<u16> =
                content.chunks(2).map(|pair| pair.iter().fold(0, |n, b| n << 8 | u16::from(*b))).collect();
            String::from_utf16(&units).ok()
        }
        UNIVERSAL => {
            let characters = content.chunks(4).map(|four| four.iter().fold(0, |n, b| n << 8 | u32::from(*b)));
            characters.map(char::from_u32).collect()
        }
        _ => None,
    }
}

/// As `X500Principal.getName()` does: special characters with a backslash, and spaces at either end.
fn escape(text: &str) -> String {
    let inner = text.trim_matches(' ');
    let start = text.len() - text.trim_start_matches(' ').len();
    let mut out = String::with_capacity(text.len() + 2);
    if inner.is_empty() {
        return text.replace(' ', "\\ ");
    }
    out.push_str(&"\\ ".repeat(start));
    for character in inner.chars() {
        match character {
            '\0' => out.push_str("\\00"),
            ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\' => out.extend(['\\', character]),
            _ => out.push(character),
        }
    }
    out.push_str(&"\\ ".repeat(text.len() - start - inner.len()));
    out
}

/// `1.2.840.113549.1.9.1`
fn dotted(id: &[u8]) -> String {
    let mut out = String::new();
    let mut arc = 0u64;
    let mut first = true;
    for byte in id {
        arc = arc << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if std::mem::take(&mut first) {
                let root = (arc / 40).min(2);
                let _ = write!(out, "{root}.{}", arc - root * 40);
            } else {
                let _ = write!(out, ".{arc}");
            }
            arc = 0;
        }
    }
    out
}
