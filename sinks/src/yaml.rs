//! YAML with positions: parses a rule file and reads its nodes, collecting every mistake with line and column.

use marked_yaml::types::{MarkedMappingNode, MarkedScalarNode, MarkedSequenceNode, Node};
use marked_yaml::{LoadError, LoaderOptions, Marker, Span};

use crate::diagnostic::{self, Diagnostic};
use crate::limits;

/// A key that a mapping may have.
pub(crate) enum Key {
    Known(&'static str),
    /// Part of the language, but of a later release: refused by name instead of ignored.
    Later(&'static str, &'static str),
}

/// A file being read and the mistakes found in it so far.
pub(crate) struct Doc<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl<'a> Doc<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Doc<'a> {
        Doc { file, text, diagnostics: Vec::new() }
    }

    /// The root mapping; `None` when the text is not YAML (said in the diagnostics).
    pub(crate) fn parse(&mut self) -> Option<MarkedMappingNode> {
        if let Err((line, column, message)) = shallow(self.text) {
            self.at(line, column, message, None);
            return None;
        }
        let options = LoaderOptions::default().error_on_duplicate_keys(true).prevent_coercion(true);
        let text = self.text;
        // The parser asserts a few of its own states; text from outside must not end the process.
        let parsed = std::panic::catch_unwind(|| marked_yaml::parse_yaml_with_options(0, text, options));
        match parsed {
            Ok(Ok(Node::Mapping(map))) => return Some(map),
            Ok(Ok(other)) => self.error(other.span(), "a rule file is a mapping with `groups`", None),
            Ok(Err(error)) => self.load_error(error),
            Err(_) => self.at(1, 1, "not YAML that can be read".into(), None),
        }
        None
    }

    fn load_error(&mut self, error: LoadError) {
        #[allow(deprecated)]
        let (mark, message) = match error {
            LoadError::TopLevelMustBeMapping(mark) | LoadError::TopLevelMustBeSequence(mark) => {
                (mark, "a rule file is a mapping with `groups`".to_owned())
            }
            LoadError::UnexpectedAnchor(mark) => (mark, "anchors are not supported".to_owned()),
            LoadError::UnexpectedTag(mark) => (mark, "tags are not supported".to_owned()),
            LoadError::MappingKeyMustBeScalar(mark) => (mark, "a key must be a plain word".to_owned()),
            LoadError::ScanError(mark, error) => {
                (mark, format!("not valid YAML: {}", std::error::Error::description(&error)))
            }
            LoadError::DuplicateKey(inner) => {
                let first = inner.prev_key.span().start().map_or(0, Marker::line);
                let message = format!("`{}` is given twice (first in line {first})", inner.key.as_str());
                self.error(inner.key.span(), message, None);
                return;
            }
        };
        self.at(mark.line(), mark.column(), message, None);
    }

    pub(crate) fn at(&mut self, line: usize, column: usize, message: String, help: Option<String>) {
        self.diagnostics.push(Diagnostic {
            file: self.file.to_owned(),
            line: line.max(1),
            column: column.max(1),
            message,
            help,
        });
    }

    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>, help: Option<String>) {
        let (line, column) = span.start().map_or((1, 1), |mark| (mark.line(), mark.column()));
        self.at(line, column, message.into(), help);
    }

    /// A mistake at a byte offset inside a scalar's value.
    pub(crate) fn error_inside(&mut self, scalar: &MarkedScalarNode, at: usize, message: String, help: Option<String>) {
        let (line, column) = position_inside(self.text, scalar, at);
        self.at(line, column, message, help);
    }

    pub(crate) fn mapping<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n MarkedMappingNode> {
        if let Node::Mapping(map) = node {
            return Some(map);
        }
        self.error(span(node), format!("{what} must be a mapping, not {}", kind(node)), None);
        None
    }

    pub(crate) fn sequence<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n MarkedSequenceNode> {
        if let Node::Sequence(list) = node {
            return Some(list);
        }
        self.error(span(node), format!("{what} must be a list, not {}", kind(node)), None);
        None
    }

    /// A scalar that is not empty.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n MarkedScalarNode> {
        match node {
            Node::Scalar(scalar) if scalar.as_str().trim().is_empty() => {
                self.error(node.span(), format!("{what} is empty"), None);
                None
            }
            Node::Scalar(scalar) => Some(scalar),
            _ => {
                self.error(span(node), format!("{what} must be text, not {}", kind(node)), None);
                None
            }
        }
    }

    /// Milliseconds of a duration.
    pub(crate) fn duration(&mut self, node: &Node, what: &str) -> Option<i64> {
        let scalar = self.text(node, what)?;
        match crate::duration::parse(scalar.as_str()) {
            Ok(millis) => Some(millis),
            Err(problem) => {
                self.error(node.span(), format!("{what}: {problem}"), None);
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let scalar = self.text(node, what)?;
        if scalar.as_bool().is_none() {
            self.error(span(node), format!("{what} must be true or false, not `{}`", scalar.as_str()), None);
        }
        scalar.as_bool()
    }

    /// Refuses every key of `map` that is not in `keys`.
    pub(crate) fn check_keys(&mut self, map: &MarkedMappingNode, keys: &[Key], what: &str) {
        for (name, _) in map.iter() {
            let mut known = false;
            for key in keys {
                match key {
                    Key::Known(key) if *key == name.as_str() => known = true,
                    Key::Later(key, why) if *key == name.as_str() => {
                        known = true;
                        self.error(name.span(), format!("`{key}` is not supported yet: {why}"), None);
                    }
                    _ => {}
                }
            }
            if !known {
                let names = keys.iter().filter_map(|key| match key {
                    Key::Known(name) => Some(*name),
                    Key::Later(..) => None,
                });
                let help = diagnostic::meant(name.as_str(), names);
                self.error(name.span(), format!("unknown key `{}` in {what}", name.as_str()), help);
            }
        }
    }
}

/// Where a node begins. The parser places a block mapping at its first colon; people look for its first key.
pub(crate) fn span(node: &Node) -> &Span {
    match node {
        Node::Mapping(map) => span_of(map),
        other => other.span(),
    }
}

/// As [`span`], of a mapping.
pub(crate) fn span_of(map: &MarkedMappingNode) -> &Span {
    let own = map.span();
    let Some((key, _)) = map.iter().next() else { return own };
    let begin = |span: &Span| span.start().map(Marker::character);
    if begin(key.span()) < begin(own) { key.span() } else { own }
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::Scalar(scalar) if scalar.as_str().is_empty() => "nothing",
        Node::Scalar(_) => "text",
        Node::Mapping(_) => "a mapping",
        Node::Sequence(_) => "a list",
    }
}

/// Refuses text that would nest the recursive parser too deep, and second documents, which it would pass over.
fn shallow(text: &str) -> Result<(), (usize, usize, String)> {
    if text.len() > limits::MAX_RULE_FILE_BYTES {
        return Err((1, 1, format!("a rule file has at most {} bytes", limits::MAX_RULE_FILE_BYTES)));
    }
    let mut content = false;
    let mut flow = 0usize;
    for (index, line) in text.split(['\n', '\r']).enumerate() {
        let indent = line.len() - line.trim_start_matches([' ', '\t', '-', '?', ':']).len();
        if indent > limits::MAX_YAML_INDENT {
            return Err((index + 1, indent, format!("nested deeper than {} columns", limits::MAX_YAML_INDENT)));
        }
        // Brackets inside quotes count too: the bound is generous enough for that.
        for bracket in line.bytes() {
            match bracket {
                b'[' | b'{' => flow += 1,
                b']' | b'}' => flow = flow.saturating_sub(1),
                _ => {}
            }
        }
        if flow > limits::MAX_YAML_FLOW {
            return Err((index + 1, 1, format!("nested deeper than {} brackets", limits::MAX_YAML_FLOW)));
        }
        let ends = line == "---" || line.starts_with("--- ") || line == "...";
        if ends && content {
            return Err((index + 1, 1, "a rule file holds one YAML document".into()));
        }
        content |= !ends && !line.trim().is_empty() && !line.starts_with(['#', '%']);
    }
    Ok(())
}

/// Line and column in the file of a byte offset in a scalar's value, found by walking both side by side: quoting,
/// folding and indentation make the value differ from the text.
fn position_inside(text: &str, scalar: &MarkedScalarNode, at: usize) -> (usize, usize) {
    let Some(start) = scalar.span().start() else { return (1, 1) };
    let (mut line, mut column) = (start.line(), start.column());
    let mut source = text.chars().skip(start.character()).peekable();
    let step = |line: &mut usize, column: &mut usize, c: char| {
        if c == '\n' {
            *line += 1;
            *column = 1;
        } else {
            *column += 1;
        }
    };
    match source.peek().copied() {
        Some(quote @ ('"' | '\'')) => {
            source.next();
            step(&mut line, &mut column, quote);
        }
        Some('|' | '>') => {
            for c in source.by_ref() {
                step(&mut line, &mut column, c);
                if c == '\n' {
                    break;
                }
            }
        }
        _ => {}
    }
    for (index, want) in scalar.as_str().char_indices().chain(std::iter::once((usize::MAX, '\0'))) {
        if index == usize::MAX {
            break;
        }
        // Indentation and folds stand in the text but not in the value.
        while let Some(c) = source.peek().copied()
            && c != want
            && c.is_whitespace()
        {
            source.next();
            step(&mut line, &mut column, c);
        }
        if index >= at {
            break;
        }
        match source.peek().copied() {
            Some(c) if c == want || !want.is_whitespace() => {
                source.next();
                step(&mut line, &mut column, c);
            }
            Some(_) => {}
            None => break,
        }
    }
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(text: &str, find: &str) -> (usize, usize) {
        let mut doc = Doc::new("f", text);
        let map = doc.parse().expect("yaml");
        let Some(Node::Scalar(scalar)) = map.get_node("expr") else { panic!("no expr") };
        let at = scalar.as_str().find(find).expect("in the value");
        position_inside(text, scalar, at)
    }

    #[test]
    fn a_place_inside_a_scalar_is_found_in_every_style() {
        assert_eq!(place("a: 1\nexpr: volts > x\n", "x"), (2, 15));
        assert_eq!(place("expr: \"volts > x\"\n", "x"), (1, 16));
        assert_eq!(place("expr: 'volts > x'\n", "x"), (1, 16));
        assert_eq!(place("expr: |\n  volts > 1\n  and x\n", "x"), (3, 7));
        assert_eq!(place("expr: >-\n  volts > 1\n  and x\n", "x"), (3, 7));
        assert_eq!(place("expr: volts > 1\n  and x\n", "x"), (2, 7));
    }

    #[test]
    fn broken_yaml_names_line_and_column() {
        let mut doc = Doc::new("f", "groups:\n- name: [a\nx: }\n");
        assert!(doc.parse().is_none());
        assert!(doc.diagnostics[0].line >= 2, "{:?}", doc.diagnostics);
    }

    #[test]
    fn a_key_given_twice_and_a_second_document_are_refused() {
        for (text, line) in [("a: 1\na: 2\n", 2), ("a: 1\n---\nb: 2\n", 2)] {
            let mut doc = Doc::new("f", text);
            assert!(doc.parse().is_none(), "{text}");
            assert_eq!(doc.diagnostics[0].line, line);
        }
        assert!(Doc::new("f", "# rules\n---\na: 1\n").parse().is_some());
    }

    #[test]
    fn deep_nesting_is_refused_before_it_can_exhaust_the_stack() {
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000), "{a: ".repeat(50_000)] {
            let mut doc = Doc::new("f", &text);
            assert!(doc.parse().is_none());
            assert!(doc.diagnostics[0].message.contains("nested"), "{:?}", doc.diagnostics);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_gives_a_mapping_or_a_diagnostic(text in "[a-z:\\-\\[\\]{}\"'|>&*!?%# \n\t,0-9]{0,80}") {
            let mut doc = Doc::new("f", &text);
            let parsed = doc.parse();
            prop_assert_eq!(parsed.is_none(), !doc.diagnostics.is_empty());
        }
    }
}
