//! The time that a reading says it is of.

use chrono::{DateTime, NaiveDateTime};
use forebay_log::Millis;

use crate::scan::{Row, Slot};

/// Numbers from here on are milliseconds since 1970, smaller ones seconds: as seconds it is the year 5138, as milliseconds 1973.
const MILLIS_FROM: f64 = 1e11;

/// 0000-01-01 and 9999-12-31 in milliseconds: what RFC 3339 can write.
const RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// Reads a time: RFC 3339, the same without a zone (then UTC) or with a space for the `T`, or a number of seconds or
/// milliseconds since 1970. `None` if it is none of these.
pub(super) fn read(row: &Row<'_>, slot: usize) -> Option<Millis> {
    let millis = match row.get(slot) {
        Slot::Number { value, .. } => {
            let millis = if value.abs() >= MILLIS_FROM { value } else { value * 1000.0 };
            millis.round() as i64
        }
        Slot::Text { .. } => parse(&row.text(slot)?)?,
        _ => return None,
    };
    RANGE.contains(&millis).then_some(Millis(millis))
}

fn parse(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
        .ok()?;
    Some(naive.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::FieldPath;
    use crate::scan::FieldSet;

    fn time(json: &str) -> Option<i64> {
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
            "1166289840",
            "1166289840000",
            "1.16628984e9",
        ] {
            assert_eq!(time(json), Some(1_166_289_840_000), "{json}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for json in ["\"\"", "\"soon\"", "null", "true", "{}", "1e300", "\"2006-13-01 00:00:00\""] {
            assert_eq!(time(json), None, "{json}");
        }
    }
}
