//! Every limit and default of the alert rules in one place, and the relations between them.

/// Largest rule file, in bytes.
pub const MAX_RULE_FILE_BYTES: usize = 1 << 20;
/// Deepest indentation of a rule file, in columns; it bounds the nesting, and so the stack, of the YAML parser.
pub const MAX_YAML_INDENT: usize = 256;
/// Deepest nesting of `[` and `{` in a rule file.
pub const MAX_YAML_FLOW: usize = 64;
/// Longest expression, in bytes.
pub const MAX_EXPR_BYTES: usize = 16 << 10;
/// Deepest nesting of an expression.
pub const MAX_EXPR_DEPTH: usize = 64;
/// Largest lookup table, in bytes.
pub const MAX_TABLE_BYTES: usize = 64 << 20;
/// Longest value of a group's key, all its fields together, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Most key values that one group follows in one source partition; readings of further ones are counted and ignored.
pub const MAX_KEYS_PER_GROUP: usize = 1_000_000;
/// Longest text that one `{{ field }}` inserts into a label or annotation, in bytes.
pub const MAX_TEMPLATE_VALUE_BYTES: usize = 1024;
/// Default `time.lateness`: readings this much older than their key's newest are still evaluated, milliseconds.
pub const DEFAULT_LATENESS_MS: i64 = 600_000;
/// 2000-01-01: an arrival before was stamped by a clock that was not set yet, and everything is ahead of that, milliseconds.
pub const CLOCK_UNSET_BEFORE_MS: i64 = 946_684_800_000;
/// Default `time.max_future`: readings further ahead of their arrival do not move their key's clock, milliseconds.
pub const DEFAULT_MAX_FUTURE_MS: i64 = 60_000;
/// Default `timeout` of one delivery over HTTP, milliseconds.
pub const DEFAULT_DELIVERY_TIMEOUT_MS: i64 = 10_000;
/// Attempts after which a transition that the receiver itself refuses (400, 413, 422) is parked.
pub const REFUSALS_BEFORE_PARKING: u32 = 5;
/// For how long a fired alert that is posted to Alertmanager holds unless it is posted again, milliseconds: Prometheus, too,
/// gives it four times the pause between two posts.
pub const ALERTMANAGER_HOLD_MS: i64 = 240_000;
/// Most alerts in one POST to Alertmanager.
pub const ALERTMANAGER_POST_ALERTS: usize = 500;
/// First pause between two attempts of a delivery, milliseconds.
pub const BACKOFF_FIRST_MS: u64 = 200;
/// Longest pause between two attempts of a delivery, milliseconds.
pub const BACKOFF_MAX_MS: u64 = 60_000;

const _: () = assert!(MAX_EXPR_BYTES < MAX_RULE_FILE_BYTES);
const _: () = assert!(BACKOFF_FIRST_MS < BACKOFF_MAX_MS);
