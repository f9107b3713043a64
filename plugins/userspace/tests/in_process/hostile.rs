//! Hostile packets, in a process of their own because its allocations are counted.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(unsafe_code)] // a global allocator is unsafe to implement
mod mutations;
#[allow(dead_code)] // shared with the other tests
mod subject;
