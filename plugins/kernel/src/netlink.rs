//! [`Xfrm`](crate::xfrm::Xfrm) over NETLINK_XFRM: what is asked of the kernel, and what it tells by itself.
//!
//! [`KernelXfrm`] asks, [`Listener`] hears. The fixed parts of messages are those of `netlink-packet-xfrm`; what that crate does not know is in
//! [`attributes`]. Octets from the kernel are input like any other: each length is checked before a parser sees them, and what makes no sense is no
//! event but a reason to look at everything again ([`KernelEvent::Lost`](crate::xfrm::KernelEvent::Lost)).
//!
//! SAs are never moved with XFRM_MSG_MIGRATE: kernels up to 6.12 clone the state without its offload, so that a policy in the device no longer
//! finds it and packets wait for an SA that seems to be there. A new state before the old one goes (make before break) works everywhere.
//!
//! Keys are in messages both ways. The bodies made here are wiped, as are the buffers below ([`offload_host::netlink`]); nothing of them is printed.

mod algorithm;
pub mod attributes;
mod body;
pub mod esp;
mod event;
mod known;
mod listener;
mod policy;
mod replay;
mod request;
mod state;

pub use self::event::{Malformed, read_event};
pub use self::known::Attributes;
pub use self::listener::Listener;
pub use self::policy::read_policy;
pub use self::request::KernelXfrm;
pub use self::state::read_state;

/// ESP, as the kernel's structures say it.
const ESP: u8 = 50;
