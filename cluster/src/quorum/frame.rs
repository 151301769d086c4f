//! How entries are written, on disk and between nodes: kind, term, index, length and payload, one after the other.

use bytes::{Buf, BufMut, Bytes};
use openraft::EntryPayload;

use super::limits;
use super::raft::{Entry, Payload, log_id};

/// Bytes in front of an entry's payload.
pub(super) const ENTRY_HEAD: usize = 1 + 8 + 8 + 4;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Appends `entry` to `out`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn put_entry(out: &mut Vec<u8>, entry: &Entry) -> Result<(), String> {
    let members;
    let (kind, payload): (u8, &[u8]) = match &entry.payload {
        EntryPayload::Blank => (BLANK, &[]),
        EntryPayload::Normal(Payload(bytes)) => (NORMAL, bytes),
        EntryPayload::Membership(membership) => {
            members = serde_json::to_vec(membership).map_err(|error| error.to_string())?;
            (MEMBERSHIP, &members)
        }
    };
    let len = u32::try_from(payload.len()).map_err(|_| "an entry is too large".to_owned())?;
    out.put_u8(kind);
    out.put_u64_le(entry.log_id.leader_id.term);
    out.put_u64_le(entry.log_id.index);
    out.put_u32_le(len);
    out.put_slice(payload);
    Ok(())
}

/// Takes all entries out of `bytes`.
///
/// # Errors
/// What is wrong with them.
pub(super) fn take_entries(mut bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < ENTRY_HEAD {
            return Err("an entry ends early".to_owned());
        }
        let (kind, term, index, len) = (bytes.get_u8(), bytes.get_u64_le(), bytes.get_u64_le(), bytes.get_u32_le());
        let len = usize::try_from(len).map_err(|error| error.to_string())?;
        let (payload, rest) = bytes.split_at_checked(len).ok_or("an entry ends early")?;
        bytes = rest;
        let payload = match kind {
            BLANK => EntryPayload::Blank,
            // Copied, so that an entry does not keep alive what else came with it.
            NORMAL => EntryPayload::Normal(Payload(Bytes::copy_from_slice(payload))),
            MEMBERSHIP => EntryPayload::Membership(serde_json::from_slice(payload).map_err(|error| error.to_string())?),
            other => return Err(format!("an entry of kind {other}, which this release does not know")),
        };
        entries.push(Entry { log_id: log_id(term, index), payload });
    }
    Ok(entries)
}

/// Bytes that an entry takes, about.
pub(super) fn size(entry: &Entry) -> usize {
    ENTRY_HEAD
        + match &entry.payload {
            EntryPayload::Normal(Payload(bytes)) => bytes.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

const _: () = assert!(limits::MAX_ENTRY + ENTRY_HEAD < limits::MAX_MESSAGE);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_come_back_as_they_were(
            terms in prop::collection::vec((any::<u64>(), any::<u64>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 0..6)
        ) {
            let entries: Vec<Entry> = terms.into_iter().map(|(term, index, bytes)| Entry {
                log_id: log_id(term, index),
                payload: bytes.map_or(EntryPayload::Blank, |bytes| EntryPayload::Normal(Payload::from(bytes))),
            }).collect();
            let mut bytes = Vec::new();
            entries.iter().for_each(|entry| put_entry(&mut bytes, entry).unwrap());
            prop_assert_eq!(&take_entries(&bytes).unwrap(), &entries);
            if !bytes.is_empty() {
                prop_assert!(take_entries(&bytes[..bytes.len() - 1]).is_err());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = take_entries(&bytes);
        }
    }
}
