//! `partition.state`: where a partition's log starts and what of it is only in the cold tier.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use forebay_log::partition::{ColdSegment, Starts};
use forebay_log::{Millis, Offset};

use crate::files::{Files, replace_file};
use crate::sealed::{read_sealed, seal};

const FILE: &str = "partition.state";
const HEADING: &str = "forebay-partition-state 1";

/// Writes the starts of the partition in `dir`, atomically.
pub(crate) fn save(files: &dyn Files, dir: &Path, starts: &Starts) -> io::Result<()> {
    let mut body = format!("log_start {}\ntiered {}\n", starts.log_start, starts.tiered);
    if starts.compacted > Offset::ZERO {
        let _ = writeln!(body, "compacted {}", starts.compacted);
    }
    for cold in &starts.cold {
        let _ = writeln!(body, "cold {} {} {}", cold.end_offset, cold.bytes, cold.appended);
    }
    replace_file(files, &dir.join(FILE), seal(HEADING, &body).as_bytes())
}

/// Reads the starts of the partition in `dir`; the default when none were ever saved.
pub(crate) fn load(files: &dyn Files, dir: &Path) -> io::Result<Starts> {
    let Some(body) = read_sealed(files, &dir.join(FILE), HEADING)? else { return Ok(Starts::default()) };
    parse(&body).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{FILE}: malformed; restore it from a backup"))
    })
}

fn parse(body: &str) -> Option<Starts> {
    let mut starts = Starts::default();
    for line in body.lines() {
        let mut words = line.split(' ');
        match words.next()? {
            "log_start" => starts.log_start = Offset::from_text(words.next()?)?,
            "tiered" => starts.tiered = Offset::from_text(words.next()?)?,
            "compacted" => starts.compacted = Offset::from_text(words.next()?)?,
            "cold" => starts.cold.push(ColdSegment {
                end_offset: Offset::from_text(words.next()?)?,
                bytes: words.next()?.parse().ok()?,
                appended: Millis(words.next()?.parse().ok()?),
            }),
            _ => return None,
        }
    }
    starts.cold.is_sorted_by_key(|cold| cold.end_offset).then_some(starts)
}
