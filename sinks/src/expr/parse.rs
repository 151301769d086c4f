//! Reads an expression by operator precedence (Pratt), with errors that name the place and the way to write it.

use super::ast::{COMPARISON, KEYWORDS, NEGATION, NOT};
use super::lex::{Token, lex};
use super::{BinaryOp, Expr, ExprError, ExprKind, FieldPath, Function};
use crate::diagnostic;
use crate::limits;

const FUNCTIONS: [&str; 5] = ["abs", "has", "lookup", "max", "min"];

/// Functions over a window of readings.
const WINDOW_FUNCTIONS: [&str; 12] =
    ["sum", "avg", "count", "stddev", "rate", "increase", "delta", "quantile", "first", "last", "changes", "absent"];

/// Parses an expression.
///
/// # Errors
/// The first mistake, with its byte offset.
pub fn parse(text: &str) -> Result<Expr, ExprError> {
    if text.len() > limits::MAX_EXPR_BYTES {
        return Err(ExprError::new(0, format!("an expression has at most {} bytes", limits::MAX_EXPR_BYTES)));
    }
    let mut parser = Parser { tokens: lex(text)?, next: 0, depth: 0 };
    let expr = parser.expression(0)?;
    parser.expect_end()?;
    Ok(expr)
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }
    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |(_, at)| *at)
    }
    fn advance(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }
    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(found) if *found == symbol);
        self.next += usize::from(found);
        found
    }
    fn expect(&mut self, symbol: &str, after: &str) -> Result<(), ExprError> {
        if self.take(symbol) {
            return Ok(());
        }
        Err(ExprError::new(self.at(), format!("`{symbol}` is missing {after}, {} stands here", self.here())))
    }
    fn here(&self) -> String {
        match self.peek() {
            Token::Number(value) => format!("the number {value}"),
            Token::Duration => "a duration".into(),
            Token::Text(text) => format!("the text \"{text}\""),
            Token::Word(word) | Token::Quoted(word) => format!("`{word}`"),
            Token::Symbol(symbol) => format!("`{symbol}`"),
            Token::End => "the end".into(),
        }
    }

    fn expect_end(&mut self) -> Result<(), ExprError> {
        let at = self.at();
        let error = match self.peek() {
            Token::End => return Ok(()),
            Token::Symbol("=") => ExprError::new(at, "`=` does not compare").help("write `==`"),
            Token::Symbol("=~" | "!~") => ExprError::new(at, "matching by regular expression is not supported yet"),
            Token::Symbol("^") => ExprError::new(at, "`^` is not an operator here"),
            Token::Word(word) if word == "unless" => {
                ExprError::new(at, "`unless` is not an operator here").help("write `and not`")
            }
            Token::Word(word) if word == "by" => ExprError::new(at, "grouping (`by`) is not supported yet"),
            Token::Word(word) if word == "over" => ExprError::new(at, "windows (`over`) are not supported yet"),
            Token::Word(word) => {
                let error = ExprError::new(at, format!("an operator is missing before `{word}`"));
                match diagnostic::nearest(word, ["and", "or", "not", "in"]) {
                    Some(found) => error.help(format!("did you mean `{found}`?")),
                    None => error,
                }
            }
            _ => ExprError::new(at, format!("{} is not expected here", self.here())),
        };
        Err(error)
    }

    /// Parses what binds at least as tightly as `least`.
    fn expression(&mut self, least: u8) -> Result<Expr, ExprError> {
        self.depth += 1;
        if self.depth > limits::MAX_EXPR_DEPTH {
            return Err(ExprError::new(self.at(), format!("nested deeper than {}", limits::MAX_EXPR_DEPTH)));
        }
        let mut left = self.prefix()?;
        let mut height = 0;
        while let Some((infix, power)) = self.infix()
            && power >= least
        {
            // A long chain leans left: each step makes the tree one deeper.
            height += 1;
            if self.depth + height > limits::MAX_EXPR_DEPTH {
                return Err(ExprError::new(self.at(), format!("more than {} operators in a row", height - 1)));
            }
            let at = left.at;
            let kind = match infix {
                Infix::Binary(op) => {
                    self.next += 1;
                    let right = self.expression(power + 1)?;
                    ExprKind::Binary(op, Box::new(left), Box::new(right))
                }
                Infix::In { negated } => {
                    self.next += 1 + usize::from(negated);
                    let inside = ExprKind::In(Box::new(left), self.list()?);
                    if negated { ExprKind::Not(Box::new(Expr { kind: inside, at })) } else { inside }
                }
            };
            left = Expr { kind, at };
            if power == COMPARISON
                && let Some((_, COMPARISON)) = self.infix()
            {
                return Err(ExprError::new(self.at(), "comparisons do not chain").help("join two of them with `and`"));
            }
        }
        self.depth -= 1;
        Ok(left)
    }

    fn infix(&self) -> Option<(Infix, u8)> {
        let op = match self.peek() {
            Token::Symbol("||") => BinaryOp::Or,
            Token::Symbol("&&") => BinaryOp::And,
            Token::Symbol("==") => BinaryOp::Eq,
            Token::Symbol("!=") => BinaryOp::Ne,
            Token::Symbol("<") => BinaryOp::Lt,
            Token::Symbol("<=") => BinaryOp::Le,
            Token::Symbol(">") => BinaryOp::Gt,
            Token::Symbol(">=") => BinaryOp::Ge,
            Token::Symbol("+") => BinaryOp::Add,
            Token::Symbol("-") => BinaryOp::Sub,
            Token::Symbol("*") => BinaryOp::Mul,
            Token::Symbol("/") => BinaryOp::Div,
            Token::Symbol("%") => BinaryOp::Rem,
            Token::Word(word) => match word.as_str() {
                "or" => BinaryOp::Or,
                "and" => BinaryOp::And,
                "in" => return Some((Infix::In { negated: false }, COMPARISON)),
                "not" => {
                    let next = self.tokens.get(self.next + 1).map(|(token, _)| token);
                    let is_in = matches!(next, Some(Token::Word(word)) if word == "in");
                    return is_in.then_some((Infix::In { negated: true }, COMPARISON));
                }
                _ => return None,
            },
            _ => return None,
        };
        Some((Infix::Binary(op), op.power()))
    }

    fn prefix(&mut self) -> Result<Expr, ExprError> {
        let at = self.at();
        let kind = match self.advance() {
            Token::Number(value) => ExprKind::Number(value),
            Token::Text(text) => ExprKind::Text(text),
            Token::Symbol("-") => ExprKind::Negative(Box::new(self.expression(NEGATION)?)),
            Token::Symbol("+") => return self.expression(NEGATION),
            Token::Symbol("!") => ExprKind::Not(Box::new(self.expression(NEGATION)?)),
            Token::Symbol("(") => {
                let inner = self.expression(0)?;
                self.expect(")", "after the parenthesis")?;
                return Ok(inner);
            }
            Token::Word(word) => match word.as_str() {
                "true" => ExprKind::Bool(true),
                "false" => ExprKind::Bool(false),
                "not" => ExprKind::Not(Box::new(self.expression(NOT)?)),
                _ if KEYWORDS.contains(&word.as_str()) => {
                    return Err(ExprError::new(at, format!("a value is expected before `{word}`"))
                        .help(format!("a field of that name is written `{word}` in backquotes")));
                }
                _ if matches!(self.peek(), Token::Symbol("(")) => self.call(&word, at)?,
                _ => ExprKind::Field(self.path(word)?),
            },
            Token::Quoted(name) => ExprKind::Field(self.path(name)?),
            Token::Duration => {
                return Err(ExprError::new(at, "a duration is no value")
                    .help("windows (`over 15m`) are not supported yet; `for` and `clear` stand beside `expr`"));
            }
            Token::End => return Err(ExprError::new(at, "the expression ends where a value is expected")),
            Token::Symbol(symbol) => {
                return Err(ExprError::new(at, format!("a value is expected, `{symbol}` stands here")));
            }
        };
        Ok(Expr { kind, at })
    }

    /// The rest of a field path whose first name was read.
    fn path(&mut self, first: String) -> Result<FieldPath, ExprError> {
        let mut parts = vec![first];
        while self.take(".") {
            let at = self.at();
            match self.advance() {
                Token::Word(name) | Token::Quoted(name) => parts.push(name),
                _ => return Err(ExprError::new(at, "a field name is expected after `.`")),
            }
            if parts.len() > limits::MAX_EXPR_DEPTH {
                return Err(ExprError::new(at, format!("a field path has at most {} names", limits::MAX_EXPR_DEPTH)));
            }
        }
        Ok(FieldPath(parts))
    }

    fn name(&mut self, what: &str) -> Result<(String, usize), ExprError> {
        let at = self.at();
        match self.advance() {
            Token::Word(name) | Token::Quoted(name) => Ok((name, at)),
            _ => Err(ExprError::new(at, format!("{what} is expected here"))),
        }
    }

    fn call(&mut self, name: &str, at: usize) -> Result<ExprKind, ExprError> {
        if WINDOW_FUNCTIONS.contains(&name) {
            return Err(ExprError::new(at, format!("window functions (`{name}(...) over 15m`) are not supported yet")));
        }
        if !FUNCTIONS.contains(&name) {
            let error = ExprError::new(at, format!("unknown function `{name}`"));
            return Err(match diagnostic::meant(name, FUNCTIONS) {
                Some(help) => error.help(help),
                None => error,
            });
        }
        self.next += 1;
        let kind = match name {
            "has" => {
                let (first, _) = self.name("a field")?;
                ExprKind::Has(self.path(first)?)
            }
            "lookup" => self.lookup()?,
            _ => self.values(name, at)?,
        };
        self.expect(")", &format!("after the arguments of `{name}`"))?;
        if matches!(self.peek(), Token::Word(word) if word == "over") {
            return Err(ExprError::new(at, format!("window functions (`{name}(...) over 15m`) are not supported yet")));
        }
        Ok(kind)
    }

    fn values(&mut self, name: &str, at: usize) -> Result<ExprKind, ExprError> {
        let function = match name {
            "abs" => Function::Abs,
            "min" => Function::Min,
            _ => Function::Max,
        };
        let mut args = vec![self.expression(0)?];
        while self.take(",") {
            args.push(self.expression(0)?);
        }
        if function == Function::Abs && args.len() != 1 {
            return Err(ExprError::new(at, "`abs` takes one value"));
        }
        Ok(ExprKind::Call(function, args))
    }

    fn lookup(&mut self) -> Result<ExprKind, ExprError> {
        const FORM: &str = "in `lookup(table, key, column, default)`";
        let (table, _) = self.name("the name of a table")?;
        self.expect(",", FORM)?;
        let key = Box::new(self.expression(0)?);
        self.expect(",", FORM)?;
        let (column, column_at) = self.name("the name of a column")?;
        let default = if self.take(",") { Some(Box::new(self.expression(0)?)) } else { None };
        Ok(ExprKind::Lookup { table, key, column, column_at, default })
    }

    /// The literals of `in [...]`.
    fn list(&mut self) -> Result<Vec<Expr>, ExprError> {
        self.expect("[", "after `in`")?;
        let mut list = Vec::new();
        loop {
            let item = self.expression(COMPARISON + 1)?;
            let literal = match &item.kind {
                ExprKind::Number(_) | ExprKind::Text(_) | ExprKind::Bool(_) => true,
                ExprKind::Negative(inner) => matches!(inner.kind, ExprKind::Number(_)),
                _ => false,
            };
            if !literal {
                return Err(ExprError::new(item.at, "a list holds numbers, texts or booleans"));
            }
            list.push(item);
            if !self.take(",") {
                break;
            }
        }
        self.expect("]", "after the list")?;
        Ok(list)
    }
}

enum Infix {
    Binary(BinaryOp),
    In { negated: bool },
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
