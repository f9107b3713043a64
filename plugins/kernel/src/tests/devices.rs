//! Links that come and go.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ipsec::conformance::Subject;
use ipsec::{DeviceId, DeviceState, Event, OffloadBackend, OffloadMode, Op};
use offload_host::devices::{Link, LinkChange};

use super::child::{Child, networks, packet};
use super::memory::{Driver, Sent};
use super::subject::{InMemory, LINK, able, link};
use crate::kernel::Told;

const NIC: DeviceId = DeviceId(1);

fn modes(subject: &InMemory) -> Vec<OffloadMode> {
    subject.kernel.devices().get(NIC).unwrap().rungs.iter().map(|rung| rung.mode.mode).collect()
}

#[test]
fn a_link_has_the_rungs_that_its_driver_has() {
    use OffloadMode::{Crypto, No, Packet};
    for (packet, crypto, expected) in
        [(true, true, vec![Packet, Crypto, No]), (true, false, vec![Packet, No]), (false, true, vec![Crypto, No])]
    {
        let subject = InMemory::new(Some(Driver { packet, crypto, ..Driver::default() }));
        assert_eq!(modes(&subject), expected);
        assert_eq!(subject.kernel.device_for([192, 0, 2, 1].into(), [192, 0, 2, 2].into()), Some(NIC));
    }
    // One that does nothing is no device: the kernel carries what leaves by it.
    for driver in [None, Some(Driver::default())] {
        let subject = InMemory::new(driver);
        assert_eq!(subject.kernel.devices().devices.len(), 1);
        assert_eq!(subject.kernel.device_for([192, 0, 2, 1].into(), [192, 0, 2, 2].into()), Some(DeviceId(0)));
    }
}

#[test]
fn with_a_link_goes_what_was_in_its_device_and_nothing_else() {
    let mut subject = InMemory::new(Some(able()));
    let offloaded = Child::new(&subject, 10, OffloadMode::Packet, networks());
    let elsewhere = ipsec::SelectorPair { remote: super::child::network(3), ..networks() };
    let mut software = Child::new(&subject, 20, OffloadMode::No, elsewhere);
    for sa in [&mut software.inbound, &mut software.outbound] {
        sa.device = NIC;
    }
    for policy in &mut software.policies {
        policy.device = NIC;
    }
    subject.apply([offloaded.up(), software.up()].concat()).unwrap();
    assert_eq!(subject.host.books().bypassed, [LINK]);
    subject.pull_device(NIC);
    subject.settle();
    assert_eq!(subject.told(&Event::DeviceDown(NIC)), 1);
    assert_eq!(subject.kernel.devices().get(NIC).unwrap().state, DeviceState::Down);
    let left = subject.list();
    assert_eq!(
        left.sas.iter().map(|sa| sa.sa).collect::<Vec<_>>(),
        [software.inbound.handle, software.outbound.handle]
    );
    // What is forwarded was in software, and goes with its child.
    assert_eq!(left.policies.len(), 4, "{left:?}");
    assert!(!subject.events().iter().any(|event| matches!(event, Event::StateLost { .. } | Event::HardExpire { .. })));
    assert!(subject.host.books().bypassed.is_empty());
    // It comes back empty; the core removes what it knows and makes all anew.
    subject.plug_device(NIC);
    subject.settle();
    assert_eq!(subject.told(&Event::DeviceUp(NIC)), 1);
    subject.apply(offloaded.remove()).unwrap();
    let again = Child::new(&subject, 30, OffloadMode::Packet, networks());
    subject.apply(again.up()).unwrap();
    assert_eq!(subject.host.books().bypassed, [LINK]);
    assert!(!subject.host.books().late);
    assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == again.id()));
}

#[test]
fn crypto_goes_with_the_link_and_its_policies_block() {
    let mut subject = InMemory::new(Some(able()));
    let child = Child::new(&subject, 10, OffloadMode::Crypto, networks());
    subject.apply(child.up()).unwrap();
    subject.pull_device(NIC);
    subject.settle();
    let left = subject.list();
    assert_eq!((left.sas.len(), left.policies.len()), (0, 3));
    assert_eq!(subject.send(&packet()), Sent::Dropped);
}

#[test]
fn a_link_that_comes_up_is_asked_again() {
    let mut subject = InMemory::new(Some(able()));
    subject.pull_device(NIC);
    subject.settle();
    subject.memory.world().drivers.insert(LINK, Driver { crypto: true, ..Driver::default() });
    subject.plug_device(NIC);
    subject.settle();
    assert_eq!(modes(&subject), [OffloadMode::Crypto, OffloadMode::No]);
}

#[test]
fn another_name_is_followed() {
    let mut subject = InMemory::new(Some(able()));
    let renamed = Link { name: "wan".into(), ..link(true) };
    let change = LinkChange::Renamed { link: renamed, before: "nic0".into() };
    subject.kernel.teller().unwrap().tell(Told::Link(change));
    subject.settle();
    let child = Child::new(&subject, 10, OffloadMode::Packet, networks());
    let modes = subject.apply(child.up()).unwrap();
    assert!(modes.iter().all(|(_, mode)| mode.device.as_deref() == Some("wan")), "{modes:?}");
}

#[test]
fn a_link_that_is_gone_is_another_one_when_it_returns() {
    let mut subject = InMemory::new(Some(able()));
    let child = Child::new(&subject, 10, OffloadMode::Packet, networks());
    subject.apply(child.up()).unwrap();
    subject.memory.world().link_down(LINK);
    let teller = subject.kernel.teller().unwrap();
    teller.tell(Told::Link(LinkChange::Gone { link: link(true), moved: false }));
    teller.tell(Told::Link(LinkChange::Added(link(true))));
    subject.settle();
    assert_eq!((subject.told(&Event::DeviceGone(NIC)), subject.told(&Event::DeviceUp(DeviceId(2)))), (1, 1));
    assert_eq!(subject.kernel.device_for([192, 0, 2, 1].into(), [192, 0, 2, 2].into()), Some(DeviceId(2)));
    assert!(subject.apply(vec![Op::InstallSa(Box::new(child.inbound))]).is_err());
    subject.wait(Duration::from_secs(1), Duration::from_secs(1));
}

/// On some kernels packets that leave by another device would leave in clear.
#[test]
fn what_leaves_by_another_device_is_blocked_until_the_way_comes_back() {
    let mut subject = InMemory::new(Some(able()));
    let elsewhere = ipsec::SelectorPair { remote: super::child::network(3), ..networks() };
    let child = Child::new(&subject, 10, OffloadMode::Packet, networks());
    let crypto = Child::new(&subject, 20, OffloadMode::Crypto, elsewhere);
    subject.apply([child.up(), crypto.up()].concat()).unwrap();
    let other = ipsec::conformance::udp_v4([10, 1, 0, 1].into(), [10, 3, 0, 1].into(), (1, 7), 30, false);
    for (leaves, passes) in [(LINK, true), (9, false), (0, false), (LINK, true)] {
        subject.leaves.store(leaves, Relaxed);
        subject.kernel.teller().unwrap().tell(Told::Link(LinkChange::Rerouted));
        subject.wait(Duration::from_millis(60), Duration::from_millis(60));
        let sent = subject.send(&packet());
        assert_eq!(matches!(sent, Sent::Esp(id, _) if id == child.id()), passes, "by {leaves}: {sent:?}");
        assert!(passes || sent == Sent::Dropped);
        // Software does what the device of another link cannot.
        assert!(matches!(subject.send(&other), Sent::Esp(..)));
        let used = subject.list().policies.iter().filter(|policy| policy.sa == Some(child.outbound.handle)).count();
        assert_eq!(used, 1, "the books stay as they are");
    }
    subject.leaves.store(9, Relaxed);
    let late = Child::new(&subject, 30, OffloadMode::Packet, networks());
    subject.apply(late.up()).unwrap();
    assert_eq!(subject.send(&packet()), Sent::Dropped);
}

/// Routes that change all the time are looked at now and then.
#[test]
fn a_storm_of_routes_is_looked_at_now_and_then() {
    let mut subject = InMemory::new(Some(able()));
    let child = Child::new(&subject, 10, OffloadMode::Packet, networks());
    subject.apply(child.up()).unwrap();
    subject.leaves.store(9, Relaxed);
    subject.wait(Duration::from_secs(1), Duration::from_secs(1));
    let teller = subject.kernel.teller().unwrap();
    (0..1_000).for_each(|_| teller.tell(Told::Link(LinkChange::Rerouted)));
    subject.hear();
    assert_eq!(subject.send(&packet()), Sent::Dropped, "the first is looked at at once");
}
