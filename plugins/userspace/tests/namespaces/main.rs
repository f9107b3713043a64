//! The backend between real LAN hosts: two gateways in network namespaces, the kernel's own ping, and a look at the outer link.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod gateway;
mod lab;

use gateway::{Gateway, Style, V4, V6, connect, guard, pair};
use ipsec::{Direction, Event, Op, PolicyAction, Reqid};
use lab::{Lab, eventually, possible};
use offload_userspace::UserspaceConfig;

fn gateways(lab: &Lab) -> (Gateway, Gateway) {
    (Gateway::start(lab, "ga", UserspaceConfig::default()), Gateway::start(lab, "gb", UserspaceConfig::default()))
}

/// A trap asks once, holds what comes, and lets it go when the SA stands.
#[test]
fn the_first_packet_raises_an_acquire_and_is_not_lost() {
    if !possible() {
        return;
    }
    let lab = Lab::new(false);
    let (a, b) = gateways(&lab);
    let networks = pair(V4.0, V4.1);
    let trap = a.policy(Direction::Outbound, networks, 2000, PolicyAction::Trap { reqid: Reqid(1) });
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

#[test]
fn pings_cross_the_tunnel_and_only_esp_is_seen() {
    if !possible() {
        return;
    }
    for (outer_v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let lab = Lab::new(outer_v6);
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
