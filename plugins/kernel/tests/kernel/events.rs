//! What the kernel tells.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use ipsec::PacketSelectors;
use offload_host::xfrm::{PolicyKey, Way};
use offload_kernel::netlink::{KernelXfrm, Listener};
use offload_kernel::xfrm::{KernelEvent, Policy, Xfrm};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::namespace::{address, allow, inside, ip, tunnel};

/// Everything told, after waiting for the first of it.
fn told(listener: &mut Listener) -> Vec<KernelEvent> {
    let patience = Timespec::try_from(Duration::from_secs(60)).unwrap();
    let ready = rustix::event::poll(&mut [PollFd::new(&listener.as_fd(), PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(ready, 1, "nothing is told");
    let mut events = Vec::new();
    listener.drain(|event| events.push(event));
    events
}

/// The first acquire told.
fn acquire(listener: &mut Listener) -> KernelEvent {
    let events = told(listener);
    events.into_iter().find(|event| matches!(event, KernelEvent::Acquire { .. })).expect("an acquire is heard")
}

fn trap(way: Way, source: &str, destination: &str, from: &str, to: &str, reqid: u32) -> Policy {
    Policy { template: Some(tunnel(from, to, reqid)), ..allow(way, source, destination) }
}

#[test]
fn a_packet_that_meets_a_trap_is_heard_of() {
    let cases = [
        ("192.0.2.1", "192.0.2.2", 11, trap(Way::Out, "0.0.0.0/0", "192.0.2.2/32", "192.0.2.1", "192.0.2.9", 11)),
        ("2001:db8::1", "2001:db8::2", 12, trap(Way::Out, "::/0", "2001:db8::2/128", "2001:db8::1", "2001:db8::9", 12)),
    ];
    for (from, to, reqid, policy) in cases {
        inside(move || {
            let mut xfrm = KernelXfrm::open().unwrap();
            let mut listener = Listener::open().unwrap();
            xfrm.put_policy(&policy, false).unwrap();
            let index = xfrm.policy(&policy.key).unwrap().unwrap().index;
            assert_eq!(told(&mut listener), [KernelEvent::PolicyChanged(policy.key)]);

            let socket = UdpSocket::bind((address(from), 4001)).unwrap();
            let _ = socket.send_to(b"wakes the trap", (address(to), 4002));
            let KernelEvent::Acquire { packet, sequence, index: heard, reqid: group, device, cpu } =
                acquire(&mut listener)
            else {
                unreachable!()
            };
            let expected = PacketSelectors {
                source: address(from),
                destination: address(to),
                protocol: 17,
                ports: Some((4001, 4002)),
            };
            assert_eq!((packet, heard, group, device, cpu), (expected, index, reqid, None, None));
            assert_ne!(sequence, 0);
        });
    }
}

#[test]
fn a_ping_that_meets_a_trap_shows_type_and_code() {
    for (to, policy, protocol, kind) in [
        ("192.0.2.2", trap(Way::Out, "0.0.0.0/0", "0.0.0.0/0", "192.0.2.1", "192.0.2.9", 3), 1, 8 << 8),
        ("2001:db8::2", trap(Way::Out, "::/0", "2001:db8::2/128", "2001:db8::1", "2001:db8::9", 3), 58, 128 << 8),
    ] {
        inside(move || {
            let mut xfrm = KernelXfrm::open().unwrap();
            let mut listener = Listener::open().unwrap();
            // `ping` looks for its source address with a datagram of another protocol.
            let key = PolicyKey { protocol, ..policy.key };
            xfrm.put_policy(&Policy { key, ..policy }, false).unwrap();
            let _ = Command::new("ping").args(["-c", "1", "-W", "1", to]).output().unwrap();
            let KernelEvent::Acquire { packet, .. } = acquire(&mut listener) else { unreachable!() };
            assert_eq!((packet.protocol, packet.ports), (protocol, Some((kind, kind))));
            assert_eq!(packet.destination, address(to));
        });
    }
}

#[test]
fn a_trap_of_each_cpu_tells_which_cpu_asks() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        if !xfrm.attributes().unwrap().cpu {
            return;
        }
        let mut listener = Listener::open().unwrap();
        let policy = trap(Way::Out, "0.0.0.0/0", "192.0.2.2/32", "192.0.2.1", "192.0.2.9", 4);
        xfrm.put_policy(&Policy { per_cpu: true, ..policy }, false).unwrap();
        assert!(xfrm.policy(&policy.key).unwrap().unwrap().per_cpu);
        let socket = UdpSocket::bind((address("192.0.2.1"), 0)).unwrap();
        let _ = socket.send_to(b"wakes the trap", (address("192.0.2.2"), 4002));
        let KernelEvent::Acquire { cpu, .. } = acquire(&mut listener) else { unreachable!() };
        // The first state of a group serves all CPUs, so whether the first acquire is of one depends on the kernel.
        assert!(cpu.is_none_or(|cpu| cpu < 4096));
    });
}

#[test]
fn what_others_do_is_heard_of() {
    inside(|| {
        let mut listener = Listener::open().unwrap();
        let selector = "src 10.1.0.0/16 dst 10.2.0.0/16 dir out";
        let key = allow(Way::Out, "10.1.0.0/16", "10.2.0.0/16").key;
        ip(&format!("xfrm policy add {selector}"));
        ip(&format!("xfrm policy update {selector} priority 3"));
        ip(&format!("xfrm policy delete {selector}"));
        ip(&format!("xfrm policy add {selector}"));
        ip("xfrm policy flush");
        ip("xfrm state flush");
        let mut heard = told(&mut listener);
        // A flush of nothing may tell nothing.
        heard.retain(|event| *event != KernelEvent::StatesFlushed);
        let expected = [
            KernelEvent::PolicyChanged(key),
            KernelEvent::PolicyChanged(key),
            KernelEvent::PolicyDeleted(key),
            KernelEvent::PolicyChanged(key),
            KernelEvent::PoliciesFlushed,
        ];
        assert_eq!(heard, expected);
    });
}

#[test]
fn a_policy_that_runs_out_is_heard_of() {
    inside(|| {
        let mut listener = Listener::open().unwrap();
        ip("xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir in limit time-hard 1");
        let key = allow(Way::In, "10.1.0.0/16", "10.2.0.0/16").key;
        let mut heard = told(&mut listener);
        while heard.len() < 2 {
            heard.extend(told(&mut listener));
        }
        assert_eq!(heard, [KernelEvent::PolicyChanged(key), KernelEvent::PolicyDeleted(key)]);
    });
}

#[test]
fn lost_messages_are_told_as_lost_and_hearing_goes_on() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        let mut listener = Listener::with_buffer(4096).unwrap();
        for third in 0..200 {
            let source = format!("10.1.{third}.0/24");
            xfrm.put_policy(&allow(Way::Out, &source, "10.2.0.0/16"), false).unwrap();
        }
        let heard = told(&mut listener);
        assert_eq!(heard.iter().filter(|event| **event == KernelEvent::Lost).count(), 1);
        assert!(heard.len() < 200, "{} events in 4 KiB", heard.len());
        let policy = allow(Way::Out, "10.9.0.0/16", "10.2.0.0/16");
        xfrm.put_policy(&policy, false).unwrap();
        assert_eq!(told(&mut listener), [KernelEvent::PolicyChanged(policy.key)]);
    });
}
