//! Types of an expression, as far as they can be known before a reading comes: fields may hold anything.

use super::{BinaryOp, Expr, ExprError, ExprKind, Function};
use crate::diagnostic;
use crate::rules::{ColumnType, Tables};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Number,
    Text,
    Bool,
    /// A field: known only when a reading comes.
    Any,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Type::Number => "a number",
            Type::Text => "text",
            Type::Bool => "true or false",
            Type::Any => "a field",
        }
    }
    fn may_be(self, other: Type) -> bool {
        self == Type::Any || other == Type::Any || self == other
    }
}

/// Finds everything that can never work in a condition.
pub fn check(expr: &Expr, tables: &Tables) -> Vec<ExprError> {
    let mut checker = Checker { tables, errors: Vec::new() };
    let found = checker.infer(expr);
    if !found.may_be(Type::Bool) {
        checker.errors.push(
            ExprError::new(expr.at, format!("this is {}, not a condition", found.name()))
                .help("compare it with something, for example `> 0`"),
        );
    }
    checker.errors
}

struct Checker<'a> {
    tables: &'a Tables,
    errors: Vec<ExprError>,
}

impl Checker<'_> {
    fn want(&mut self, expr: &Expr, want: Type, what: &str) {
        let found = self.infer(expr);
        if !found.may_be(want) {
            self.errors
                .push(ExprError::new(expr.at, format!("{what} takes {}, this is {}", want.name(), found.name())));
        }
    }

    fn infer(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            ExprKind::Number(_) => Type::Number,
            ExprKind::Text(_) => Type::Text,
            ExprKind::Bool(_) | ExprKind::Has(_) => Type::Bool,
            ExprKind::Field(_) => Type::Any,
            ExprKind::Not(inner) => {
                self.want(inner, Type::Bool, "`not`");
                Type::Bool
            }
            ExprKind::Negative(inner) => {
                self.want(inner, Type::Number, "`-`");
                Type::Number
            }
            ExprKind::Binary(op, left, right) if op.is_logic() => {
                self.want(left, Type::Bool, &format!("`{}`", op.symbol()));
                self.want(right, Type::Bool, &format!("`{}`", op.symbol()));
                Type::Bool
            }
            ExprKind::Binary(op, left, right) if op.is_comparison() => {
                self.comparison(*op, left, right);
                Type::Bool
            }
            ExprKind::Binary(op, left, right) => {
                self.want(left, Type::Number, &format!("`{}`", op.symbol()));
                self.want(right, Type::Number, &format!("`{}`", op.symbol()));
                Type::Number
            }
            ExprKind::In(value, list) => {
                let value_type = self.infer(value);
                for item in list {
                    let item_type = self.infer(item);
                    if !value_type.may_be(item_type) {
                        let message = format!("{} is never in {}", value_type.name(), item_type.name());
                        self.errors.push(ExprError::new(item.at, message));
                    }
                }
                Type::Bool
            }
            ExprKind::Call(function, args) => {
                for arg in args {
                    self.want(arg, Type::Number, &format!("`{}`", function.name()));
                }
                if args.len() < 2 && *function != Function::Abs {
                    let message = format!("`{}` takes two values or more", function.name());
                    self.errors.push(ExprError::new(expr.at, message));
                }
                Type::Number
            }
            ExprKind::Lookup { table, key, column, column_at, default } => {
                let found = self.lookup(expr.at, table, column, *column_at);
                if self.infer(key) == Type::Bool {
                    self.errors.push(ExprError::new(key.at, "a key is text or a number, not true or false"));
                }
                if let Some(default) = default {
                    self.want(default, found, &format!("column `{column}`"));
                }
                found
            }
        }
    }

    fn comparison(&mut self, op: BinaryOp, left: &Expr, right: &Expr) {
        let (left_type, right_type) = (self.infer(left), self.infer(right));
        if !left_type.may_be(right_type) {
            let message = format!(
                "`{}` compares {} with {}, which never holds",
                op.symbol(),
                left_type.name(),
                right_type.name()
            );
            self.errors.push(ExprError::new(left.at, message));
        } else if !matches!(op, BinaryOp::Eq | BinaryOp::Ne) && (left_type == Type::Bool || right_type == Type::Bool) {
            let message = format!("`{}` orders numbers or text, not true and false", op.symbol());
            self.errors.push(ExprError::new(left.at, message));
        }
    }

    fn lookup(&mut self, at: usize, table: &str, column: &str, column_at: usize) -> Type {
        let Some(found) = self.tables.get(table) else {
            let mut error = ExprError::new(at, format!("there is no table `{table}` in `tables` of this group"));
            error.help = diagnostic::meant(table, self.tables.keys().map(String::as_str));
            self.errors.push(error);
            return Type::Any;
        };
        let Some(found) = found else { return Type::Any };
        match found.column_type(column) {
            Some(ColumnType::Number) => Type::Number,
            Some(ColumnType::Text) => Type::Text,
            None => {
                let mut error = ExprError::new(column_at, format!("table `{table}` has no column `{column}`"));
                error.help = diagnostic::meant(column, found.columns());
                self.errors.push(error);
                Type::Any
            }
        }
    }
}
