//! Offload backend on Linux XFRM: SAs in software, with crypto offload, or whole in a device (packet offload).
//!
//! ```text
//!   core ──requests──► backend ──► [`xfrm::Xfrm`] ──netlink──► kernel SAD and SPD ──► device
//!     ▲                   │                                        │
//!     └─────reports───────┴◄──────── [`xfrm::KernelEvent`] ◄───────┘
//! ```
//!
//! [`xfrm`] says what is asked of the kernel in its own terms and what it tells; everything above it works against that trait, so that it can
//! be tried on a kernel in memory.

pub mod netlink;
pub mod xfrm;
