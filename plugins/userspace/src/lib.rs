//! The offload backend that is an ESP datapath of its own: a tunnel device on the protected side, raw ESP and UDP 4500 on the outer side.
//!
//! ```text
//!  LAN ─► TUN ─► Outbound: SPD ─► SA ─► seal ─► UDP 4500 / protocol 50 ─► peer       one thread
//!  LAN ◄─ TUN ◄─ Inbound: selectors ◄─ open ◄─ window ◄─ SA by SPI slot ◄─ peer      one thread
//!                            ▲ published snapshot of SAD and SPD
//!  Request ─► Control: validate, apply or undo, publish; guard and routes at the host   one thread
//! ```
//!
//! [`Userspace`] is the backend. Below it everything that decides about packets works on buffers and is told the time ([`engine`],
//! [`esp`], [`packet`]); sockets, threads and the host kernel are at the edge (the crate `offload-host` and a private module). Reading order: [`sad`], [`spd`],
//! [`engine`], [`control`], [`nic`].

pub mod control;
pub mod drops;
pub mod engine;
pub mod esp;
pub mod nic;
pub mod packet;
pub mod sad;
pub mod spd;

mod config;
mod crypto;
mod icmp;
mod io;
mod mss;
mod surroundings;
mod userspace;

pub use config::{StartError, UserspaceConfig};
pub use ipsec::spi::{SLOT_REST, SLOTS};
pub use surroundings::NoMachine;
pub use userspace::{Simulated, Userspace};
