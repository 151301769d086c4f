//! The header of a request frame: which API, which version, and where the body begins.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiKey;

use super::api::{self, Api};
use super::guard::{BadRequest, Struct, walk};

/// A request whose header was read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) api: &'static Api,
    pub(crate) version: i16,
    /// ApiVersions in a version that is not served: answered, not refused.
    pub(crate) unknown_version: bool,
    pub(crate) correlation_id: i32,
    /// What the client calls itself; empty for nothing.
    pub(crate) client_id: Bytes,
    pub(crate) body: Bytes,
}

/// Why a frame is not a request that is served; the connection is closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("API key {key} is not served")]
    Api { key: i16 },
    #[error("{api} version {version} is not served")]
    Version { api: &'static str, version: i16 },
    #[error("{api} version {version}: {problem}")]
    Body { api: &'static str, version: i16, problem: BadRequest },
    #[error("request header: {0}")]
    Header(BadRequest),
}

/// Tagged fields and nothing else: the end of a flexible request header.
static ONLY_TAGS: Struct = Struct { fields: &[], tags: &[] };

/// Reads the header of a frame (without its length).
pub(crate) fn parse(mut frame: Bytes) -> Result<Request, Unreadable> {
    if frame.len() < 8 {
        return Err(Unreadable::Header(BadRequest::Truncated));
    }
    let (key, version, correlation_id) = (frame.get_i16(), frame.get_i16(), frame.get_i32());
    let api = api::find(key).ok_or(Unreadable::Api { key })?;
    if !api.serves(version) {
        if api.key == ApiKey::ApiVersions {
            let nothing = Bytes::new();
            return Ok(Request {
                api,
                version: 0,
                unknown_version: true,
                correlation_id,
                client_id: nothing.clone(),
                body: nothing,
            });
        }
        return Err(Unreadable::Version { api: api.name, version });
    }
    let client_id = client_id(&mut frame).map_err(Unreadable::Header)?;
    if api.flexible(version) {
        let tags = walk(&ONLY_TAGS, true, version, &frame).map_err(Unreadable::Header)?;
        frame.advance(tags);
    }
    Ok(Request { api, version, unknown_version: false, correlation_id, client_id, body: frame })
}

fn client_id(frame: &mut Bytes) -> Result<Bytes, BadRequest> {
    if frame.len() < 2 {
        return Err(BadRequest::Truncated);
    }
    let length = match frame.get_i16() {
        -1 => 0,
        n => usize::try_from(n).map_err(|_| BadRequest::Length)?,
    };
    if length > frame.len() {
        return Err(BadRequest::Truncated);
    }
    Ok(frame.split_to(length))
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;

    fn header(key: i16, version: i16) -> BytesMut {
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(9);
        frame.put_i16(2);
        frame.put_slice(b"me");
        frame
    }

    #[test]
    fn a_flexible_header_has_tagged_fields_before_the_body_and_an_older_one_has_not() {
        let mut old = header(3, 8);
        old.put_slice(b"body");
        assert_eq!(parse(old.freeze()).unwrap().body, "body");
        let mut flexible = header(3, 9);
        flexible.put_slice(&[1, 5, 2, 0, 0]);
        flexible.put_slice(b"body");
        let request = parse(flexible.freeze()).unwrap();
        assert_eq!((request.body, request.correlation_id), (Bytes::from("body"), 9));
    }

    #[test]
    fn an_unknown_version_of_api_versions_is_answered_and_any_other_is_refused() {
        let request = parse(header(18, 99).freeze()).unwrap();
        assert!(request.unknown_version);
        assert_eq!(request.version, 0);
        assert_eq!(parse(header(0, 2).freeze()).unwrap_err(), Unreadable::Version { api: "Produce", version: 2 });
        assert_eq!(parse(header(999, 0).freeze()).unwrap_err(), Unreadable::Api { key: 999 });
    }

    #[test]
    fn a_client_id_longer_than_the_frame_is_refused() {
        let mut frame = header(3, 8);
        frame.truncate(8);
        frame.put_i16(100);
        assert_eq!(parse(frame.freeze()).unwrap_err(), Unreadable::Header(BadRequest::Truncated));
    }
}
