//! `recovery-point-offset-checkpoint`: below which offset each partition is known to be whole on the disk.
//!
//! Damage below the point is corruption and is reported; at or above it, a torn tail, which is cut. The body is Kafka's
//! (a topic, a partition and an offset a line) with the topic's id for its name, so that a topic made anew does not
//! inherit the points of the one before; sealed with a version and a checksum.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use forebay_log::Offset;
use uuid::Uuid;

use crate::files::{Files, replace_file};
use crate::sealed::{read_sealed, seal};

const FILE: &str = "recovery-point-offset-checkpoint";
const HEADING: &str = "forebay-recovery-points 1";

/// Recovery points by topic id and partition.
pub(crate) type Points = BTreeMap<(Uuid, u32), Offset>;

fn path() -> PathBuf {
    Path::new(crate::layout::LOG_DIR).join(FILE)
}

pub(crate) fn save(files: &dyn Files, points: &Points) -> io::Result<()> {
    let mut body = String::new();
    for ((topic, partition), offset) in points {
        let _ = writeln!(body, "{topic} {partition} {offset}");
    }
    replace_file(files, &path(), seal(HEADING, &body).as_bytes())
}

/// Reads the points. A file that cannot be trusted is as none at all: everything is scanned.
pub(crate) fn load(files: &dyn Files) -> Points {
    let body = match read_sealed(files, &path(), HEADING) {
        Ok(body) => body.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, file = %path().display(), "recovery points are unreadable: every segment is scanned");
            String::new()
        }
    };
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let topic = words.next()?.parse().ok()?;
        Some(((topic, words.next()?.parse().ok()?), Offset::from_text(words.next()?)?))
    };
    body.lines().filter_map(parse).collect()
}
