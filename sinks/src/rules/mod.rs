//! Rule files: groups of rules over a topic, lookup tables and receivers, read from YAML and checked.

mod files;
mod load;
mod receivers;
mod sources;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::expr::{Expr, FieldPath};
use crate::template::Template;

pub use files::{load, read_all};
pub use load::{Inputs, NoInputs, parse};
pub use receivers::{ReceiverConfig, Secret};
pub use sources::{Source, Sources};
pub use table::{Cell, ColumnType, Table, TableError};

/// The lookup tables of a group by name. `None`: declared, but it could not be read; only a set with mistakes has such.
pub type Tables = BTreeMap<String, Option<Arc<Table>>>;

/// All rules of a node.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    pub groups: Vec<Arc<Group>>,
    /// Each gets the transitions of all groups; the same one in several files counts once.
    pub receivers: Vec<ReceiverConfig>,
    pub files: Vec<String>,
}

/// Rules over the readings of one topic, an alert for each value of the key.
#[derive(Debug, Clone)]
pub struct Group {
    pub file: String,
    pub name: String,
    /// The topic that is read.
    pub source: String,
    /// The fields whose values tell one alert instance from another.
    pub key: Vec<KeyField>,
    pub time: EventTime,
    pub tables: Tables,
    pub rules: Vec<Rule>,
}

/// A field of a group's key and the label it becomes (`site.meter` becomes `site_meter`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyField {
    pub path: FieldPath,
    pub label: String,
}

/// How the time of a reading is found, and which readings move time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTime {
    /// The reading's own time; `None`: the record's timestamp.
    pub field: Option<FieldPath>,
    /// Readings this much older than their key's newest still count, milliseconds.
    pub lateness_ms: i64,
    /// Readings further ahead of their arrival do not count, milliseconds.
    pub max_future_ms: i64,
}

/// One alert rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub alert: String,
    pub expr: Expr,
    /// When a firing alert ends; `None`: when `expr` does not hold.
    pub clear: Option<Expr>,
    /// How long `expr` must hold before the alert fires, milliseconds of event time.
    pub for_ms: i64,
    /// How long a firing alert goes on after it cleared, milliseconds of event time.
    pub keep_firing_for_ms: i64,
    pub labels: Vec<(String, Template)>,
    pub annotations: Vec<(String, Template)>,
}

impl RuleSet {
    /// The topics that any group reads.
    pub fn sources(&self) -> Vec<&str> {
        let mut sources: Vec<&str> = self.groups.iter().map(|group| group.source.as_str()).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }
    pub fn rule_count(&self) -> usize {
        self.groups.iter().map(|group| group.rules.len()).sum()
    }
}
