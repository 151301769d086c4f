//! Timestamps as payloads write them: RFC 3339 and `YYYY-MM-DD hh:mm:ss`, to microseconds and back.

use std::fmt::Write;

use chrono::{DateTime, Datelike, Timelike};
use serde::{Deserialize, Serialize};

/// What stands after the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Zone {
    /// Nothing: taken as UTC.
    None,
    /// `Z`
    Zulu,
    /// `+hh:mm`, in minutes east.
    East(i16),
}

/// How a writer prints its timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeStyle {
    /// `T` between date and time, else a space.
    pub t: bool,
    /// Digits of the fraction of a second.
    pub digits: u8,
    pub zone: Zone,
}

/// The number that two digits at `at` write.
fn two(bytes: &[u8], at: usize) -> Option<i64> {
    let digit = |at: usize| bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10);
    Some(i64::from(digit(at)? * 10 + digit(at + 1)?))
}

/// Days since 1970-01-01 of a date of the Gregorian calendar; `None` if there is no such day.
///
/// Source: "days_from_civil" of Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

/// Microseconds since the epoch and the style; digits beyond the microsecond are cut.
pub(super) fn parse(text: &str) -> Option<(i64, TimeStyle)> {
    let bytes = text.as_bytes();
    if bytes.len() < 19 || bytes.len() > 40 {
        return None;
    }
    let t = match bytes[10] {
        b'T' => true,
        b' ' => false,
        _ => return None,
    };
    if bytes[4] != b'-' || bytes[7] != b'-' || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let year = two(bytes, 0)? * 100 + two(bytes, 2)?;
    let days = days(year, two(bytes, 5)?, two(bytes, 8)?).filter(|_| year > 0)?;
    let (hour, minute, second) = (two(bytes, 11)?, two(bytes, 14)?, two(bytes, 17)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &bytes[19..];
    let (mut digits, mut micros) = (0u8, 0i64);
    if let Some((b'.', fraction)) = rest.split_first() {
        let end = fraction.iter().position(|b| !b.is_ascii_digit()).unwrap_or(fraction.len());
        if end == 0 || end > 9 {
            return None;
        }
        digits = u8::try_from(end).ok()?;
        for place in 0..6 {
            micros = micros * 10 + fraction[..end].get(place).map_or(0, |b| i64::from(b - b'0'));
        }
        rest = &fraction[end..];
    }
    let (zone, east) = match rest {
        [] => (Zone::None, 0),
        [b'Z'] => (Zone::Zulu, 0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two(rest, 1)?, two(rest, 4)?);
            if hours > 18 || minutes > 59 {
                return None;
            }
            let east = i16::try_from(hours * 60 + minutes).ok()? * if *sign == b'-' { -1 } else { 1 };
            (Zone::East(east), i64::from(east))
        }
        _ => return None,
    };
    let seconds = ((days * 24 + hour) * 60 + minute - east) * 60 + second;
    Some((seconds * 1_000_000 + micros, TimeStyle { t, digits, zone }))
}

/// Writes a timestamp in a style; nothing if it cannot be written so.
pub(super) fn write(out: &mut String, micros: i64, style: TimeStyle) {
    let east = if let Zone::East(minutes) = style.zone { minutes } else { 0 };
    let local = micros.saturating_add(i64::from(east) * 60_000_000);
    let Some(time) = DateTime::from_timestamp_micros(local) else { return };
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        if style.t { 'T' } else { ' ' },
        time.hour(),
        time.minute(),
        time.second()
    );
    if style.digits > 0 {
        let nanos = format!("{:09}", time.nanosecond());
        out.push('.');
        out.push_str(&nanos[..usize::from(style.digits.min(9))]);
    }
    match style.zone {
        Zone::None => {}
        Zone::Zulu => out.push('Z'),
        Zone::East(_) => {
            let size = east.unsigned_abs();
            let _ = write!(out, "{}{:02}:{:02}", if east < 0 { '-' } else { '+' }, size / 60, size % 60);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_meters_read_and_write_back_the_same() {
        for text in [
            "2013-01-01 00:30:00",
            "2018-10-29T00:00:00+01:00",
            "2024-02-29T23:59:59.123456Z",
            "1969-12-31T23:59:59.999Z",
            "2012-12-19 12:37:27.0000000",
            "2024-01-01T00:00:00-03:30",
        ] {
            let (micros, style) = parse(text).expect(text);
            let mut out = String::new();
            write(&mut out, micros, style);
            assert_eq!(out, text);
        }
        assert_eq!(parse("1970-01-01T01:00:00+01:00").map(|(micros, _)| micros), Some(0));
    }

    #[test]
    fn every_day_is_the_day_that_the_calendar_says() {
        let mut day = chrono::NaiveDate::from_ymd_opt(1, 1, 1).expect("a day");
        while day.year() < 2500 {
            let micros = day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
            let text = format!("{day}T00:00:00Z");
            assert_eq!(parse(&text).map(|(micros, _)| micros), Some(micros), "{text}");
            let month_after = format!("{:04}-{:02}-31T00:00:00Z", day.year(), day.month());
            let exists = chrono::NaiveDate::from_ymd_opt(day.year(), day.month(), 31).is_some();
            assert_eq!(parse(&month_after).is_some(), exists, "{month_after}");
            day = day + chrono::Days::new(7);
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "2013-02-30 00:00:00",
            "2013-01-01",
            "2013-01-01 24:00:00",
            "2013-01-01 00:00:00.",
            "2013-01-01 00:00:60",
            "0000-01-01 00:00:00",
            "2013-00-01 00:00:00",
            "2013-13-01 00:00:00",
            "2100-02-29 00:00:00",
            "2013-01-01T00:00:0é",
            "2013-01-01T00:00:00+1:30",
            "yesterday, of course",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
