//! Two places joined by the test NIC, with SAs and policies by `ip`, whichever end does ESP and how.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::capture::{Capture, Captured};
use lab::classify::Prefix;
use lab::netns::Namespace;
use lab::process::{Process, wait_until};
use lab::topology::{Family, Side};
use lab::traffic::ping::ping;

use crate::bench::{ip, start};
use crate::nic::{Mode, Nic, counter};

/// The interface in both places.
pub(crate) const DEVICE: &str = "wire0";
/// The reqid of everything here.
pub(crate) const REQID: u32 = 7;
/// The window of inbound SAs unless something else is said.
const WINDOW: &str = "replay-window 32";
/// AES-128 with its salt, the same in all SAs: nobody looks at what is in these packets.
const AEAD: &str = "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128";

/// Who does ESP at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The kernel.
    Software,
    /// The kernel, with the device's cryptography.
    Crypto,
    /// The device.
    Packet,
}

impl By {
    fn of_state(self, way: &str) -> String {
        match self {
            By::Software => String::new(),
            By::Crypto => format!("offload crypto dev {DEVICE} dir {way}"),
            By::Packet => format!("offload packet dev {DEVICE} dir {way}"),
        }
    }

    fn of_policy(self) -> String {
        match self {
            By::Software | By::Crypto => String::new(),
            By::Packet => format!("offload packet dev {DEVICE}"),
        }
    }
}

/// Which addresses are protected, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The devices' own addresses, transport mode.
    Transport(Family),
    /// Other addresses of the same places, tunnel mode, outside and inside of one family.
    Tunnel(Family),
}

/// All of them, for tables.
pub(crate) const SHAPES: [Shape; 4] =
    [Shape::Transport(Family::V4), Shape::Transport(Family::V6), Shape::Tunnel(Family::V4), Shape::Tunnel(Family::V6)];

impl Shape {
    fn family(self) -> Family {
        match self {
            Shape::Transport(family) | Shape::Tunnel(family) => family,
        }
    }

    fn mode(self) -> &'static str {
        match self {
            Shape::Transport(_) => "transport",
            Shape::Tunnel(_) => "tunnel",
        }
    }

    /// The address that is protected at a side.
    fn protected(self, side: Side) -> IpAddr {
        match self {
            Shape::Transport(family) => outer(side, family),
            Shape::Tunnel(family) => inner(side, family),
        }
    }
}

/// The address of an end.
pub(crate) fn outer(side: Side, family: Family) -> IpAddr {
    let host = number(side);
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, host]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)]),
    }
}

/// What tunnels carry.
pub(crate) fn inner(side: Side, family: Family) -> IpAddr {
    let host = number(side);
    match family {
        Family::V4 => IpAddr::from([10, 0, host, 1]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0xa, u16::from(host), 0, 0, 0, 1]),
    }
}

fn mac(side: Side) -> String {
    format!("02:00:00:00:00:{:02x}", number(side))
}

fn number(side: Side) -> u8 {
    match side {
        Side::A => 1,
        Side::B => 2,
    }
}

/// The SPI of what a side sends.
pub(crate) fn spi_from(side: Side) -> u32 {
    0x1000 + u32::from(number(side))
}

/// Two places joined by a pair of the test NIC's devices. The devices go home before the places end.
pub(crate) struct Wired {
    pub(crate) nic: Nic,
    pub(crate) a: Namespace,
    pub(crate) b: Namespace,
    /// All counters of both ends at first: they go on from one test to the next.
    counted: [String; 2],
}

impl Wired {
    /// Both ends in packet mode, with addresses and routes.
    pub(crate) fn new() -> Result<Self> {
        let nic = Nic::take(0, Mode::Packet)?;
        let counted = [nic.counters(Side::A)?, nic.counters(Side::B)?];
        let mut wired = Wired { nic, a: Namespace::new("wired-a")?, b: Namespace::new("wired-b")?, counted };
        wired.nic.put(Side::A, &wired.a, DEVICE)?;
        wired.nic.put(Side::B, &wired.b, DEVICE)?;
        for side in [Side::A, Side::B] {
            wired.up(side)?;
        }
        wired.wait_for_carrier()?;
        Ok(wired)
    }

    /// A place by its side.
    pub(crate) fn place(&self, side: Side) -> &Namespace {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// Brings an end up with its addresses and routes, also again.
    pub(crate) fn up(&self, side: Side) -> Result<()> {
        let place = self.place(side);
        ip(place, &format!("link set {DEVICE} address {} up", mac(side)))?;
        for (family, bits) in [(Family::V4, 24), (Family::V6, 64)] {
            let (own, peer) = (outer(side, family), outer(side.other(), family));
            let more = if own.is_ipv6() { " nodad" } else { "" };
            ip(place, &format!("addr replace {own}/{bits} dev {DEVICE}{more}"))?;
            let (own, other) = (inner(side, family), inner(side.other(), family));
            let whole = if own.is_ipv6() { 128 } else { 32 };
            ip(place, &format!("addr replace {own}/{whole} dev {DEVICE}{more}"))?;
            ip(place, &format!("route replace {other}/{whole} via {peer} src {own}"))?;
            // The kernel asks for the inner address of tunnel packets of its own (see the NIC's README), and would ask in clear.
            ip(place, &format!("neigh replace {other} lladdr {} dev {DEVICE} nud permanent", mac(side.other())))?;
        }
        Ok(())
    }

    /// Waits until both ends have link.
    pub(crate) fn wait_for_carrier(&self) -> Result<()> {
        for side in [Side::A, Side::B] {
            let carries =
                || ip(self.place(side), &format!("link show dev {DEVICE}")).is_ok_and(|text| text.contains("LOWER_UP"));
            ensure!(wait_until(Duration::from_secs(5), carries), "{side:?} has no carrier");
        }
        Ok(())
    }

    /// An SA of one direction at one end; `more` are further words, for example limits.
    pub(crate) fn add_sa(&self, at: Side, from: Side, shape: Shape, by: By, more: &str) -> Result<String> {
        let family = shape.family();
        let (source, destination) = (outer(from, family), outer(from.other(), family));
        let (way, window) = if at == from {
            ("out", "")
        } else if more.contains("replay-window") {
            ("in", "")
        } else {
            ("in", WINDOW)
        };
        ip(
            self.place(at),
            &format!(
                "xfrm state add src {source} dst {destination} proto esp spi {:#x} reqid {REQID} mode {} {AEAD} {window} {more} {}",
                spi_from(from),
                shape.mode(),
                by.of_state(way)
            ),
        )
    }

    /// A policy of one direction at one end.
    pub(crate) fn add_policy(&self, at: Side, from: Side, shape: Shape, by: By, more: &str) -> Result<String> {
        let family = shape.family();
        let (source, destination) = (shape.protected(from), shape.protected(from.other()));
        let way = if at == from { "out" } else { "in" };
        ip(
            self.place(at),
            &format!(
                "xfrm policy add src {source} dst {destination} dir {way} priority 100 {more} {} tmpl src {} dst {} proto esp \
                 reqid {REQID} mode {}",
                by.of_policy(),
                outer(from, family),
                outer(from.other(), family),
                shape.mode()
            ),
        )
    }

    /// Both SAs and both policies of an end.
    pub(crate) fn protect_end(&self, at: Side, shape: Shape, by: By, more: &str) -> Result<()> {
        for from in [at, at.other()] {
            self.add_sa(at, from, shape, by, more)?;
            self.add_policy(at, from, shape, by, "")?;
        }
        Ok(())
    }

    /// All SAs and policies of both ends.
    pub(crate) fn protect(&self, shape: Shape, by: [By; 2]) -> Result<()> {
        for (side, by) in [Side::A, Side::B].into_iter().zip(by) {
            self.protect_end(side, shape, by, "")?;
        }
        Ok(())
    }

    /// Removes them.
    pub(crate) fn clear(&self) -> Result<()> {
        for side in [Side::A, Side::B] {
            for table in ["state", "policy"] {
                ip(self.place(side), &format!("xfrm {table} flush"))?;
            }
        }
        Ok(())
    }

    /// How many of so many echo requests from A are answered.
    pub(crate) fn ping(&self, shape: Shape, count: u16) -> Result<u16> {
        let (from, to) = (shape.protected(Side::A), shape.protected(Side::B));
        ping(&self.a, from, to, count, Duration::from_millis(500))
    }

    /// Fails unless so many of so many echo requests are answered.
    pub(crate) fn expect(&self, shape: Shape, sent: u16, answered: u16, when: &str) -> Result<()> {
        let found = self.ping(shape, sent)?;
        ensure!(
            found == answered,
            "{when}: {found} of {sent} echo requests answered, not {answered}\n{}",
            self.describe()
        );
        Ok(())
    }

    /// A counter of an end, from 0 at the beginning of the test.
    pub(crate) fn counter(&self, side: Side, name: &str) -> Result<u64> {
        let [a, b] = &self.counted;
        let before = counter(if side == Side::A { a } else { b }, name)?;
        Ok(self.nic.counter(side, name)? - before)
    }

    /// Runs something and says by how much a counter of an end has grown meanwhile.
    pub(crate) fn growth<R>(&self, side: Side, name: &str, act: impl FnOnce() -> Result<R>) -> Result<u64> {
        let before = self.counter(side, name)?;
        act()?;
        Ok(self.counter(side, name)? - before)
    }

    /// Runs something under the tap and says what was on the wire; nothing may be missed.
    pub(crate) fn on_the_wire(&self, protected: &[IpAddr], act: impl FnOnce() -> Result<()>) -> Result<Captured> {
        let prefixes: Vec<Prefix> = protected
            .iter()
            .filter_map(|address| Prefix::parse(&format!("{address}/{}", if address.is_ipv6() { 128 } else { 32 })))
            .collect();
        let capture: Capture = self.nic.capture(&prefixes, 1_000)?;
        act()?;
        let captured = capture.finish(self.nic.tap(), &self.nic.wire())?;
        ensure!(captured.missed() == 0, "the tap missed {} frames", captured.missed());
        Ok(captured)
    }

    /// Starts `ip xfrm monitor` at an end and waits until it listens.
    pub(crate) fn monitor(&self, side: Side) -> Result<Process> {
        let place = self.place(side);
        let listeners = || -> usize {
            let table = place.command("cat", &["/proc/net/netlink"]).unwrap_or_default();
            table.lines().filter(|line| line.split_whitespace().nth(1) == Some("6")).count()
        };
        let before = listeners();
        let monitor = start(place, "ip xfrm monitor")?;
        ensure!(wait_until(Duration::from_secs(5), || listeners() > before), "`ip xfrm monitor` does not listen");
        Ok(monitor)
    }

    /// The line of an SA in an end's table.
    pub(crate) fn sa_line(&self, side: Side, spi: u32) -> Result<String> {
        let tables = self.nic.tables(side)?;
        let spi = format!("spi={spi:#010x} ");
        let line = tables.lines().find(|line| line.starts_with("sa ") && line.contains(&spi));
        line.map(str::to_owned).with_context(|| format!("no SA with {spi}in:\n{tables}"))
    }

    /// What both devices hold, for the words of a failed test.
    fn describe(&self) -> String {
        let of = |side| {
            let counters = self.nic.counters(side).unwrap_or_default();
            let tables = self.nic.tables(side).unwrap_or_default();
            let counted: Vec<&str> = counters.lines().filter(|line| !line.ends_with(" 0")).collect();
            format!("{side:?}:\n{tables}{}\n", counted.join(", "))
        };
        format!("{}{}", of(Side::A), of(Side::B))
    }
}
