//! What the kernel backend does around the kernel's IPsec, on a kernel that has ESP and on a NIC that holds policies: IKE beside what a device
//! protects, the guard while a device has lost everything, routes, ESP in UDP.
//!
//! SAs and protecting policies are `ip`'s here, so that nothing of the backend hides what its surroundings do alone. Whatever is to be lost is first
//! shown to arrive without the policy that takes it, and the other way round.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipsec::{AddressRange, GuardSpec, OnStop, SelectorPair, TrafficSelector};
use lab::netns::Namespace;
use lab::topology::{FAMILIES, Family, Side};
use libtest_mimic::Trial;
use offload_host::{Family as HostFamily, KernelHost, KernelHostConfig, Routed, Taking, esp_in_udp, socket_bypass};

use crate::bench::{Pair, WIRE, ip, trial};
use crate::nic::{Mode, Nic};

/// As the core ranks the policies of a CHILD SA.
const PRIORITY: u32 = 202_000;
const AEAD: &str = "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("host::esp_in_udp_is_taken_out_of_nat_t_sockets", esp_in_udp_is_taken_out_of_nat_t_sockets),
        trial("host::routes_bring_own_packets_into_the_tunnel", routes_bring_own_packets_into_the_tunnel),
        trial("host::the_guard_holds_what_no_policy_protects", the_guard_holds_what_no_policy_protects),
    ];
    for family in FAMILIES {
        for exact in [true, false] {
            let wide = if exact { "two_hosts" } else { "everything" };
            let name = format!("host::ike_passes_a_device_that_protects_{wide}_{family:?}").to_lowercase();
            trials.push(trial(&name, move || ike_passes_a_device(family, exact)));
        }
    }
    trials.push(trial("host::nothing_leaves_in_clear_after_a_device_lost_its_policies", device_lost));
    trials
}

fn selector(address: IpAddr, exact: bool) -> TrafficSelector {
    let any = if address.is_ipv4() { AddressRange::ANY_V4 } else { AddressRange::ANY_V6 };
    TrafficSelector::all(if exact { AddressRange::host(address) } else { any })
}

/// The traffic between both places of a pair, or everything.
fn selectors(family: Family, exact: bool) -> SelectorPair {
    let (a, b) = Pair::addresses(family);
    SelectorPair { local: selector(a, exact), remote: selector(b, exact) }
}

fn open(place: &Namespace, config: KernelHostConfig) -> Result<KernelHost> {
    Ok(place.run(|| KernelHost::open(config))??)
}

fn link(place: &Namespace) -> Result<u32> {
    let text = ip(place, &format!("-o link show dev {WIRE}"))?;
    text.split(':').next().and_then(|index| index.parse().ok()).context("a link has a number")
}

/// Policies of the transport mode in A, held by the device where it is to.
fn protect(pair: &Pair, family: Family, exact: bool, in_device: bool) -> Result<()> {
    let (a, b) = Pair::addresses(family);
    let any = if a.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let side = |address: IpAddr| if exact { address.to_string() } else { any.to_owned() };
    let device = if in_device { format!("offload packet dev {WIRE}") } else { String::new() };
    for (source, destination, way) in [(a, b, "out"), (b, a, "in")] {
        let selector = format!("src {} dst {} proto udp", side(source), side(destination));
        let template = format!("tmpl src {source} dst {destination} proto esp reqid 7 mode tunnel");
        ip(&pair.a, &format!("xfrm policy add {selector} dir {way} priority {PRIORITY} {template} {device}"))?;
    }
    Ok(())
}

fn udp(place: &Namespace, address: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = place.run(|| UdpSocket::bind(SocketAddr::new(address, port)))??;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    Ok(socket)
}

/// Whether a datagram sent on one socket arrives at the other.
fn arrives(from: &UdpSocket, to: &UdpSocket) -> Result<bool> {
    let target = to.local_addr()?;
    // Refused or not: what counts is what arrives.
    let _ = from.send_to(b"a datagram of some length", target);
    Ok(to.recv_from(&mut [0; 256]).is_ok())
}

/// An address of B's that is behind it, as A sees it.
fn beyond(pair: &Pair, family: Family) -> Result<IpAddr> {
    let (address, length, near) = match family {
        Family::V4 => ("198.51.100.9", 32, "192.0.2.2"),
        Family::V6 => ("2001:db8:98::9", 128, "2001:db8::2"),
    };
    ip(&pair.b, &format!("addr add {address}/{length} dev lo"))?;
    way_beyond(pair, family, near)?;
    Ok(address.parse()?)
}

fn way_beyond(pair: &Pair, family: Family, near: &str) -> Result<()> {
    let target = if family == Family::V4 { "198.51.100.0/24" } else { "2001:db8:98::/64" };
    ip(&pair.a, &format!("route replace {target} via {near} dev {WIRE}")).map(drop)
}

fn host_family(family: Family) -> HostFamily {
    match family {
        Family::V4 => HostFamily::V4,
        Family::V6 => HostFamily::V6,
    }
}

/// A pair over the test NIC, in the order in which the NIC goes home before the places end.
fn over_nic() -> Result<(Pair, Nic)> {
    let mut nic = Nic::take(0, Mode::Packet)?;
    let pair = Pair::apart()?;
    nic.put(Side::A, &pair.a, WIRE)?;
    nic.put(Side::B, &pair.b, WIRE)?;
    pair.join()?;
    Ok((pair, nic))
}

/// The two bypasses: that of the socket is for the kernel, that in the device for the device, and neither is enough alone.
fn ike_passes_a_device(family: Family, exact: bool) -> Result<()> {
    let (pair, _nic) = over_nic()?;
    let (a, b) = Pair::addresses(family);
    // What is on the link with us is never for a tunnel of everything.
    let b = if exact { b } else { beyond(&pair, family)? };
    let (ike, nat, other) = (udp(&pair.a, a, 500)?, udp(&pair.a, a, 4500)?, udp(&pair.a, a, 4000)?);
    let (peer, peer_other) = (udp(&pair.b, b, 500)?, udp(&pair.b, b, 4000)?);
    let ends = selectors(family, exact);
    let device = link(&pair.a)?;
    for socket in [&ike, &nat, &other] {
        ensure!(arrives(socket, &peer)?, "nothing protects yet, and nothing arrives");
    }
    let mut host = open(&pair.a, KernelHostConfig::default())?;
    let taking = Taking { pair: ends, priority: PRIORITY, device: Some(device), routed: Routed::Plain };
    protect(&pair, family, exact, true)?;
    for socket in [&ike, &nat] {
        socket_bypass(socket.as_fd(), host_family(family))?;
        ensure!(
            !arrives(socket, &peer)?,
            "the socket's own bypass is enough: the device does not look at its policies"
        );
    }
    pair.a.run(|| host.protect(&taking))??;
    let state = |when: &str, host: &KernelHost| -> Result<()> {
        ensure!(host.passes_ike(device), "{when}: not said to pass");
        for socket in [&ike, &nat] {
            ensure!(arrives(socket, &peer)?, "{when}: IKE of {:?} does not arrive", socket.local_addr());
            ensure!(arrives(&peer, socket)?, "{when}: the peer's IKE to {:?} does not arrive", socket.local_addr());
        }
        ensure!(!arrives(&other, &peer_other)?, "{when}: what is no IKE passes in clear");
        ensure!(!arrives(&peer_other, &other)?, "{when}: what is no IKE is taken in clear");
        Ok(())
    };
    state("at first", &host)?;
    // The link goes down, and everything in the device with it.
    ip(&pair.a, &format!("link set {WIRE} down"))?;
    host.device_lost(device);
    ensure!(!host.passes_ike(device), "a lost device is said to let IKE pass");
    ip(&pair.a, &format!("link set {WIRE} up"))?;
    wait_for_link(&pair)?;
    if !exact {
        let near = if a.is_ipv4() { "192.0.2.2" } else { "2001:db8::2" };
        way_beyond(&pair, family, near)?;
    }
    pair.a.run(|| host.device_back(device))??;
    protect(&pair, family, exact, true)?;
    state("after the link came back", &host)?;
    // Another address of ours.
    if !exact {
        let (address, length) = if a.is_ipv4() { ("192.0.2.77", 24) } else { ("2001:db8::77", 64) };
        let nodad = if a.is_ipv4() { "" } else { "nodad" };
        ip(&pair.a, &format!("addr add {address}/{length} dev {WIRE} {nodad}"))?;
        pair.a.run(|| host.follow())??;
        let socket = udp(&pair.a, address.parse()?, 500)?;
        socket_bypass(socket.as_fd(), host_family(family))?;
        ensure!(arrives(&socket, &peer)?, "IKE of a new address does not arrive");
    }
    pair.a.run(|| host.unprotect(&taking))??;
    let left = ip(&pair.a, "xfrm policy")?;
    ensure!(!left.contains("sport 500") && !left.contains("dport 500"), "bypasses remain:\n{left}");
    ensure!(!arrives(&ike, &peer)?, "IKE passes although its bypass was taken away");
    Ok(())
}

fn wait_for_link(pair: &Pair) -> Result<()> {
    let carries = || ip(&pair.a, &format!("link show dev {WIRE}")).is_ok_and(|text| text.contains("LOWER_UP"));
    ensure!(lab::process::wait_until(Duration::from_secs(5), carries), "the link does not come back");
    // What the kernel forgets when a link goes down.
    let _ = ip(&pair.a, &format!("addr add 2001:db8::1/64 dev {WIRE} nodad"));
    Ok(())
}

fn guard_of(family: Family) -> GuardSpec {
    GuardSpec { name: "site/lan".into(), selectors: selectors(family, true) }
}

/// A device that goes down loses its policies without a word; until somebody puts them back only the guard stands.
fn device_lost() -> Result<()> {
    let (pair, _nic) = over_nic()?;
    let (a, b) = Pair::addresses(Family::V4);
    let (socket, peer) = (udp(&pair.a, a, 4000)?, udp(&pair.b, b, 4000)?);
    let flap = || -> Result<()> {
        ip(&pair.a, &format!("link set {WIRE} down"))?;
        ip(&pair.a, &format!("link set {WIRE} up"))?;
        wait_for_link(&pair)
    };
    protect(&pair, Family::V4, true, true)?;
    ensure!(!arrives(&socket, &peer)?, "the policy protects, and there is no SA");
    flap()?;
    ensure!(arrives(&socket, &peer)?, "this kernel keeps what was in a device: the test shows nothing");
    protect(&pair, Family::V4, true, true)?;
    let mut host = open(&pair.a, KernelHostConfig::default())?;
    pair.a.run(|| host.guard(&guard_of(Family::V4)))??;
    flap()?;
    let policies = ip(&pair.a, "xfrm policy")?;
    ensure!(!policies.contains("offload"), "not lost:\n{policies}");
    for _ in 0..3 {
        ensure!(!arrives(&socket, &peer)?, "leaves in clear after the device has lost its policies");
        ensure!(!arrives(&peer, &socket)?, "is taken in clear after the device has lost its policies");
    }
    Ok(())
}

/// Software ESP beside the guard: what is protected passes it, and what is not protected any more does not, both ways and families.
fn the_guard_holds_what_no_policy_protects() -> Result<()> {
    let pair = Pair::veth()?;
    let mut host = open(&pair.a, KernelHostConfig::default())?;
    for family in FAMILIES {
        let (a, b) = Pair::addresses(family);
        let (socket, peer) = (udp(&pair.a, a, 4000)?, udp(&pair.b, b, 4000)?);
        let guard = guard_of(family);
        pair.a.run(|| host.guard(&guard))??;
        ensure!(!arrives(&socket, &peer)? && !arrives(&peer, &socket)?, "{family:?}: the guard does not hold");
        for place in [&pair.a, &pair.b] {
            for (source, destination, spi) in [(a, b, "0x1001"), (b, a, "0x1002")] {
                let state = format!("src {source} dst {destination} proto esp spi {spi} reqid 7 mode transport");
                ip(place, &format!("xfrm state add {state} {AEAD}"))?;
                let way = if (source == a) == (place.name() == pair.a.name()) { "out" } else { "in" };
                let template = format!("tmpl src {source} dst {destination} proto esp reqid 7 mode transport");
                ip(
                    place,
                    &format!("xfrm policy add src {source} dst {destination} dir {way} priority {PRIORITY} {template}"),
                )?;
            }
        }
        ensure!(
            arrives(&socket, &peer)? && arrives(&peer, &socket)?,
            "{family:?}: what is protected does not pass the guard"
        );
        for (source, destination, way) in [(a, b, "out"), (b, a, "in")] {
            ip(&pair.a, &format!("xfrm policy delete src {source} dst {destination} dir {way}"))?;
        }
        ensure!(!arrives(&socket, &peer)?, "{family:?}: leaves in clear without its policy");
        ip(&pair.b, "xfrm policy flush")?;
        ensure!(!arrives(&peer, &socket)?, "{family:?}: is taken in clear without its policy");
        pair.a.run(|| host.unguard(&guard))??;
        ensure!(arrives(&socket, &peer)?, "{family:?}: the guard was taken down and holds");
    }
    pair.a.run(|| host.stop(OnStop::Open))??;
    Ok(())
}

/// A subnet behind each place, as addresses of its own: the route says which of them own packets come from.
fn routes_bring_own_packets_into_the_tunnel() -> Result<()> {
    let pair = Pair::veth()?;
    let (a, b) = Pair::addresses(Family::V4);
    for (place, number, here, there) in [(&pair.a, 1, a, b), (&pair.b, 2, b, a)] {
        ip(place, &format!("addr add 10.{number}.0.1/24 dev lo"))?;
        for (source, destination, spi) in [(a, b, "0x2001"), (b, a, "0x2002")] {
            let state = format!("src {source} dst {destination} proto esp spi {spi} reqid 9 mode tunnel");
            ip(place, &format!("xfrm state add {state} {AEAD}"))?;
        }
        let other = 3 - number;
        for (from, to, way, source, destination) in
            [(number, other, "out", here, there), (other, number, "in", there, here)]
        {
            let template = format!("tmpl src {source} dst {destination} proto esp reqid 9 mode tunnel");
            ip(
                place,
                &format!(
                    "xfrm policy add src 10.{from}.0.0/24 dst 10.{to}.0.0/24 dir {way} priority {PRIORITY} {template}"
                ),
            )?;
        }
    }
    ip(&pair.b, "route add 10.1.0.0/24 via 192.0.2.1 src 10.2.0.1")?;
    ip(&pair.a, "route add default via 192.0.2.2")?;
    let (socket, peer) = (udp(&pair.a, "0.0.0.0".parse()?, 4000)?, udp(&pair.b, "10.2.0.1".parse()?, 4000)?);
    let came_from = || -> Result<Option<IpAddr>> {
        let _ = socket.send_to(b"a datagram", peer.local_addr()?);
        Ok(peer.recv_from(&mut [0; 64]).ok().map(|(_, from)| from.ip()))
    };
    let without = came_from()?;
    ensure!(without != Some("10.1.0.1".parse()?), "the source is inside without our route: the test shows nothing");
    let mut host = open(&pair.a, KernelHostConfig::default())?;
    let prefix = |text: [u8; 4]| TrafficSelector::prefix(text.into(), 24).context("a prefix");
    let ends = SelectorPair { local: prefix([10, 1, 0, 0])?, remote: prefix([10, 2, 0, 0])? };
    let taking = Taking { pair: ends, priority: PRIORITY, device: None, routed: Routed::ByPeer(a, b) };
    pair.a.run(|| host.protect(&taking))??;
    let capture = pair.capture()?;
    let from = came_from()?;
    let captured = pair.finish(capture)?;
    ensure!(from == Some("10.1.0.1".parse()?), "came from {from:?}");
    ensure!(captured.counts.esp > 0, "the link carried {:?}", captured.counts);
    pair.a.run(|| host.stop(OnStop::Open))??;
    let table = ip(&pair.a, "route show table all proto 67")?;
    ensure!(table.trim().is_empty(), "remains: {table}");
    Ok(())
}

/// Both ends have the kernel take ESP out of their NAT-T sockets; IKE with its marker comes through.
fn esp_in_udp_is_taken_out_of_nat_t_sockets() -> Result<()> {
    let pair = Pair::veth()?;
    for family in FAMILIES {
        let (a, b) = Pair::addresses(family);
        let nat = (udp(&pair.a, a, 4500)?, udp(&pair.b, b, 4500)?);
        let (socket, peer) = (udp(&pair.a, a, 4000)?, udp(&pair.b, b, 4000)?);
        // Both ends know each other by then: neighbour discovery between the addresses is protected too.
        ensure!(
            arrives(&socket, &peer)? && arrives(&peer, &socket)?,
            "{family:?}: nothing protects yet, and nothing arrives"
        );
        for place in [&pair.a, &pair.b] {
            for (source, destination, spi) in [(a, b, "0x3001"), (b, a, "0x3002")] {
                let state = format!("src {source} dst {destination} proto esp spi {spi} reqid 8 mode transport");
                ip(place, &format!("xfrm state add {state} {AEAD} encap espinudp 4500 4500 {}", zero(family)))?;
                let way = if (source == a) == (place.name() == pair.a.name()) { "out" } else { "in" };
                let template = format!("tmpl src {source} dst {destination} proto esp reqid 8 mode transport");
                ip(place, &format!("xfrm policy add src {source} dst {destination} dir {way} priority 9 {template}"))?;
            }
        }
        for socket in [&nat.0, &nat.1] {
            socket_bypass(socket.as_fd(), host_family(family))?;
        }
        ensure!(!arrives(&socket, &peer)?, "{family:?}: ESP in UDP is taken out of an ordinary socket");
        // Nobody but the socket wanted it.
        ensure!(nat.1.recv_from(&mut [0; 256]).is_ok(), "{family:?}: no ESP came in UDP");
        esp_in_udp(nat.0.as_fd())?;
        esp_in_udp(nat.1.as_fd())?;
        let capture = pair.capture()?;
        ensure!(arrives(&socket, &peer)? && arrives(&peer, &socket)?, "{family:?}: ESP in UDP does not arrive");
        let counts = pair.finish(capture)?.counts;
        ensure!(counts.udp_esp >= 2 && counts.esp == 0, "{family:?}: the link carried {counts:?}");
        ensure!(nat.1.recv_from(&mut [0; 256]).is_err(), "{family:?}: the socket got ESP too");
        let ike = [&[0_u8; 4][..], b"an IKE message"].concat();
        nat.0.send_to(&ike, nat.1.local_addr()?)?;
        let mut got = [0; 256];
        let (length, _) = nat.1.recv_from(&mut got).context("no IKE came")?;
        ensure!(got.get(..length) == Some(&ike[..]), "{family:?}: IKE came otherwise");
    }
    Ok(())
}

fn zero(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0",
        Family::V6 => "::",
    }
}
