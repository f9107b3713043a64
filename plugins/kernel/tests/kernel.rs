//! The kernel backend and its netlink layer against the real kernel of this machine, each test in a network namespace of its own. Needs root.
//!
//! Nothing here needs ESP in the kernel: policies, acquires and refusals work without it.
#![allow(unsafe_code)] // namespaces have no safe interface in std; each block says why it is sound
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a panic is how a test fails, in its helpers too

#[path = "kernel/backend.rs"]
mod backend;
#[path = "kernel/events.rs"]
mod events;
#[path = "kernel/figures.rs"]
mod figures;
#[path = "kernel/namespace.rs"]
mod namespace;
#[path = "kernel/policies.rs"]
mod policies;
#[path = "kernel/states.rs"]
mod states;
