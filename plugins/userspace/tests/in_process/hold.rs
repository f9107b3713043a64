//! Packets that meet a trap: how many are held, in which order they go, and what becomes of the others.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipsec::conformance::{Subject, Wire, udp_v4};
use ipsec::{Event, Op, PacketSelectors, PolicyAction, PolicyHandle, PolicySpec, Reqid, Request, SaMode, Shard};
use offload_userspace::drops::Reason;

use crate::subject::{Carrier, InProcess};

const HELD: usize = 64;

/// A subject with a trap where the tunnel of [`InProcess::tunnel`] will be, and the trap.
fn trapped() -> (InProcess, PolicySpec) {
    let subject = InProcess::new(false);
    let (ops, _) = subject.tunnel();
    let protecting =
        ops.iter().find_map(|op| if let Op::InstallPolicy(policy) = op { Some(policy.clone()) } else { None });
    let action = PolicyAction::Trap { reqid: Reqid(1), mode: SaMode::Tunnel };
    let trap = PolicySpec { handle: PolicyHandle::new(Shard(0), 9), priority: 2_000, action, ..protecting.unwrap() };
    apply(&subject, vec![Op::InstallPolicy(trap.clone())]);
    (subject, trap)
}

fn apply(subject: &InProcess, ops: Vec<Op>) {
    subject.backend.control.execute(&Request::Apply(ops)).unwrap();
}

/// Packet number `number`, of a flow of its own. Its destination carries the number.
fn packet(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    udp_v4(Ipv4Addr::new(10, 1, 0, 5), Ipv4Addr::new(10, 2, high, low), (1, 2), 20, false)
}

fn number(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[18], packet[19]])
}

fn drops(subject: &InProcess, reason: Reason) -> u64 {
    subject.backend.control.shared().drops.get(reason)
}

fn acquires(subject: &InProcess) -> Vec<PacketSelectors> {
    let packet = |event: &Event| if let Event::Acquire { packet, .. } = event { Some(*packet) } else { None };
    subject.log.events().iter().filter_map(packet).collect()
}

/// Ten thousand packets of as many flows: one acquire, with the first one's selectors; the first 64 wait, the others are dropped and counted,
/// and when the SA stands what has waited goes before what comes then.
#[test]
fn a_storm_is_held_up_to_the_bound_and_sent_in_order() {
    let (mut subject, _) = trapped();
    let storm: Vec<Vec<u8>> = (0..10_000).map(packet).collect();
    for part in storm.chunks(64) {
        assert!(subject.seal(part).is_empty(), "a packet left a trap");
    }
    let asked = acquires(&subject);
    assert_eq!((asked.len(), asked[0].destination), (1, Ipv4Addr::new(10, 2, 0, 0).into()));
    assert_eq!(drops(&subject, Reason::HoldFull), 10_000 - HELD as u64);
    let (ops, _) = subject.tunnel();
    apply(&subject, ops);
    // Nobody has looked at what waits yet when the next packet comes.
    let mut sealed = subject.seal(&[packet(20_000)]);
    assert_eq!(sealed.len(), HELD + 1);
    let mut carrier = Carrier::default();
    let seen = std::cell::RefCell::new(Vec::new());
    subject.open_and(&mut sealed, &mut carrier, |inner| seen.borrow_mut().push(number(inner)));
    let expected: Vec<u16> = (0..HELD as u16).chain([20_000]).collect();
    assert_eq!(seen.into_inner(), expected);
    assert_eq!((acquires(&subject).len(), drops(&subject, Reason::HoldAged)), (1, 0));
}

/// Nothing waits for ever: after half a minute packets are dropped and counted, and the next one asks again.
#[test]
fn what_waits_too_long_is_dropped_and_counted() {
    let (mut subject, trap) = trapped();
    subject.seal(&(0..10).map(packet).collect::<Vec<_>>());
    subject.pass_time(Duration::from_secs(29));
    subject.settle();
    assert_eq!(drops(&subject, Reason::HoldAged), 0);
    // Touched: what is held asks again, once.
    apply(&subject, vec![Op::UpdatePolicy(trap)]);
    subject.settle();
    assert_eq!(acquires(&subject).len(), 2);
    subject.pass_time(Duration::from_secs(1));
    subject.settle();
    assert_eq!(drops(&subject, Reason::HoldAged), 10);
    subject.pass_time(Duration::from_secs(30));
    subject.settle();
    subject.seal(&[packet(77)]);
    let asked = acquires(&subject);
    assert_eq!((asked.len(), asked[2].destination), (3, Ipv4Addr::new(10, 2, 0, 77).into()));
    let (ops, _) = subject.tunnel();
    apply(&subject, ops);
    assert_eq!(subject.seal(&[packet(78)]).len(), 2);
}
