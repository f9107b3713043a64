//! The host around IPsec in the kernel. This kernel may have no ESP: policies that protect find no SA, so their traffic goes nowhere.

use std::os::fd::AsFd;

use ipsec::{OnStop, SelectorPair};
use offload_host::{
    Family, HostError, KernelHost, KernelHostConfig, Routed, Taking, esp_in_udp, set_mark, socket_bypass,
};

use super::lab::{Lab, Namespace, arrives, is_silent};
use super::{PACKETS, V4, V6, assert_reachable, our_policies, our_rules, pair, spec};

/// As the core ranks the policies of a CHILD SA with wide selectors.
const PRIORITY: u32 = 202_000;
const EVERYTHING: [(&str, &str); 2] = [("0.0.0.0/0", "0.0.0.0/0"), ("::/0", "::/0")];

fn open(lab: &Lab) -> KernelHost {
    lab.gateway.inside(|| KernelHost::open(KernelHostConfig::default())).unwrap()
}

fn taking(ends: (&str, &str)) -> Taking {
    let outer = if ends.0.contains(':') { ("2001:db8:99::1", "2001:db8:99::2") } else { ("192.0.2.1", "192.0.2.2") };
    let routed = Routed::ByPeer(outer.0.parse().unwrap(), outer.1.parse().unwrap());
    Taking { pair: pair(ends), priority: PRIORITY, device: None, routed }
}

/// What the backend puts up for a CHILD SA in tunnel mode.
fn protect_by_kernel(gateway: &Namespace, (local, remote): (&str, &str), action: &str) {
    let (here, there) =
        if local.contains(':') { ("2001:db8:99::1", "2001:db8:99::2") } else { ("192.0.2.1", "192.0.2.2") };
    for (way, source, destination, from, to) in
        [("out", local, remote, here, there), ("in", remote, local, there, here), ("fwd", remote, local, there, here)]
    {
        let policy = format!("xfrm policy {action} src {source} dst {destination} dir {way}");
        let template = format!("priority {PRIORITY} tmpl src {from} dst {to} proto esp reqid 7 mode tunnel");
        gateway.ip(&if action == "delete" { policy } else { format!("{policy} {template}") });
    }
}

/// One of the kernel's counters of what IPsec has dropped.
fn counter(gateway: &Namespace, name: &str) -> u64 {
    let text = gateway.inside(|| std::fs::read_to_string("/proc/thread-self/net/xfrm_stat").unwrap());
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends what may be protected; those that leave in clear are just those of `families`.
fn sends_everything(lab: &Lab, families: &[Family], when: &str) {
    let outside = lab.wan.watch("eth0");
    for (namespace, from, to) in PACKETS {
        let _ = namespace(lab).send(from, to); // refused or not: what counts is what leaves
        let family = if from.contains(':') { Family::V6 } else { Family::V4 };
        let leaves = families.contains(&family);
        let left = if leaves { outside.sees(from, to) } else { outside.count(from, to) > 0 };
        assert_eq!(left, leaves, "{from} to {to} {when}");
    }
}

#[test]
fn a_guard_without_a_tunnel_device_holds_in_both_directions_and_outlives_the_process() {
    let lab = Lab::new();
    let forged = [
        (lab.lan.udp("10.1.0.5", 4000), "10.2.0.7", "10.1.0.5"),
        (lab.lan.udp("2001:db8:1::5", 4000), "2001:db8:2::7", "2001:db8:1::5"),
        (lab.gateway.udp("10.1.0.1", 4000), "10.2.0.7", "10.1.0.1"),
        (lab.gateway.udp("2001:db8:1::1", 4000), "2001:db8:2::7", "2001:db8:1::1"),
    ];
    let reaches = |expected: bool, when: &str| {
        for (socket, from, to) in &forged {
            lab.wan.send(from, to).unwrap();
            let reached = if expected { arrives(socket) } else { !is_silent(socket) };
            assert_eq!(reached, expected, "{from} to {to} {when}");
        }
    };
    reaches(true, "without a guard");
    sends_everything(&lab, &[Family::V4, Family::V6], "without a guard");
    let mut host = open(&lab);
    [V4, V6].iter().for_each(|ends| host.guard(&spec(*ends)).unwrap());
    reaches(false, "guarded");
    sends_everything(&lab, &[], "guarded");
    drop(host);
    reaches(false, "after the crash");
    sends_everything(&lab, &[], "after the crash");
    lab.lan.send("10.1.0.5", "198.51.100.9").unwrap();
    let mut host = open(&lab);
    assert_eq!(host.unclaimed().len(), 6);
    host.guard(&spec(V4)).unwrap();
    assert_eq!(host.unclaimed().len(), 3, "adopted in place");
    host.settle().unwrap();
    reaches(false, "adopted or not");
    host.drop_unclaimed().unwrap();
    assert_eq!(host.unclaimed(), Vec::<String>::new());
    host.stop(OnStop::Block).unwrap();
    assert!(our_policies(&lab) > 0);
    open(&lab).stop(OnStop::Open).unwrap();
    assert_eq!((our_policies(&lab), our_rules(&lab)), (0, 0));
}

/// The counters say which of the two has taken a packet.
#[test]
fn a_protecting_policy_of_the_same_selectors_stands_before_the_guard() {
    let lab = Lab::new();
    let mut host = open(&lab);
    host.guard(&spec(V4)).unwrap();
    let takes = |by: &str| {
        let before = counter(&lab.gateway, by);
        let _ = lab.lan.send("10.1.0.5", "10.2.0.7");
        lab.wan.send("10.2.0.7", "10.1.0.5").unwrap();
        let _ = lab.lan.pings("10.1.0.5", "10.1.0.1"); // by then the others have arrived
        counter(&lab.gateway, by) > before
    };
    let took = |by: &str| (0..3).any(|_| takes(by));
    let all = |took: &dyn Fn(&str) -> bool| {
        ["XfrmFwdHdrError", "XfrmOutPolBlock", "XfrmInPolBlock", "XfrmOutNoStates", "XfrmInTmplMismatch"].map(took)
    };
    let guarded = all(&took);
    assert!(guarded[1] && guarded[2] && !guarded[3] && !guarded[4], "blocked: {guarded:?}");
    for order in ["protected after", "protected before"] {
        protect_by_kernel(&lab.gateway, V4, "add");
        if order == "protected before" {
            // Also when the guard comes second.
            host.unguard(&spec(V4)).unwrap();
            host.guard(&spec(V4)).unwrap();
        }
        let protected = all(&took);
        assert!(!protected[1] && !protected[2] && protected[3] && protected[4], "{order}: {protected:?}");
        protect_by_kernel(&lab.gateway, V4, "delete");
        sends_everything(&lab, &[Family::V6], &format!("{order}: the other family is not guarded"));
    }
    protect_by_kernel(&lab.gateway, V4, "add");
    host.unguard(&spec(V4)).unwrap();
    assert!(lab.gateway.ip("xfrm policy").contains("reqid 7"), "taking the guard down leaves what protects alone");
}

#[test]
fn a_policy_for_everything_leaves_the_neighbourhood_and_ike_reachable() {
    let lab = Lab::new();
    let mut host = open(&lab);
    for ends in EVERYTHING {
        protect_by_kernel(&lab.gateway, ends, "add");
    }
    for namespace in [&lab.lan, &lab.gateway, &lab.wan] {
        namespace.ip("-6 neigh flush all");
    }
    assert!(!lab.gateway.pings("10.1.0.1", "10.1.0.5"), "without exemptions the LAN is cut off");
    assert!(!lab.gateway.pings("2001:db8:99::1", "2001:db8:99::2"), "and so is the next router");
    for ends in EVERYTHING {
        host.protect(&taking(ends)).unwrap();
    }
    assert_reachable(&lab);
    let outside = lab.wan.watch("eth0");
    for (from, to) in [("10.1.0.5", "198.51.100.9"), ("2001:db8:1::5", "2001:db8:98::9"), ("192.0.2.1", "198.51.100.9")]
    {
        let _ = if from == "192.0.2.1" { &lab.gateway } else { &lab.lan }.send(from, to);
        assert_eq!(outside.count(from, to), 0, "{from} to {to} is protected");
    }
    for (local, remote, family) in
        [("192.0.2.1", "198.51.100.9", Family::V4), ("2001:db8:99::1", "2001:db8:98::9", Family::V6)]
    {
        let (peer, socket) = (lab.wan.udp(remote, 4500), lab.gateway.udp(local, 4500));
        let _ = socket.send_to(b"ike", peer.local_addr().unwrap());
        assert!(is_silent(&peer), "an ordinary socket does not get out");
        set_mark(socket.as_fd(), KernelHostConfig::default().mark).unwrap();
        assert!(socket_bypass(&socket, family).unwrap());
        socket.send_to(b"ike", peer.local_addr().unwrap()).unwrap();
        assert!(arrives(&peer), "{local} reaches its peer {remote}");
        peer.send_to(b"ike", socket.local_addr().unwrap()).unwrap();
        assert!(arrives(&socket), "the peer {remote} reaches {local}");
    }
    for ends in EVERYTHING {
        host.unprotect(&taking(ends)).unwrap();
        protect_by_kernel(&lab.gateway, ends, "delete");
    }
    assert!(!lab.gateway.ip("xfrm policy").contains("src"), "nothing remains");
}

/// A policy for one host that happens to be near is meant, and so is one for just the subnet.
#[test]
fn exemptions_open_nothing_that_is_more_specific() {
    let lab = Lab::new();
    let mut host = open(&lab);
    let near = [("10.1.0.1/32", "10.1.0.5/32"), ("10.1.0.1/32", "10.1.0.0/24")];
    for ends in near {
        protect_by_kernel(&lab.gateway, ends, "add");
        host.protect(&taking(ends)).unwrap();
        assert!(!lab.gateway.pings("10.1.0.1", "10.1.0.5"), "{ends:?}");
        host.unprotect(&taking(ends)).unwrap();
        protect_by_kernel(&lab.gateway, ends, "delete");
    }
    assert!(lab.gateway.reaches("10.1.0.1", "10.1.0.5"));
}

fn table(lab: &Lab) -> Vec<String> {
    let text = lab.gateway.ip("route show table 220") + &lab.gateway.ip("-6 route show table 220");
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn routes_choose_the_source_and_follow_the_peer() {
    let lab = Lab::new();
    let mut host = open(&lab);
    let rules = lab.gateway.ip("rule");
    assert!(rules.lines().any(|line| line.starts_with("220:") && line.contains("lookup 220")), "{rules}");
    for ends in [V4, V6, V4] {
        host.protect(&taking(ends)).unwrap();
    }
    let whole = table(&lab);
    assert_eq!(whole.len(), 2, "{whole:?}");
    assert_eq!(whole[0], "10.2.0.0/16 via 192.0.2.2 dev wan0 proto 67 src 10.1.0.1");
    assert!(
        whole[1].starts_with("2001:db8:2::/64 via 2001:db8:99::2 dev wan0 proto 67 src 2001:db8:1::1"),
        "{whole:?}"
    );
    // No address of ours inside: the route would say nothing.
    let elsewhere = taking(("10.77.0.0/16", "10.78.0.0/16"));
    host.protect(&elsewhere).unwrap();
    assert_eq!(table(&lab).len(), 2);
    lab.gateway.ip("addr add 10.77.0.1/24 dev lan0");
    lab.gateway.inside(|| host.follow()).unwrap();
    assert!(table(&lab).contains(&"10.78.0.0/16 via 192.0.2.2 dev wan0 proto 67 src 10.77.0.1".to_owned()));
    host.unprotect(&elsewhere).unwrap();
    assert_eq!(table(&lab), whole);
    // The peer is behind another router now.
    lab.gateway.ip("route add 192.0.2.2/32 via 10.1.0.9 dev lan0");
    lab.gateway.inside(|| host.follow()).unwrap();
    assert_eq!(table(&lab)[0], "10.2.0.0/16 via 10.1.0.9 dev lan0 proto 67 src 10.1.0.1");
    lab.gateway.ip("route del 192.0.2.2/32");
    lab.gateway.inside(|| host.follow()).unwrap();
    assert_eq!(table(&lab), whole);
    lab.gateway.ip("route flush table 220");
    assert!(lab.gateway.inside(|| host.follow()).unwrap().restored.iter().any(|text| text.contains("routes")));
    assert_eq!(table(&lab), whole);
    host.unprotect(&taking(V4)).unwrap();
    assert_eq!(table(&lab), whole, "two want it");
    drop(host); // a crash
    assert_eq!(table(&lab), whole, "orphaned SAs carry on");
    let mut host = open(&lab);
    assert_eq!(table(&lab), whole, "kept until somebody says otherwise");
    host.protect(&taking(V4)).unwrap();
    host.settle().unwrap();
    assert_eq!(table(&lab), whole[..1]);
    host.unprotect(&taking(V4)).unwrap();
    assert_eq!(table(&lab), Vec::<String>::new());
    host.stop(OnStop::Open).unwrap();
    assert_eq!(our_rules(&lab), 0);
}

#[test]
fn a_tunnel_for_everything_routes_by_the_peer_but_not_the_neighbourhood_nor_the_way_to_the_peer() {
    let lab = Lab::new();
    let mut host = open(&lab);
    host.protect(&taking(("10.1.0.0/16", "0.0.0.0/0"))).unwrap();
    let way = |words: &str| lab.gateway.ip(&format!("route get {words}"));
    assert!(way("198.51.100.9").contains("via 192.0.2.2 dev wan0 table 220 src 10.1.0.1"), "{}", way("198.51.100.9"));
    for near in ["10.1.0.5", "192.0.2.9", "192.0.2.2 from 192.0.2.1"] {
        assert!(!way(near).contains("table 220"), "{near}: {}", way(near));
    }
    assert!(!way("198.51.100.9 mark 0x4347").contains("table 220"), "IKE takes the ordinary routes");
    host.pass(&pair(("10.1.0.0/16", "198.51.100.0/24"))).unwrap();
    assert!(!way("198.51.100.9").contains("table 220"));
    host.unpass(&pair(("10.1.0.0/16", "198.51.100.0/24"))).unwrap();
    assert!(way("198.51.100.9").contains("table 220"));
    let mut opaque: SelectorPair = pair(("10.1.0.0/16", "198.51.100.0/24"));
    (opaque.local.protocol, opaque.local.ports) = (17, ipsec::PortRange::OPAQUE);
    host.pass(&opaque).unwrap();
    host.unpass(&opaque).unwrap();
    // Without routes nothing of it.
    host.stop(OnStop::Open).unwrap();
    let config = KernelHostConfig { install_routes: false, ..KernelHostConfig::default() };
    let mut host = lab.gateway.inside(|| KernelHost::open(config)).unwrap();
    host.protect(&taking(("10.1.0.0/16", "0.0.0.0/0"))).unwrap();
    assert_eq!((table(&lab).len(), our_rules(&lab)), (0, 0));
}

/// The source address matters before there is a peer: without it this host's own packets never ask for one.
#[test]
fn what_has_no_peer_yet_keeps_its_way_and_gets_a_source() {
    let lab = Lab::new();
    let mut host = open(&lab);
    lab.gateway.ip("route add 10.3.0.0/16 via 10.1.0.9 dev lan0");
    for (remote, expected) in [
        ("10.2.0.0/16", "10.2.0.0/16 via 192.0.2.2 dev wan0 proto 67 src 10.1.0.1"),
        ("10.3.7.0/24", "10.3.7.0/24 via 10.1.0.9 dev lan0 proto 67 src 10.1.0.1"),
        ("0.0.0.0/0", "default via 192.0.2.2 dev wan0 proto 67 src 10.1.0.1"),
    ] {
        let trap = Taking { routed: Routed::ByDestination, ..taking(("10.1.0.0/16", remote)) };
        host.protect(&trap).unwrap();
        assert!(table(&lab).contains(&expected.to_owned()), "{:?}", table(&lab));
        host.unprotect(&trap).unwrap();
        assert!(!table(&lab).contains(&expected.to_owned()));
    }
    assert_eq!(our_rules(&lab), 4, "no rules remain beside the basic ones");
}

/// Either backend may be started after the other one was killed.
#[test]
fn what_the_other_backend_has_left_is_not_in_the_way() {
    let lab = Lab::new();
    let (tun, host) = lab.gateway.inside(|| super::start(&[V4, V6]));
    super::crash(&lab, tun, host);
    assert!(lab.gateway.ip("-6 route show table 220").contains("unreachable 2001:db8:2::/64"));
    let mut host = open(&lab);
    sends_everything(&lab, &[], "still blocked");
    assert!(host.unclaimed().iter().any(|line| line.contains("2001:db8:2::/64")), "{:?}", host.unclaimed());
    for ends in [V4, V6] {
        host.guard(&spec(ends)).unwrap();
        host.protect(&taking(ends)).unwrap();
    }
    assert_eq!(host.unclaimed(), Vec::<String>::new());
    assert!(!lab.gateway.ip("-6 route show table 220").contains("unreachable"), "traffic is led to the peer");
    sends_everything(&lab, &[], "the policies of the guard hold");
    drop(host);
    // And back: what protects is of no use beside a tunnel device.
    let ours = "xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out index 1140850689 priority 202000";
    lab.gateway.ip(&format!("{ours} tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 7 mode tunnel"));
    lab.gateway.ip("xfrm policy add src 10.7.0.0/16 dst 10.8.0.0/16 dir out tmpl proto esp reqid 9 mode tunnel");
    let (tun, _host) = lab.gateway.inside(|| super::start(&[V4, V6]));
    let policies = lab.gateway.ip("xfrm policy");
    assert!(!policies.contains("reqid 7") && policies.contains("reqid 9"), "{policies}");
    super::assert_carries(&lab, &tun);
}

fn link_index(lab: &Lab, name: &str) -> u32 {
    let text = lab.gateway.ip(&format!("-o link show {name}"));
    text.split(':').next().unwrap().parse().unwrap()
}

/// No link of this kernel holds policies, whether it says so or takes the request and ignores the device.
#[test]
fn what_no_device_holds_is_not_taken_for_held() {
    let lab = Lab::new();
    let mut host = open(&lab);
    let link = link_index(&lab, "wan0");
    let refused = lab.gateway.inside(|| host.open_device(link)).unwrap_err();
    assert!(matches!(&refused, HostError::Kernel { action, .. } if action.contains("device")), "{refused}");
    let inside = Taking { device: Some(link), ..taking(V4) };
    assert!(lab.gateway.inside(|| host.protect(&inside)).is_err());
    assert!(!host.passes_ike(link));
    assert_eq!(super::our_routes(&lab), "", "nothing else of it stands");
    assert!(!lab.gateway.ip("xfrm policy").contains("src"), "{}", lab.gateway.ip("xfrm policy"));
}

#[test]
fn the_kernel_takes_esp_out_of_a_nat_t_socket_and_leaves_ike() {
    let lab = Lab::new();
    for (here, there) in [("192.0.2.1", "192.0.2.2"), ("2001:db8:99::1", "2001:db8:99::2")] {
        let (socket, peer) = (lab.gateway.udp(here, 4500), lab.wan.udp(there, 4500));
        let to = socket.local_addr().unwrap();
        let esp = [&[0x12, 0x34, 0x56, 0x78][..], &[0; 60]].concat();
        let ike = [&[0; 4][..], &[1; 60]].concat();
        peer.send_to(&esp, to).unwrap();
        assert!(arrives(&socket), "an ordinary socket gets everything");
        esp_in_udp(&socket).unwrap();
        peer.send_to(&esp, to).unwrap();
        assert!(is_silent(&socket), "{here}: ESP is the kernel's");
        peer.send_to(&[0xff], to).unwrap();
        assert!(is_silent(&socket), "{here}: keepalives are nobody's");
        peer.send_to(&ike, to).unwrap();
        assert!(arrives(&socket), "{here}: IKE comes through");
    }
}
