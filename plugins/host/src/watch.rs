//! Hears when the addresses or routes of this host change, for whoever has to move tunnels.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::error::HostError;
use super::links::{self, Interfaces};
use super::netlink::Netlink;
use super::rules::OURS;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

/// See the module. Becomes readable when there is something to hear.
#[derive(Debug)]
pub struct Watch {
    changes: Netlink,
    route: Netlink,
    device: Option<String>,
}

impl Watch {
    /// Listens from now on, in the network namespace of the calling thread. `device` is our TUN device, where there
    /// is one.
    pub fn open(device: Option<&str>) -> Result<Self, HostError> {
        const LINK: u32 = 1;
        const IPV4_ADDRESS: u32 = 5;
        const IPV4_ROUTE: u32 = 7;
        const IPV6_ADDRESS: u32 = 9;
        const IPV6_ROUTE: u32 = 11;
        let groups = [LINK, IPV4_ADDRESS, IPV4_ROUTE, IPV6_ADDRESS, IPV6_ROUTE];
        Ok(Self {
            changes: Netlink::listen("route", NETLINK_ROUTE, &groups)?,
            route: Netlink::open("route", NETLINK_ROUTE)?,
            device: device.map(str::to_owned),
        })
    }

    /// Whether addresses, links or routes other than ours have changed since the last call; also when the kernel had to drop messages.
    pub fn heard(&mut self) -> bool {
        self.changes.heard(matters)
    }

    /// The addresses of this host that can be ends of a tunnel, those of the loopback interface last: without link-local ones and those of
    /// our own device.
    pub fn addresses(&mut self) -> Result<Vec<IpAddr>, HostError> {
        let interfaces = Interfaces::read(&mut self.route).map_err(|refusal| refusal.on("list", "addresses"))?;
        Ok(interfaces.ends(self.device.as_ref().and_then(|device| links::index(device).ok())))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

fn matters(kind: u16, body: &[u8]) -> bool {
    match (kind, body) {
        (RTM_NEWLINK..=RTM_DELLINK | RTM_NEWADDR..=RTM_DELADDR, _) => true,
        (RTM_NEWROUTE..=RTM_DELROUTE, [_, _, _, _, _, protocol, ..]) => *protocol != u8::from(OURS),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_routes_are_not_heard() {
        let route = |protocol| [2, 24, 0, 0, 220, protocol, 0, 1, 0, 0, 0, 0];
        assert!(matters(RTM_NEWROUTE, &route(3)) && matters(RTM_DELROUTE, &route(3)));
        assert!(!matters(RTM_NEWROUTE, &route(u8::from(OURS))) && !matters(RTM_DELROUTE, &route(u8::from(OURS))));
        assert!(matters(RTM_DELADDR, &[]) && matters(RTM_NEWLINK, &[]));
        assert!(!matters(RTM_NEWROUTE, &[2, 24]) && !matters(28, &route(3)));
    }
}
