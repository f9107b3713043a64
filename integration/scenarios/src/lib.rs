//! Gateways in memory: endpoints of the core under one virtual clock, joined by a network that can be made to misbehave.
//!
//! A [`World`] holds two or three [`Gateway`]s. Each has a few shards, a recording backend in place of a data path, and a configuration
//! made by [`config`]. [`World::step`] jumps the clock to the next delivery or deadline. Everything random follows from one seed, so a run
//! can be repeated, and a failing one prints its seed and its [`trace`](World::trace_text).
//!
//! While a world runs, [`oracle`] watches: whether each end receives on what the other sends, whether repeated messages are the same
//! octets, whether every event comes once and in order, and that nothing stays installed that nobody owns.
//!
//! ```text
//!   test ── commands ──► Gateway A ◄── link: latency, loss, duplicates, reordering, NAT, rules ──► Gateway B
//!                        shards, recording backend                                               shards, recording backend
//!                               └──────────────── oracle: SAs, policies, wire, events ────────────────┘
//! ```
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic of the harness is a failed test, with seed and trace"
)]

pub mod clear;
pub mod config;
pub mod dice;
pub mod gateway;
pub mod journal;
pub mod link;
pub mod meaning;
pub mod model;
pub mod oracle;
pub mod packets;
pub mod sabotage;
pub mod world;

pub use dice::Dice;
pub use gateway::{Gateway, Ticket};
pub use link::{Link, Nat, Sending, Verdict};
pub use sabotage::Sabotage;
pub use world::World;

/// Number of a gateway in its world.
pub type Who = usize;
/// The first gateway.
pub const A: Who = 0;
/// The second gateway.
pub const B: Who = 1;
/// The third gateway.
pub const C: Who = 2;
