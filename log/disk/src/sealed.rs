//! Small text files with a version and a checksum: the first line names format and version, the last one is the CRC-32C.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::files::{Files, read_file, replace_file};

const CHECKSUM: &str = "crc32c ";

/// Puts the heading in front and the checksum behind `body`, whose lines end in newlines.
pub(crate) fn seal(heading: &str, body: &str) -> String {
    let mut text = format!("{heading}\n{body}");
    let crc = crc32c::crc32c(text.as_bytes());
    let _ = writeln!(text, "{CHECKSUM}{crc:08x}");
    text
}

/// The body of what [`seal`] made.
///
/// # Errors
/// What is wrong, for a person.
pub(crate) fn unseal<'a>(heading: &str, bytes: &'a [u8]) -> Result<&'a str, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not text")?;
    let (sealed, checksum) = text.rsplit_once(CHECKSUM).ok_or("the checksum line is missing")?;
    let crc = u32::from_str_radix(checksum.trim_end(), 16).map_err(|_| "the checksum line is malformed")?;
    if crc32c::crc32c(sealed.as_bytes()) != crc {
        return Err("checksum mismatch");
    }
    let (first, body) = sealed.split_once('\n').ok_or("the heading is missing")?;
    if first == heading { Ok(body) } else { Err("written by another version") }
}

/// Replaces a sealed file, so that a crash leaves the old or the new one.
///
/// # Errors
/// IO errors.
pub fn replace_sealed(files: &dyn Files, path: &Path, heading: &str, body: &str) -> io::Result<()> {
    replace_file(files, path, seal(heading, body).as_bytes())
}

/// Reads and unseals a file; `None` when there is none.
///
/// # Errors
/// IO errors; `InvalidData` when the content is not what was sealed.
pub fn read_sealed(files: &dyn Files, path: &Path, heading: &str) -> io::Result<Option<String>> {
    let Some(bytes) = read_file(files, path)? else { return Ok(None) };
    match unseal(heading, &bytes) {
        Ok(body) => Ok(Some(body.to_owned())),
        Err(what) => {
            let what = format!("{}: {what}; restore it from a backup", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_comes_back_and_any_flipped_byte_is_noticed() {
        let text = seal("forebay-test 1", "a 1\nb 2\n");
        assert_eq!(unseal("forebay-test 1", text.as_bytes()), Ok("a 1\nb 2\n"));
        assert!(unseal("forebay-test 2", text.as_bytes()).is_err());
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 0x01;
            assert_ne!(unseal("forebay-test 1", &bytes), Ok("a 1\nb 2\n"), "byte {at}");
        }
    }
}
