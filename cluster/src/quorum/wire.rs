//! Messages between the nodes of a quorum: a version, a kind, a JSON head, and bytes.
//!
//! ```text
//! request:  version u8 = 1 | kind u8 | length of the head u32 LE | head (JSON) | body (entries or a piece of a snapshot)
//! answer:   version u8 = 1 | 0 = answered, 1 = refused | JSON, or for a refusal the reason as text
//! ```

use bytes::{Buf, BufMut, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the messages that this release writes and reads.
const VERSION: u8 = 1;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Append = 1,
    Vote = 2,
    Snapshot = 3,
    /// Whether one would vote for the asker, without a vote (Ongaro's thesis, 9.6).
    PreVote = 4,
}

const ANSWERED: u8 = 0;
const REFUSED: u8 = 1;
/// Version, kind and the head's length.
const REQUEST_HEAD: usize = 1 + 1 + 4;

/// # Errors
/// When the head cannot be written as JSON.
pub(super) fn request(kind: Kind, head: &impl Serialize, body: &[u8]) -> Result<Bytes, String> {
    let head = serde_json::to_vec(head).map_err(|error| error.to_string())?;
    let len = u32::try_from(head.len()).map_err(|error| error.to_string())?;
    let mut out = Vec::with_capacity(REQUEST_HEAD + head.len() + body.len());
    out.put_slice(&[VERSION, kind as u8]);
    out.put_u32_le(len);
    out.put_slice(&head);
    out.put_slice(body);
    Ok(out.into())
}

/// Kind, head and body of a request.
///
/// # Errors
/// What is wrong with it, for the sender.
pub(super) fn open_request(mut bytes: &[u8]) -> Result<(Kind, &[u8], &[u8]), String> {
    if bytes.len() < REQUEST_HEAD {
        return Err("the request ends early".to_owned());
    }
    let (version, kind, len) = (bytes.get_u8(), bytes.get_u8(), bytes.get_u32_le());
    if version != VERSION {
        return Err(format!("requests of version {version} are not known here, only of version {VERSION}"));
    }
    let kind = [Kind::Append, Kind::Vote, Kind::Snapshot, Kind::PreVote].into_iter().find(|known| *known as u8 == kind);
    let kind = kind.ok_or("requests of this kind are not known here")?;
    let len = usize::try_from(len).map_err(|error| error.to_string())?;
    let (head, body) = bytes.split_at_checked(len).ok_or("the request ends early")?;
    Ok((kind, head, body))
}

pub(super) fn answer(answer: &impl Serialize) -> Bytes {
    match serde_json::to_vec(answer) {
        Ok(json) => [&[VERSION, ANSWERED], json.as_slice()].concat().into(),
        Err(error) => refusal(&error.to_string()),
    }
}

pub(super) fn refusal(why: &str) -> Bytes {
    [&[VERSION, REFUSED], why.as_bytes()].concat().into()
}

/// # Errors
/// The reason, when the other node refused or the answer cannot be read.
pub(super) fn open_answer<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes {
        [VERSION, ANSWERED, json @ ..] => serde_json::from_slice(json).map_err(|error| error.to_string()),
        [VERSION, REFUSED, why @ ..] => Err(format!("refused: {}", String::from_utf8_lossy(why))),
        [] => Err("an empty answer".to_owned()),
        [version, ..] => Err(format!("an answer of version {version}, which this release does not know")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_and_answers_come_back_and_another_version_is_told() {
        let bytes = request(Kind::Vote, &7, b"body").unwrap();
        assert_eq!(open_request(&bytes), Ok((Kind::Vote, &b"7"[..], &b"body"[..])));
        let mut other = bytes.to_vec();
        other[0] = 2;
        assert!(open_request(&other).unwrap_err().contains("version 2"));
        assert_eq!(open_answer::<u8>(&answer(&9)), Ok(9));
        assert_eq!(open_answer::<u8>(&refusal("no")), Err("refused: no".to_owned()));
        assert!(open_answer::<u8>(&[2, 0, b'9']).unwrap_err().contains("version 2"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = open_request(&bytes);
            let _ = open_answer::<u8>(&bytes);
        }
    }
}
