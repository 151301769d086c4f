//! One published message, and the record that it becomes: its headers, and how many bytes it takes.

use bytes::Bytes;

/// Bytes that a record may take beyond its key, value and headers: lengths and deltas.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// As [`RECORD_OVERHEAD_BYTES`], for each header.
const HEADER_OVERHEAD_BYTES: usize = 8;
/// Headers that a record has at most without user properties and the caller's own, so that they fit on the stack.
const PLAIN_HEADERS: usize = 5;
/// Decimal digits of a packet id.
const PACKET_ID_DIGITS: usize = 5;

/// One message to be appended. Slices borrow from the connection's read buffer.
pub struct Publish<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub client_id: &'a str,
    /// 0, 1 or 2
    pub qos: u8,
    pub user_properties: &'a [(Bytes, Bytes)],
    pub content_type: Option<&'a str>,
    /// Set for QoS 2 of a persistent session: recovery finds the record by it (header `mqtt.packet_id`).
    pub packet_id: Option<u16>,
    /// The program's own further headers (`mqtt.retain`, `mqtt.response_topic` ...), written before the user properties.
    pub headers: &'a [(&'static str, &'a [u8])],
}

/// At least the bytes that the record will take.
pub(super) fn record_bytes(publish: &Publish<'_>, key: usize) -> usize {
    let own = publish.headers.iter().map(|(name, value)| name.len() + value.len());
    let user = publish.user_properties.iter().map(|(name, value)| name.len() + value.len());
    let headers: usize = own.chain(user).map(|bytes| bytes + HEADER_OVERHEAD_BYTES).sum();
    let fixed = publish.topic.len() + publish.client_id.len() + publish.content_type.map_or(0, str::len);
    // The names of the fixed headers are shorter than this.
    let names = PLAIN_HEADERS * 24;
    publish.payload.len() + key + headers + fixed + names + RECORD_OVERHEAD_BYTES
}

/// Calls `push` with the record's headers; they lie on the stack unless the message brings its own.
pub(super) fn with_headers(publish: &Publish<'_>, push: impl FnOnce(&[(&str, &[u8])])) {
    let qos = [b'0' + publish.qos.min(2)];
    let mut digits = [0; PACKET_ID_DIGITS];
    let mut plain: [(&str, &[u8]); PLAIN_HEADERS] = [("", b""); PLAIN_HEADERS];
    let mut count = 0;
    let mut add = |name, value| {
        plain[count] = (name, value);
        count += 1;
    };
    add("mqtt.topic", publish.topic.as_bytes());
    add("mqtt.client", publish.client_id.as_bytes());
    add("mqtt.qos", &qos);
    if let Some(id) = publish.packet_id {
        add("mqtt.packet_id", decimal(id, &mut digits));
    }
    let content_type = publish.content_type.map(|text| ("mqtt.content_type", text.as_bytes()));
    if publish.headers.is_empty() && publish.user_properties.is_empty() {
        if let Some((name, value)) = content_type {
            add(name, value);
        }
        return push(&plain[..count]);
    }
    let user = publish.user_properties.iter().map(|(name, value)| {
        // The codec checked that it is UTF-8.
        (std::str::from_utf8(name).unwrap_or_default(), &value[..])
    });
    let own = publish.headers.iter().copied();
    let all: Vec<(&str, &[u8])> = plain[..count].iter().copied().chain(own).chain(user).chain(content_type).collect();
    push(&all);
}

fn decimal(mut number: u16, digits: &mut [u8; PACKET_ID_DIGITS]) -> &[u8] {
    let mut start = PACKET_ID_DIGITS;
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 || start == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_are_written_in_decimal() {
        for id in [0, 7, 10, 65535] {
            assert_eq!(decimal(id, &mut [0; 5]), id.to_string().as_bytes());
        }
    }

    #[test]
    fn headers_stand_in_their_order_and_user_properties_keep_theirs() {
        let user = [(Bytes::from("b"), Bytes::from("1")), (Bytes::from("a"), Bytes::from("2"))];
        let publish = Publish {
            topic: "meters/m1",
            payload: b"x",
            client_id: "c",
            qos: 2,
            user_properties: &user,
            content_type: Some("application/json"),
            packet_id: Some(12),
            headers: &[("mqtt.retain", b"1")],
        };
        let mut names = Vec::new();
        with_headers(&publish, |headers| {
            names = headers.iter().map(|(n, v)| format!("{n}={}", String::from_utf8_lossy(v))).collect();
        });
        let expected = "mqtt.topic=meters/m1 mqtt.client=c mqtt.qos=2 mqtt.packet_id=12 mqtt.retain=1 b=1 a=2 \
                        mqtt.content_type=application/json";
        assert_eq!(names.join(" "), expected);
    }
}
