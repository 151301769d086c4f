//! Evaluates a program over one reading, with the third truth value *unknown* for what the reading does not tell.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::compile::Node;
use super::{BinaryOp, Function, Program};
use crate::rules::Cell;
use crate::scan::{Row, Slot};

/// A value while a condition is evaluated.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A field that the reading lacks, or what was made from one.
    Missing,
    /// Types that do not fit, such as text compared with a number.
    Wrong,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    False,
    True,
    /// A field is missing.
    Unknown,
    /// As unknown, because of a value of the wrong type: counted as an evaluation error.
    Wrong,
}

impl Truth {
    pub fn is_known(self) -> bool {
        matches!(self, Truth::True | Truth::False)
    }
}

impl Program {
    /// Whether the condition holds for a reading.
    pub fn condition(&self, row: &Row<'_>) -> Truth {
        match eval(&self.condition, row) {
            Value::Bool(true) => Truth::True,
            Value::Bool(false) => Truth::False,
            Value::Missing => Truth::Unknown,
            _ => Truth::Wrong,
        }
    }

    /// The number to show: the left side of the first comparison.
    pub fn value(&self, row: &Row<'_>) -> Option<f64> {
        match eval(self.value.as_ref()?, row) {
            Value::Number(value) => Some(value),
            _ => None,
        }
    }
}

fn eval<'a>(node: &'a Node, row: &Row<'a>) -> Value<'a> {
    match node {
        Node::Missing => Value::Missing,
        Node::Number(value) => Value::Number(*value),
        Node::Text(text) => Value::Text(Cow::Borrowed(text)),
        Node::Bool(value) => Value::Bool(*value),
        Node::Field(slot) => match row.get(*slot) {
            Slot::Missing => Value::Missing,
            Slot::Bool(value) => Value::Bool(value),
            Slot::Number { value, .. } => Value::Number(value),
            Slot::Text { .. } => row.text(*slot).map_or(Value::Wrong, Value::Text),
            Slot::Nested => Value::Wrong,
        },
        Node::Has(slot) => Value::Bool(row.get(*slot) != Slot::Missing),
        Node::Not(inner) => match eval(inner, row) {
            Value::Bool(value) => Value::Bool(!value),
            other => unusable(&other),
        },
        Node::Negative(inner) => match eval(inner, row) {
            Value::Number(value) => Value::Number(-value),
            other => unusable(&other),
        },
        Node::And(left, right) => logic(false, left, right, row),
        Node::Or(left, right) => logic(true, left, right, row),
        Node::Compare(op, left, right) => compare(*op, &eval(left, row), &eval(right, row)),
        Node::Arithmetic(op, left, right) => match (eval(left, row), eval(right, row)) {
            (Value::Number(left), Value::Number(right)) => arithmetic(*op, left, right),
            (left, right) => unusable2(&left, &right),
        },
        Node::In(value, list) => {
            let value = eval(value, row);
            if !matches!(value, Value::Bool(_) | Value::Number(_) | Value::Text(_)) {
                return value;
            }
            Value::Bool(list.iter().any(|item| eval(item, row) == value))
        }
        Node::Call(function, args) => call(*function, args, row),
        Node::Lookup { table, column, key, default } => {
            let found = match key_text(key, row) {
                Ok(key) => match table.get(&key, *column) {
                    Some(Cell::Number(value)) => Value::Number(*value),
                    Some(Cell::Text(text)) => Value::Text(Cow::Borrowed(text)),
                    Some(Cell::Empty) | None => Value::Missing,
                },
                Err(value) => value,
            };
            match (found, default) {
                (Value::Missing, Some(default)) => eval(default, row),
                (found, _) => found,
            }
        }
    }
}

/// A key of a table as text; a numeric field as it was written.
fn key_text<'a>(node: &'a Node, row: &Row<'a>) -> Result<Cow<'a, str>, Value<'a>> {
    if let Node::Field(slot) = node
        && let Some(text) = row.text(*slot)
    {
        return Ok(text);
    }
    match eval(node, row) {
        Value::Text(text) => Ok(text),
        Value::Number(value) => Ok(Cow::Owned(value.to_string())),
        other => Err(unusable(&other)),
    }
}

fn unusable<'a>(value: &Value<'_>) -> Value<'a> {
    if *value == Value::Missing { Value::Missing } else { Value::Wrong }
}

/// Of two values that do not fit an operator: missing ones are no error.
fn unusable2<'a>(left: &Value<'_>, right: &Value<'_>) -> Value<'a> {
    if *left == Value::Missing || *right == Value::Missing { Value::Missing } else { Value::Wrong }
}

/// `and` is decided by false, `or` by true, whatever the other side is.
fn logic<'a>(decided_by: bool, left: &'a Node, right: &'a Node, row: &Row<'a>) -> Value<'a> {
    let left = eval(left, row);
    if left == Value::Bool(decided_by) {
        return left;
    }
    match (left, eval(right, row)) {
        (_, Value::Bool(right)) if right == decided_by => Value::Bool(right),
        (Value::Bool(_), Value::Bool(right)) => Value::Bool(right),
        (Value::Bool(_), other) | (other, Value::Bool(_)) => unusable(&other),
        (left, right) => unusable2(&left, &right),
    }
}

fn compare<'a>(op: BinaryOp, left: &Value<'_>, right: &Value<'_>) -> Value<'a> {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.partial_cmp(right),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) if matches!(op, BinaryOp::Eq | BinaryOp::Ne) => Some(left.cmp(right)),
        _ => return unusable2(left, right),
    };
    let Some(order) = order else { return Value::Missing };
    Value::Bool(match op {
        BinaryOp::Eq => order == Ordering::Equal,
        BinaryOp::Ne => order != Ordering::Equal,
        BinaryOp::Lt => order == Ordering::Less,
        BinaryOp::Le => order != Ordering::Greater,
        BinaryOp::Gt => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })
}

fn arithmetic<'a>(op: BinaryOp, left: f64, right: f64) -> Value<'a> {
    finite(match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        _ => left % right,
    })
}

/// Division by zero and overflow tell nothing about the meter.
fn finite<'a>(value: f64) -> Value<'a> {
    if value.is_finite() { Value::Number(value) } else { Value::Missing }
}

fn call<'a>(function: Function, args: &'a [Node], row: &Row<'a>) -> Value<'a> {
    let mut result: Option<f64> = None;
    for arg in args {
        let value = match eval(arg, row) {
            Value::Number(value) => value,
            other => return unusable(&other),
        };
        result = Some(match (function, result) {
            (Function::Abs, _) => value.abs(),
            (Function::Min, Some(least)) => least.min(value),
            (Function::Max, Some(most)) => most.max(value),
            (_, None) => value,
        });
    }
    result.map_or(Value::Missing, Value::Number)
}

#[cfg(test)]
#[path = "eval_tests.rs"]
mod tests;
