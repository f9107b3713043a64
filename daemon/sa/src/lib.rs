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
//!
//! Reading order, from the outside in:
//!
//! | module | what |
//! |---|---|
//! | `io`, `work`, `directory`, `route` | the surface: inputs, outputs, jobs, messages between shards, which shard gets what |
//! | `endpoint` | one shard: tables, half-open IKE SAs, commands, configured children with their traps and retries, reload |
//! | `admission` | who may begin an IKE SA: COOKIEs, half-open limits and rates, shared by all shards |
//! | `ike_sa`, `core` | one IKE SA: its phase, the way of each message to its exchange, sealing and opening |
//! | `established` | an authenticated IKE SA: what it is doing and going to do, installs, limits, the ways in which things end |
//! | `exchange` | one module for each exchange: IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, rekeying, deletes, liveness, moving (MOBIKE) |
//! | `negotiation`, `suite`, `selectors`, `transport`, `choose` | agreeing on a CHILD SA, proposals, selectors, transport mode, the connection for a peer |
//! | `children`, `ladder`, `specs` | a CHILD SA: its entries in SAD and SPD, their order, and whether a device still has them; the rungs of a device that it may run on; how they are shown |
//! | `window`, `retry`, `deadline`, `listing`, `collision`, `detour`, `switch`, `key_schedule`, `nat`, `mobility`, `pace`, `shaper` | one idea each, without state of others |
//! | `gauge`, `meter`, `totals`, `farewell` | counters of the device: how often they are read, what they say about limits, sums over rekeys, and the last ones |
//! | `counters`, `tally` | counters of messages: by connection as VICI shows them, and by what became of them over all shards |
//! | `fragmentation`, `datagrams`, `reassembly` | messages that are longer than one datagram should be |
//! | `say` | the lines of the log that tools know |
//! | `error` | whose fault it is, and the one function that decides what goes on the wire |
//!
//! Three rules hold it together. Exchanges never name each other: what one wants of another is queued as an intent. Only an authenticated IKE
//! SA has CREATE_CHILD_SA at all: it is another type. Waiting for the backend is one state, whoever waits.
//!
//! The tests in `tests/core` show two endpoints on one clock; `establish.rs` is the place to begin.
#![forbid(unsafe_code)]

mod admission;
mod children;
mod choose;
mod collision;
mod core;
mod counters;
mod datagrams;
mod deadline;
mod detour;
mod directory;
mod endpoint;
mod error;
mod established;
mod exchange;
mod export;
mod farewell;
mod fragmentation;
mod gauge;
mod ike_sa;
mod io;
mod key_schedule;
mod ladder;
mod listing;
mod meter;
mod mobility;
mod nat;
mod negotiation;
mod notice;
mod pace;
mod reassembly;
mod registry;
mod retry;
mod route;
mod say;
mod selectors;
mod shaper;
mod specs;
mod suite;
mod switch;
mod tally;
mod totals;
mod transport;
mod turn;
mod window;
mod work;

pub use admission::{Admission, Gate, HALF_OPEN, Screened};
pub use directory::{DirectoryEntry, DirectoryMessage, Wish};
pub use endpoint::{Counts, Endpoint, Sender, configured_pairs};
pub use export::{EspSaKeys, ExportedKeys, IkeSaKeys};
pub use io::{Context, Input, Output, Recipient, SpiSource, Transmit};
pub use route::{CommandRoute, command_route, home, route};
pub use specs::planned;
pub use tally::{Dropped, Tallied, Tally};
pub use work::{Computation, Job, Outcome, WorkId};
