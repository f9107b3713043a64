//! Routes, rules and the guard in real kernels: network namespaces, a real TUN device, real packets. Needs root.
//!
//! Every test that expects silence first shows that without the guard the same packet would have been seen.
#![allow(unsafe_code)] // namespaces and packet sockets have no safe interface in std; each block says why it is sound
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a panic is how a test fails, in its helpers too

#[path = "host/devices.rs"]
mod devices;
#[path = "host/kernel.rs"]
mod kernel;
#[path = "host/lab.rs"]
mod lab;
#[path = "host/tampering.rs"]
mod tampering;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipsec::{GuardSpec, OnStop, SelectorPair, TrafficSelector};
use offload_host::{Family, Host, HostConfig, HostError, Tun, TunConfig, set_mark, socket_bypass};

use lab::{Lab, Namespace, arrives, is_silent, read_packet, udp_packet};

const V4: (&str, &str) = ("10.1.0.0/16", "10.2.0.0/16");
const V6: (&str, &str) = ("2001:db8:1::/64", "2001:db8:2::/64");

/// Who sends which guarded packets: LAN host and gateway, both families.
type Sender = fn(&Lab) -> &Namespace;
const PACKETS: [(Sender, &str, &str); 4] = [
    (|lab| &lab.lan, "10.1.0.5", "10.2.0.7"),
    (|lab| &lab.lan, "2001:db8:1::5", "2001:db8:2::7"),
    (|lab| &lab.gateway, "10.1.0.1", "10.2.0.7"),
    (|lab| &lab.gateway, "2001:db8:1::1", "2001:db8:2::7"),
];

fn selector(text: &str) -> TrafficSelector {
    let (address, length) = text.split_once('/').unwrap();
    TrafficSelector::prefix(address.parse().unwrap(), length.parse().unwrap()).unwrap()
}

fn pair((local, remote): (&str, &str)) -> SelectorPair {
    SelectorPair { local: selector(local), remote: selector(remote) }
}

fn spec(ends: (&str, &str)) -> GuardSpec {
    GuardSpec { name: Arc::from("site/lan"), selectors: pair(ends) }
}

fn open_tun() -> Tun {
    let config = TunConfig { device: "cygnet0".to_owned(), queues: 1, mtu: 1400, offloads: false };
    // A process that another test is just forking holds the last one's queues until it has begun its own program.
    let begun = Instant::now();
    loop {
        match Tun::open(&config) {
            Err(HostError::Device { source, .. })
                if source.kind() == std::io::ErrorKind::ResourceBusy && begun.elapsed() < Duration::from_secs(10) =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// A gateway with the device up and these selectors guarded and protected.
fn start(ends: &[(&str, &str)]) -> (Tun, Host) {
    let tun = open_tun();
    let mut host = Host::open(HostConfig::default()).unwrap();
    host.renew_device(Some(tun.ifindex)).unwrap();
    for ends in ends {
        host.guard(&spec(*ends)).unwrap();
        host.protect(&pair(*ends)).unwrap();
    }
    (tun, host)
}

/// What a process leaves that is killed: descriptors close, nothing else happens.
fn crash(lab: &Lab, tun: Tun, host: Host) {
    drop((tun, host));
    lab.gateway.loses("cygnet0");
}

/// Policies in the gateway whose priority is from our range.
fn our_policies(lab: &Lab) -> usize {
    lab.gateway.ip("xfrm policy").lines().filter(|line| line.contains("priority 42949")).count()
}

fn our_rules(lab: &Lab) -> usize {
    let rules = lab.gateway.ip("rule") + &lab.gateway.ip("-6 rule");
    rules.lines().filter(|line| ["219:", "220:", "221:"].iter().any(|start| line.starts_with(start))).count()
}

fn our_routes(lab: &Lab) -> String {
    lab.gateway.ip("-4 route show table all proto 67") + &lab.gateway.ip("-6 route show table all proto 67")
}

#[test]
fn nothing_leaves_in_clear_when_the_process_dies() {
    let lab = Lab::new();
    let outside = lab.wan.watch("eth0");
    for (namespace, from, to) in PACKETS {
        namespace(&lab).send(from, to).unwrap();
        assert!(outside.sees(from, to), "without a guard {from} reaches {to}");
    }
    for (_, from, to) in PACKETS.iter().skip(2) {
        lab.gateway.send_through("wan0", from, to).unwrap();
        assert!(outside.sees(from, to), "without a guard {from} reaches {to} through the outer link");
    }
    let (tun, host) = lab.gateway.inside(|| start(&[V4, V6]));
    for (namespace, from, to) in PACKETS {
        let _ = namespace(&lab).send(from, to);
        assert_eq!(outside.count(from, to), 0, "{from} to {to} with the device up");
    }
    crash(&lab, tun, host);
    for (namespace, from, to) in PACKETS {
        let _ = namespace(&lab).send(from, to);
        assert_eq!(outside.count(from, to), 0, "{from} to {to} after the crash");
    }
    for (_, from, to) in PACKETS.iter().skip(2) {
        let _ = lab.gateway.send_through("wan0", from, to);
        assert_eq!(outside.count(from, to), 0, "{from} to {to} from a socket bound to the outer link");
    }
    lab.lan.send("10.1.0.5", "198.51.100.9").unwrap();
    assert!(outside.sees("10.1.0.5", "198.51.100.9"), "other traffic flows");
}

#[test]
fn a_forged_clear_packet_from_outside_reaches_nobody() {
    let lab = Lab::new();
    let cases = [
        (lab.lan.udp("10.1.0.5", 4000), "10.2.0.7", "10.1.0.5"),
        (lab.lan.udp("2001:db8:1::5", 4000), "2001:db8:2::7", "2001:db8:1::5"),
        (lab.gateway.udp("10.1.0.1", 4000), "10.2.0.7", "10.1.0.1"),
        (lab.gateway.udp("2001:db8:1::1", 4000), "2001:db8:2::7", "2001:db8:1::1"),
    ];
    for (socket, from, to) in &cases {
        lab.wan.send(from, to).unwrap();
        assert!(arrives(socket), "without a guard {from} reaches {to}");
    }
    let (tun, host) = lab.gateway.inside(|| start(&[V4, V6]));
    for (socket, from, to) in &cases {
        lab.wan.send(from, to).unwrap();
        assert!(is_silent(socket), "{from} to {to} with the device up");
    }
    crash(&lab, tun, host);
    for (socket, from, to) in &cases {
        lab.wan.send(from, to).unwrap();
        assert!(is_silent(socket), "{from} to {to} after the crash");
    }
}

/// Both directions, LAN and gateway itself, through the queue of `tun`.
fn assert_carries(lab: &Lab, tun: &Tun) {
    for (namespace, from, to) in PACKETS {
        let namespace = namespace(lab);
        namespace.send(from, to).unwrap();
        assert!(read_packet(&tun.queues[0], from, to), "{from} to {to} comes out of the device");
        let socket = namespace.udp(from, 4100);
        rustix::io::write(&tun.queues[0], &udp_packet(to, from, 4100)).unwrap();
        assert!(arrives(&socket), "{to} to {from} goes in at the device");
    }
}

#[test]
fn guarded_traffic_passes_through_the_device() {
    let lab = Lab::new();
    let (tun, _host) = lab.gateway.inside(|| start(&[V4, V6]));
    assert_carries(&lab, &tun);
}

#[test]
fn the_gateway_speaks_from_its_address_inside_the_local_selector() {
    let lab = Lab::new();
    let (tun, _host) = lab.gateway.inside(|| start(&[V4, V6]));
    lab.gateway.send("0.0.0.0", "10.2.0.7").unwrap();
    assert!(read_packet(&tun.queues[0], "10.1.0.1", "10.2.0.7"));
    lab.gateway.send("::", "2001:db8:2::7").unwrap();
    assert!(read_packet(&tun.queues[0], "2001:db8:1::1", "2001:db8:2::7"));
}

#[test]
fn a_device_made_anew_carries_again() {
    let lab = Lab::new();
    let outside = lab.wan.watch("eth0");
    let (tun, mut host) = lab.gateway.inside(|| start(&[V4, V6]));
    lab.gateway.ip("link del cygnet0");
    let _ = lab.lan.send("10.1.0.5", "10.2.0.7");
    assert_eq!(outside.count("10.1.0.5", "10.2.0.7"), 0);
    let old = tun.ifindex;
    drop(tun);
    let tun = lab.gateway.inside(open_tun);
    assert_ne!(tun.ifindex, old);
    lab.gateway.inside(|| host.renew_device(Some(tun.ifindex))).unwrap();
    assert_carries(&lab, &tun);
    assert!(!lab.gateway.ip("xfrm policy").contains(&format!("if{old}")), "policies of the old device are gone");
    lab.gateway.inside(|| host.renew_device(Some(tun.ifindex))).unwrap();
    assert_carries(&lab, &tun);
}

#[test]
fn routes_lost_with_the_link_going_down_come_back() {
    let lab = Lab::new();
    let (tun, mut host) = lab.gateway.inside(|| start(&[V4, V6]));
    lab.gateway.ip("link set cygnet0 down");
    lab.gateway.ip("link set cygnet0 up");
    assert!(lab.gateway.inside(|| host.follow()).unwrap().changed, "the kernel told of it");
    assert_carries(&lab, &tun);
}

/// What must work whatever is guarded: LAN, outer link, loopback, in both families, with cold neighbour caches.
fn assert_reachable(lab: &Lab) {
    for namespace in [&lab.lan, &lab.gateway, &lab.wan] {
        namespace.ip("neigh flush all");
        namespace.ip("-6 neigh flush all");
    }
    let cases = [
        (&lab.gateway, "10.1.0.1", "10.1.0.5"),
        (&lab.lan, "10.1.0.5", "10.1.0.1"),
        (&lab.gateway, "192.0.2.1", "192.0.2.2"),
        (&lab.wan, "192.0.2.2", "192.0.2.1"),
        (&lab.gateway, "10.1.0.1", "192.0.2.1"),
        (&lab.gateway, "127.0.0.1", "127.0.0.1"),
        (&lab.gateway, "2001:db8:1::1", "2001:db8:1::5"),
        (&lab.lan, "2001:db8:1::5", "2001:db8:1::1"),
        (&lab.gateway, "2001:db8:99::1", "2001:db8:99::2"),
        (&lab.wan, "2001:db8:99::2", "2001:db8:99::1"),
        (&lab.gateway, "2001:db8:1::1", "2001:db8:99::1"),
        (&lab.gateway, "::1", "::1"),
    ];
    for (namespace, from, to) in cases {
        assert!(namespace.reaches(from, to), "{from} reaches {to}");
    }
}

/// The gateway's outer addresses, which are inside no local selector unless that is everything.
fn assert_reaches_internet(lab: &Lab, expected: bool) {
    for (from, to) in [("192.0.2.1", "198.51.100.9"), ("2001:db8:99::1", "2001:db8:98::9")] {
        for (namespace, from, to) in [(&lab.gateway, from, to), (&lab.wan, to, from)] {
            let reached = if expected { namespace.reaches(from, to) } else { namespace.pings(from, to) };
            assert_eq!(reached, expected, "{from} to {to}");
        }
    }
}

#[test]
fn a_guard_of_everything_leaves_the_neighbourhood_reachable() {
    for (local_v4, local_v6) in [("10.1.0.0/16", "2001:db8:1::/64"), ("0.0.0.0/0", "::/0")] {
        let lab = Lab::new();
        let outside = lab.wan.watch("eth0");
        assert_reachable(&lab);
        let everything = [(local_v4, "0.0.0.0/0"), (local_v6, "::/0")];
        let (tun, host) = lab.gateway.inside(|| start(&everything));
        assert_reachable(&lab);
        for (from, to) in [("10.1.0.5", "198.51.100.9"), ("2001:db8:1::5", "2001:db8:98::9")] {
            lab.lan.send(from, to).unwrap();
            assert!(read_packet(&tun.queues[0], from, to), "{from} to {to} comes out of the device");
            assert_eq!(outside.count(from, to), 0);
        }
        // A LAN host and the outer link are not neighbours: what goes between them is for the tunnel or for nobody.
        let _ = lab.lan.send("10.1.0.5", "192.0.2.2");
        assert_eq!(outside.count("10.1.0.5", "192.0.2.2"), 0);
        let is_lan_only = local_v4 != "0.0.0.0/0";
        assert_reaches_internet(&lab, is_lan_only);
        crash(&lab, tun, host);
        assert_reachable(&lab);
        assert_reaches_internet(&lab, is_lan_only);
        let _ = lab.lan.send("10.1.0.5", "198.51.100.9");
        assert_eq!(outside.count("10.1.0.5", "198.51.100.9"), 0);
    }
}

#[test]
fn two_subnets_behind_one_gateway_keep_talking() {
    let lab = Lab::new();
    let second = lab.attach("lan1", &["10.1.1.1/24"], &["10.1.1.5/24"]);
    second.ip("route add default via 10.1.1.1");
    for everything in ["0.0.0.0/0", "10.0.0.0/8"] {
        let (tun, host) = lab.gateway.inside(|| start(&[("10.1.0.0/16", everything)]));
        assert!(lab.lan.reaches("10.1.0.5", "10.1.1.5"), "forwarded beside {everything}");
        assert!(second.reaches("10.1.1.5", "10.1.0.1"), "the gateway's other address beside {everything}");
        lab.lan.send("10.1.0.5", "10.1.7.7").unwrap();
        assert!(read_packet(&tun.queues[0], "10.1.0.5", "10.1.7.7"), "what is not connected is protected");
        lab.gateway.inside(|| host.stop(OnStop::Open)).unwrap();
    }
}

#[test]
fn a_lan_outside_the_local_selector_keeps_its_way_out_beside_a_tunnel_for_everything() {
    let lab = Lab::new();
    let other = lab.attach("lan9", &["10.9.0.1/24"], &["10.9.0.5/24"]);
    other.ip("route add default via 10.9.0.1");
    lab.wan.ip("route add 10.9.0.0/24 via 192.0.2.1");
    let (tun, mut host) = lab.gateway.inside(|| start(&[("10.1.0.0/16", "0.0.0.0/0")]));
    assert!(other.reaches("10.9.0.5", "198.51.100.9"));
    lab.lan.send("10.1.0.5", "198.51.100.9").unwrap();
    assert!(read_packet(&tun.queues[0], "10.1.0.5", "198.51.100.9"), "and the protected LAN uses the tunnel");
    host.protect(&pair(("10.9.0.0/24", "10.2.0.0/16"))).unwrap();
    assert!(!other.pings("10.9.0.5", "198.51.100.9"), "a LAN that some policy protects is left to the datapath");
    host.unprotect(&pair(("10.9.0.0/24", "10.2.0.0/16"))).unwrap();
    assert!(other.reaches("10.9.0.5", "198.51.100.9"));
}

#[test]
fn our_own_sockets_go_around_guard_and_tunnel_under_strict_rp_filter() {
    let lab = Lab::new();
    lab.gateway.inside(|| std::fs::write("/proc/sys/net/ipv4/conf/wan0/rp_filter", "1")).unwrap();
    let (tun, mut host) = lab.gateway.inside(|| start(&[("0.0.0.0/0", "0.0.0.0/0"), ("::/0", "::/0")]));
    let cases = [("192.0.2.1", "198.51.100.9", Family::V4), ("2001:db8:99::1", "2001:db8:98::9", Family::V6)];
    for (local, remote, family) in cases {
        let peer = lab.wan.udp(remote, 4500);
        let socket = lab.gateway.udp(local, 4500);
        let to = peer.local_addr().unwrap();
        socket.send_to(b"esp", to).unwrap();
        assert!(is_silent(&peer), "an ordinary socket does not get out");
        assert!(read_packet(&tun.queues[0], local, remote), "but into the tunnel");
        set_mark(socket.as_fd(), HostConfig::default().mark).unwrap();
        assert!(socket_bypass(&socket, family).unwrap());
        host.outer(local.parse().unwrap(), remote.parse().unwrap()).unwrap();
        socket.send_to(b"esp", to).unwrap();
        assert!(arrives(&peer), "{local} reaches its peer {remote}");
        peer.send_to(b"esp", socket.local_addr().unwrap()).unwrap();
        assert!(arrives(&socket), "the peer {remote} reaches {local}");
        host.forget_outer(local.parse().unwrap(), remote.parse().unwrap()).unwrap();
    }
    assert_eq!(our_rules(&lab), 4);
}

#[test]
fn a_restarted_daemon_adopts_its_leftovers_and_spares_the_rest() {
    let lab = Lab::new();
    let outside = lab.wan.watch("eth0");
    lab.gateway.ip("xfrm policy add src 10.7.0.0/16 dst 10.8.0.0/16 dir out action block priority 4294901761");
    lab.gateway.ip("route add 10.77.0.0/16 via 192.0.2.2 table 221");
    let (tun, mut host) = lab.gateway.inside(|| start(&[V4, V6, ("10.1.0.0/16", "10.3.0.0/16")]));
    let before = our_policies(&lab);
    host.pass(&pair(("10.1.0.0/16", "10.2.9.0/24"))).unwrap();
    assert_eq!(our_policies(&lab), before + 3);
    crash(&lab, tun, host);
    assert!(!our_routes(&lab).contains("cygnet0"), "the kernel took the routes with the device");
    let (tun, mut host) = lab.gateway.inside(|| start(&[V4, V6]));
    assert_eq!(our_policies(&lab), before, "taken over in place, the shunt is closed");
    assert_carries(&lab, &tun);
    let _ = lab.lan.send("10.1.0.5", "10.3.0.7");
    assert_eq!(outside.count("10.1.0.5", "10.3.0.7"), 0, "not yet claimed, but still blocked");
    lab.gateway.inside(|| host.drop_unclaimed()).unwrap();
    assert_eq!(our_policies(&lab), before - 3);
    let _ = lab.lan.send("10.1.0.5", "10.2.0.7");
    assert_eq!(outside.count("10.1.0.5", "10.2.0.7"), 0);
    lab.gateway.inside(|| host.stop(OnStop::Open)).unwrap();
    drop(tun);
    lab.gateway.loses("cygnet0");
    assert_eq!((our_policies(&lab), our_rules(&lab), our_routes(&lab).as_str()), (1, 0, ""));
    assert!(lab.gateway.ip("xfrm policy").contains("10.7.0.0/16"), "the foreign policy is there");
    assert!(lab.gateway.ip("route show table 221").contains("10.77.0.0/16"), "the foreign route is there");
    lab.lan.send("10.1.0.5", "10.2.0.7").unwrap();
    assert!(outside.sees("10.1.0.5", "10.2.0.7"), "open means open");
}

#[test]
fn stopping_with_block_leaves_the_guard_and_nothing_else() {
    let lab = Lab::new();
    let outside = lab.wan.watch("eth0");
    let (tun, host) = lab.gateway.inside(|| start(&[V4, V6]));
    lab.gateway.inside(|| host.stop(OnStop::Block)).unwrap();
    let routes = our_routes(&lab);
    assert!(routes.starts_with("unreachable 2001:db8:2::/64 ") && routes.lines().count() == 1, "{routes}");
    for (namespace, from, to) in PACKETS {
        let _ = namespace(&lab).send(from, to);
        assert_eq!(outside.count(from, to), 0, "{from} to {to}");
    }
    assert!(!lab.gateway.ip("xfrm policy").contains(&format!("if{}", tun.ifindex)), "nothing may enter a later device");
}

#[test]
fn guards_are_counted_by_name() {
    let lab = Lab::new();
    let (_tun, mut host) = lab.gateway.inside(|| start(&[V4]));
    let second = GuardSpec { name: Arc::from("backup/lan"), ..spec(V4) };
    host.guard(&second).unwrap();
    host.guard(&second).unwrap();
    let before = our_policies(&lab);
    host.unguard(&spec(V4)).unwrap();
    assert_eq!(our_policies(&lab), before);
    assert!(host.is_guarded(&pair(V4)));
    host.unguard(&second).unwrap();
    assert_eq!(our_policies(&lab), 0);
    assert!(!host.is_guarded(&pair(V4)));
    host.unguard(&second).unwrap();
}

#[test]
fn a_foreign_policy_of_the_same_selector_stands_beside_a_block() {
    let lab = Lab::new();
    lab.gateway.ip("xfrm policy add src 10.2.0.0/16 dst 10.1.0.0/16 dir fwd action allow priority 100");
    let (_tun, mut host) = lab.gateway.inside(|| start(&[V4]));
    assert!(lab.gateway.ip("xfrm policy").contains("priority 100"));
    let guarded = our_policies(&lab);
    assert!(guarded > 0);
    lab.gateway.inside(|| host.unguard(&spec(V4)).unwrap());
    assert_eq!(our_policies(&lab), 0);
    assert!(lab.gateway.ip("xfrm policy").contains("priority 100"), "only ours are deleted");
}

#[test]
fn a_table_in_use_is_refused_by_name() {
    let lab = Lab::new();
    lab.gateway.ip("route add 10.77.0.0/16 via 192.0.2.2 table 220");
    let error = lab.gateway.inside(|| Host::open(HostConfig::default()).unwrap_err()).to_string();
    assert!(error.contains("table 220") && error.contains("10.77.0.0/16"), "{error}");
    assert_eq!(our_rules(&lab), 0);
    let elsewhere = HostConfig { table: 1220, ..HostConfig::default() };
    lab.gateway.inside(|| Host::open(elsewhere).unwrap());
    assert!(lab.gateway.ip("rule").contains("lookup 1220"));
    lab.gateway.ip("route flush table 220");
    lab.gateway.inside(|| Host::open(HostConfig::default()).unwrap());
    assert!(!lab.gateway.ip("rule").contains("lookup 1220"), "rules of other settings are cleaned away");
}

#[test]
fn equal_remote_selectors_share_a_route_until_the_last_goes() {
    let lab = Lab::new();
    lab.gateway.ip("addr add 10.4.0.1/24 dev lan0");
    let (_tun, mut host) = lab.gateway.inside(|| start(&[]));
    let (first, second) = (pair(V4), pair(("10.4.0.0/16", "10.2.0.0/16")));
    let route = |lab: &Lab| lab.gateway.ip("route show table 220 10.2.0.0/16").trim().to_owned();
    lab.gateway.inside(|| {
        host.protect(&second).unwrap();
        assert!(route(&lab).contains("dev cygnet0 proto 67 scope link src 10.4.0.1"), "{}", route(&lab));
        host.protect(&first).unwrap();
        host.protect(&first).unwrap();
        host.unprotect(&second).unwrap();
        assert!(route(&lab).contains("src 10.1.0.1"), "{}", route(&lab));
        host.unprotect(&first).unwrap();
        assert!(route(&lab).contains("dev cygnet0"));
        host.unprotect(&first).unwrap();
        assert_eq!(route(&lab), "");
    });
}

#[test]
fn ranges_become_prefixes() {
    let lab = Lab::new();
    let (_tun, mut host) = lab.gateway.inside(|| start(&[]));
    let mut odd = pair(V4);
    let range = ipsec::AddressRange::new("10.2.0.1".parse().unwrap(), "10.2.0.4".parse().unwrap()).unwrap();
    odd.remote.addresses = range;
    host.protect(&odd).unwrap();
    host.guard(&GuardSpec { name: Arc::from("odd"), selectors: odd }).unwrap();
    let routes = lab.gateway.ip("route show table 220");
    for prefix in ["10.2.0.1 dev", "10.2.0.2/31 dev", "10.2.0.4 dev"] {
        assert!(routes.contains(prefix), "{routes}");
    }
    assert_eq!(lab.gateway.ip("xfrm policy").matches("action block").count(), 9);
}

#[test]
fn a_whole_shunt_is_thrown_and_one_with_ports_is_ruled() {
    let lab = Lab::new();
    let outside = lab.wan.watch("eth0");
    let (tun, mut host) = lab.gateway.inside(|| start(&[("10.1.0.0/16", "0.0.0.0/0")]));
    let whole = pair(("10.1.0.0/16", "198.51.100.0/24"));
    let send = || lab.lan.send("10.1.0.5", "198.51.100.9").unwrap();
    let seen = || outside.count("10.1.0.5", "198.51.100.9");
    let sees = || outside.sees("10.1.0.5", "198.51.100.9");
    send();
    assert_eq!(seen(), 0);
    host.pass(&whole).unwrap();
    assert!(lab.gateway.ip("route show table 220").contains("throw 198.51.100.0/24"));
    send();
    assert!(sees(), "the shunt is open");
    // A second protecting policy for another LAN must keep its traffic: the route becomes a rule.
    host.protect(&pair(("10.4.0.0/16", "0.0.0.0/0"))).unwrap();
    assert!(!lab.gateway.ip("route show table 220").contains("throw 198.51.100.0/24"));
    assert!(
        lab.gateway.ip("rule").contains("from 10.1.0.0/16 to 198.51.100.0/24 goto 221"),
        "{}",
        lab.gateway.ip("rule")
    );
    send();
    assert!(sees(), "and still open");
    host.unpass(&whole).unwrap();
    send();
    assert_eq!(seen(), 0);
    let mut ports = whole;
    ports.remote.protocol = 17;
    ports.remote.ports = ipsec::PortRange::single(4000);
    host.pass(&ports).unwrap();
    send();
    assert!(sees(), "UDP to port 4000 is the shunt's");
    ports.remote.ports = ipsec::PortRange::single(4001);
    host.pass(&ports).unwrap();
    ports.remote.ports = ipsec::PortRange::single(4000);
    host.unpass(&ports).unwrap();
    send();
    assert_eq!(seen(), 0);
    assert!(read_packet(&tun.queues[0], "10.1.0.5", "198.51.100.9"));
    ports.remote.protocol = 1;
    let before = (our_policies(&lab), our_rules(&lab));
    assert!(matches!(host.pass(&ports), Err(HostError::NotExpressible { .. })));
    assert_eq!((our_policies(&lab), our_rules(&lab)), before);
}

#[test]
fn new_addresses_and_subnets_are_followed() {
    let lab = Lab::new();
    let (_tun, mut host) = lab.gateway.inside(|| start(&[("0.0.0.0/0", "0.0.0.0/0")]));
    lab.gateway.ip("addr add 10.5.0.1/24 dev lan0");
    lab.lan.ip("addr add 10.5.0.5/24 dev eth0");
    assert!(!lab.gateway.pings("10.5.0.1", "10.5.0.5"), "not known yet");
    assert!(host.follow().unwrap().changed);
    assert!(lab.gateway.reaches("10.5.0.1", "10.5.0.5"));
    lab.gateway.ip("addr del 10.5.0.1/24 dev lan0");
    assert!(host.follow().unwrap().changed);
    assert!(!lab.gateway.ip("xfrm policy").contains("10.5.0"));
    lab.gateway.ip("route add 10.6.0.0/16 via 10.1.0.5");
    host.follow().unwrap(); // our own changes are news once
    assert!(!host.follow().unwrap().changed, "an ordinary route changes nothing");
    lab.gateway.ip("route flush table 220");
    assert!(host.follow().unwrap().changed);
    assert!(lab.gateway.ip("route show table 220").contains("default dev cygnet0"), "what was flushed is back");
    lab.gateway.ip("route change default via 10.1.0.5");
    assert!(host.follow().unwrap().changed, "the outside is somewhere else now");
}

#[test]
fn without_xfrm_unreachable_routes_block_what_leaves() {
    let lab = Lab::new();
    let outside = lab.wan.watch("eth0");
    let tun = lab.gateway.inside(open_tun);
    let mut host = lab.gateway.inside(|| Host::open_without_xfrm(HostConfig::default()).unwrap());
    for ends in [V4, V6] {
        host.guard(&spec(ends)).unwrap();
        host.protect(&pair(ends)).unwrap();
    }
    let packets = [("10.1.0.5", "10.2.0.7"), ("2001:db8:1::5", "2001:db8:2::7")];
    let silent = |when: &str| {
        for (from, to) in packets {
            let _ = lab.lan.send(from, to);
            assert_eq!(outside.count(from, to), 0, "{from} to {to} {when}");
        }
    };
    silent("before the device is known");
    lab.gateway.inside(|| host.renew_device(Some(tun.ifindex))).unwrap();
    assert_carries(&lab, &tun);
    crash(&lab, tun, host);
    silent("after the crash");
    let tun = lab.gateway.inside(open_tun);
    let mut host = lab.gateway.inside(|| Host::open_without_xfrm(HostConfig::default()).unwrap());
    lab.gateway.inside(|| host.renew_device(Some(tun.ifindex))).unwrap();
    silent("after the restart, before anybody claims them");
    host.guard(&spec(V4)).unwrap();
    host.guard(&spec(V6)).unwrap();
    host.drop_unclaimed().unwrap();
    silent("claimed");
    host.stop(OnStop::Block).unwrap();
    silent("after the stop");
    let host = lab.gateway.inside(|| Host::open_without_xfrm(HostConfig::default()).unwrap());
    host.stop(OnStop::Open).unwrap();
    assert_eq!((our_rules(&lab), our_routes(&lab).as_str()), (0, ""));
    lab.lan.send("10.1.0.5", "10.2.0.7").unwrap();
    assert!(outside.sees("10.1.0.5", "10.2.0.7"));
}

#[test]
fn the_device_has_queues_offloads_and_one_owner() {
    let lab = Lab::new();
    lab.gateway.inside(|| {
        let config = TunConfig { device: "cygnet0".to_owned(), queues: 2, mtu: 1380, offloads: true };
        let tun = Tun::open(&config).unwrap();
        assert_eq!((tun.queues.len(), tun.header_octets), (2, 10));
        assert!(tun.offloads.checksum && tun.offloads.tso4 && tun.offloads.tso6, "{:?}", tun.offloads);
        let link = lab.gateway.ip("link show cygnet0");
        assert!(link.contains("mtu 1380") && link.contains(",UP"), "{link}");
        let error = Tun::open(&TunConfig { queues: 1, ..config.clone() }).unwrap_err().to_string();
        assert!(error.starts_with("device cygnet0: open a queue"), "{error}");
        drop(tun);
        lab.gateway.loses("cygnet0");
        let single = TunConfig { queues: 1, offloads: false, ..config };
        let tun = Tun::open(&single).unwrap();
        assert_eq!(tun.header_octets, 0);
        let error = Tun::open(&single).unwrap_err().to_string();
        assert!(error.contains("another process holds the device"), "{error}");
    });
}
