//! Tests of the door from outside: hostile bytes, and clients on their connections.

mod door;
mod fuzz;
