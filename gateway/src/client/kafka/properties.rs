//! Java's properties files, in which Kafka's clients are configured, and the login that stands in `sasl.jaas.config`.

use std::collections::BTreeMap;

use anyhow::{Context, bail};

/// Reads `key=value` lines; later ones win.
///
/// # Errors
/// An escape that is none.
pub(super) fn parse(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut logical = line.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        // An odd number of backslashes at the end: the line goes on.
        while logical.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1 {
            logical.pop();
            let Some(next) = lines.next() else { break };
            logical.push_str(next.trim_start());
        }
        let (key, value) = split(&logical);
        found.insert(unescape(key)?, unescape(value)?);
    }
    Ok(found)
}

/// Key and value: between them `=`, `:` or nothing but white space.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, character)| {
        let ends = !escaped && (matches!(character, '=' | ':') || character.is_whitespace());
        escaped = !escaped && *character == '\\';
        ends
    });
    let Some((end, _)) = end else { return (line, "") };
    let rest = line[end..].trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], value.trim_start())
}

fn unescape(text: &str) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = characters.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                out.push(code.with_context(|| format!("\\u{digits} is no character"))?);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

/// The login module's class and its options, from `CLASS required username="..." password="...";`.
///
/// # Errors
/// The text has another form.
pub(super) fn jaas(text: &str) -> anyhow::Result<(String, BTreeMap<String, String>)> {
    let mut words = words(text)?.into_iter();
    let module = words.next().context("there is no login module in it")?;
    match words.next().as_deref() {
        Some("required" | "requisite" | "sufficient" | "optional") => {}
        _ => bail!("behind the login module there must be `required`"),
    }
    let options = words.map(|word| {
        let (name, value) = word.split_once('=').with_context(|| format!("{word} is not NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    Ok((module, options.collect::<anyhow::Result<_>>()?))
}

/// Words up to the semicolon, without their quotes.
fn words(text: &str) -> anyhow::Result<Vec<String>> {
    let (mut words, mut word, mut begun) = (Vec::new(), String::new(), false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            quote @ ('"' | '\'') => {
                begun = true;
                loop {
                    match characters.next().context("a quote is not closed")? {
                        '\\' => word.push(characters.next().context("a quote is not closed")?),
                        inner if inner == quote => break,
                        inner => word.push(inner),
                    }
                }
            }
            ';' => break,
            space if space.is_whitespace() => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => {
                begun = true;
                word.push(other);
            }
        }
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn properties_are_read_as_java_reads_them() {
        let text = "# a comment\n! another\n\nsecurity.protocol=SASL_SSL\n  sasl.mechanism : PLAIN\nempty\nspaced  value \n\
                    long=one \\\n     two\nodd\\=key=a\\tb\\u0041\\\\\nlast=1\nlast=2\n";
        let found = parse(text).unwrap();
        let get = |key: &str| found.get(key).map(String::as_str);
        assert_eq!(get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(get("sasl.mechanism"), Some("PLAIN"));
        assert_eq!(get("empty"), Some(""));
        assert_eq!(get("spaced"), Some("value "));
        assert_eq!(get("long"), Some("one two"));
        assert_eq!(get("odd=key"), Some("a\tbA\\"));
        assert_eq!(get("last"), Some("2"));
        assert!(parse("a=\\uzzzz").is_err());
    }

    #[test]
    fn a_jaas_config_names_a_module_and_its_options() {
        let text = "org.apache.kafka.common.security.scram.ScramLoginModule required \\\n username=\"al ice\" password='se\\\"c;ret' ;";
        let (module, options) = jaas(&text.replace("\\\n", "")).unwrap();
        assert!(module.ends_with("ScramLoginModule"));
        assert_eq!((options["username"].as_str(), options["password"].as_str()), ("al ice", "se\"c;ret"));
        for bad in ["", "Module", "Module username=x;", "Module required username;", "Module required password=\"x"] {
            assert!(jaas(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z=:\\\\ \n\t\"';#!u0-9]{0,60}") {
            let _ = parse(&text);
            let _ = jaas(&text);
        }
    }
}
