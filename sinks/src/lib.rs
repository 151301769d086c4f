//! Alert rules: parse, check, evaluate, and the lifecycle of their alerts, free of IO; receivers at the edge.

pub mod diagnostic;
pub mod duration;
pub mod engine;
pub mod expr;
pub mod limits;
pub mod receiver;
pub mod rules;
pub mod scan;
pub mod template;
pub mod testing;
pub mod time;
pub mod transition;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use engine::{Engine, Reading, RuleHealth, Tally};
pub use rules::{Group, ReceiverConfig, Rule, RuleSet};
pub use transition::{State, Transition};
