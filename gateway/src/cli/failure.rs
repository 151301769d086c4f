//! How a command that failed says so: the error on stderr, why and what to do below it, and the exit code.

use std::io::Write;
use std::process::ExitCode;

use forebay_sinks::Diagnostics;

use crate::config::ConfigError;

/// The command was called wrongly: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// Prints the error and returns the exit code.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text(error).as_bytes());
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    let wrong =
        error.chain().any(|cause| cause.is::<Usage>() || cause.is::<ConfigError>() || cause.is::<Diagnostics>());
    if wrong { WRONG_USAGE } else { FAILED }
}

/// `error: what happened`, then its causes and hints, indented.
fn text(error: &anyhow::Error) -> String {
    let mut blocks: Vec<String> = Vec::new();
    let mut details: Vec<String> = Vec::new();
    for cause in error.chain() {
        if let Some(Diagnostics(mistakes)) = cause.downcast_ref() {
            blocks.extend(mistakes.iter().map(|mistake| mistake.to_string().replace("\n  ", "\n")));
            continue;
        }
        match cause.downcast_ref::<ConfigError>() {
            Some(config) => blocks.extend(config.problems.iter().map(ToString::to_string)),
            None if blocks.is_empty() && details.is_empty() => blocks.push(cause.to_string()),
            // An error that carries its source's text would say it twice.
            None if details.last().is_some_and(|said| said.ends_with(&cause.to_string())) => {}
            None => details.push(cause.to_string()),
        }
    }
    let mut out = String::new();
    for block in blocks {
        for (index, line) in block.lines().enumerate() {
            out.push_str(if index == 0 { "error: " } else { "  " });
            out.push_str(line);
            out.push('\n');
        }
    }
    for line in details.iter().flat_map(|detail| detail.lines()) {
        out.push_str("  ");
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn what_happened_comes_first_and_why_is_indented() {
        let error = anyhow!("the address is in use\nstop the other program").context("cannot listen on 127.0.0.1:1883");
        let expected = "error: cannot listen on 127.0.0.1:1883\n  the address is in use\n  stop the other program\n";
        assert_eq!(text(&error), expected);
        assert_eq!(code(&error), 1);
        let error = anyhow!("no such file").context("/d: no such file").context("cannot use /d");
        assert_eq!(text(&error), "error: cannot use /d\n  /d: no such file\n");
    }

    #[test]
    fn every_mistake_of_a_config_is_an_error_of_its_own_and_the_exit_code_is_2() {
        let set = vec!["node.idd=1".to_owned(), "listeners.mqtt=x".to_owned()];
        let error = Config::load(&Sources { set, ..Sources::default() }).context("ignored").unwrap_err();
        assert_eq!(code(&error), 2);
        let error = Config::load(&Sources { set: vec!["node.idd=1".to_owned()], ..Sources::default() }).unwrap_err();
        let text = text(&error.into());
        assert_eq!(text, "error: --set node.idd=1: unknown key node.idd\n  did you mean node.id?\n");
        assert_eq!(code(&Usage("no".to_owned()).into()), 2);
    }

    #[test]
    fn every_mistake_of_the_rules_is_an_error_of_its_own_and_the_exit_code_is_2() {
        let missing = ["a.yaml".into(), "b.yaml".into()];
        let error = anyhow::Error::new(forebay_sinks::rules::load(&missing).unwrap_err());
        let expected = "error: a.yaml:1:1: there is no such file\nerror: b.yaml:1:1: there is no such file\n";
        assert_eq!((text(&error).as_str(), code(&error)), (expected, 2));
    }
}
