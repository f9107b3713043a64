//! The random-order model checker: seeded schedules of everything that can happen to two or three gateways, with the oracle watching.
//!
//! A [`schedule`] is data. [`generate`] makes one from a seed while it is carried out, so that enough happens in each; [`execute`] carries
//! one out and looks at the end; [`shrink`] makes a failing one small; [`soak`] runs many and counts.
//!
//! ```text
//!   seed ─► generate ─► actions ─► execute ─► World, oracle ─► journal ─► classes ─► table
//!                          │                     │ violation
//!                          └──── shrink ◄────────┘──► minimal schedule, its trace
//! ```

pub mod classes;
mod exchanges;
pub mod execute;
pub mod generate;
mod motifs;
mod quiet;
pub mod run;
pub mod schedule;
pub mod setup;
pub mod shrink;
pub mod soak;

pub use run::{Outcome, Planted, run_schedule, run_seed};
pub use schedule::Schedule;
