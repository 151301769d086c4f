//! Splits an expression into words, numbers, text and symbols.

use super::ExprError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Number(f64),
    /// Digits with a unit, such as `15m`: only a window takes one.
    Duration,
    Text(String),
    /// A bare word: keyword, function, table or field.
    Word(String),
    /// A name in backquotes.
    Quoted(String),
    Symbol(&'static str),
    End,
}

const SYMBOLS: [&str; 24] = [
    "=~", "!~", "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "(", ")", "[", "]", ",",
    ".", "=", "^",
];

/// The tokens of `text` with their byte offsets; the last is [`Token::End`].
pub(super) fn lex(text: &str) -> Result<Vec<(Token, usize)>, ExprError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (token, length) = if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|d: char| d.is_ascii_digit()))
        {
            number(rest, at)?
        } else if c.is_ascii_alphabetic() || c == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Token::Word(rest[..length].to_owned()), length)
        } else if c == '"' || c == '\'' {
            quoted(rest, at, c)?
        } else if c == '`' {
            let length = rest[1..].find('`').ok_or_else(|| ExprError::new(at, "a backquote (`) is not closed"))?;
            if length == 0 {
                return Err(ExprError::new(at, "a field name cannot be empty"));
            }
            (Token::Quoted(rest[1..=length].to_owned()), length + 2)
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            (Token::Symbol(symbol), symbol.len())
        } else {
            return Err(ExprError::new(at, format!("`{c}` has no meaning here")));
        };
        tokens.push((token, at));
        at += length;
    }
    tokens.push((Token::End, text.len()));
    Ok(tokens)
}

fn number(rest: &str, at: usize) -> Result<(Token, usize), ExprError> {
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    let mut length = digits(0);
    if rest[length..].starts_with('.') {
        length += 1 + digits(length + 1);
    }
    if rest[length..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[length + 1..].starts_with(['+', '-']));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let tail = rest[length..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len() - length);
    if tail > 0 {
        let whole = &rest[..length + tail];
        return match crate::duration::parse(whole) {
            Ok(_) => Ok((Token::Duration, whole.len())),
            Err(_) => Err(ExprError::new(at, format!("`{whole}` is not a number"))),
        };
    }
    match rest[..length].parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((Token::Number(value), length)),
        _ => Err(ExprError::new(at, format!("`{}` is not a number that can be held", &rest[..length]))),
    }
}

fn quoted(rest: &str, at: usize, quote: char) -> Result<(Token, usize), ExprError> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((Token::Text(text), index + 1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, c @ ('\\' | '"' | '\''))) => text.push(c),
                _ => return Err(ExprError::new(at + index, "after `\\` comes n, t, \\ or a quote")),
            },
            _ => text.push(c),
        }
    }
    Err(ExprError::new(at, format!("the text is not closed with {quote}")))
}
