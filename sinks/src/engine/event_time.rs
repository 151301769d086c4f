//! The time that a reading says it is of.

use forebay_log::Millis;

use crate::scan::{Row, Slot};
use crate::time;

/// 0000-01-01 and 9999-12-31 in milliseconds: what RFC 3339 can write.
const RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// Reads a time as [`time`] does; `None` if it is none that can be written.
pub(super) fn read(row: &Row<'_>, slot: usize) -> Option<Millis> {
    let at = match row.get(slot) {
        Slot::Number { value, .. } => time::from_number(value)?,
        Slot::Text { .. } => time::parse_text(row.text(slot)?.as_bytes())?,
        _ => return None,
    };
    RANGE.contains(&at.0).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::FieldPath;
    use crate::scan::FieldSet;

    fn read_json(json: &str) -> Option<i64> {
        let mut fields = FieldSet::new();
        let slot = fields.slot(&FieldPath(vec!["ts".into()]));
        let payload = format!("{{\"ts\":{json}}}");
        let mut slots = Vec::new();
        fields.scan(payload.as_bytes(), &mut slots).unwrap();
        read(&Row { payload: payload.as_bytes(), slots: &slots }, slot).map(|at| at.0)
    }

    #[test]
    fn times_are_read_in_the_forms_that_meters_write() {
        for json in [
            "\"2006-12-16T17:24:00Z\"",
            "\"2006-12-16T18:24:00+01:00\"",
            "\"2006-12-16 17:24:00\"",
            "\"2006-12-16T17:24:00.000\"",
            "\"2006-12-16T17:24\"",
            "\"2006-12-16T12:24:00,000-0500\"",
            "\"2006-12-16T17:24:00\"",
            "1166289840",
            "1166289840000",
            "1.16628984e9",
        ] {
            assert_eq!(read_json(json), Some(1_166_289_840_000), "{json}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for json in ["\"\"", "\"soon\"", "null", "true", "{}", "1e300", "\"2006-13-01 00:00:00\""] {
            assert_eq!(read_json(json), None, "{json}");
        }
    }
}
