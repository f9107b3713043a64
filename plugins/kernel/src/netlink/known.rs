//! Which of the newer attributes this kernel knows. One that does not know an attribute ignores it in silence, so it is asked.
//!
//! The question is for a state that nobody has, with an attribute whose value is impossible: a kernel that knows the attribute minds the value,
//! another one says that there is no such state. Nothing is changed by it. Where the only impossible value is a wrong length the kernel also
//! writes a line to its log, so those are asked only when needed.

use std::net::{IpAddr, Ipv6Addr};

use ipsec::Spi;
use netlink_packet_xfrm::XFRM_MSG_GETSA;
use offload_host::netlink::{Netlink, Refusal};

use super::attributes::{XFRMA_NAT_KEEPALIVE_INTERVAL, XFRMA_SA_DIR, XFRMA_SA_PCPU};
use super::state;
use crate::xfrm::StateId;

/// Addresses that are on no wire: the discard prefix (RFC 6666).
const NOWHERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1));

/// The attributes that this kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// XFRMA_SA_DIR: states have a direction, and outbound ones need no replay window.
    pub direction: bool,
    /// XFRMA_SA_PCPU: states and acquires of one CPU (RFC 9611).
    pub cpu: bool,
    /// XFRMA_NAT_KEEPALIVE_INTERVAL: the kernel sends NAT keepalives.
    pub nat_keepalive: bool,
}

/// What was found out so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    direction: bool,
    cpu: Option<bool>,
    nat_keepalive: Option<bool>,
}

impl Known {
    /// Finds out what every state needs to know.
    pub(super) fn ask(netlink: &mut Netlink) -> Result<Self, Refusal> {
        Ok(Self { direction: knows(netlink, XFRMA_SA_DIR, &[0xff])?, cpu: None, nat_keepalive: None })
    }

    pub(super) const fn direction(&self) -> bool {
        self.direction
    }

    pub(super) fn cpu(&mut self, netlink: &mut Netlink) -> Result<bool, Refusal> {
        lazily(&mut self.cpu, || knows(netlink, XFRMA_SA_PCPU, &[0]))
    }

    pub(super) fn nat_keepalive(&mut self, netlink: &mut Netlink) -> Result<bool, Refusal> {
        lazily(&mut self.nat_keepalive, || knows(netlink, XFRMA_NAT_KEEPALIVE_INTERVAL, &[0]))
    }

    pub(super) fn all(&mut self, netlink: &mut Netlink) -> Result<Attributes, Refusal> {
        Ok(Attributes {
            direction: self.direction,
            cpu: self.cpu(netlink)?,
            nat_keepalive: self.nat_keepalive(netlink)?,
        })
    }
}

fn lazily(fact: &mut Option<bool>, ask: impl FnOnce() -> Result<bool, Refusal>) -> Result<bool, Refusal> {
    match *fact {
        Some(known) => Ok(known),
        None => ask().inspect(|known| *fact = Some(*known)),
    }
}

/// Whether the kernel minds an impossible `value` of attribute `kind`.
fn knows(netlink: &mut Netlink, kind: u16, value: &[u8]) -> Result<bool, Refusal> {
    // The least SPI that a state can have; whether somebody has a state with it towards nowhere does not matter.
    let Some(spi) = Spi::new(256) else { return Ok(false) };
    let mut body = state::id(&StateId { destination: NOWHERE, spi, mark: None });
    body.value(kind, &[value]);
    match netlink.ask(XFRM_MSG_GETSA, body.octets()) {
        Ok(_) => Ok(false),
        Err(refusal) if refusal.is_any(&[libc::ESRCH]) => Ok(false),
        Err(refusal) if refusal.is_any(&[libc::ERANGE, libc::EINVAL]) => Ok(true),
        Err(refusal) => Err(refusal),
    }
}
