//! Scenarios of the core: one behaviour per module.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic here is a failed test")]

mod acquire;
mod any_order;
mod at_once;
mod at_responder;
mod childless;
mod collisions;
mod cookie;
mod delete;
mod device;
mod fragmentation;
mod handshake;
mod harness;
mod hostile;
mod install;
mod invalid_ke;
mod ipv6;
mod linger;
mod liveness;
mod loss;
mod memory;
mod mobike;
mod names;
mod nat;
mod reauth;
mod refusals;
mod rekey_child;
mod rekey_ike;
mod reload;
mod retransmission;
mod several;
mod shards;
mod shutdown;
mod start;
mod suspend;
mod transport;
