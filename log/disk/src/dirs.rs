//! Partition directories: made before their topic is in the metadata, removed after it is marked as deleted, so that a crash
//! between leaves nothing half.

use std::io;
use std::path::Path;

use base64_url::{decode, encode};
use uuid::Uuid;

use crate::files::Files;
use crate::layout::{DELETED, LOG_DIR, deleted_dir, partition_dir};

/// Kafka's name for the file that tells whose partition a directory is.
const METADATA_FILE: &str = "partition.metadata";

mod base64_url {
    //! Kafka writes topic ids in URL-safe base64 without padding.

    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
            for digit in 0..=chunk.len() {
                text.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
            }
        }
        text
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for chunk in text.as_bytes().chunks(4) {
            let mut word = 0u32;
            for digit in chunk {
                let value = DIGITS.iter().position(|known| known == digit)?;
                word = word << 6 | u32::try_from(value).ok()?;
            }
            word <<= 6 * (4 - chunk.len());
            bytes.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
        }
        Some(bytes)
    }
}

/// A topic id as Kafka writes it.
pub fn kafka_id(id: Uuid) -> String {
    encode(id.as_bytes())
}

/// What [`kafka_id`] was made of; `None` for any other text.
pub fn parse_kafka_id(text: &str) -> Option<Uuid> {
    Uuid::from_slice(&decode(text)?).ok().filter(|id| kafka_id(*id) == text)
}

/// Makes the directories of topics' partitions, durably and empty. All is written before any of it is synced, so that a file
/// system with a journal commits them together.
pub(crate) fn create<'a>(
    files: &dyn Files,
    topics: impl Iterator<Item = (&'a str, Uuid, &'a [u32])>,
) -> io::Result<()> {
    let mut made = Vec::new();
    for (topic, id, partitions) in topics {
        let text = format!("version: 0\ntopic_id: {}\n", kafka_id(id));
        for &partition in partitions {
            let dir = partition_dir(topic, partition);
            // Left by a creation that did not come to its end: the topic was never there.
            remove_dir_if_there(files, &dir)?;
            files.create_dir_all(&dir)?;
            let file = files.open(&dir.join(METADATA_FILE), true)?;
            file.write_at(0, &[io::IoSlice::new(text.as_bytes())])?;
            made.push((dir, file));
        }
    }
    for (dir, file) in made {
        file.sync()?;
        files.sync_dir(&dir)?;
    }
    files.sync_dir(Path::new(LOG_DIR))
}

/// Takes the directories of deleted partitions out of the way, then removes them.
pub(crate) fn delete(files: &dyn Files, topic: &str, id: Uuid, partitions: &[u32]) -> io::Result<()> {
    for &partition in partitions {
        match files.rename(&partition_dir(topic, partition), &deleted_dir(id, partition)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    files.sync_dir(Path::new(LOG_DIR))?;
    for &partition in partitions {
        remove_dir_if_there(files, &deleted_dir(id, partition))?;
    }
    files.sync_dir(Path::new(LOG_DIR))
}

/// Removes directories whose deletion a crash interrupted.
pub(crate) fn sweep(files: &dyn Files) -> io::Result<()> {
    for name in files.list(Path::new(LOG_DIR))? {
        if name.to_str().is_some_and(|name| name.ends_with(DELETED)) {
            files.remove_dir_all(&Path::new(LOG_DIR).join(name))?;
        }
    }
    Ok(())
}

fn remove_dir_if_there(files: &dyn Files, dir: &Path) -> io::Result<()> {
    match files.remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_are_written_as_kafka_writes_them() {
        assert_eq!(kafka_id(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(kafka_id(Uuid::from_u128(u128::MAX)), "_____________________w");
        for id in [1, u128::MAX, 0x1234_5678_9abc_def0_1234_5678_9abc_def0].map(Uuid::from_u128) {
            assert_eq!(parse_kafka_id(&kafka_id(id)), Some(id));
        }
        for other in ["", "x", "AAAAAAAAAAAAAAAAAAAAA", "_____________________x", "AAAAAAAAAAAAAAAAAAAA+Q"] {
            assert_eq!(parse_kafka_id(other), None, "{other}");
        }
    }
}
