//! The expression language of rules: `voltage > lookup(limits, meter, v_max, 253) and not has(test)`.
//!
//! Numbers, text, booleans and fields of the reading (`a.b`; a name with other characters in backquotes), the
//! operators `+ - * / %`, `== != < <= > >=`, `in [...]`, `and or not` (also `&& || !`), and the functions `abs`, `min`, `max`, `has`
//! and `lookup`.
//!
//! A field that is missing or null makes what depends on it *unknown*, and so does a comparison of text with a number, or arithmetic
//! without a finite result. `false and unknown` is false, `true or unknown` is true; a condition that is unknown in
//! the end leaves its alert as it is.

mod ast;
mod check;
mod compile;
mod eval;
mod lex;
mod parse;
mod print;

pub use ast::{BinaryOp, Expr, ExprKind, FieldPath, Function};
pub use check::check;
pub use compile::{Program, compile};
pub use eval::{Truth, Value};
pub use parse::parse;

/// What is wrong with an expression, and where: a byte offset into its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    pub at: usize,
    pub message: String,
    pub help: Option<String>,
}

impl ExprError {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> ExprError {
        ExprError { at, message: message.into(), help: None }
    }
    pub(crate) fn help(mut self, help: impl Into<String>) -> ExprError {
        self.help = Some(help.into());
        self
    }
}
