//! A reading's own time as payloads write it: RFC 3339, `YYYY-MM-DD hh:mm:ss`, or epoch seconds or milliseconds.
//!
//! One reading has one time, for the record at ingest and for the alert rules alike.

use forebay_log::Millis;

/// Numbers of this size and more are milliseconds: as seconds they would lie beyond the year 5000, as milliseconds
/// before 1973 stays unreachable.
const SMALLEST_MILLIS: f64 = 1e11;

/// The time that a JSON scalar tells; `None` when it tells none. Without an offset a time is UTC.
pub fn parse(json: &[u8]) -> Option<Millis> {
    match json.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        Some(text) => parse_text(text),
        None => parse_number(json),
    }
}

/// As a payload's time, but from text without quotes, such as a column of a CSV file.
pub fn parse_plain(text: &str) -> Option<Millis> {
    parse_text(text.as_bytes()).or_else(|| parse_number(text.as_bytes()))
}

fn parse_number(json: &[u8]) -> Option<Millis> {
    from_number(std::str::from_utf8(json).ok()?.parse().ok()?)
}

/// A time as seconds or milliseconds since 1970.
pub fn from_number(number: f64) -> Option<Millis> {
    let millis = if number.abs() >= SMALLEST_MILLIS { number } else { number * 1000.0 };
    // f64 holds whole milliseconds of any sensible year exactly.
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    (millis.is_finite() && millis.abs() < 9e15).then_some(Millis(millis.round() as i64))
}

/// A time as text, without quotes. Without an offset it is UTC.
pub fn parse_text(text: &[u8]) -> Option<Millis> {
    let mut cursor = Cursor { rest: text };
    let year = cursor.number(4)?;
    cursor.expect(b"-")?;
    let month = cursor.number(2)?;
    cursor.expect(b"-")?;
    let day = cursor.number(2)?;
    let days = days_since_epoch(year, month, day)?;
    cursor.expect(b"Tt ")?;
    let hour = cursor.number(2)?;
    cursor.expect(b":")?;
    let minute = cursor.number(2)?;
    let mut millis = 0;
    if cursor.expect(b":").is_some() {
        millis = cursor.number(2).filter(|&second| second <= 60)? * 1000;
        if cursor.expect(b".,").is_some() {
            millis += cursor.fraction()?;
        }
    }
    if hour > 23 || minute > 59 {
        return None;
    }
    let offset_minutes = cursor.offset()?;
    cursor.rest.is_empty().then_some(())?;
    Some(Millis(days * Millis::DAY + (hour * 60 + minute - offset_minutes) * 60_000 + millis))
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        number.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    }

    fn expect(&mut self, any_of: &[u8]) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        any_of.contains(first).then(|| self.rest = rest)
    }

    /// Milliseconds of a fraction of a second with any number of digits; those behind the third are cut off.
    fn fraction(&mut self) -> Option<i64> {
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (fraction, rest) = self.rest.split_at_checked(digits).filter(|(f, _)| !f.is_empty())?;
        self.rest = rest;
        let digit = |i: usize| fraction.get(i).map_or(0, |b| i64::from(b - b'0'));
        Some(digit(0) * 100 + digit(1) * 10 + digit(2))
    }

    /// Minutes east of UTC; nothing and `Z` are 0.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.rest.first() {
            None => return Some(0),
            Some(b'Z' | b'z') => {
                self.rest = &self.rest[1..];
                return Some(0);
            }
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => return None,
        };
        self.rest = &self.rest[1..];
        let hours = self.number(2).filter(|&hours| hours <= 23)?;
        let _ = self.expect(b":");
        let minutes = self.number(2).filter(|&minutes| minutes <= 59)?;
        Some(sign * (hours * 60 + minutes))
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days_since_epoch(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_ways_to_write_a_time_mean_the_same() {
        for json in [
            "\"2013-01-01T00:30:00Z\"",
            "\"2013-01-01t00:30:00z\"",
            "\"2013-01-01T01:30:00+01:00\"",
            "\"2012-12-31T19:30:00.000-0500\"",
            "\"2013-01-01 00:30:00\"",
            "\"2013-01-01 00:30:00.0000000\"",
            "\"2013-01-01T00:30\"",
            "1357000200",
            "1357000200.0",
            "1357000200000",
            "1.3570002e9",
        ] {
            assert_eq!(parse(json.as_bytes()), Some(Millis(1_357_000_200_000)), "{json}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for json in [
            "",
            "\"",
            "\"\"",
            "null",
            "true",
            "\"yesterday\"",
            "\"2013-02-29T00:00:00Z\"",
            "\"2013-13-01 00:00:00\"",
            "\"2013-01-01T24:00:00Z\"",
            "\"2013-01-01T00:30:00Zx\"",
            "\"2013-01-01\"",
            "1e300",
            "NaN",
            "inf",
            "{}",
        ] {
            assert_eq!(parse(json.as_bytes()), None, "{json}");
        }
    }

    proptest! {
        #[test]
        fn every_rfc_3339_time_agrees_with_chrono(millis in -60_000_000_000_000i64..250_000_000_000_000) {
            let text = DateTime::from_timestamp_millis(millis).map(|t| t.to_rfc3339()).unwrap_or_default();
            prop_assert_eq!(parse(format!("\"{text}\"").as_bytes()), Some(Millis(millis)));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&bytes);
        }
    }
}
