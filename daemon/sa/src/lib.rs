//! The IKEv2 core (RFC 7296) without I/O: octets, deadlines, commands and reports in; datagrams, backend requests, work and events out.
//!
//! # Tour
//! An [`Endpoint`] is one shard. Its driver hands in an [`Input`] together with a [`Context`] (clock, randomness, configuration, devices),
//! takes every [`Output`], sleeps until [`Endpoint::poll_deadline`] or the next input, and begins again. Nothing here reads a clock, opens
//! a socket or starts a thread, so the same code runs in the daemon and under the virtual clock of the scenarios.
//!
//! ```text
//!  Datagram, Deadline, Command,          ┌──────────── Endpoint ───────────┐   Transmit, Offload, Work,
//!  Report, Backend, Work, Directory ───► │ half-open table ─► IKE SA ─► CHILD│ ► Event, Reply, Directory
//!                                        └─────────────────────────────────┘
//! ```
#![forbid(unsafe_code)]

mod children;
mod choose;
mod collision;
mod cookie;
mod core;
mod deadline;
mod directory;
mod endpoint;
mod error;
mod established;
mod exchange;
mod ike_sa;
mod io;
mod key_schedule;
mod nat;
mod negotiation;
mod notice;
mod registry;
mod retry;
mod route;
mod selectors;
mod suite;
mod turn;
mod window;
mod work;

pub use directory::{DirectoryEntry, DirectoryMessage};
pub use endpoint::{Counts, Endpoint};
pub use io::{Context, Input, Output, Recipient, SpiSource, Transmit};
pub use route::{CommandRoute, command_route, home, route};
pub use work::{Computation, Job, Outcome, WorkId};
