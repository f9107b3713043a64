//! Two sites and what lies between them.
//!
//! ```text
//! host A ── gateway A ══ outer link ══ (middle) ══ outer link ══ gateway B ── host B
//! .10    lan0 .1    wan0                                       wan0    .1 lan0    .10
//! ```
//!
//! Each gateway has a default route to the other side, so that a packet which escapes the tunnel is really seen on the outer link.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::capture::{Capture, Captured, KEPT_FRAMES, Which};
use crate::classify::Prefix;
use crate::frame::Mac;
use crate::netns::{Namespace, command};
use crate::process::wait_until;
use crate::relay::{Profile, Relay};

/// The gateway's interface to its LAN.
pub const LAN: &str = "lan0";
/// The gateway's interface to the other gateway.
pub const OUTER: &str = "wan0";
/// The host's interface.
pub const HOST: &str = "eth0";

/// What lies between the gateways.
#[derive(Clone, Debug, PartialEq)]
pub enum Middle {
    /// One link, one subnet.
    Direct,
    /// A router; two outer subnets.
    Router,
    /// A router that translates gateway A's source address and port: A is behind a NAT.
    NatBeforeA,
    /// One subnet over a process that forwards frames with delay, loss and reordering.
    Relay(Profile),
}

/// Which of the two sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl Side {
    /// `a` or `b`.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    fn number(self) -> u8 {
        match self {
            Side::A => 1,
            Side::B => 2,
        }
    }
}

/// IPv4 or IPv6, of the addresses inside the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both families, for loops.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// One site: a LAN with a host, and its gateway.
#[derive(Debug)]
pub struct Site {
    /// Which one.
    pub side: Side,
    /// The LAN's host.
    pub host: Namespace,
    /// The gateway.
    pub gateway: Namespace,
    outer: [IpAddr; 2],
}

impl Site {
    /// The LAN's prefix in text, as a configuration file says it.
    #[must_use]
    pub fn lan(&self, family: Family) -> String {
        let number = self.side.number();
        match family {
            Family::V4 => format!("10.{number}.0.0/24"),
            Family::V6 => format!("2001:db8:{number}::/64"),
        }
    }

    /// The LAN host's address.
    #[must_use]
    pub fn host_address(&self, family: Family) -> IpAddr {
        lan_address(self.side, family, 10)
    }

    /// The gateway's address inside its LAN.
    #[must_use]
    pub fn gateway_address(&self, family: Family) -> IpAddr {
        lan_address(self.side, family, 1)
    }

    /// The gateway's address on its outer link.
    #[must_use]
    pub fn outer_address(&self, family: Family) -> IpAddr {
        let [v4, v6] = self.outer;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// The Ethernet address of the gateway's outer interface.
    #[must_use]
    pub fn outer_mac(&self) -> Mac {
        mac(self.side, 3)
    }
}

fn lan_address(side: Side, family: Family, host: u8) -> IpAddr {
    let number = side.number();
    match family {
        Family::V4 => Ipv4Addr::new(10, number, 0, host).into(),
        Family::V6 => Ipv6Addr::new(
            0x2001,
            0xdb8,
            number.into(),
            0,
            0,
            0,
            0,
            u16::from_str_radix(&host.to_string(), 16).unwrap_or(1),
        )
        .into(),
    }
}

/// 1 host, 2 gateway's LAN, 3 gateway's outer, 4 middle.
fn mac(side: Side, interface: u8) -> Mac {
    [0x02, 0, 0, 0, side.number(), interface]
}

fn mac_text(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// A complete lab. Everything in it ends on drop.
#[derive(Debug)]
pub struct Lab {
    /// Site A.
    pub a: Site,
    /// Site B.
    pub b: Site,
    /// What lies between, where it is a machine of its own.
    pub middle: Option<Namespace>,
    /// The forwarding process, where there is one.
    pub relay: Option<Relay>,
    directory: WorkDirectory,
}

impl Lab {
    /// Makes the namespaces, links, addresses and routes.
    ///
    /// # Errors
    /// `ip` or the kernel refused something.
    pub fn new(middle: &Middle) -> anyhow::Result<Self> {
        let mut lab = Self::apart(outer_addresses(middle))?;
        match middle {
            Middle::Direct => lab.build_direct()?,
            Middle::Router => lab.build_routed(lab.place("middle")?)?,
            Middle::NatBeforeA => {
                lab.build_routed(lab.place("middle")?)?;
                lab.translate()?;
            }
            Middle::Relay(profile) => lab.build_relay(lab.place("middle")?, profile)?,
        }
        lab.wait_for_carriers()?;
        Ok(lab)
    }

    /// The same as [`Middle::Direct`] over a link of the caller's making: `join` puts an interface called [`OUTER`] into both gateways.
    ///
    /// # Errors
    /// As [`Self::new`], and those of `join`.
    pub fn joined(join: impl FnOnce(&Namespace, &Namespace) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let lab = Self::apart(outer_addresses(&Middle::Direct))?;
        join(&lab.a.gateway, &lab.b.gateway)?;
        lab.address_shared_link()?;
        lab.wait_for_carriers()?;
        Ok(lab)
    }

    /// Both sites, with nothing between them.
    fn apart(outer: ([IpAddr; 2], [IpAddr; 2])) -> anyhow::Result<Self> {
        let directory = WorkDirectory::new()?;
        let number = directory.number;
        let place = |name: &str| Namespace::new(&format!("lab{number}-{name}"));
        let site = |side: Side, outer: [IpAddr; 2]| -> anyhow::Result<Site> {
            let letter = side.letter();
            let site =
                Site { side, host: place(&format!("host-{letter}"))?, gateway: place(&format!("gw-{letter}"))?, outer };
            build_lan(&site)?;
            Ok(site)
        };
        let (a, b) = (site(Side::A, outer.0)?, site(Side::B, outer.1)?);
        Ok(Lab { a, b, middle: None, relay: None, directory })
    }

    /// A namespace of this lab.
    fn place(&self, name: &str) -> anyhow::Result<Namespace> {
        Namespace::new(&format!("lab{}-{name}", self.directory.number))
    }

    /// A new link drops what it is given until the kernel has taken notice of its carrier.
    fn wait_for_carriers(&self) -> anyhow::Result<()> {
        for (namespace, interface) in [&self.a, &self.b]
            .into_iter()
            .flat_map(|site| [(&site.host, HOST), (&site.gateway, LAN), (&site.gateway, OUTER)])
        {
            let is_up =
                || namespace.ip(&["link", "show", "dev", interface]).is_ok_and(|line| line.contains("state UP"));
            anyhow::ensure!(
                wait_until(Duration::from_secs(3), is_up),
                "{interface} in {} has no carrier",
                namespace.name()
            );
        }
        Ok(())
    }

    /// A site by its side.
    #[must_use]
    pub fn site(&self, side: Side) -> &Site {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// Where the lab's files are; removed with the lab.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// The protected subnets of both sites and families.
    #[must_use]
    pub fn protected(&self) -> Vec<Prefix> {
        let sites = [&self.a, &self.b];
        sites.iter().flat_map(|site| FAMILIES.map(|family| Prefix::parse(&site.lan(family)))).flatten().collect()
    }

    /// Starts capturing both outer links. As long as it lasts, large sends are cut into packets before they reach the links, so that
    /// a frame is a packet and is counted as one.
    ///
    /// # Errors
    /// Raw sockets are not allowed.
    pub fn capture(&self) -> anyhow::Result<OuterCapture<'_>> {
        self.capture_keeping(KEPT_FRAMES)
    }

    /// The same, with so many frames of each link kept.
    ///
    /// # Errors
    /// Raw sockets are not allowed.
    pub fn capture_keeping(&self, frames: usize) -> anyhow::Result<OuterCapture<'_>> {
        self.capture_of(Which::Both, frames)
    }

    /// Starts capturing what the gateways send: what the links carry, also where the kernel does ESP itself.
    ///
    /// # Errors
    /// Raw sockets are not allowed.
    pub fn capture_sent(&self) -> anyhow::Result<OuterCapture<'_>> {
        self.capture_of(Which::Sent, KEPT_FRAMES)
    }

    fn capture_of(&self, which: Which, frames: usize) -> anyhow::Result<OuterCapture<'_>> {
        self.cut_segments(true)?;
        let start = |site: &Site| Capture::start_of(which, &site.gateway, OUTER, &self.protected(), frames);
        Ok(OuterCapture { lab: self, a: start(&self.a)?, b: start(&self.b)? })
    }

    /// Whether the gateways' outer links take bundles of segments or only single packets.
    fn cut_segments(&self, cut: bool) -> anyhow::Result<()> {
        let most = if cut { "1" } else { "65535" };
        for site in [&self.a, &self.b] {
            site.gateway.ip(&["link", "set", OUTER, "gso_max_segs", most])?;
        }
        Ok(())
    }

    fn build_direct(&self) -> anyhow::Result<()> {
        let (a, b) = (&self.a, &self.b);
        link(&a.gateway, OUTER, a.outer_mac(), &b.gateway, OUTER, b.outer_mac())?;
        self.address_shared_link()
    }

    fn build_relay(&mut self, middle: Namespace, profile: &Profile) -> anyhow::Result<()> {
        middle.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        for site in [&self.a, &self.b] {
            let end = format!("to-{}", site.side.letter());
            link(&site.gateway, OUTER, site.outer_mac(), &middle, &end, mac(site.side, 4))?;
            middle.ip(&["link", "set", &end, "up"])?;
        }
        self.address_shared_link()?;
        // The relay delays and loses packets as a real path would, never whole bundles.
        self.cut_segments(true)?;
        self.relay = Some(Relay::start(&middle, "to-a", "to-b", profile)?);
        self.middle = Some(middle);
        Ok(())
    }

    fn address_shared_link(&self) -> anyhow::Result<()> {
        for site in [&self.a, &self.b] {
            let other = self.site(site.side.other());
            let mut lines = vec![up(OUTER)];
            lines.extend(BITS.map(|(family, bits)| address(OUTER, site.outer_address(family), bits)));
            lines.extend(FAMILIES.map(|family| default(other.outer_address(family))));
            site.gateway.ip_all(&lines)?;
        }
        Ok(())
    }

    fn build_routed(&mut self, middle: Namespace) -> anyhow::Result<()> {
        for site in [&self.a, &self.b] {
            let end = format!("to-{}", site.side.letter());
            link(&site.gateway, OUTER, site.outer_mac(), &middle, &end, mac(site.side, 4))?;
            let (mut at_gateway, mut at_router) = (vec![up(OUTER)], vec![up(&end)]);
            for (family, bits) in BITS {
                let own = site.outer_address(family);
                at_gateway.extend([address(OUTER, own, bits), default(router_address(own))]);
                at_router.push(address(&end, router_address(own), bits));
            }
            middle.ip_all(&at_router)?;
            site.gateway.ip_all(&at_gateway)?;
        }
        forward(&middle)?;
        // The router has routes to the LANs, so that a clear packet would really arrive.
        for site in [&self.a, &self.b] {
            for family in FAMILIES {
                middle.ip(&["route", "add", &site.lan(family), "via", &site.outer_address(family).to_string()])?;
            }
        }
        self.middle = Some(middle);
        Ok(())
    }

    fn translate(&self) -> anyhow::Result<()> {
        let rules = self.directory().join("nat.nft");
        let text = format!(
            "table inet nat {{\n chain post {{\n  type nat hook postrouting priority 100;\n  oifname \"to-b\" ip saddr {0} masquerade random\n  oifname \"to-b\" ip6 saddr {1} masquerade random\n }}\n}}\n",
            self.a.outer_address(Family::V4),
            self.a.outer_address(Family::V6)
        );
        fs::write(&rules, text)?;
        let middle = self.middle.as_ref().context("a translator needs a router")?;
        middle.command("nft", &["-f", &rules.to_string_lossy()])?;
        Ok(())
    }
}

/// Captures of both outer links.
#[derive(Debug)]
pub struct OuterCapture<'lab> {
    lab: &'lab Lab,
    a: Capture,
    b: Capture,
}

impl OuterCapture<'_> {
    /// Ends both: gateway A's link, gateway B's link.
    ///
    /// # Errors
    /// A link vanished meanwhile.
    pub fn finish(self) -> anyhow::Result<[Captured; 2]> {
        if self.lab.relay.is_none() {
            self.lab.cut_segments(false)?;
        }
        Ok([self.a.finish(&self.lab.a.gateway, OUTER)?, self.b.finish(&self.lab.b.gateway, OUTER)?])
    }
}

fn outer_addresses(middle: &Middle) -> ([IpAddr; 2], [IpAddr; 2]) {
    let v4 = |network: [u8; 3], host| IpAddr::from([network[0], network[1], network[2], host]);
    let v6 = |network: u16, host| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host));
    match middle {
        Middle::Direct | Middle::Relay(_) => ([v4([192, 0, 2], 1), v6(0xf0, 1)], [v4([192, 0, 2], 2), v6(0xf0, 2)]),
        Middle::Router | Middle::NatBeforeA => {
            ([v4([192, 0, 2], 1), v6(0xf0, 1)], [v4([198, 51, 100], 1), v6(0xf1, 1)])
        }
    }
}

/// The router's address on the link of a gateway: host number 254 (IPv4), fe (IPv6).
fn router_address(gateway: IpAddr) -> IpAddr {
    match gateway {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 254).into()
        }
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[7] = 0xfe;
            Ipv6Addr::from(segments).into()
        }
    }
}

fn build_lan(site: &Site) -> anyhow::Result<()> {
    link(&site.host, HOST, mac(site.side, 1), &site.gateway, LAN, mac(site.side, 2))?;
    forward(&site.gateway)?;
    let (mut at_host, mut at_gateway) = (vec![up(HOST)], vec![up(LAN)]);
    for (family, bits) in BITS {
        let gateway = site.gateway_address(family);
        at_host.extend([address(HOST, site.host_address(family), bits), default(gateway)]);
        at_gateway.push(address(LAN, gateway, bits));
    }
    site.host.ip_all(&at_host)?;
    site.gateway.ip_all(&at_gateway)
}

fn forward(namespace: &Namespace) -> anyhow::Result<()> {
    namespace.sysctl("net/ipv4/ip_forward", "1")?;
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1")
}

/// The prefix lengths of all links.
const BITS: [(Family, u8); 2] = [(Family::V4, 24), (Family::V6, 64)];

/// The line of `ip` that brings an interface up; the others likewise.
fn up(interface: &str) -> String {
    format!("link set {interface} up")
}

fn address(interface: &str, address: IpAddr, bits: u8) -> String {
    format!("address add {address}/{bits} dev {interface}")
}

fn default(via: IpAddr) -> String {
    // `default` alone is that of IPv4.
    let every = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    format!("route add {every} via {via}")
}

/// A pair of virtual Ethernet interfaces, one end in each namespace.
fn link(
    left: &Namespace,
    left_name: &str,
    left_mac: Mac,
    right: &Namespace,
    right_name: &str,
    right_mac: Mac,
) -> anyhow::Result<()> {
    let (left_mac, right_mac) = (mac_text(left_mac), mac_text(right_mac));
    let (left_place, right_place) = (left.name(), right.name());
    let words = [
        "link",
        "add",
        left_name,
        "address",
        &left_mac,
        "netns",
        left_place,
        "type",
        "veth",
        "peer",
        "name",
        right_name,
        "address",
        &right_mac,
        "netns",
        right_place,
    ];
    command("ip", &words).map(drop)
}

/// A directory of this lab alone.
#[derive(Debug)]
struct WorkDirectory {
    path: PathBuf,
    number: u32,
}

impl WorkDirectory {
    fn new() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = crate::enter::directory().join(number.to_string());
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(WorkDirectory { path, number })
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        // It goes with the run anyway; this only frees the memory earlier.
        let _ = fs::remove_dir_all(&self.path);
    }
}
