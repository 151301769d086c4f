//! Tests of the codec: vectors from the specification, round trips, hostile bytes, and a second opinion.

mod hostile;
mod packets;
mod round_trip;
mod second_opinion;
mod vectors;
