//! Interfaces and addresses as the kernel shows them: local addresses, connected subnets, links that face the outside.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::net::IpAddr;

use ipsec::AddressRange;
use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkHeader, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_XFRM};

use super::error::HostError;
use super::netlink::{self, Netlink, Refusal, octets};
use super::prefix::{Family, Prefix};
use super::xfrm::concerns_ours;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_DELRULE: u16 = 33;
/// Index of the loopback interface in every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) address: IpAddr,
    /// What is reached directly through it: its subnet, or the other end of a point-to-point link.
    pub(super) subnet: Prefix,
    pub(super) link: u32,
}

/// Addresses and links at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interfaces {
    /// Usable addresses in the kernel's order, those of the loopback interface last.
    pub(super) addresses: Vec<Local>,
    /// Links that carry a default route.
    pub(super) outside: BTreeSet<u32>,
}

/// A directly reachable subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Connected {
    pub(super) subnet: Prefix,
    pub(super) link: u32,
}

impl Interfaces {
    /// Reads both from the kernel.
    pub(super) fn read(route: &mut Netlink) -> Result<Self, Refusal> {
        let mut addresses = Vec::new();
        for message in route.dump(RTM_GETADDR, &octets(&AddressMessage::default()))? {
            if message.kind == RTM_NEWADDR && message.body.len() >= 8 {
                addresses.extend(AddressMessage::parse(&message.body).ok().and_then(|parsed| local(&parsed)));
            }
        }
        addresses.sort_by_key(|local| local.link == LOOPBACK);
        let mut outside = BTreeSet::new();
        for message in routes(route, None)? {
            if message.header.destination_prefix_length == 0 && message.header.kind == RouteType::Unicast {
                outside.extend(out_links(&message));
            }
        }
        Ok(Self { addresses, outside })
    }

    /// The first local address inside `range` that others may use to reach us.
    pub(super) fn source_inside(&self, range: AddressRange) -> Option<IpAddr> {
        let usable = |local: &&Local| range.contains(local.address) && !is_link_local(local.address);
        self.addresses.iter().find(usable).map(|local| local.address)
    }

    /// Addresses that can be ends of a tunnel: not link-local and not on the link `except`.
    pub(super) fn ends(&self, except: Option<u32>) -> Vec<IpAddr> {
        let usable = |local: &&Local| Some(local.link) != except && !is_link_local(local.address);
        self.addresses.iter().filter(usable).map(|local| local.address).collect()
    }

    /// Links that routers and hosts may be behind: those with an address or a default route, without loopback and `except`.
    pub(super) fn links(&self, except: Option<u32>) -> BTreeSet<u32> {
        let routable = self.addresses.iter().filter(|local| !is_link_local(local.address)).map(|local| local.link);
        let links = routable.chain(self.outside.iter().copied());
        links.filter(|link| *link != LOOPBACK && Some(*link) != except).collect()
    }

    /// Subnets on links other than loopback and `except`, without link-local ones and single own addresses.
    pub(super) fn connected(&self, except: Option<u32>) -> BTreeSet<Connected> {
        self.addresses
            .iter()
            .filter(|local| local.link != LOOPBACK && Some(local.link) != except)
            .filter(|local| local.subnet != Prefix::host(local.address) && !is_link_local(local.address))
            .map(|local| Connected { subnet: local.subnet, link: local.link })
            .collect()
    }
}

/// Routes of one table, or of all.
pub(super) fn routes(route: &mut Netlink, only: Option<u32>) -> Result<Vec<RouteMessage>, Refusal> {
    let mut out = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        request.attributes.extend(only.map(RouteAttribute::Table));
        let listed = match route.dump(RTM_GETROUTE, &octets(&request)) {
            // A filter names a table that nobody has used yet.
            Err(refusal) if only.is_some() && refusal.is_any(&[libc::ENOENT]) => Vec::new(),
            listed => listed?,
        };
        for message in listed {
            if message.kind == RTM_NEWROUTE && message.body.len() >= 12 {
                out.extend(RouteMessage::parse(&message.body).ok());
            }
        }
    }
    out.retain(|message| only.is_none_or(|only| table(message) == only));
    Ok(out)
}

/// Hears of changes that [`Interfaces`], our routes, rules or policies depend on.
#[derive(Debug)]
pub(super) struct Changes {
    route: Netlink,
    /// Where the kernel has XFRM.
    xfrm: Option<Netlink>,
    /// Every route of others matters, not the default ones only.
    every_route: bool,
}

/// What was heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Addresses, links or routes, or ours among these.
    pub(super) surroundings: bool,
    /// Other routes, where the ways to peers are of interest.
    pub(super) ways: bool,
    /// A rule went.
    pub(super) rules: bool,
    /// A policy went or was changed.
    pub(super) policies: bool,
}

impl std::ops::BitOrAssign for Heard {
    fn bitor_assign(&mut self, other: Self) {
        self.surroundings |= other.surroundings;
        self.ways |= other.ways;
        self.rules |= other.rules;
        self.policies |= other.policies;
    }
}

impl Changes {
    /// From now on.
    pub(super) fn open(with_xfrm: bool, every_route: bool) -> Result<Self, HostError> {
        const LINK: u32 = 1;
        const IPV4_ADDRESS: u32 = 5;
        const IPV4_ROUTE: u32 = 7;
        const IPV4_RULE: u32 = 8;
        const IPV6_ADDRESS: u32 = 9;
        const IPV6_ROUTE: u32 = 11;
        const IPV6_RULE: u32 = 19;
        const POLICY: u32 = 4;
        let groups = [LINK, IPV4_ADDRESS, IPV4_ROUTE, IPV4_RULE, IPV6_ADDRESS, IPV6_ROUTE, IPV6_RULE];
        let xfrm = if with_xfrm { Some(Netlink::listen("xfrm", NETLINK_XFRM, &[POLICY])?) } else { None };
        Ok(Self { route: Netlink::listen("route", NETLINK_ROUTE, &groups)?, xfrm, every_route })
    }

    /// What there was since the last call.
    pub(super) fn heard(&mut self, ours: RouteProtocol) -> Heard {
        let (ours, every) = (u8::from(ours), self.every_route);
        let mut heard = Heard::default();
        self.route.drain(|what| match what {
            netlink::Heard::Message(RTM_DELRULE, _) => heard.rules = true,
            netlink::Heard::Message(kind, body) => {
                heard.surroundings |= match (kind, body) {
                    (RTM_NEWLINK..=RTM_DELLINK | RTM_NEWADDR..=RTM_DELADDR, _) => true,
                    (RTM_NEWROUTE, [_, 0, _, _, _, protocol, ..]) => *protocol != ours,
                    (RTM_DELROUTE, [_, length, _, _, _, protocol, ..]) => *length == 0 || *protocol == ours,
                    _ => false,
                };
                heard.ways |= match (kind, body) {
                    (RTM_NEWROUTE..=RTM_DELROUTE, [_, _, _, _, _, protocol, ..]) => every && *protocol != ours,
                    _ => false,
                };
            }
            netlink::Heard::Lost => (heard.surroundings, heard.rules) = (true, true),
        });
        heard.policies = self.xfrm.as_mut().is_some_and(|xfrm| xfrm.heard(concerns_ours));
        heard
    }
}

/// The table of a route; the header alone cannot hold numbers above 255.
pub(super) fn table(message: &RouteMessage) -> u32 {
    let attribute = message
        .attributes
        .iter()
        .find_map(|attribute| if let RouteAttribute::Table(table) = attribute { Some(*table) } else { None });
    attribute.unwrap_or(message.header.table.into())
}

/// Index of the interface called `device`.
pub(super) fn index(device: &str) -> io::Result<u32> {
    let name = CString::new(device).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    #[allow(unsafe_code)] // no safe interface in std
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}

/// Sets the MTU (unless 0) and brings a link up.
pub(super) fn bring_up(route: &mut Netlink, ifindex: u32, mtu: u32) -> Result<(), Refusal> {
    let mut message = LinkMessage::default();
    message.header = LinkHeader { index: ifindex, flags: LinkFlags::Up, change_mask: LinkFlags::Up, ..message.header };
    if mtu != 0 {
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    route.request(RTM_NEWLINK, 0, &octets(&message))
}

/// An address in a message, unless it cannot be used (yet) or is of the loopback network.
pub(super) fn local(message: &AddressMessage) -> Option<Local> {
    if message.header.flags.intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed) {
        return None;
    }
    let mut own = None;
    let mut subnet = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            own = Some(*address);
        } else if let AddressAttribute::Address(address) = attribute {
            subnet = Some(*address);
        }
    }
    let subnet = subnet.or(own)?;
    let address = own.unwrap_or(subnet);
    let subnet = Prefix::new(subnet, message.header.prefix_len);
    (!address.is_loopback()).then_some(Local { address, subnet, link: message.header.index })
}

/// The links of all next hops of a route.
pub(super) fn out_links(message: &RouteMessage) -> Vec<u32> {
    let mut out = Vec::new();
    for attribute in &message.attributes {
        if let RouteAttribute::Oif(link) = attribute {
            out.push(*link);
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            out.extend(hops.iter().map(|hop| hop.interface_index));
        }
    }
    out
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether the table of a route header says "see the attribute".
pub(super) fn header_table(table: u32) -> u8 {
    u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC)
}

/// The family of a message header, unless it is neither IPv4 nor IPv6.
pub(super) fn family(word: AddressFamily) -> Option<Family> {
    Family::ALL.into_iter().find(|family| address_family(*family) == word)
}

/// The address in a route attribute.
pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some(IpAddr::V4(*v4))
    } else if let RouteAddress::Inet6(v6) = address {
        Some(IpAddr::V6(*v6))
    } else {
        None
    }
}

/// The address that stands for all of a family.
pub(super) fn any_address(v4: bool) -> IpAddr {
    Prefix::any(if v4 { Family::V4 } else { Family::V6 }).address()
}

/// The family word of a message header.
pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::super::prefix::tests::prefix;
    use super::*;

    fn interfaces() -> Interfaces {
        let local = |address: &str, length, link| {
            let address = address.parse().unwrap();
            Local { address, subnet: Prefix::new(address, length), link }
        };
        Interfaces {
            addresses: vec![
                local("192.0.2.1", 24, 2),
                local("fe80::1", 64, 2),
                local("10.1.0.1", 24, 3),
                local("2001:db8:1::1", 64, 3),
                local("10.3.0.1", 32, 3),
                local("10.9.9.9", 24, 7),
            ],
            outside: BTreeSet::from([2]),
        }
    }

    #[test]
    fn the_source_is_the_first_address_inside() {
        let source = |text| interfaces().source_inside(prefix(text).range()).map(|address| address.to_string());
        assert_eq!(source("10.0.0.0/8").as_deref(), Some("10.1.0.1"));
        assert_eq!(source("0.0.0.0/0").as_deref(), Some("192.0.2.1"));
        assert_eq!(source("::/0").as_deref(), Some("2001:db8:1::1"));
        assert_eq!(source("172.16.0.0/12"), None);
    }

    #[test]
    fn links_are_those_that_lead_somewhere() {
        assert_eq!(interfaces().links(Some(7)), BTreeSet::from([2, 3]));
    }

    #[test]
    fn connected_subnets_leave_out_the_tun_link_local_and_single_addresses() {
        let subnets: Vec<_> = interfaces().connected(Some(7)).iter().map(|c| c.subnet.to_string()).collect();
        assert_eq!(subnets, ["10.1.0.0/24", "192.0.2.0/24", "2001:db8:1::/64"]);
    }
}
