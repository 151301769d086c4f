//! Turns a checked expression into a program: fields resolved to slots, tables and columns to their places.

use std::sync::Arc;

use super::{BinaryOp, Expr, ExprKind, Function};
use crate::rules::{Table, Tables};
use crate::scan::FieldSet;

/// A condition ready to be evaluated over the slots of a reading.
#[derive(Debug, Clone)]
pub struct Program {
    pub(super) condition: Node,
    /// What a transition shows as the alert's value.
    pub(super) value: Option<Node>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Missing,
    Number(f64),
    Text(Box<str>),
    Bool(bool),
    Field(usize),
    Has(usize),
    Not(Box<Node>),
    Negative(Box<Node>),
    Or(Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Compare(BinaryOp, Box<Node>, Box<Node>),
    Arithmetic(BinaryOp, Box<Node>, Box<Node>),
    In(Box<Node>, Box<[Node]>),
    Call(Function, Box<[Node]>),
    Lookup { table: Arc<Table>, column: usize, key: Box<Node>, default: Option<Box<Node>> },
}

/// Compiles an expression that [`super::check`] found no fault with, adding the fields it needs to `fields`.
pub fn compile(expr: &Expr, fields: &mut FieldSet, tables: &Tables) -> Program {
    let value = shown(expr).map(|expr| node(expr, fields, tables));
    Program { condition: node(expr, fields, tables), value }
}

fn node(expr: &Expr, fields: &mut FieldSet, tables: &Tables) -> Node {
    let mut boxed = |expr: &Expr| Box::new(node(expr, fields, tables));
    match &expr.kind {
        ExprKind::Number(value) => Node::Number(*value),
        ExprKind::Text(text) => Node::Text(text.as_str().into()),
        ExprKind::Bool(value) => Node::Bool(*value),
        ExprKind::Field(path) => Node::Field(fields.slot(path)),
        ExprKind::Has(path) => Node::Has(fields.slot(path)),
        ExprKind::Not(inner) => Node::Not(boxed(inner)),
        ExprKind::Negative(inner) => match &inner.kind {
            ExprKind::Number(value) => Node::Number(-value),
            _ => Node::Negative(boxed(inner)),
        },
        ExprKind::Binary(op, left, right) => {
            let (left, right) = (boxed(left), boxed(right));
            match op {
                BinaryOp::Or => Node::Or(left, right),
                BinaryOp::And => Node::And(left, right),
                op if op.is_comparison() => Node::Compare(*op, left, right),
                op => Node::Arithmetic(*op, left, right),
            }
        }
        ExprKind::In(value, list) => {
            Node::In(boxed(value), list.iter().map(|item| node(item, fields, tables)).collect())
        }
        ExprKind::Call(function, args) => {
            Node::Call(*function, args.iter().map(|arg| node(arg, fields, tables)).collect())
        }
        ExprKind::Lookup { table, key, column, default, .. } => {
            let key = boxed(key);
            let default = default.as_ref().map(|default| boxed(default));
            let found = tables.get(table).and_then(Option::as_ref);
            match found.and_then(|table| Some((table, table.column(column)?))) {
                Some((table, column)) => Node::Lookup { table: Arc::clone(table), column, key, default },
                None => Node::Missing,
            }
        }
    }
}

/// The left side of the first comparison in reading order: in `voltage > 253 and ok` the voltage.
fn shown(expr: &Expr) -> Option<&Expr> {
    match &expr.kind {
        ExprKind::Binary(op, left, _) if op.is_comparison() => {
            if matches!(left.kind, ExprKind::Number(_)) {
                None
            } else {
                Some(left)
            }
        }
        ExprKind::Binary(op, left, right) if op.is_logic() => shown(left).or_else(|| shown(right)),
        ExprKind::In(value, _) => Some(value),
        ExprKind::Not(inner) => shown(inner),
        _ => None,
    }
}
