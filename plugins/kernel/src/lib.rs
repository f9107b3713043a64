//! Offload backend on Linux XFRM: SAs in software, with crypto offload, or whole in a device (packet offload).
//!
//! ```text
//!   core ──requests──► backend ──► [`xfrm::Xfrm`] ──netlink──► kernel SAD and SPD ──► device
//!     ▲                   │                                        │
//!     └─────reports───────┴◄──────── [`xfrm::KernelEvent`] ◄───────┘
//! ```
//!
//! [`Kernel`] is the backend. [`xfrm`] says what is asked of the kernel in its own terms and what it tells, [`surroundings`] what else is needed of the
//! host (guard, routes, bypasses of IKE); the backend works against those traits, so that it can be tried on a kernel in memory.
//!
//! What the kernel is told is little more than what it has to know: limits of time, first use of an inbound SA and idle time are watched here, on a
//! clock that does not step. The kernel's own time limit is a backstop behind ours, for SAs that outlive the process.

pub mod commands;
pub mod netlink;
pub mod surroundings;
pub mod xfrm;

mod config;
mod control;
mod feed;
mod journal;
mod kernel;
mod machine;
mod probe;
mod refusal;
mod settings;
mod statistics;

#[cfg(test)]
mod tests;

pub use config::{KernelConfig, StartError};
pub use kernel::{Kernel, Teller, Told, lacks};
