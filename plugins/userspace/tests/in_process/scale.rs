//! Many tunnels: what an install costs, and a packet among them.

use std::net::IpAddr;
use std::time::Duration;

use ipsec::conformance::{Subject, Wire, udp_v4};
use ipsec::{Direction, Op, PolicySpec, Request, SaHandle, SaSpec, SelectorPair, Shard, TrafficSelector};

use crate::subject::{Carrier, InProcess, connect};

const TUNNELS: u32 = 20_000;

/// Network number `n` below `first`.
fn network(first: u8, n: u32) -> TrafficSelector {
    let [_, a, b, c] = (n << 4).to_be_bytes();
    TrafficSelector::prefix(IpAddr::from([first, a, b, c]), 28).unwrap()
}

#[test]
fn twenty_thousand_tunnels_install_in_time_and_find_their_packets() {
    let mut subject = InProcess::new(false);
    let started = used();
    for n in 0..TUNNELS {
        let (ops, outbound) = subject.tunnel();
        let Some(Op::InstallPolicy(policy)) = ops.into_iter().find(|op| matches!(op, Op::InstallPolicy(_))) else {
            panic!()
        };
        let (there, back) = (
            SelectorPair { local: network(10, n), remote: network(11, n) },
            SelectorPair { local: network(11, n), remote: network(10, n) },
        );
        let handle = |count| SaHandle::new(Shard(0), u64::from(n) * 2 + count);
        let inbound =
            SaSpec { handle: handle(1), direction: Direction::Inbound, selectors: [back].into(), ..outbound.clone() };
        let outbound = SaSpec { handle: handle(2), selectors: [there].into(), ..outbound };
        let name = ipsec::PolicyHandle::new(Shard(0), u64::from(n));
        let policy = PolicySpec { handle: name, selectors: there, ..policy };
        let activate = Op::Activate { policy: name, sa: outbound.handle };
        let ops = vec![
            Op::InstallSa(Box::new(inbound)),
            Op::InstallSa(Box::new(outbound)),
            Op::InstallPolicy(policy),
            activate,
        ];
        subject.backend.control.execute(&Request::Apply(ops)).unwrap();
    }
    let installed = used() - started;
    let started = used();
    // More flows than the cache holds, none twice.
    let packets: Vec<Vec<u8>> = (0..TUNNELS)
        .map(|n| {
            let (IpAddr::V4(from), IpAddr::V4(to)) = (network(10, n).addresses.start(), network(11, n).addresses.end())
            else {
                panic!()
            };
            udp_v4(from, to, (1, 2), 20, false)
        })
        .collect();
    subject.inject_inner(&packets);
    let carried = used() - started;
    let mut spis: Vec<_> = subject.captured_outer().iter().filter_map(ipsec::conformance::OuterPacket::spi).collect();
    spis.sort_unstable();
    spis.dedup();
    assert_eq!(spis.len(), TUNNELS as usize, "each packet has its own SA");
    println!("{TUNNELS} tunnels: install {:?} each, packet {:?} each", installed / TUNNELS, carried / TUNNELS);
    // Far above what it takes; a cost that grows with the number of tunnels would exceed it.
    assert!(
        installed < Duration::from_secs(20) && carried < Duration::from_secs(2),
        "install {installed:?}, packets {carried:?}"
    );
    subject.settle();
}

/// Processor time of this thread: other work on the machine does not count.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What a packet costs without I/O: `cargo test --release -p offload-userspace --test in-process -- --ignored --nocapture figures`
#[test]
#[ignore = "a measurement, not a check"]
fn figures() {
    for size in [36, 1_372] {
        let mut subject = connect();
        let packets = vec![udp_v4([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), (1, 2), size, false); 64];
        let mut carrier = Carrier::default();
        let started = used();
        for _ in 0..10_000 {
            subject.carry(&packets, &mut carrier);
        }
        let each = (used() - started).as_nanos() as f64 / carrier.delivered as f64;
        let octets = packets[0].len();
        println!(
            "{octets} octets: {each:.0} ns out and in again, {:.2} Mpps, {:.1} Gbit/s",
            1e3 / each,
            octets as f64 * 8.0 / each
        );
    }
}
