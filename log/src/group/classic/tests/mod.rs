//! The group machine with clients that join, crash, lose answers and come back.

mod clients;
mod scenarios;
