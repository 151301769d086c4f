//! Writes an expression with as few parentheses as give it the same meaning.

use std::fmt;

use super::ast::{COMPARISON, NEGATION, NOT, write_name};
use super::{Expr, ExprKind};

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self, 0)
    }
}

/// Writes `expr` where only what binds at least as tightly as `least` may stand bare.
fn write(f: &mut fmt::Formatter<'_>, expr: &Expr, least: u8) -> fmt::Result {
    let power = power(expr);
    if power < least {
        f.write_str("(")?;
        write(f, expr, 0)?;
        return f.write_str(")");
    }
    match &expr.kind {
        ExprKind::Number(value) => write!(f, "{value}"),
        ExprKind::Text(text) => write_text(f, text),
        ExprKind::Bool(value) => write!(f, "{value}"),
        ExprKind::Field(path) => write!(f, "{path}"),
        ExprKind::Has(path) => write!(f, "has({path})"),
        ExprKind::Not(inner) => {
            f.write_str("not ")?;
            write(f, inner, NOT)
        }
        ExprKind::Negative(inner) => {
            f.write_str("-")?;
            write(f, inner, NEGATION)
        }
        ExprKind::Binary(op, left, right) => {
            // Comparisons do not chain; the others lean left.
            let left_least = if op.is_comparison() { power + 1 } else { power };
            write(f, left, left_least)?;
            write!(f, " {} ", op.symbol())?;
            write(f, right, power + 1)
        }
        ExprKind::In(value, list) => {
            write(f, value, COMPARISON + 1)?;
            f.write_str(" in [")?;
            write_list(f, list)?;
            f.write_str("]")
        }
        ExprKind::Call(function, args) => {
            write!(f, "{}(", function.name())?;
            write_list(f, args)?;
            f.write_str(")")
        }
        ExprKind::Lookup { table, key, column, default, .. } => {
            f.write_str("lookup(")?;
            write_name(f, table)?;
            f.write_str(", ")?;
            write(f, key, 0)?;
            f.write_str(", ")?;
            write_name(f, column)?;
            if let Some(default) = default {
                f.write_str(", ")?;
                write(f, default, 0)?;
            }
            f.write_str(")")
        }
    }
}

fn power(expr: &Expr) -> u8 {
    match &expr.kind {
        ExprKind::Binary(op, ..) => op.power(),
        ExprKind::In(..) => COMPARISON,
        ExprKind::Not(_) => NOT,
        ExprKind::Negative(_) => NEGATION,
        _ => u8::MAX,
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, list: &[Expr]) -> fmt::Result {
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        write(f, item, 0)?;
    }
    Ok(())
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}
