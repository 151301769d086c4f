//! What is wrong with a rule file, where, and what was probably meant.

use std::fmt;

/// One mistake in a rule file. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub message: String,
    /// What to do, or the name that was probably meant.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  {help}"),
            None => Ok(()),
        }
    }
}

/// All mistakes found in a set of rule files, in the order of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

/// The candidate closest to `word`, if any is close enough to have been meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean X?` for the nearest candidate, or else the list of what is known.
pub fn meant<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(found) = nearest(word, candidates.clone()) {
        return Some(format!("did you mean `{found}`?"));
    }
    let known: Vec<&str> = candidates.into_iter().collect();
    (!known.is_empty() && known.len() <= 24).then(|| format!("known here: {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_the_name_meant_and_nonsense_finds_none() {
        assert_eq!(nearest("exprr", ["expr", "clear", "for"]), Some("expr"));
        assert_eq!(nearest("lable", ["labels", "label"]), Some("label"));
        assert_eq!(nearest("zzzzzz", ["expr", "clear"]), None);
    }

    #[test]
    fn a_diagnostic_reads_as_file_line_column_message_and_help() {
        let diagnostic = Diagnostic {
            file: "rules/a.yaml".into(),
            line: 3,
            column: 7,
            message: "unknown key `exprr`".into(),
            help: Some("did you mean `expr`?".into()),
        };
        assert_eq!(diagnostic.to_string(), "rules/a.yaml:3:7: unknown key `exprr`\n  did you mean `expr`?");
    }
}
