//! The backend between real LAN hosts: two gateways in network namespaces, the kernel's own ping, and a look at the outer link.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod contract;
mod gateway;
mod lab;
mod ping;
mod transport;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use gateway::{Gateway, Style, V4, V6, connect, guard, pair};
use ipsec::{Direction, Event, OffloadBackend, OnStop, Op, Path, PolicyAction, Reqid, SaMode};
use lab::{Lab, alone, eventually, turn};
use offload_userspace::UserspaceConfig;

/// For answers that are not to come: these are not waited for as long as the others.
const NONE: &[&str] = &["-W", "1"];

fn gateways(lab: &Lab) -> (Gateway, Gateway) {
    (Gateway::start(lab, "ga", UserspaceConfig::default()), Gateway::start(lab, "gb", UserspaceConfig::default()))
}

/// A trap asks once, holds what comes, and lets it go when the SA stands.
#[test]
fn the_first_packet_raises_an_acquire_and_is_not_lost() {
    let _turn = turn();
    let lab = Lab::new(false);
    let (a, b) = gateways(&lab);
    let networks = pair(V4.0, V4.1);
    let trap =
        a.policy(Direction::Outbound, networks, 2000, PolicyAction::Trap { reqid: Reqid(1), mode: SaMode::Tunnel });
    let policy = trap.handle;
    a.apply(vec![Op::InstallGuard(guard(networks)), Op::InstallPolicy(trap)]);
    let received = std::thread::scope(|scope| {
        let pings = scope.spawn(|| lab.ping("la", "10.2.0.2", 5, &["-W", "5"]));
        let acquires = || a.saw(|event| matches!(event, Event::Acquire { policy: of, .. } if *of == policy));
        eventually("an acquire", || acquires() == 1);
        std::thread::sleep(std::time::Duration::from_millis(200));
        connect(&a, &b, V4, &Style::default());
        let received = pings.join().unwrap();
        assert_eq!(acquires(), 1);
        received
    });
    assert_eq!(received, 5, "drops: {} / {}", a.drops(), b.drops());
}

/// Somebody deletes the device: this is noticed, nothing leaves in clear, and the tunnel comes back.
#[test]
fn a_deleted_device_comes_back_and_nothing_leaves_in_clear() {
    let _turn = turn();
    let lab = Lab::new(false);
    let (a, b) = gateways(&lab);
    connect(&a, &b, V4, &Style::default());
    connect(&a, &b, V6, &Style::default());
    assert_eq!(lab.ping("la", "10.2.0.2", 3, &[]), 3);
    let capture = lab.capture("ga", "wan");
    let hosts = ["10.2.0.2", "fd02::2"];
    let traffic = hosts.map(|host| lab.keep_pinging("la", host));
    for count in 1..=3 {
        lab.exec("ga", &["ip", "link", "del", "cygnet0"]);
        eventually("the device came back", || a.saw(|event| matches!(event, Event::DeviceUp(_))) == count);
        for host in hosts {
            eventually("and the traffic", || lab.ping("la", host, 1, &[]) == 1);
        }
    }
    drop(traffic);
    assert_eq!(a.saw(|event| matches!(event, Event::DeviceDown(_))), 3);
    assert_eq!(capture.counts().clear, 0);
    assert_eq!(lab.ping("la", "10.2.0.2", 20, &[]), 20);
}

/// Every packet of the protected networks is ESP or nothing: before, during and after the tunnel; also a forged one from outside.
#[test]
fn nothing_is_in_clear_before_and_after() {
    let _turn = turn();
    let lab = Lab::new(false);
    let capture = lab.capture("ga", "wan");
    let (a, b) = gateways(&lab);
    let networks = pair(V4.0, V4.1);
    a.apply(vec![Op::InstallGuard(guard(networks))]);
    assert_eq!(lab.ping("la", "10.2.0.2", 3, NONE), 0);
    let ((_, outbound), _) = connect(&a, &b, V4, &Style::default());
    assert_eq!(lab.ping("la", "10.2.0.2", 3, &[]), 3);
    // An address that no policy covers is reached in clear as before, others of ours are not.
    a.apply(vec![Op::RemoveSa(outbound)]);
    assert_eq!(lab.ping("la", "10.2.0.2", 3, NONE), 0);
    a.apply(vec![Op::Flush]);
    assert_eq!(lab.ping("la", "10.2.0.2", 3, NONE), 0);
    a.backend.shut_down(OnStop::Block);
    assert_eq!(lab.ping("la", "10.2.0.2", 3, NONE), 0);
    assert_eq!(capture.counts().clear, 0);
    let again = Gateway::start(&lab, "ga", UserspaceConfig::default());
    assert_eq!(lab.ping("la", "10.2.0.2", 3, NONE), 0);
    assert_eq!(capture.counts().clear, 0);
    again.stop();
}

/// TCP and large pings over every algorithm and both forms: nothing stalls on size.
#[test]
fn bulk_transfers_do_not_stall_on_size() {
    let _turn = turn();
    let lab = Lab::new(false);
    let (a, b) = gateways(&lab);
    let algorithms = a.backend.devices().devices[0].rungs[0].capabilities.algorithms.clone();
    let mut installed = Vec::new();
    for (count, algorithm) in algorithms.into_iter().enumerate() {
        let style = Style { algorithm, udp: count % 2 == 0, esn: count % 3 == 0, ..Style::default() };
        installed.push(connect(&a, &b, V4, &style));
        let sizes = ["1000", "1394", "1410", "1472", "4000", "20000"];
        for size in sizes {
            // "-M dont": fragmented on the way if need be; "-M want": the path MTU is learnt.
            assert_eq!(lab.ping("la", "10.2.0.2", 2, &["-M", "dont", "-s", size]), 2, "{style:?}, {size} octets");
            // Both hosts learn, each from a packet that was too big.
            eventually(&format!("{style:?}, {size} octets"), || {
                lab.ping("la", "10.2.0.2", 2, &["-M", "want", "-s", size, "-W", "0.3"]) == 2
            });
        }
        let octets = lab.transfer("la", "lb", "10.2.0.2", 3 << 20);
        assert_eq!(octets, 3 << 20, "{style:?}, drops: {} / {}", a.drops(), b.drops());
    }
}

/// Selectors that cover everything: the LANs, the peer's outer address and the gateways themselves stay reachable, and nothing goes in circles.
#[test]
fn selectors_of_everything_cut_nothing_off() {
    let _turn = turn();
    let lab = Lab::new(false);
    let (a, b) = gateways(&lab);
    connect(&a, &b, ("10.1.0.0/24", "0.0.0.0/0"), &Style::default());
    let capture = lab.capture("ga", "wan");
    assert_eq!(lab.ping("la", "10.2.0.2", 20, &[]), 20, "drops: {} / {}", a.drops(), b.drops());
    let counts = capture.counts();
    assert!((40..=44).contains(&counts.native) && counts.clear == 0, "{counts:?}");
    // Our own LAN and the gateway's addresses are still there, from both sides.
    assert_eq!(lab.ping("la", "10.1.0.1", 3, &[]), 3);
    assert_eq!(lab.ping("ga", "10.1.0.2", 3, &[]), 3);
    assert_eq!(lab.ping("ga", "192.0.2.2", 3, &["-I", "192.0.2.1"]), 3);
    // Traffic of the gateway itself with an address inside is protected too.
    capture.counts();
    assert_eq!(lab.ping("ga", "10.2.0.2", 5, &["-I", "10.1.0.1"]), 5);
    assert_eq!(lab.ping("ga", "10.2.0.2", 5, &[]), 5);
    assert_eq!(capture.counts().clear, 0);
}

/// The outer path becomes narrower: traffic goes on at once, and hosts learn what fits.
#[test]
fn a_smaller_outer_mtu_is_followed() {
    let _turn = turn();
    let lab = Lab::new(false);
    let (a, b) = gateways(&lab);
    // Native ESP: joined UDP datagrams would be seen as one.
    connect(&a, &b, V4, &Style::default());
    assert_eq!(lab.ping("la", "10.2.0.2", 3, &["-s", "1400", "-M", "dont"]), 3);
    for gateway in ["ga", "gb"] {
        lab.exec(gateway, &["ip", "link", "set", "wan", "mtu", "1300"]);
    }
    assert_eq!(lab.ping("la", "10.2.0.2", 3, &["-s", "1400", "-M", "dont"]), 3, "drops: {} / {}", a.drops(), b.drops());
    assert_eq!(lab.transfer("la", "lb", "10.2.0.2", 1 << 20), 1 << 20, "drops: {} / {}", a.drops(), b.drops());
    let capture = lab.capture("ga", "wan");
    eventually("packets fit the narrower path", || {
        capture.packets();
        lab.ping("la", "10.2.0.2", 2, &["-s", "1400", "-M", "dont"]);
        let packets = capture.packets();
        packets.len() >= 8
            && packets.iter().all(|packet| packet.len() <= 1300 && packet[6] & 0x3f == 0 && packet[7] == 0)
    });
}

/// Somebody sets the device down: routes are gone and nothing passes, but it comes back.
#[test]
fn a_device_set_down_comes_back() {
    let _turn = turn();
    let lab = Lab::new(false);
    let (a, b) = gateways(&lab);
    connect(&a, &b, V4, &Style::default());
    assert_eq!(lab.ping("la", "10.2.0.2", 3, &[]), 3);
    let capture = lab.capture("ga", "wan");
    lab.exec("ga", &["ip", "link", "set", "cygnet0", "down"]);
    eventually("the tunnel came back", || lab.ping("la", "10.2.0.2", 1, &[]) == 1);
    assert_eq!(capture.counts().clear, 0);
}

/// The outer don't-fragment bit follows the inner one, and is clear where the configuration does not copy it.
#[test]
fn the_outer_fragment_bit_follows_the_inner_one() {
    let _turn = turn();
    let lab = Lab::new(false);
    lab.single_packets();
    let (a, b) = gateways(&lab);
    let capture = lab.capture("ga", "wan");
    for (udp, copy) in [(true, true), (false, true), (true, false)] {
        let ((_, outbound), _) = connect(&a, &b, V4, &Style { udp, copy_df: copy, ..Style::default() });
        for (discovery, set) in [("do", copy), ("dont", false)] {
            capture.counts();
            assert_eq!(lab.ping("la", "10.2.0.2", 3, &["-M", discovery]), 3);
            let from_us = |packet: &&Vec<u8>| packet[0] == 0x45 && packet[12..16] == [192, 0, 2, 1];
            let bits: Vec<bool> =
                capture.packets().iter().filter(from_us).map(|packet| packet[6] & 0x40 != 0).collect();
            assert_eq!(bits, [set; 3], "UDP {udp}, copied {copy}, ping -M {discovery}");
        }
        assert_eq!(a.status(outbound).packets, 6);
    }
}

/// Two children with one remote network and different local ones; the packet's source decides.
#[test]
fn equal_remote_selectors_with_different_local_ones_work() {
    let _turn = turn();
    let lab = Lab::new(false);
    lab.exec("la", &["ip", "addr", "add", "10.1.0.130/24", "dev", "lan"]);
    let (a, b) = gateways(&lab);
    let ((_, low), _) = connect(&a, &b, ("10.1.0.0/25", "10.2.0.0/24"), &Style::default());
    let ((_, high), _) = connect(&a, &b, ("10.1.0.128/25", "10.2.0.0/24"), &Style { udp: true, ..Style::default() });
    assert_eq!(lab.ping("la", "10.2.0.2", 4, &["-I", "10.1.0.2"]), 4);
    assert_eq!(lab.ping("la", "10.2.0.2", 6, &["-I", "10.1.0.130"]), 6);
    assert_eq!((a.status(low).packets, a.status(high).packets), (4, 6));
}

/// IKE on the adopted sockets goes up with its path, the marker removed; keepalives go nowhere. An ESP flood does not stop it.
#[test]
fn ike_passes_a_flood_of_esp() {
    let _turn = alone();
    let lab = Lab::new(false);
    let a = Gateway::start(&lab, "ga", UserspaceConfig::default());
    let socket = || lab.inside("gb", || UdpSocket::bind(("192.0.2.2", 0)).unwrap());
    let (flood, ike) = (socket(), socket());
    let (stop, to) = (AtomicBool::new(false), ("192.0.2.1", 4500));
    let sent = 200;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let forged = [0x77; 1_400];
                while !stop.load(Relaxed) {
                    let _ = flood.send_to(&forged, to);
                }
            });
        }
        ike.send_to(&[0xff], to).unwrap();
        for number in 0..sent {
            ike.send_to(&[0, 0, 0, 0, b'I', number], to).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        stop.store(true, Relaxed);
    });
    // The kernel may drop a few on their way to us. Were they in one queue with the flood, few would be left.
    let enough = usize::from(sent) * 9 / 10;
    eventually("datagrams came up", || a.queue.ike.lock().unwrap().len() >= enough);
    let arrived = a.queue.ike.lock().unwrap().clone();
    let expected = Path { local: "192.0.2.1:4500".parse().unwrap(), remote: ike.local_addr().unwrap() };
    assert!(arrived.iter().all(|(path, octets)| *path == expected && octets.len() == 2 && octets[0] == b'I'));
}

/// How fast it is here; compare only runs of one sitting. `cargo test -p offload-userspace --test namespaces -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
fn throughput() {
    let _turn = alone();
    for (outer_v6, udp) in [(false, true), (false, false), (true, true), (true, false)] {
        let lab = Lab::new(outer_v6);
        let (a, b) = gateways(&lab);
        connect(&a, &b, V4, &Style { udp, ..Style::default() });
        for streams in [1, 4] {
            let started = std::time::Instant::now();
            let each = 1_000_000_000 / streams;
            let one = || lab.transfer("la", "lb", "10.2.0.2", each);
            let octets: usize = std::thread::scope(|scope| {
                let all: Vec<_> = (0..streams).map(|_| scope.spawn(one)).collect();
                all.into_iter().map(|stream| stream.join().unwrap()).sum()
            });
            let rate = octets as f64 * 8e-9 / started.elapsed().as_secs_f64();
            println!(
                "outer v6 {outer_v6}, UDP {udp}, {streams} streams: {rate:.2} Gbit/s, drops {} / {}",
                a.drops(),
                b.drops()
            );
        }
    }
}

#[test]
fn pings_cross_the_tunnel_and_only_esp_is_seen() {
    let _turn = turn();
    for (outer_v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let lab = Lab::new(outer_v6);
        lab.single_packets();
        let capture = lab.capture("ga", "wan");
        let (a, b) = gateways(&lab);
        let style = Style { udp, ..Style::default() };
        let (_, (inbound_b, _)) = connect(&a, &b, V4, &style);
        connect(&a, &b, V6, &style);
        capture.counts();
        assert_eq!(
            lab.ping("la", "10.2.0.2", 20, &[]),
            20,
            "outer v6 {outer_v6}, UDP {udp}, drops: {} / {}",
            a.drops(),
            b.drops()
        );
        assert_eq!(lab.ping("la", "fd02::2", 20, &[]), 20, "outer v6 {outer_v6}, UDP {udp}");
        let counts = capture.counts();
        assert_eq!(counts.clear, 0);
        let esp = if udp { counts.udp } else { counts.native };
        assert_eq!((esp, counts.udp + counts.native), (80, 80));
        assert_eq!(b.status(inbound_b).packets, 20);
        assert_eq!(b.status(inbound_b).bytes, 20 * 84);
        a.stop();
        b.stop();
    }
}
