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
//!
//! # What `ip xfrm` shows
//!
//! - Policies of ours have an index of `0x44......`, the guard's `0x43......`. Several of the core's with equal selectors are one, and a selector with
//!   ranges is several.
//! - An outbound policy names its SA by the SPI; without one it blocks. A trap's template names no SA that there is (127.0.0.1 to 0.0.0.0, or `::1` to
//!   `::`, with a reqid of its own), so that what the kernel keeps for an acquire lies beside no SA.
//! - Where a device holds SAs there is one more inbound state of their reqid in software, which nothing ever passes: without it states of software
//!   could hide those of the device from the kernel.
//! - An inbound SA in software carries the negotiated selector, if that is one.
//! - A move to other addresses or ports is a rekey: a state moved by the kernel is another state with the same key.
//!
//! # What the kernel does that one may not expect
//!
//! Each seen on 6.12, in the kernel lab:
//! - An inbound policy in a device is the only check of what came through the device's SAs; the kernel does not look at templates again. So each
//!   group (reqid) has an inbound policy of its own there, told apart by the selector's `user`, and none leaves the group open.
//! - Devices (mlx5) take no policy without template for everything of a family; what is to stay closed gets a template that no SA fits.
//! - A second after an SA's install the kernel looks at its age for the first time, by the wall clock. A clock that is set forward past the hard time
//!   within that second ends the SA; set later it does not, because the next look is then due in time that has passed, not at an hour.
//! - A policy for everything to everything that is to check what is forwarded out of a tunnel also meets what is forwarded into it, and drops
//!   it: such a tunnel carries what the gateways themselves send and receive, or needs an interface id.
//! - A packet socket on the outer link sees what the kernel has decrypted a second time, as if it had come in clear.

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
