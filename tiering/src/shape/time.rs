//! Timestamps as payloads write them: RFC 3339 and `YYYY-MM-DD hh:mm:ss`, to microseconds and back.

use std::fmt::Write;

use chrono::{DateTime, Datelike, NaiveDate, Timelike};
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

fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Microseconds since the epoch and the style; digits beyond the microsecond are cut.
pub(super) fn parse(text: &str) -> Option<(i64, TimeStyle)> {
    let bytes = text.as_bytes();
    if bytes.len() < 19 || bytes.len() > 40 || !text.is_ascii() {
        return None;
    }
    let punctuation = bytes[4] == b'-' && bytes[7] == b'-' && bytes[13] == b':' && bytes[16] == b':';
    let t = match bytes[10] {
        b'T' => true,
        b' ' => false,
        _ => return None,
    };
    if !punctuation {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(number(&text[..4])?).ok().filter(|year| *year > 0)?,
        number(&text[5..7])?,
        number(&text[8..10])?,
    )?;
    let time = date.and_hms_opt(number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?)?;
    let mut rest = &text[19..];
    let (mut digits, mut micros) = (0u8, 0i64);
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(fraction.len());
        if end == 0 || end > 9 {
            return None;
        }
        digits = u8::try_from(end).ok()?;
        for place in 0..6 {
            micros = micros * 10 + fraction.as_bytes()[..end].get(place).map_or(0, |b| i64::from(b - b'0'));
        }
        rest = &fraction[end..];
    }
    let (zone, east) = match rest.as_bytes() {
        [] => (Zone::None, 0),
        [b'Z'] => (Zone::Zulu, 0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(&rest[1..3])?, number(&rest[4..6])?);
            if hours > 18 || minutes > 59 {
                return None;
            }
            let east = i16::try_from(hours * 60 + minutes).ok()? * if *sign == b'-' { -1 } else { 1 };
            (Zone::East(east), east)
        }
        _ => return None,
    };
    let micros = time.and_utc().timestamp() * 1_000_000 + micros - i64::from(east) * 60_000_000;
    Some((micros, TimeStyle { t, digits, zone }))
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
    fn what_is_no_timestamp_is_refused() {
        for text in
            ["2013-02-30 00:00:00", "2013-01-01", "2013-01-01 24:00:00", "2013-01-01 00:00:00.", "yesterday, of course"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
