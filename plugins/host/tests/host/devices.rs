//! Devices in a real kernel: which one a route names, how fast changes are told, and that answers do not outlive them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use offload_host::devices::{Devices, LinkChange, LinkWatch};

use super::lab::{Lab, Namespace};

const MARK: u32 = 0x4347;
/// What is told later than this is told too late, where the machine has nothing else to do.
const SOON: Duration = Duration::from_secs(1);
/// What is told later than this is never told.
const PATIENCE: Duration = Duration::from_secs(30);

fn open(namespace: &Namespace) -> Arc<Devices> {
    namespace.inside(|| Devices::open(MARK).unwrap())
}

fn watch(devices: &Arc<Devices>) -> (LinkWatch, Receiver<LinkChange>) {
    let (sender, told) = mpsc::channel();
    let watch = LinkWatch::start(Arc::clone(devices), move |change| {
        let _ = sender.send(change); // the test may have ended
    });
    (watch.unwrap(), told)
}

fn way(devices: &Devices, local: &str, remote: &str) -> String {
    let parsed = |text: &str| -> IpAddr { text.parse().unwrap() };
    match devices.egress(parsed(local), parsed(remote)) {
        Ok(egress) => egress.to_string(),
        Err(reason) => format!("none: {reason}"),
    }
}

/// Waits for a change that `fits`, and says how long it took.
fn hears(told: &Receiver<LinkChange>, what: &str, fits: impl Fn(&LinkChange) -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        let change = told.recv_timeout(left).unwrap_or_else(|error| panic!("{what}: {error}"));
        if fits(&change) {
            return begun.elapsed();
        }
    }
}

#[test]
fn the_route_names_the_device_and_the_address_does_not() {
    let lab = Lab::new();
    lab.gateway.ip("addr add 203.0.113.1/32 dev lo");
    let devices = open(&lab.gateway);
    for (local, remote, expected) in [
        ("192.0.2.1", "192.0.2.2", "wan0"),
        ("0.0.0.0", "198.51.100.9", "wan0"),
        ("203.0.113.1", "198.51.100.9", "wan0"), // an address on lo leaves through the uplink
        ("10.1.0.1", "198.51.100.9", "wan0"),    // so does one of the LAN link
        ("192.0.2.1", "10.1.0.5", "lan0"),
        ("2001:db8:99::1", "2001:db8:98::9", "wan0"),
        ("192.0.2.77", "198.51.100.9", "wan0"), // not an address of this host (yet)
        ("192.0.2.1", "0.0.0.0", "none: no route to 0.0.0.0: the peer's address is not known"),
    ] {
        assert_eq!(way(&devices, local, remote), expected, "{local} to {remote}");
    }
    lab.gateway.ip("route add unreachable 198.51.100.64/26");
    devices.follow();
    assert!(way(&devices, "192.0.2.1", "198.51.100.65").starts_with("none: no route to 198.51.100.65: "));
}

#[test]
fn routes_for_marked_packets_and_for_sources_count() {
    let lab = Lab::new();
    lab.gateway.ip("addr add 203.0.113.1/32 dev lo");
    // What is protected is led elsewhere; what carries our mark is not.
    lab.gateway.ip("rule add not fwmark 0x4347 lookup 220 priority 220");
    lab.gateway.ip("route add 198.51.100.9/32 via 10.1.0.5 table 220");
    lab.gateway.ip("rule add from 203.0.113.1 lookup 77 priority 100");
    lab.gateway.ip("route add default via 10.1.0.5 table 77");
    let devices = open(&lab.gateway);
    assert_eq!(way(&devices, "192.0.2.1", "198.51.100.9"), "wan0");
    assert_eq!(way(&devices, "203.0.113.1", "198.51.100.9"), "lan0", "a rule for the source leads elsewhere");
}

#[test]
fn several_next_hops_are_no_single_device_unless_they_share_it() {
    let lab = Lab::new();
    let _other = lab.attach("wan1", &["192.0.3.1/24"], &["192.0.3.2/24"]);
    let devices = open(&lab.gateway);
    lab.gateway.ip("route add 198.51.100.0/24 nexthop via 192.0.2.2 nexthop via 192.0.3.2");
    devices.follow();
    let spread = "none: packets to 198.51.100.9 are spread over several next hops, on wan0 and wan1";
    assert_eq!(way(&devices, "0.0.0.0", "198.51.100.9"), spread);
    lab.gateway.ip("route replace 198.51.100.0/24 nexthop via 192.0.2.2 nexthop via 192.0.2.3");
    devices.follow();
    assert_eq!(way(&devices, "0.0.0.0", "198.51.100.9"), "wan0");
}

#[test]
fn a_bridge_has_the_device_of_its_only_port() {
    let lab = Lab::new();
    lab.gateway.ip("link add br0 type bridge");
    lab.gateway.ip("link set br0 up");
    lab.gateway.ip("addr flush dev wan0");
    lab.gateway.ip("link set wan0 master br0");
    lab.gateway.ip("addr add 192.0.2.1/24 dev br0");
    let devices = open(&lab.gateway);
    assert_eq!(way(&devices, "192.0.2.1", "192.0.2.2"), "br0 on wan0");
    lab.gateway.ip("link set lan0 master br0");
    devices.follow();
    let several = way(&devices, "192.0.2.1", "192.0.2.2");
    assert!(several.starts_with("none: br0 (bridge) uses several ports at once: "), "{several}");
}

#[test]
fn changes_are_told_soon_and_answers_follow_them() {
    let lab = Lab::new();
    let _other = lab.attach("wan1", &["192.0.3.1/24"], &["192.0.3.2/24"]);
    let elsewhere = lab.attach("aside", &["192.0.4.1/24"], &["192.0.4.2/24"]);
    let devices = open(&lab.gateway);
    let (_watch, told) = watch(&devices);
    let named = |link: &offload_host::devices::Link, name: &str| *link.name == *name;
    assert_eq!(way(&devices, "0.0.0.0", "198.51.100.9"), "wan0");
    lab.gateway.ip("route add default via 192.0.3.2 metric 500");

    lab.gateway.ip("link set wan0 down");
    let mut took = vec![hears(&told, "down", |c| matches!(c, LinkChange::Down(link) if named(link, "wan0")))];
    assert_eq!(way(&devices, "0.0.0.0", "198.51.100.9"), "wan1", "the other way");
    lab.gateway.ip("link set wan0 up");
    took.push(hears(&told, "up", |c| matches!(c, LinkChange::Up(link) if named(link, "wan0"))));
    lab.gateway.ip("route add default via 192.0.2.2");
    eventually(|| way(&devices, "0.0.0.0", "198.51.100.9") == "wan0");

    lab.gateway.ip("link set wan1 name uplink");
    let renamed = |c: &LinkChange| matches!(c, LinkChange::Renamed { link, before } if named(link, "uplink") && **before == *"wan1");
    took.push(hears(&told, "renamed", renamed));
    lab.gateway.ip(&format!("link set aside netns {}", elsewhere.name()));
    let moved = |c: &LinkChange| matches!(c, LinkChange::Gone { link, moved: true } if named(link, "aside"));
    took.push(hears(&told, "moved", moved));
    lab.gateway.ip("link del uplink");
    let gone = |c: &LinkChange| matches!(c, LinkChange::Gone { link, moved: false } if named(link, "uplink"));
    took.push(hears(&told, "gone", gone));
    took.sort_unstable();
    assert!(took[took.len() / 2] < SOON, "told after {took:?}");
}

#[test]
fn a_flood_of_changes_is_made_up_for_by_reading_everything_again() {
    let lab = Lab::new();
    let devices = open(&lab.gateway);
    // Nobody follows: the socket of the listener fills up, and what happens to the link meanwhile is lost with the rest.
    for round in 100..140 {
        let flood: String = (0..250).map(|n| format!("route add 10.{round}.{n}.0/24 via 192.0.2.2\n")).collect();
        lab.gateway.ip_batch(&flood);
    }
    lab.gateway.ip("link set wan0 down");
    let told = devices.follow();
    assert!(told.contains(&LinkChange::Resynchronised), "the flood was not enough: {}", told.len());
    assert!(told.iter().any(|c| matches!(c, LinkChange::Down(link) if *link.name == *"wan0")), "{told:?}");
    assert!(!devices.links().by_name("wan0").unwrap().up);
}

fn eventually(mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
