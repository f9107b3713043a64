//! Which policies the kernel has.

use std::net::IpAddr;

use ipsec::conformance::{Subject, udp_v4};
use ipsec::{
    AddressRange, Event, GuardSpec, OffloadBackend, OffloadError, OffloadMode, Op, PolicyAction, PolicySpec, PortRange,
    SelectorPair, TrafficSelector,
};
use offload_host::xfrm::{Verdict, Way};

use super::child::{Child, network, networks, packet, trap};
use super::memory::Sent;
use super::subject::{InMemory, able};
use crate::xfrm::{KernelEvent, Policy, Xfrm};

const NO: OffloadMode = OffloadMode::No;
const PACKET: OffloadMode = OffloadMode::Packet;

fn subject() -> InMemory {
    InMemory::new(Some(able()))
}

fn outbound(subject: &InMemory) -> Vec<Policy> {
    subject.memory.world().policies.values().filter(|policy| policy.key.way == Way::Out).copied().collect()
}

#[test]
fn equal_selectors_share_one_policy_that_is_never_missing() {
    for rung in [NO, PACKET] {
        let mut subject = subject();
        let (first, second) = (Child::new(&subject, 10, rung, networks()), Child::new(&subject, 20, rung, networks()));
        subject.apply(first.up()).unwrap();
        subject.memory.world().gaps.clear();
        let sends = |subject: &mut InMemory, child: &Child| {
            let sent = subject.send(&packet());
            assert!(matches!(sent, Sent::Esp(id, _) if id == child.id()), "{rung:?}: {sent:?}");
            assert_eq!(outbound(subject).len(), 1);
        };
        for (ops, owner) in [
            (second.install(), &first),
            (second.activate(), &second),
            (first.activate(), &first),
            (first.remove(), &second),
        ] {
            subject.apply(ops).unwrap();
            sends(&mut subject, owner);
        }
        assert_eq!(subject.memory.world().gaps, []);
        subject.apply(second.remove()).unwrap();
        assert!(subject.memory.is_empty());
        assert!(subject.host.books().routes.is_empty());
    }
}

#[test]
fn both_of_two_children_with_equal_selectors_are_heard() {
    let mut subject = subject();
    let first = Child::new(&subject, 10, NO, networks());
    let mut second = Child::new(&subject, 20, NO, networks());
    let elsewhere = IpAddr::from([198, 51, 100, 9]);
    for sa in [&mut second.inbound, &mut second.outbound] {
        sa.outer.remote = elsewhere;
    }
    for policy in &mut second.policies {
        if let PolicyAction::Protect { outer, .. } = &mut policy.action {
            outer.remote = elsewhere;
        }
    }
    subject.apply(first.up()).unwrap();
    let template = |subject: &InMemory, way| {
        let world = subject.memory.world();
        world.policies.values().find(|policy| policy.key.way == way).and_then(|policy| policy.template).unwrap()
    };
    for way in [Way::In, Way::Forward] {
        assert_eq!(template(&subject, way).reqid.0, 10);
    }
    subject.apply(second.up()).unwrap();
    let back = udp_v4([10, 2, 0, 1].into(), [10, 1, 0, 1].into(), (7, 1), 30, false);
    for child in [&first, &second] {
        let outer = child.inbound.outer;
        let heard = subject.memory.world().receive((outer.remote, outer.local), child.inbound.spi.get(), 1, &back);
        assert!(heard.is_some());
    }
    subject.apply(first.remove()).unwrap();
    for way in [Way::In, Way::Forward] {
        let left = template(&subject, way);
        assert_eq!((left.reqid.0, left.source), (20, elsewhere));
    }
}

/// A template that points nowhere would have the kernel ask with each packet, and keep the name of an SA to come.
#[test]
fn what_has_no_sa_blocks_and_asks_for_none() {
    for rung in [NO, PACKET] {
        let mut subject = subject();
        let child = Child::new(&subject, 10, rung, networks());
        subject.apply(child.install()).unwrap();
        let policies = outbound(&subject);
        assert_eq!(policies.iter().map(|policy| policy.verdict).collect::<Vec<_>>(), [Verdict::Block]);
        assert_eq!(subject.send(&packet()), Sent::Dropped);
        subject.apply(child.activate()).unwrap();
        assert!(matches!(subject.send(&packet()), Sent::Esp(..)));
        subject.apply(vec![Op::RemoveSa(child.outbound.handle)]).unwrap();
        assert_eq!(subject.send(&packet()), Sent::Dropped);
        assert!(!subject.events().iter().any(|event| matches!(event, Event::Acquire { .. })));
        let again = Op::InstallSa(Box::new(child.outbound.clone()));
        subject.apply(vec![again]).unwrap();
    }
}

#[test]
fn ranges_are_split_and_ask_once_together() {
    let mut subject = subject();
    let range = AddressRange::new([10, 2, 0, 1].into(), [10, 2, 0, 6].into()).unwrap();
    let remote = TrafficSelector { protocol: 17, ports: PortRange { start: 7, end: 9 }, ..TrafficSelector::all(range) };
    let trap = trap(30, NO, SelectorPair { remote, ..networks() });
    let policy = trap.handle;
    subject.apply(vec![Op::InstallPolicy(trap)]).unwrap();
    // 1, 2-3, 4-5, 6 by 7, 8-9.
    assert_eq!(outbound(&subject).len(), 8);
    for last in 1..=6 {
        subject.send(&udp_v4(
            [10, 1, 0, 1].into(),
            [10, 2, 0, last].into(),
            (1, 6 + u16::from(last) % 3 + 1),
            30,
            false,
        ));
    }
    assert_eq!(subject.send(&udp_v4([10, 1, 0, 1].into(), [10, 2, 0, 7].into(), (1, 7), 30, false)), Sent::Clear);
    let asked = subject
        .events()
        .iter()
        .filter(|event| matches!(event, Event::Acquire { policy: of, .. } if *of == policy))
        .count();
    assert_eq!(asked, 1);
    subject.apply(vec![Op::RemovePolicy(policy)]).unwrap();
    assert!(outbound(&subject).is_empty());
}

#[test]
fn a_selector_of_too_many_prefixes_is_refused_by_name() {
    let mut subject = subject();
    let side = |n| {
        let range = AddressRange::new([10, n, 0, 1].into(), [10, n, 255, 254].into()).unwrap();
        TrafficSelector { protocol: 17, ports: PortRange { start: 1, end: 65_534 }, ..TrafficSelector::all(range) }
    };
    let refused =
        subject.apply(vec![Op::InstallPolicy(trap(30, NO, SelectorPair { local: side(1), remote: side(2) }))]);
    assert!(matches!(refused, Err(OffloadError::Unsupported { .. })), "{refused:?}");
    assert!(subject.memory.is_empty() && subject.host.books().routes.is_empty());
}

#[test]
fn policies_of_others_are_left_alone() {
    let mut subject = subject();
    let child = Child::new(&subject, 10, NO, networks());
    subject.apply(child.up()).unwrap();
    let ours = outbound(&subject)[0];
    subject.apply(child.remove()).unwrap();
    let theirs = Policy { priority: 5, index: 0, template: None, ..ours };
    subject.memory.clone().put_policy(&theirs, false).unwrap();
    let again = Child::new(&subject, 20, NO, networks());
    let refused = subject.apply(again.up());
    assert!(matches!(refused, Err(OffloadError::Exists(_))), "{refused:?}");
    assert!(subject.list().sas.is_empty() && subject.memory.counts().0 == 0);
    assert_eq!(outbound(&subject).iter().map(|policy| policy.priority).collect::<Vec<_>>(), [5]);
    subject.apply(vec![Op::Flush]).unwrap();
    assert_eq!(outbound(&subject).len(), 1);
}

#[test]
fn what_somebody_else_changes_or_removes_is_put_back() {
    let mut subject = subject();
    let child = Child::new(&subject, 10, NO, networks());
    subject.apply(child.up()).unwrap();
    let before = subject.memory.world().policies.clone();
    let ours = outbound(&subject)[0];
    let mut kernel = subject.memory.clone();
    kernel.delete_policy(&ours.key, ours.index).unwrap();
    subject.settle();
    assert_eq!(subject.told(&Event::Resync), 1);
    kernel.put_policy(&Policy { verdict: Verdict::Allow, template: None, ..ours }, true).unwrap();
    subject.settle();
    assert_eq!(subject.told(&Event::Resync), 2);
    let same = |one: &Policy, other: &Policy| Policy { index: 0, ..*one } == Policy { index: 0, ..*other };
    let after = subject.memory.world().policies.clone();
    assert!(after.len() == before.len() && after.values().zip(before.values()).all(|(one, other)| same(one, other)));
    assert!(matches!(subject.send(&packet()), Sent::Esp(..)));
    // A flush is one message.
    subject.memory.world().policies.clear();
    subject.memory.world().events.push_back(KernelEvent::PoliciesFlushed);
    subject.settle();
    assert_eq!(subject.memory.world().policies.len(), 3);
}

#[test]
fn a_policy_in_the_device_that_waits_hides_nothing_in_software() {
    let mut subject = subject();
    let wide = Child::new(&subject, 10, NO, networks());
    subject.apply(wide.up()).unwrap();
    let host = TrafficSelector::all(AddressRange::host([10, 2, 0, 1].into()));
    let narrow = Child::new(&subject, 20, PACKET, SelectorPair { remote: host, ..networks() });
    subject.apply(narrow.install()).unwrap();
    assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == wide.id()));
    subject.apply(narrow.activate()).unwrap();
    assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == narrow.id()));
}

#[test]
fn a_refusal_by_the_host_is_undone() {
    let mut subject = subject();
    let (kept, other) = (Child::new(&subject, 10, PACKET, networks()), Child::new(&subject, 20, PACKET, networks()));
    subject.apply(kept.up()).unwrap();
    let before = subject.held();
    subject.host.books().refused_route = Some(other.policies[2].handle);
    let mut ops = kept.remove();
    ops.extend(other.up());
    assert!(subject.apply(ops).is_err());
    assert_eq!(subject.held(), before);
    assert_eq!(subject.host.books().routes.len(), 1);
}

#[test]
fn bypass_and_discard_decide_without_any_sa() {
    let mut subject = subject();
    let shunt = |number, action, remote| PolicySpec {
        action,
        priority: 10,
        ..trap(number, PACKET, SelectorPair { remote, ..networks() })
    };
    let to = |n: u8| udp_v4([10, 1, 0, 1].into(), [10, n, 0, 1].into(), (1, 7), 30, false);
    subject
        .apply(vec![
            Op::InstallPolicy(shunt(1, PolicyAction::Bypass, network(3))),
            Op::InstallPolicy(shunt(2, PolicyAction::Discard, network(4))),
        ])
        .unwrap();
    assert_eq!((subject.send(&to(3)), subject.send(&to(4))), (Sent::Clear, Sent::Dropped));
    assert_eq!(subject.host.books().bypassed.len(), 1);
    subject.apply(vec![Op::Flush]).unwrap();
    assert!(subject.memory.world().policies.is_empty());
    assert!(subject.kernel.devices().get(ipsec::DeviceId(1)).is_some());
}

/// Nobody waits for an answer that does not come.
#[test]
fn a_panic_leaves_nobody_without_an_answer() {
    let mut subject = subject();
    subject.host.books().panics = true;
    let trap = Op::InstallPolicy(trap(1, NO, networks()));
    for _ in 0..2 {
        let outcome = subject.apply(vec![trap.clone()]);
        assert!(matches!(outcome, Err(OffloadError::Unavailable(_))), "{outcome:?}");
    }
    assert!(subject.kernel.leftovers().is_empty());
    subject.kernel.shut_down(ipsec::OnStop::Block);
}

/// Whichever change the kernel refuses, all is as before, and the request can be made again.
#[test]
fn a_refusal_of_any_change_is_undone() {
    for rung in [NO, PACKET] {
        let mut subject = subject();
        let elsewhere = SelectorPair { remote: network(3), ..networks() };
        let (old, gone) = (Child::new(&subject, 10, rung, networks()), Child::new(&subject, 20, rung, elsewhere));
        subject.apply([old.up(), gone.up()].concat()).unwrap();
        let new = Child::new(&subject, 30, rung, networks());
        let shunt = PolicySpec { action: PolicyAction::Bypass, ..trap(40, rung, elsewhere) };
        let third = SelectorPair { remote: network(4), ..networks() };
        let ops = [
            gone.remove(),
            new.install(),
            vec![Op::InstallPolicy(shunt), Op::InstallPolicy(trap(41, rung, third))],
            new.activate(),
            old.remove(),
        ]
        .concat();
        let states = |subject: &InMemory| subject.memory.world().states.keys().copied().collect::<Vec<_>>();
        let mut refusals = 0;
        loop {
            let before = (subject.held(), states(&subject), subject.host.books().routes.clone());
            subject.memory.world().fails_after = Some(refusals);
            let outcome = subject.apply(ops.clone());
            subject.memory.world().fails_after = None;
            if outcome.is_ok() {
                break;
            }
            let after = (subject.held(), states(&subject), subject.host.books().routes.clone());
            assert_eq!(before, after, "{rung:?}: refused after {refusals} changes");
            assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == old.id()));
            refusals += 1;
        }
        assert!(refusals >= 9, "{refusals} changes");
        assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == new.id()));
        assert_eq!(subject.list().sas.len(), 2);
    }
}

/// A kernel that stops to take notice of devices, as one that was updated under us never would; but what it does is undone all the same.
#[test]
fn a_policy_that_comes_back_without_its_device_is_put_back_as_it_was() {
    let mut subject = subject();
    let (old, new) = (Child::new(&subject, 10, PACKET, networks()), Child::new(&subject, 20, PACKET, networks()));
    subject.apply([old.up(), new.install()].concat()).unwrap();
    let before = outbound(&subject);
    subject.memory.world().ignoring_once = true;
    let refused = subject.apply(new.activate()).unwrap_err();
    assert!(refused.is_refusal(), "{refused}");
    assert_eq!(outbound(&subject), before);
    assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == old.id()));
    subject.apply(new.activate()).unwrap();
    assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == new.id()));
}

#[test]
fn a_guard_that_stood_before_stays_when_a_request_is_refused() {
    let mut subject = subject();
    let guard = |name: &str| GuardSpec { name: name.into(), selectors: networks() };
    subject.apply(vec![Op::InstallGuard(guard("one"))]).unwrap();
    let impossible = Op::UpdatePolicy(trap(99, NO, networks()));
    let ops = vec![Op::InstallGuard(guard("one")), Op::InstallGuard(guard("other")), impossible];
    subject.apply(ops).unwrap_err();
    assert!(subject.host.books().guards.contains(&guard("one")));
    assert!(!subject.host.books().guards.contains(&guard("other")));
}

/// A device that looks for the group itself takes none that leaves it open.
#[test]
fn in_a_device_each_group_has_an_inbound_policy_of_its_own() {
    let mut subject = subject();
    let children = [10, 20].map(|group| Child::new(&subject, group, PACKET, networks()));
    for child in &children {
        subject.apply(child.up()).unwrap();
    }
    let groups = |subject: &InMemory| {
        let world = subject.memory.world();
        let held = world.policies.values().filter(|policy| policy.key.way == Way::In && policy.device.is_some());
        held.filter_map(|policy| policy.template).map(|template| template.reqid.0).collect::<Vec<_>>()
    };
    assert_eq!(groups(&subject), [10, 20]);
    let [first, second] = children;
    subject.apply(first.remove()).unwrap();
    assert_eq!(groups(&subject), [20]);
    subject.apply(second.remove()).unwrap();
    assert!(subject.memory.is_empty());
}

/// Devices want an address, a protocol or a template.
#[test]
fn in_a_device_everything_is_closed_by_a_template_of_no_sa() {
    let everything = TrafficSelector::all(AddressRange::ANY_V4);
    let pair = SelectorPair { local: everything, remote: everything };
    for rung in [NO, PACKET] {
        let mut subject = subject();
        let child = Child::new(&subject, 10, rung, pair);
        subject.apply(child.install()).unwrap();
        let [policy] = outbound(&subject)[..] else { panic!("{:?}", outbound(&subject)) };
        assert_eq!(policy.template.is_some(), rung == PACKET, "{policy:?}");
        assert!(!matches!(subject.send(&packet()), Sent::Esp(..) | Sent::Clear), "{rung:?}");
        subject.apply(child.activate()).unwrap();
        assert!(matches!(subject.send(&packet()), Sent::Esp(..)), "{rung:?}");
    }
}
