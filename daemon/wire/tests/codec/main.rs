//! The codec seen from outside: captured messages of another implementation, round trips, refusals, and octets that mean harm.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod captured;
mod hostile;
mod octets;
mod rejections;
mod round_trip;
mod sealing;
mod strategies;
