//! The gateway under test and the two places around it, made once and used by one behaviour after the other.
//!
//! ```text
//!            lan ┌─────────┐
//!   inside ──────┤ gateway ├─ wan ── outside
//!     └──────────┤         │
//!         behind └─────────┘
//! ```
//! The kit lets a subject talk to itself: what comes back through the tunnel has the sources of `lan` and destinations of the peer's network.
//! The gateway forwards that to `behind`, and a policy of the bed's own lets it pass there, or it would be protected once more. No link
//! resolves addresses, so that nothing but packets of the behaviours is on them.

use std::cell::Cell;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use lab::frame::Mac;
use lab::netns::Namespace;
use lab::packet::PacketSocket;
use lab::process::wait_until;
use lab::topology::Side;

use crate::nic::{Mode, Nic};

/// Outer addresses of the gateway, as the kit has them.
pub(super) const LOCAL: &str = "192.0.2.1";
/// The same for IPv6.
pub(super) const LOCAL_V6: &str = "2001:db8::1";

/// The end of the test NIC that is the gateway's; its name is that of its knobs.
pub(super) const NIC: &str = "nic0a";

/// What carries the outer link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// A pair of virtual Ethernet devices, without any offload.
    Plain,
    /// The test NIC with crypto offload only.
    Crypto,
    /// The test NIC with packet offload.
    Packet,
}

/// The places and the sockets on their links.
pub(super) struct Bed {
    /// They go home before their places go.
    _nics: Vec<Nic>,
    pub(super) gateway: Namespace,
    pub(super) lan: End,
    pub(super) behind: End,
    pub(super) wan: End,
    pub(super) link: Link,
    is_down: Cell<bool>,
    _inside: Namespace,
    _outside: Namespace,
}

/// The far end of one of the gateway's links.
pub(super) struct End {
    pub(super) socket: PacketSocket,
    /// Address of the gateway's own end.
    pub(super) gateway: Mac,
}

/// What makes the gateway one: done again after a link was away, since much of it goes with the link.
const ADDRESSES: &str = "\
address replace 192.0.2.1/24 dev wan
address replace 2001:db8::1/64 dev wan nodad
address replace 10.1.0.254/16 dev lan
address replace fd00:1::fe/32 dev lan nodad
address replace 10.255.255.254/32 dev behind
route replace default dev wan
route replace ::/0 dev wan
route replace 10.2.0.0/16 dev behind table 100
route replace 10.3.0.0/16 dev behind table 100
route replace fd00:2::/32 dev behind table 100
neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev wan nud permanent
neighbour replace 203.0.113.7 lladdr 02:00:00:00:00:02 dev wan nud permanent
neighbour replace 2001:db8::2 lladdr 02:00:00:00:00:02 dev wan nud permanent
";

/// What comes back from the outer side is for the network behind.
const RULE: &str = "rule add iif wan table 100 pref 100\n";

/// What a backend may leave on purpose goes, and the bed's own policies come back.
const CLEAN: &str = "\
xfrm policy flush
xfrm state flush
route flush table 220
xfrm policy add dir out dev behind src 0.0.0.0/0 dst 0.0.0.0/0 priority 0
xfrm policy add dir out dev behind src fd00:1::/64 dst fd00:2::/64 priority 0
";
/// The same, where `ip` has to be told that it is about IPv6.
const CLEAN_V6: &str = "route flush table 220\n";

impl Bed {
    pub(super) fn new(link: Link) -> anyhow::Result<Self> {
        let [gateway, inside, outside] = ["gateway", "inside", "outside"].map(Namespace::new);
        let (gateway, inside, outside) = (gateway?, inside?, outside?);
        for (name, place) in [("lan", &inside), ("behind", &inside)] {
            veth(&gateway, place, name)?;
        }
        let nics = nics(&gateway, &outside, link)?;
        if nics.is_empty() {
            veth(&gateway, &outside, "wan")?;
            quiet(&gateway, &["wan"])?;
            quiet(&outside, &["wan"])?;
        }
        quiet(&gateway, &["lan", "behind"])?;
        quiet(&inside, &["lan", "behind"])?;
        for (parameter, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/icmp_ratelimit", "0"),
            ("net/ipv6/icmp/ratelimit", "0"),
            // What hosts of transport mode send comes from `lan` too, with our own address.
            ("net/ipv4/conf/lan/accept_local", "1"),
            // What comes back through the tunnel has the addresses of what is sent here: policies on the way in are about the former.
            ("net/ipv4/conf/lan/disable_policy", "1"),
            ("net/ipv6/conf/lan/disable_policy", "1"),
            ("net/ipv6/conf/wan/keep_addr_on_down", "1"),
        ] {
            gateway.sysctl(parameter, value)?;
        }
        for interface in ["all", "default", "lan", "behind", "wan"] {
            gateway.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0")?;
        }
        batch(&gateway, None, RULE)?;
        batch(&gateway, Some("-6"), RULE)?;
        let end = |place: &Namespace, name| -> anyhow::Result<End> {
            Ok(End { socket: PacketSocket::open(place, name)?, gateway: mac(&gateway, name)? })
        };
        let (lan, behind, wan) = (end(&inside, "lan")?, end(&inside, "behind")?, end(&outside, "wan")?);
        let bed = Self {
            _nics: nics,
            lan,
            behind,
            wan,
            gateway,
            _inside: inside,
            link,
            _outside: outside,
            is_down: Cell::new(true),
        };
        bed.clean()?;
        Ok(bed)
    }

    /// Waits until the gateway's links carry: a fresh one drops everything until the kernel has noticed its other end.
    pub(super) fn carries(&self) -> anyhow::Result<()> {
        for link in ["lan", "behind", "wan"] {
            let up = || self.gateway.ip(&["link", "show", "dev", link]).is_ok_and(|text| text.contains(" state UP "));
            ensure!(wait_until(Duration::from_secs(3), up), "{link} does not come up");
        }
        Ok(())
    }

    /// Addresses and routes of the gateway, as they are to be while all links are up.
    pub(super) fn address(&self) -> anyhow::Result<()> {
        batch(&self.gateway, None, ADDRESSES)
    }

    /// The outer link goes down.
    pub(super) fn down(&self) -> anyhow::Result<()> {
        self.is_down.set(true);
        self.gateway.ip(&["link", "set", "wan", "down"]).map(drop)
    }

    /// It comes up again, with all that went with it.
    pub(super) fn up(&self) -> anyhow::Result<()> {
        self.is_down.set(false);
        self.gateway.ip(&["link", "set", "wan", "up"])?;
        self.address()?;
        self.carries()
    }

    /// Nothing of an earlier behaviour.
    pub(super) fn clean(&self) -> anyhow::Result<()> {
        if self.is_down.get() {
            self.up()?;
        }
        batch(&self.gateway, None, CLEAN)?;
        batch(&self.gateway, Some("-6"), CLEAN_V6)
    }
}

/// Several lines for `ip` in one process.
fn batch(place: &Namespace, family: Option<&str>, lines: &str) -> anyhow::Result<()> {
    let mut ip = Command::new("ip")
        .args(["-n", place.name()])
        .args(family)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ip")?;
    ip.stdin.take().context("ip has no input")?.write_all(lines.as_bytes())?;
    let output = ip.wait_with_output()?;
    ensure!(output.status.success(), "ip in {}: {}", place.name(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn veth(gateway: &Namespace, other: &Namespace, name: &str) -> anyhow::Result<()> {
    gateway.ip(&["link", "add", name, "type", "veth", "peer", "name", name, "netns", other.name()])?;
    Ok(())
}

/// Both ends of a link without address resolution and multicast, with room for packets that a host would hand to its own stack in one piece.
fn quiet(place: &Namespace, links: &[&str]) -> anyhow::Result<()> {
    for link in links {
        place.sysctl(&format!("net/ipv6/conf/{link}/addr_gen_mode"), "1")?;
        let mtu = if matches!(*link, "lan" | "behind") { "9000" } else { "1500" };
        place.ip(&["link", "set", link, "mtu", mtu, "arp", "off", "multicast", "off", "up"])?;
    }
    Ok(())
}

fn mac(place: &Namespace, interface: &str) -> anyhow::Result<Mac> {
    let path = format!("/sys/class/net/{interface}/address");
    let text = place.command("cat", &[&path])?;
    let octets: Vec<u8> = text.trim().split(':').filter_map(|hex| u8::from_str_radix(hex, 16).ok()).collect();
    octets.try_into().ok().with_context(|| format!("{interface} has no Ethernet address: {text}"))
}

/// Puts the ends of pairs of the test NIC into both places. At the far ends nothing protects: what is on the wire is what is captured there.
fn nics(gateway: &Namespace, outside: &Namespace, link: Link) -> anyhow::Result<Vec<Nic>> {
    let (mode, names): (Mode, &[&str]) = match link {
        Link::Plain => return Ok(Vec::new()),
        Link::Crypto => (Mode::Crypto, &["wan"]),
        // The second one is there to be kept apart from the first.
        Link::Packet => (Mode::Packet, &["wan", "other"]),
    };
    let mut all = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let mut nic = Nic::take(number, mode)?;
        nic.turn(Side::B, "mode", "none")?;
        nic.put(Side::A, gateway, name)?;
        nic.put(Side::B, outside, name)?;
        quiet(gateway, &[name])?;
        quiet(outside, &[name])?;
        all.push(nic);
    }
    Ok(all)
}
