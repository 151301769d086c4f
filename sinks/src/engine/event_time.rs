//! The time that a reading says it is of.

use chrono::{DateTime, NaiveDate, NaiveDateTime};
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
    if let Some(millis) = plain(text) {
        return Some(millis);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M"))
        .ok()?;
    Some(naive.and_utc().timestamp_millis())
}

/// The form that nearly all meters send, `2013-01-01T00:30:00Z`, read without a format: with a space for the `T`, without the
/// `Z`.
fn plain(text: &str) -> Option<i64> {
    let bytes = text.strip_suffix('Z').unwrap_or(text).as_bytes();
    let number = |from: usize, to: usize| {
        bytes[from..to].iter().try_fold(0u32, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u32::from(b - b'0')))
    };
    let separated = bytes.len() == 19
        && [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().all(|(at, byte)| bytes[*at] == *byte)
        && matches!(bytes[10], b'T' | b' ');
    if !separated {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?)?;
    let time = date.and_hms_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?)?;
    Some(time.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::FieldPath;
    use crate::scan::FieldSet;
    use proptest::prelude::*;

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
            "\"2006-12-16T17:24\"",
            "\"2006-12-16T17:24:00\"",
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

    proptest! {
        #[test]
        fn every_time_that_chrono_writes_is_read_back(millis in -60_000_000_000_000i64..250_000_000_000_000) {
            let text = crate::transition::format_time(Millis(millis));
            prop_assert_eq!(time(&format!("\"{text}\"")), Some(millis));
            let whole = millis - millis.rem_euclid(1000);
            prop_assert_eq!(plain(&crate::transition::format_time(Millis(whole))), Some(whole));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,24}", digits in "[0-9TZ: -]{0,24}") {
            let _ = (parse(&text), parse(&digits));
        }
    }
}
