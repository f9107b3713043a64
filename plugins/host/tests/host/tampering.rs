//! Somebody else takes routes, rules and policies of ours away: noticed, put back, said; and what an earlier run left behind.

use std::net::UdpSocket;

use ipsec::SelectorPair;
use offload_host::{Host, HostConfig};

use super::lab::{Lab, Namespace, arrives, is_silent};
use super::{PACKETS, V4, V6, assert_carries, crash, pair, spec, start};

/// Sends what is protected; gives how many of these packets left in clear.
fn leaks(lab: &Lab) -> usize {
    let outside = lab.wan.watch("eth0");
    let sent = PACKETS.iter().map(|(namespace, from, to)| {
        let _ = namespace(lab).send(from, to); // refused or not: what counts is what leaves
        outside.count(from, to)
    });
    sent.sum()
}

fn kernel(gateway: &Namespace) -> [String; 3] {
    let policies = gateway.ip("xfrm policy");
    let mut lines: Vec<_> = policies.lines().filter(|line| line.starts_with("src")).collect();
    lines.sort_unstable();
    [
        lines.join("\n"),
        gateway.ip("rule") + &gateway.ip("-6 rule"),
        gateway.ip("route show table 220") + &gateway.ip("-6 route show table 220"),
    ]
}

#[test]
fn what_somebody_takes_away_is_put_back() {
    let lab = Lab::new();
    let (tun, mut host) = lab.gateway.inside(|| start(&[V4, V6]));
    assert_eq!(leaks(&lab), 0);
    lab.gateway.inside(|| host.follow()).unwrap();
    let whole = kernel(&lab.gateway);
    for (what, command) in [
        ("policies of the guard", "xfrm policy flush"),
        ("routes", "route flush table 220"),
        ("routes", "-6 route flush table 220"),
        ("routing rules", "rule del priority 220"),
        ("routing rules", "-6 rule del priority 221"),
    ] {
        lab.gateway.ip(command);
        assert_ne!(kernel(&lab.gateway), whole, "{command}: nothing happened");
        let followed = lab.gateway.inside(|| host.follow()).unwrap();
        assert!(followed.restored.iter().any(|text| text.contains(what)), "{command}: {:?}", followed.restored);
        assert_eq!(kernel(&lab.gateway), whole, "{command}");
        assert_eq!(leaks(&lab), 0, "{command}");
        lab.gateway.inside(|| host.follow()).unwrap(); // our own repairs are heard once
        assert!(lab.gateway.inside(|| host.follow()).unwrap().restored.is_empty(), "{command}: told twice");
    }
    assert_carries(&lab, &tun);
}

#[test]
fn a_device_that_somebody_sets_down_gets_its_routes_back() {
    let lab = Lab::new();
    let (_tun, mut host) = lab.gateway.inside(|| start(&[V4, V6]));
    let whole = lab.gateway.ip("route show table 220");
    lab.gateway.ip("link set cygnet0 down");
    assert!(lab.gateway.ip("route show table 220").is_empty());
    assert_eq!(leaks(&lab), 0, "the guard holds while the routes are gone");
    lab.gateway.ip("link set cygnet0 up");
    lab.gateway.inside(|| host.follow()).unwrap();
    assert_eq!(lab.gateway.ip("route show table 220"), whole);
}

/// Guards of connections that are still there are taken over; of those that are not, nobody takes anything away by himself.
#[test]
fn what_an_earlier_run_left_is_named_and_dropped_on_demand() {
    let lab = Lab::new();
    let gone = ("10.1.0.0/16", "198.51.100.0/24");
    lab.gateway.inside(|| {
        let (tun, mut host) = start(&[V4, V6]);
        host.guard(&spec(gone)).unwrap();
        crash(&lab, tun, host);
    });
    let mut host = lab.gateway.inside(|| Host::open(HostConfig::default())).unwrap();
    lab.gateway.inside(|| [V4, V6].iter().try_for_each(|ends| host.guard(&spec(*ends)))).unwrap();
    let unclaimed = host.unclaimed();
    let of = |ends: (&str, &str)| {
        let SelectorPair { remote, .. } = pair(ends);
        let text = remote.to_string();
        unclaimed.iter().filter(|line| line.contains(&text)).count()
    };
    assert_eq!((of(gone), of(V4)), (3, 0), "{unclaimed:?}");
    let there = sent_to(&lab, "198.51.100.9");
    assert!(is_silent(&there), "still blocked");
    drop(there);
    lab.gateway.inside(|| host.drop_unclaimed()).unwrap();
    assert_eq!(host.unclaimed(), Vec::<String>::new());
    assert!(arrives(&sent_to(&lab, "198.51.100.9")), "nobody blocks it any more");
    assert_eq!(leaks(&lab), 0, "the other guards stand");
}

/// Where a packet of the LAN should arrive.
fn sent_to(lab: &Lab, address: &str) -> UdpSocket {
    let there = lab.wan.udp(address, 4000);
    let _ = lab.lan.send("10.1.0.5", address); // refused or not: what counts is what arrives
    there
}
