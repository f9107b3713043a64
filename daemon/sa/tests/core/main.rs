//! The core between two endpoints: one behaviour per module.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

mod abuse;
mod collision;
mod common;
mod configured;
mod counters;
mod establish;
mod hostility;
mod path;
mod rekey;
mod reload;
