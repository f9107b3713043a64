//! Hostile packets, in a process of their own because its memory is watched.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod mutations;
#[allow(dead_code)] // shared with the other tests
mod subject;
