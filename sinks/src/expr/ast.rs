//! The expression as a tree; each node knows where it stood in the text.

use std::fmt;

/// The path of a field in the reading: `a.b` is field `b` of object `a`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(pub Vec<String>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    Or,
    And,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl BinaryOp {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Or => "or",
            BinaryOp::And => "and",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Rem => "%",
        }
    }
    /// How tightly it binds; `not` binds between `and` (2) and the comparisons (4), negation above all of these.
    pub(crate) fn power(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And => 2,
            BinaryOp::Add | BinaryOp::Sub => 5,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem => 6,
            _ => COMPARISON,
        }
    }
    pub(crate) fn is_comparison(self) -> bool {
        self.power() == COMPARISON
    }
    pub(crate) fn is_logic(self) -> bool {
        matches!(self, BinaryOp::Or | BinaryOp::And)
    }
}

pub(crate) const NOT: u8 = 3;
pub(crate) const COMPARISON: u8 = 4;
pub(crate) const NEGATION: u8 = 7;

/// A function over values; `has` and `lookup`, which take names, have nodes of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Abs,
    Min,
    Max,
}

impl Function {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Function::Abs => "abs",
            Function::Min => "min",
            Function::Max => "max",
        }
    }
}

#[derive(Debug, Clone)]
pub enum ExprKind {
    Number(f64),
    Text(String),
    Bool(bool),
    Field(FieldPath),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `x in [1, 2]`; the list holds literals.
    In(Box<Expr>, Vec<Expr>),
    Call(Function, Vec<Expr>),
    /// `has(field)`: whether the reading has it, and not null.
    Has(FieldPath),
    Lookup {
        table: String,
        key: Box<Expr>,
        column: String,
        /// Byte offset of the column's name.
        column_at: usize,
        default: Option<Box<Expr>>,
    },
}

/// An expression and the byte offset at which it starts. Equality looks at the meaning, not at the place.
#[derive(Debug, Clone)]
pub struct Expr {
    pub kind: ExprKind,
    pub at: usize,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        use ExprKind as K;
        match (&self.kind, &other.kind) {
            (K::Number(a), K::Number(b)) => a.to_bits() == b.to_bits(),
            (K::Text(a), K::Text(b)) => a == b,
            (K::Bool(a), K::Bool(b)) => a == b,
            (K::Field(a), K::Field(b)) | (K::Has(a), K::Has(b)) => a == b,
            (K::Not(a), K::Not(b)) | (K::Negative(a), K::Negative(b)) => a == b,
            (K::Binary(op, a, b), K::Binary(other_op, c, d)) => op == other_op && a == c && b == d,
            (K::In(a, list), K::In(b, other_list)) => a == b && list == other_list,
            (K::Call(f, args), K::Call(g, other_args)) => f == g && args == other_args,
            (
                K::Lookup { table, key, column, default, .. },
                K::Lookup { table: table2, key: key2, column: column2, default: default2, .. },
            ) => table == table2 && key == key2 && column == column2 && default == default2,
            _ => false,
        }
    }
}

/// Words that cannot be a bare field name.
pub(crate) const KEYWORDS: [&str; 9] = ["and", "or", "not", "in", "true", "false", "unless", "over", "by"];

/// Whether `name` can be written without backquotes.
pub(crate) fn is_bare(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !KEYWORDS.contains(&name)
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write_name(f, part)?;
        }
        Ok(())
    }
}

pub(crate) fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    if is_bare(name) { f.write_str(name) } else { write!(f, "`{name}`") }
}
