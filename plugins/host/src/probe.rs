//! Questions to the host kernel that change nothing: what it would do with a packet, and how its links and settings stand.
//!
//! Routing is asked of the kernel itself (RTM_GETROUTE), so rules, marks, metrics and the check of the way back are its own. Answers are
//! plain data: what they mean for a packet is decided elsewhere.

mod spd;

use std::fs;
use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::devices::{self, Links};
use super::error::{HostError, KernelError};
use super::links::{self, Local};
use super::netlink::{Netlink, Refusal, octets};
use super::prefix::Family;
use super::sysctl;

pub use self::spd::{KernelPolicy, KernelVerdict, KernelWay};
pub use super::rules::SeenRule;

const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

/// Asks the kernel, in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Probe {
    route: Netlink,
}

/// An address of this host with the subnet that is reached directly through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of the subnet's prefix.
    pub length: u8,
    /// Index of its link.
    pub link: u32,
}

impl OwnAddress {
    /// Whether `address` is in the subnet.
    pub fn is_near(&self, address: IpAddr) -> bool {
        ipsec::AddressRange::prefix(self.address, self.length).is_some_and(|subnet| subnet.contains(address))
    }
}

/// A packet whose way is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Destination.
    pub destination: IpAddr,
    /// Source, if it is fixed.
    pub source: Option<IpAddr>,
    /// Index of the link that it arrives on; nothing for a packet of this host.
    pub arrival: Option<u32>,
    /// Its mark.
    pub mark: u32,
    /// Protocol and ports, which rules may look at.
    pub upper: Option<(u8, Option<(u16, u16)>)>,
}

impl Lookup {
    /// The way of an unmarked packet of this host.
    pub const fn to(destination: IpAddr) -> Self {
        Self { destination, source: None, arrival: None, mark: 0, upper: None }
    }
}

/// What the kernel says about a packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is for this host.
    Local,
    /// It leaves.
    Out {
        /// Index of the link.
        link: u32,
        /// The next router.
        gateway: Option<IpAddr>,
        /// The table that said so; 0 = unknown.
        table: u32,
        /// Source address that this host would take.
        source: Option<IpAddr>,
        /// Largest packet, where the route or what was learnt of the path says so.
        mtu: Option<u32>,
    },
    /// It goes nowhere.
    Nowhere(NoWay),
}

/// Why a packet goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoWay {
    /// No route.
    NoRoute,
    /// A route of type `unreachable`; for a packet that arrives also: forwarding is off.
    Unreachable,
    /// A route of type `blackhole`, or an address that no packet may have.
    Blackhole,
    /// A route of type `prohibit`.
    Prohibited,
    /// The check of the way back (rp_filter, RFC 3704) refuses the source.
    ReversePath,
    /// Another refusal, in the kernel's words.
    Other(String),
}

impl Probe {
    /// Opens a socket.
    ///
    /// # Errors
    /// There is no netlink.
    pub fn open() -> Result<Self, HostError> {
        Netlink::open("route", NETLINK_ROUTE).map(|route| Self { route })
    }

    /// All links.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn links(&mut self) -> Result<Links, HostError> {
        devices::read(&mut self.route)
    }

    /// Usable addresses, without those of the loopback network.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn addresses(&mut self) -> Result<Vec<OwnAddress>, HostError> {
        let messages = self
            .route
            .dump(RTM_GETADDR, &octets(&AddressMessage::default()))
            .map_err(|refusal| refusal.on("list", "addresses"))?;
        let all = messages.iter().filter(|message| message.kind == RTM_NEWADDR && message.body.len() >= 8);
        let all = all.filter_map(|message| AddressMessage::parse(&message.body).ok());
        Ok(all.filter_map(|message| links::local(&message)).map(OwnAddress::from).collect())
    }

    /// What the kernel would do with a packet. For one that arrives the check of the way back is made too.
    ///
    /// # Errors
    /// The kernel could not be asked; that it knows no way is an answer.
    pub fn way(&mut self, lookup: &Lookup) -> Result<Way, HostError> {
        match self.route.ask(RTM_GETROUTE, &octets(&lookup.message())) {
            Ok(answers) => {
                let answer = answers.iter().find(|answer| answer.kind == RTM_NEWROUTE && answer.body.len() >= 12);
                let parsed = answer.and_then(|answer| RouteMessage::parse(&answer.body).ok());
                let unreadable = || Way::Nowhere(NoWay::Other("its answer cannot be read".into()));
                Ok(parsed.map_or_else(unreadable, |route| way(&route)))
            }
            Err(Refusal::Kernel(error)) => Ok(Way::Nowhere(no_way(&error))),
            Err(refusal) => Err(refusal.on("look up route to", lookup.destination)),
        }
    }

    /// Routes of one table as `ip route` writes them, without `ip route add`.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn routes(&mut self, table: u32) -> Result<Vec<TableRoute>, HostError> {
        let links = self.links()?;
        let routes = links::routes(&mut self.route, Some(table)).map_err(|refusal| refusal.on("list", "routes"))?;
        Ok(routes.iter().map(|route| TableRoute::read(route, &links)).collect())
    }

    /// Rules of both families as `ip rule` writes them, without `ip rule add`, in order.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn rules(&mut self) -> Result<Vec<SeenRule>, HostError> {
        super::rules::seen(&mut self.route).map_err(|refusal| refusal.on("list", "rules"))
    }
}

impl Lookup {
    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let family = Family::of(self.destination);
        let width = if family == Family::V4 { 32 } else { 128 };
        message.header.address_family = links::address_family(family);
        message.header.destination_prefix_length = width;
        if family == Family::V4 {
            // IPv6 says the table unasked, and refuses to be asked.
            message.header.flags = RouteFlags::LookupTable;
        }
        message.attributes.push(RouteAttribute::Destination(self.destination.into()));
        if let Some(source) = self.source {
            message.header.source_prefix_length = width;
            message.attributes.push(RouteAttribute::Source(source.into()));
        }
        message.attributes.extend(self.arrival.map(RouteAttribute::Iif));
        if self.mark != 0 {
            message.attributes.push(RouteAttribute::Mark(self.mark));
        }
        // The kernel takes these for TCP, UDP and ICMP only.
        if let Some((protocol @ (1 | 6 | 17 | 58), ports)) = self.upper {
            message.attributes.push(RouteAttribute::IpProto(protocol));
            if let (6 | 17, Some((source, destination))) = (protocol, ports) {
                message.attributes.extend([RouteAttribute::Sport(source), RouteAttribute::Dport(destination)]);
            }
        }
        message
    }
}

/// A route of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRoute {
    /// Destination and the length of its prefix.
    pub destination: (IpAddr, u8),
    /// It is one of ours.
    pub ours: bool,
    /// As `ip route add` takes it.
    pub text: String,
}

impl TableRoute {
    fn read(message: &RouteMessage, links: &Links) -> Self {
        let v4 = message.header.address_family == AddressFamily::Inet;
        let any = links::any_address(v4);
        let mut destination = any;
        let (mut words, mut kind) = (Vec::new(), "");
        for attribute in &message.attributes {
            if let RouteAttribute::Destination(address) = attribute {
                destination = links::ip(address).unwrap_or(any);
            } else if let RouteAttribute::Gateway(address) = attribute {
                words.extend(links::ip(address).map(|address| format!("via {address}")));
            } else if let RouteAttribute::Oif(link) = attribute {
                // Routes that refuse are shown with loopback by IPv6.
                if message.header.kind == RouteType::Unicast {
                    words.push(format!("dev {}", links.get(*link).map_or("?", |link| &link.name)));
                }
            } else if let RouteAttribute::PrefSource(address) = attribute {
                words.extend(links::ip(address).map(|address| format!("src {address}")));
            } else if let RouteAttribute::Priority(metric) = attribute {
                words.push(format!("metric {metric}"));
            }
        }
        for (word, of) in [
            ("unreachable ", RouteType::Unreachable),
            ("blackhole ", RouteType::BlackHole),
            ("prohibit ", RouteType::Prohibit),
            ("throw ", RouteType::Throw),
        ] {
            if message.header.kind == of {
                kind = word;
            }
        }
        let family = if v4 { "-4" } else { "-6" };
        let length = message.header.destination_prefix_length;
        let table = links::table(message);
        let mut text = format!("{family} route add {kind}{destination}/{length}");
        for word in words {
            text.push(' ');
            text.push_str(&word);
        }
        text.push_str(&format!(" table {table} proto {}", u8::from(message.header.protocol)));
        Self { destination: (destination, length), ours: message.header.protocol == super::rules::OURS, text }
    }
}

impl From<Local> for OwnAddress {
    fn from(local: Local) -> Self {
        Self { address: local.address, length: local.subnet.length(), link: local.link }
    }
}

fn way(message: &RouteMessage) -> Way {
    let kind = message.header.kind;
    for (of, reason) in [
        (RouteType::Unreachable, NoWay::Unreachable),
        (RouteType::BlackHole, NoWay::Blackhole),
        (RouteType::Prohibit, NoWay::Prohibited),
    ] {
        if kind == of {
            return Way::Nowhere(reason);
        }
    }
    if [RouteType::Local, RouteType::Broadcast, RouteType::Anycast, RouteType::Multicast].contains(&kind) {
        return Way::Local;
    }
    let (mut out, mut next, mut source, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        if let RouteAttribute::Oif(link) = attribute {
            out = Some(*link);
        } else if let RouteAttribute::Gateway(address) = attribute {
            next = links::ip(address);
        } else if let RouteAttribute::PrefSource(address) = attribute {
            source = links::ip(address);
        } else if let RouteAttribute::Metrics(metrics) = attribute {
            mtu = metrics.iter().find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None });
        }
    }
    match out {
        Some(link) => Way::Out { link, gateway: next, table: links::table(message), source, mtu },
        None => Way::Nowhere(NoWay::Other(format!("a route of type {kind:?} without a link"))),
    }
}

fn no_way(error: &KernelError) -> NoWay {
    match error.errno {
        libc::ENETUNREACH => NoWay::NoRoute,
        libc::EHOSTUNREACH => NoWay::Unreachable,
        // With words of the kernel it is the question that is refused, not the packet.
        libc::EINVAL if error.text.is_none() => NoWay::Blackhole,
        libc::EACCES => NoWay::Prohibited,
        libc::EXDEV => NoWay::ReversePath,
        _ => NoWay::Other(error.to_string()),
    }
}

/// Whether packets of a family that arrive on a link are forwarded; nothing where the kernel does not say.
pub fn forwarding(device: &str, family: Family) -> Option<bool> {
    match family {
        Family::V4 => Some(number(&sysctl::ipv4(device, "forwarding"))? != 0),
        // IPv6 asks the setting for all links; that of a link means its router role.
        Family::V6 => Some(number("/proc/sys/net/ipv6/conf/all/forwarding")? != 0),
    }
}

/// Reverse path filter of a link (RFC 3704): 0 = none, 1 = strict, 2 = loose. The larger of the link's own and the one for all counts.
pub fn reverse_path_filter(device: &str) -> Option<u8> {
    let of = |device: &str| number(&sysctl::ipv4(device, "rp_filter"));
    u8::try_from(of(device)?.max(of("all")?)).ok()
}

/// A setting of a link under `net.ipv4.conf`, or of all links taken together with it where both count.
pub fn ipv4_setting(device: &str, name: &str) -> Option<u32> {
    number(&sysctl::ipv4(device, name))
}

/// Whether the kernel has IPv6.
pub fn has_ipv6() -> bool {
    sysctl::has_ipv6()
}

/// Whether the kernel has XFRM: policies can be asked for.
pub fn has_xfrm() -> bool {
    Netlink::open("xfrm", netlink_sys::protocols::NETLINK_XFRM).is_ok()
}

/// Packets that the kernel's IPsec has refused, by reason in its words, in this network namespace; nothing where it does not count them.
pub fn ipsec_drops() -> Vec<(String, u64)> {
    let text = fs::read_to_string("/proc/thread-self/net/xfrm_stat").unwrap_or_default();
    let counter = |line: &str| {
        let (name, count) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(counter).collect()
}

/// Settings that take the kernel's IPsec away from a link, as far as they are on: `disable_xfrm` for what leaves, `disable_policy` for what
/// arrives.
pub fn ipsec_switched_off(device: &str) -> Vec<String> {
    let on = |family: &str, of: &str, name: &str| {
        number(&format!("/proc/sys/net/{family}/conf/{of}/{name}")).is_some_and(|value| value != 0)
    };
    let mut off = Vec::new();
    for (family, name) in [("ipv4", "disable_xfrm"), ("ipv4", "disable_policy"), ("ipv6", "disable_policy")] {
        // The setting for all links counts in IPv4 only.
        let of = [device, "all"].into_iter().filter(|of| family == "ipv4" || *of == device);
        off.extend(of.filter(|of| on(family, of, name)).map(|of| format!("net.{family}.conf.{of}.{name}")));
    }
    off
}

/// A setting under `net.core`.
pub fn core_setting(name: &str) -> Option<u32> {
    number(&format!("/proc/sys/net/core/{name}"))
}

/// Packets that the check of the way back has dropped, in this network namespace.
pub fn reverse_path_drops() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|name| name == "IPReversePathFilter")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
