//! promtool's notation of input series: `voltage{meter="m1"}` with values such as `251 252+1x3 _ 240`.

/// Most values of one series.
const MAX_VALUES: usize = 100_000;

/// The name of a series is a field of the reading, the labels are further fields, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeriesName {
    pub(super) field: String,
    pub(super) labels: Vec<(String, String)>,
}

/// Parses `name{label="value", ...}`.
pub(super) fn name(text: &str) -> Result<SeriesName, String> {
    let wrong = || format!("`{text}` is not a series; write it as field{{meter=\"m1\"}}");
    let (field, rest) = text.split_once('{').ok_or_else(wrong)?;
    let mut rest = rest.trim_end().strip_suffix('}').ok_or_else(wrong)?.trim();
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once('=').ok_or_else(wrong)?;
        let quoted = after.trim_start().strip_prefix('"').ok_or_else(wrong)?;
        let (value, after) = unquote(quoted).ok_or_else(wrong)?;
        labels.push((label.trim().to_owned(), value));
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if after.is_empty() => after,
            None => return Err(wrong()),
        };
    }
    if field.trim().is_empty() || labels.iter().any(|(label, _)| label.is_empty()) {
        return Err(wrong());
    }
    labels.sort();
    Ok(SeriesName { field: field.trim().to_owned(), labels })
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// Parses values: numbers, `_` for none, `axn` for `a` and n more of it, `a+bxn` for `a` and n more, each `b` larger.
pub(super) fn values(text: &str) -> Result<Vec<Option<f64>>, String> {
    let mut all = Vec::new();
    for word in text.split_whitespace() {
        let wrong = || format!("`{word}` is not a value; write 251, 251x3, 251+0.5x3 or _");
        let (start, times) = match word.split_once('x') {
            Some((start, times)) => (start, Some(times.parse::<usize>().map_err(|_| wrong())?)),
            None => (word, None),
        };
        if all.len().saturating_add(times.unwrap_or(0)) >= MAX_VALUES {
            return Err(format!("a series has at most {MAX_VALUES} values"));
        }
        if start == "_" || word == "stale" {
            all.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
            continue;
        }
        // The sign of the step is the last one that neither begins the number nor its exponent.
        let mut step_at = start
            .bytes()
            .enumerate()
            .skip(1)
            .filter(|(at, byte)| matches!(byte, b'+' | b'-') && !matches!(start.as_bytes()[at - 1], b'e' | b'E'));
        let (first, step) = match (step_at.next_back(), times) {
            (Some((at, _)), Some(_)) => (&start[..at], start[at..].parse::<f64>().map_err(|_| wrong())?),
            _ => (start, 0.0),
        };
        let first: f64 = first.parse().map_err(|_| wrong())?;
        if !first.is_finite() || !step.is_finite() {
            return Err(wrong());
        }
        for index in 0..=times.unwrap_or(0) {
            all.push(Some(first + step * index as f64));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_values_are_read_as_promtool_does() {
        let series = name(r#"voltage{meter="m\"1", feeder="F,}1"}"#).unwrap();
        assert_eq!(series.field, "voltage");
        assert_eq!(series.labels, [("feeder".into(), "F,}1".into()), ("meter".into(), "m\"1".into())]);
        assert_eq!(values("1 -2.5").unwrap(), [Some(1.0), Some(-2.5)]);
        assert_eq!(values("1+2x2 _ _x2").unwrap(), [Some(1.0), Some(3.0), Some(5.0), None, None, None]);
        assert_eq!(values("5-1x1 7x1").unwrap(), [Some(5.0), Some(4.0), Some(7.0), Some(7.0)]);
        assert_eq!(values("1e+2").unwrap(), [Some(100.0)]);
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["voltage", "{a=\"b\"}", "v{a=b}", "v{a=\"b\"", "v{a=\"b\" c=\"d\"}"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        for bad in ["a", "1x", "1+x2", "1x999999999", "inf", "1x1x1"] {
            assert!(values(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}", words in "[0-9+x_e. -]{0,30}") {
            let _ = name(&text);
            let _ = values(&text);
            let _ = values(&words);
        }
    }
}
