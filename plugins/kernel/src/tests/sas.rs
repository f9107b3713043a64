//! SAs, their counters and limits.

use std::time::Duration;

use ipsec::conformance::Subject;
use ipsec::{
    Answer, Event, LimitUnit, Limits, OffloadBackend, OffloadError, OffloadMode, OnStop, Op, Request, SaStatus, Spi,
    Volume,
};

use super::child::{Child, networks, packet, trap};
use super::memory::{Driver, Memory, Sent};
use super::subject::{InMemory, able};
use crate::xfrm::{KernelEvent, StateId, Xfrm};

const NO: OffloadMode = OffloadMode::No;
const PACKET: OffloadMode = OffloadMode::Packet;
const SECOND: Duration = Duration::from_secs(1);

fn status(subject: &mut InMemory, child: &Child) -> SaStatus {
    match subject.ask(Request::Query(child.outbound.handle)) {
        Ok(Answer::Status(status)) => status,
        other => panic!("{other:?}"),
    }
}

fn packets(soft: u64, hard: u64) -> Limits {
    let volume = |packets| Volume { packets: Some(packets), ..Volume::default() };
    Limits { soft: volume(soft), hard: volume(hard) }
}

/// The kernel tells of a limit, and so do the counters that somebody reads: the core hears of it once.
#[test]
fn a_limit_is_told_once_whoever_sees_it_first() {
    for rung in [NO, PACKET] {
        let mut subject = InMemory::new(Some(able()));
        let mut child = Child::new(&subject, 10, rung, networks());
        child.outbound.limits = packets(3, 6);
        subject.apply(child.up()).unwrap();
        let sa = child.outbound.handle;
        let (soft, hard) =
            (Event::SoftExpire { sa, unit: LimitUnit::Packets }, Event::HardExpire { sa, unit: LimitUnit::Packets });
        for sent in 1..=8 {
            let esp = matches!(subject.memory.world().send(&packet()), Sent::Esp(..));
            assert_eq!(esp, sent <= 6, "{rung:?}: packet {sent}");
            subject.hear();
            if sent == 3 || sent == 6 {
                status(&mut subject, &child);
            }
            let told = (subject.told(&soft), subject.told(&hard));
            assert_eq!(told, (usize::from(sent >= 3), usize::from(sent >= 6)), "{rung:?}: after {sent} packets");
        }
        // Told once more, as after messages were lost.
        let again = KernelEvent::Expired { id: child.id(), hard: true, bytes: 1, packets: 6 };
        subject.memory.world().events.push_back(again);
        subject.settle();
        let status = status(&mut subject, &child);
        assert_eq!((status.packets, status.sequence, status.hard_expired), (6, 6, Some(LimitUnit::Packets)));
        assert_eq!((subject.told(&soft), subject.told(&hard)), (1, 1));
        subject.apply(child.remove()).unwrap();
        assert!(subject.memory.world().states.is_empty());
    }
}

#[test]
fn limits_of_time_are_ours_and_the_kernels_come_later() {
    let mut subject = InMemory::new(None);
    let mut child = Child::new(&subject, 10, NO, networks());
    let volume = |seconds| Volume { time: Some(Duration::from_secs(seconds)), ..Volume::default() };
    child.outbound.limits = Limits { soft: volume(50), hard: volume(100) };
    subject.apply(child.up()).unwrap();
    let limits = subject.memory.world().states[&child.id()].state.limits;
    assert_eq!((limits.soft_time, limits.hard_time), (None, Some(Duration::from_secs(111))));
    // Without ESN the numbers bound it in any case, and devices want both limits.
    assert_eq!((limits.soft_packets, limits.hard_packets), (Some(3 << 30), Some(u64::from(u32::MAX))));
    let sa = child.outbound.handle;
    subject.wait(49 * SECOND, SECOND);
    assert_eq!(subject.told(&Event::SoftExpire { sa, unit: LimitUnit::Time }), 0);
    subject.wait(SECOND, SECOND);
    assert_eq!(subject.told(&Event::SoftExpire { sa, unit: LimitUnit::Time }), 1);
    subject.memory.world().send(&packet());
    subject.wait(50 * SECOND, SECOND);
    assert_eq!(subject.told(&Event::HardExpire { sa, unit: LimitUnit::Time }), 1);
    assert!(!subject.memory.world().states.contains_key(&child.id()));
    assert_eq!(subject.send(&packet()), Sent::Dropped);
    let status = status(&mut subject, &child);
    assert_eq!((status.packets, status.hard_expired), (1, Some(LimitUnit::Time)));
}

#[test]
fn the_first_use_of_an_inbound_sa_is_seen_soon_and_looked_for_rarely() {
    let mut subject = InMemory::new(Some(able()));
    let child = Child::new(&subject, 10, PACKET, networks());
    subject.apply(child.up()).unwrap();
    let sa = child.inbound.handle;
    subject.memory.world().reads = 0;
    subject.wait(Duration::from_secs(3_600), Duration::from_millis(500));
    let reads = subject.memory.world().reads;
    assert!((30..=100).contains(&reads), "{reads} readings in an hour");
    let fresh = Child::new(&subject, 20, PACKET, networks());
    subject.apply(fresh.install()).unwrap();
    let outer = fresh.inbound.outer;
    let back = ipsec::conformance::udp_v4([10, 2, 0, 1].into(), [10, 1, 0, 1].into(), (7, 1), 30, false);
    subject.memory.world().receive((outer.remote, outer.local), fresh.inbound.spi.get(), 1, &back).unwrap();
    let used = Event::InboundFirstUse { sa: fresh.inbound.handle };
    assert_eq!(subject.told(&used), 0);
    subject.wait(Duration::from_millis(10), Duration::from_millis(10));
    assert_eq!(subject.told(&used), 1);
    subject.memory.world().reads = 0;
    subject.wait(Duration::from_secs(60), SECOND);
    assert_eq!((subject.told(&used), subject.told(&Event::InboundFirstUse { sa })), (1, 0));
    assert!(subject.memory.world().reads <= 2, "what is in use is not looked at any more");
}

#[test]
fn idle_time_follows_the_counters() {
    for rung in [NO, PACKET] {
        let mut subject = InMemory::new(Some(able()));
        let child = Child::new(&subject, 10, rung, networks());
        subject.apply(child.up()).unwrap();
        assert_eq!(status(&mut subject, &child).idle_seconds, None);
        subject.memory.world().send(&packet());
        assert_eq!(status(&mut subject, &child).idle_seconds, Some(0));
        subject.wait(7 * SECOND, SECOND);
        assert_eq!(status(&mut subject, &child).idle_seconds, Some(7));
        subject.memory.world().send(&packet());
        subject.wait(5 * SECOND, SECOND);
        // Software says when; of a device it is known only that it was since the last look.
        let idle = if rung == NO { 5 } else { 0 };
        assert_eq!(status(&mut subject, &child).idle_seconds, Some(idle));
    }
}

#[test]
fn a_kernel_that_ignores_devices_offers_none() {
    let memory = Memory::default();
    memory.world().drivers.extend([(super::subject::LINK, able())]);
    memory.world().ignoring = true;
    let subject = InMemory::on(memory, None);
    assert_eq!(subject.kernel.devices().devices.len(), 1);
    assert!(subject.memory.is_empty());
}

/// What was offered and is not given: the driver has changed, or the kernel.
#[test]
fn what_comes_back_otherwise_is_taken_out_and_refused() {
    for rung in [PACKET, OffloadMode::Crypto] {
        let mut subject = InMemory::new(Some(able()));
        subject.memory.world().ignoring = true;
        let child = Child::new(&subject, 10, rung, networks());
        let refused = subject.apply(child.up()).unwrap_err();
        assert!(refused.is_refusal() && refused.to_string().contains("nic0"), "{refused}");
        let world = subject.memory.world();
        assert!(world.states.is_empty() && world.policies.is_empty(), "{rung:?}");
    }
}

#[test]
fn a_full_device_says_so_and_keeps_what_it_has() {
    for driver in [Driver { states: Some(4), ..able() }, Driver { policies: Some(4), ..able() }] {
        let mut subject = InMemory::new(Some(driver));
        for number in [10, 20] {
            let child = Child::new(&subject, number, PACKET, networks_to(number));
            subject.apply(child.up()).unwrap();
        }
        let before = subject.held();
        let child = Child::new(&subject, 30, PACKET, networks_to(30));
        let refused = subject.apply(child.up()).unwrap_err();
        assert!(matches!(refused, OffloadError::Full { size: 4, .. }), "{refused}");
        assert_eq!(subject.held(), before);
        // Software has room.
        let child = Child::new(&subject, 40, NO, networks_to(40));
        subject.apply(child.up()).unwrap();
    }
}

fn networks_to(number: u64) -> ipsec::SelectorPair {
    ipsec::SelectorPair { remote: super::child::network(u8::try_from(number).unwrap()), ..networks() }
}

#[test]
fn without_esp_policies_and_acquires_run_and_sas_are_refused_in_one_sentence() {
    let memory = Memory::default();
    memory.world().no_esp = true;
    let mut subject = InMemory::on(memory, None);
    let trap = trap(5, NO, networks());
    let policy = trap.handle;
    subject.apply(vec![Op::InstallPolicy(trap)]).unwrap();
    assert_eq!(subject.send(&packet()), Sent::Waits);
    assert!(subject.events().iter().any(|event| matches!(event, Event::Acquire { policy: of, .. } if *of == policy)));
    let refused = subject.apply(Child::new(&subject, 10, NO, networks()).up()).unwrap_err();
    for part in ["esp4", "backend.kind = \"userspace\""] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    assert!(subject.kernel.lacks().is_some_and(|lacks| lacks.contains("userspace")));
}

#[test]
fn spis_and_sas_of_others_are_left_alone() {
    let memory = Memory::default();
    let first = InMemory::on(memory.clone(), None);
    let taken = first.kernel.reserve_spi(ipsec::DeviceId(0)).unwrap();
    let other = Child::new(&first, 10, NO, networks());
    drop(first);
    // The next run draws the same SPIs; somebody has two of them by now.
    let mut foreign = InMemory::on(memory.clone(), None);
    let spis: Vec<Spi> = (0..2).map(|_| foreign.kernel.reserve_spi(ipsec::DeviceId(0)).unwrap()).collect();
    assert_eq!(spis, [taken, other.inbound.spi]);
    let ids: Vec<StateId> = spis.iter().map(|spi| StateId { spi: *spi, ..other.inbound_id() }).collect();
    let mut child = Child::new(&foreign, 20, NO, networks());
    for id in &ids {
        child.inbound.spi = id.spi;
        child.inbound.handle = ipsec::SaHandle::new(ipsec::Shard(0), u64::from(id.spi.get()));
        foreign.apply(vec![Op::InstallSa(Box::new(child.inbound.clone()))]).unwrap();
    }
    let memory = foreign.kill();
    let mut subject = InMemory::on(memory, None);
    let drawn: Vec<Spi> = (0..50).map(|_| subject.kernel.reserve_spi(ipsec::DeviceId(0)).unwrap()).collect();
    assert!(drawn.iter().all(|spi| !spis.contains(spi)));
    let child = Child::new(&subject, 30, NO, networks());
    subject.apply(child.up()).unwrap();
    subject.apply(vec![Op::Flush]).unwrap();
    subject.settle();
    subject.kernel.shut_down(OnStop::Block);
    let mut left: Vec<Spi> = subject.memory.clone().states().unwrap().iter().map(|state| state.id.spi).collect();
    left.sort_unstable();
    let mut expected = spis;
    expected.sort_unstable();
    assert_eq!(left, expected);
}

/// The kernel tells of each packet from a new source until the SA has moved.
#[test]
fn a_new_source_is_told_once() {
    let mut subject = InMemory::new(None);
    let child = Child::new(&subject, 10, NO, networks());
    subject.apply(child.up()).unwrap();
    let from = |port: u16| std::net::SocketAddr::from(([203, 0, 113, 9], port));
    for port in [4501, 4501, 4502, 4501, 4501] {
        let told = KernelEvent::Mapping { id: child.inbound_id(), remote: from(port) };
        subject.memory.world().events.push_back(told);
        let outbound = KernelEvent::Mapping { id: child.id(), remote: from(port) };
        subject.memory.world().events.push_back(outbound);
    }
    subject.settle();
    let of = |port| subject.told(&Event::MappingChange { sa: child.inbound.handle, remote: from(port) });
    assert_eq!((of(4501), of(4502), subject.events().len()), (2, 1, 3));
}

/// However many SAs are new at once, looking at them leaves time for all else.
#[test]
fn thousands_of_new_sas_are_looked_at_in_turn() {
    let mut subject = InMemory::new(None);
    let all: Vec<Child> = (0..1_000).map(|number| Child::new(&subject, 10 + 10 * number, NO, networks())).collect();
    let install = |child: &Child| Op::InstallSa(Box::new(child.inbound.clone()));
    subject.apply(all.iter().map(install).collect()).unwrap();
    subject.memory.world().reads = 0;
    subject.wait(SECOND, Duration::from_millis(10));
    let reads = subject.memory.world().reads;
    assert!((5_000..=11_000).contains(&reads), "{reads} readings in a second");
    subject.apply(vec![Op::Flush]).unwrap();
    subject.wait(10 * SECOND, Duration::from_millis(100));
    let child = Child::new(&subject, 5, NO, networks());
    subject.apply(vec![install(&child)]).unwrap();
    subject.memory.world().reads = 0;
    subject.wait(Duration::from_millis(10), Duration::from_millis(10));
    assert_eq!(subject.memory.world().reads, 1, "those that are gone hold nobody up");
}

/// What was missed while messages were lost is seen by looking.
#[test]
fn when_messages_were_lost_everything_is_compared() {
    let mut subject = InMemory::new(Some(able()));
    let (one, other) = (Child::new(&subject, 10, PACKET, networks()), Child::new(&subject, 20, NO, networks_to(3)));
    subject.apply([one.up(), other.up()].concat()).unwrap();
    subject.hear();
    {
        let mut world = subject.memory.world();
        world.states.remove(&one.id());
        let key = *world.policies.keys().next_back().unwrap();
        world.policies.remove(&key);
        world.events.clear();
        world.events.push_back(KernelEvent::Lost);
    }
    subject.hear();
    assert_eq!((subject.told(&Event::StateLost { sa: one.outbound.handle }), subject.told(&Event::Resync)), (1, 1));
    // Of the four SAs three, and what keeps those in the device findable.
    assert_eq!(subject.memory.counts(), (3 + 1, 6));
    assert_eq!(subject.send(&packet()), Sent::Dropped, "what has lost its SA blocks");
    let left = subject.list();
    assert_eq!((left.sas.len(), left.policies.len()), (3, 6));
    // An SA that was lost is gone for good; the core makes a new one.
    subject.apply(one.remove()).unwrap();
    assert_eq!(subject.memory.counts(), (2, 3));
}

/// The kernel stops looking for an SA in a device at the first one that is in software; see the module about anchors.
#[test]
fn what_software_holds_hides_nothing_in_a_device() {
    let mut subject = InMemory::new(Some(able()));
    let offloaded = Child::new(&subject, 10, PACKET, networks());
    subject.apply(offloaded.up()).unwrap();
    assert_eq!(subject.memory.counts().0, 3);
    let passes = |subject: &mut InMemory| {
        let sent = subject.send(&packet());
        assert!(matches!(sent, Sent::Esp(id, _) if id == offloaded.id()), "{sent:?}");
    };
    let software = Child::new(&subject, 20, NO, networks_to(3));
    subject.apply(software.up()).unwrap();
    passes(&mut subject);
    let crypto = Child::new(&subject, 30, OffloadMode::Crypto, networks_to(4));
    subject.apply(crypto.up()).unwrap();
    passes(&mut subject);
    // What is kept for an acquire too, and what a successor on another rung brings.
    subject.apply(vec![Op::InstallPolicy(trap(40, NO, networks_to(5)))]).unwrap();
    let other = ipsec::conformance::udp_v4([10, 1, 0, 1].into(), [10, 5, 0, 1].into(), (1, 7), 30, false);
    assert_eq!(subject.send(&other), Sent::Waits);
    let mut successor = Child::new(&subject, 50, NO, networks());
    (successor.inbound.reqid, successor.outbound.reqid) = (offloaded.inbound.reqid, offloaded.inbound.reqid);
    subject.apply(successor.install()).unwrap();
    passes(&mut subject);
    subject.apply(offloaded.remove()).unwrap();
    assert_eq!(subject.memory.counts().0, 6, "it goes with the last SA that needed it");
    subject.apply(vec![Op::Flush]).unwrap();
    assert!(subject.memory.is_empty());
}
