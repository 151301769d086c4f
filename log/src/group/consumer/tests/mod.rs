//! Tests of the consumer protocol's machine: single cases, and many clients at random.

mod clients;
mod properties;
mod scenarios;
