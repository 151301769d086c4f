//! Durations as Prometheus writes them: `30s`, `5m`, `1h30m`, `1d`.

/// Units from the largest to the smallest, in milliseconds. A `y` is 365 days and a `w` 7, as in Prometheus.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Parses a duration to milliseconds: numbers with units in falling order, each at most once; or a bare `0`.
///
/// # Errors
/// What is wrong, for a person.
pub fn parse(text: &str) -> Result<i64, String> {
    if text == "0" {
        return Ok(0);
    }
    let wrong = || format!("`{text}` is not a duration (write it as 30s, 5m or 1h30m)");
    let mut rest = text;
    let mut total: i64 = 0;
    let mut next_unit = 0;
    if rest.is_empty() {
        return Err("a duration cannot be empty (write it as 30s, 5m or 1h30m)".into());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let number: i64 = number.parse().map_err(|_| wrong())?;
        if unit.is_empty() && after.is_empty() {
            return Err(format!("`{text}` has no unit (ms, s, m, h, d, w or y)"));
        }
        let index = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
        if index < next_unit {
            return Err(format!("`{text}`: units go from large to small, each once"));
        }
        next_unit = index + 1;
        total = number
            .checked_mul(UNITS[index].1)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("`{text}` is too long a duration"))?;
        rest = after;
    }
    Ok(total)
}

/// Writes milliseconds as [`parse`] reads them.
#[must_use]
pub fn print(millis: i64) -> String {
    if millis <= 0 {
        return "0s".into();
    }
    let mut rest = millis;
    let mut text = String::new();
    for (unit, size) in UNITS {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prometheus_durations_are_read() {
        assert_eq!(parse("30s"), Ok(30_000));
        assert_eq!(parse("5m"), Ok(300_000));
        assert_eq!(parse("1h30m"), Ok(5_400_000));
        assert_eq!(parse("1d"), Ok(86_400_000));
        assert_eq!(parse("250ms"), Ok(250));
        assert_eq!(parse("0"), Ok(0));
    }

    #[test]
    fn anything_else_is_refused_with_the_way_to_write_it() {
        for bad in ["", "5", "5 m", "m", "1m1h", "1m1m", "-5m", "1.5h", "5x", "99999999999999999y", "9999999999999y"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(millis in 0i64..1_000_000_000_000_000) {
            prop_assert_eq!(parse(&print(millis)), Ok(millis));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
