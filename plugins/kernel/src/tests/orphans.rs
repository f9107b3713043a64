//! What a run that was killed leaves to the next.

use std::time::Duration;

use ipsec::{OffloadBackend, OffloadMode, OnStop, Op, PolicyAction, PolicySpec, SelectorPair};

use super::child::{Child, networks, packet, trap};
use super::memory::{Memory, Sent};
use super::subject::{InMemory, able};
use crate::xfrm::Xfrm;

const SECOND: Duration = Duration::from_secs(1);

fn spis(memory: &Memory) -> Vec<u32> {
    memory.clone().states().unwrap().iter().map(|state| state.id.spi.get()).collect()
}

#[test]
fn what_a_crash_leaves_carries_on_until_it_is_replaced_without_a_gap() {
    for (number, rung) in [OffloadMode::No, OffloadMode::Packet].into_iter().enumerate() {
        let path = super::scratch(&format!("orphans-{number}")).join("kernel.journal");
        let memory = Memory::default();
        memory.world().drivers.extend([(super::subject::LINK, able())]);
        let mut killed = InMemory::on(memory, Some(path.clone()));
        let old = Child::new(&killed, 10, rung, networks());
        killed.apply(old.up()).unwrap();
        let memory = killed.kill();
        let mut subject = InMemory::on(memory, Some(path));
        subject.memory.world().gaps.clear();
        assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == old.id()), "it carries on");
        assert!(subject.list().sas.is_empty(), "it is not of this run");
        let new = Child::new(&subject, 20, rung, networks());
        subject.apply(new.install()).unwrap();
        assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == old.id()), "nothing is activated yet");
        let back = ipsec::conformance::udp_v4([10, 2, 0, 1].into(), [10, 1, 0, 1].into(), (7, 1), 30, false);
        let hear = |subject: &InMemory, child: &Child| {
            let outer = child.inbound.outer;
            let mut world = subject.memory.world();
            let number = world.states.get(&child.inbound_id()).map_or(0, |held| held.state.received_sequence + 1);
            world.receive((outer.remote, outer.local), child.inbound.spi.get(), number, &back).is_some()
        };
        assert!(hear(&subject, &old) && hear(&subject, &new), "{rung:?}: both are heard");
        subject.apply(new.activate()).unwrap();
        assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == new.id()), "{rung:?}");
        assert!(hear(&subject, &old), "{rung:?}: what is on its way still comes in");
        subject.wait(31 * SECOND, SECOND);
        assert!(!hear(&subject, &old) && hear(&subject, &new));
        let anchors = usize::from(rung == OffloadMode::Packet);
        assert_eq!(spis(&subject.memory).len(), 2 + anchors, "{rung:?}: the old ones are gone");
        assert_eq!(subject.memory.world().gaps, []);
        assert!(subject.kernel.leftovers().is_empty(), "{:?}", subject.kernel.leftovers());
        let template =
            subject.memory.world().policies.values().find_map(|policy| policy.template.filter(|t| t.spi.is_none()));
        assert_eq!(template.map(|template| template.reqid.0), Some(20), "{rung:?}: the group is named again");
    }
}

#[test]
fn a_trap_asks_at_once_for_what_the_peer_may_have_forgotten() {
    let path = super::scratch("orphans-trap").join("kernel.journal");
    let mut killed = InMemory::on(Memory::default(), Some(path.clone()));
    let old = Child::new(&killed, 10, OffloadMode::No, networks());
    killed.apply(old.up()).unwrap();
    let mut subject = InMemory::on(killed.kill(), Some(path));
    subject.apply(vec![Op::InstallPolicy(trap(5, OffloadMode::No, networks()))]).unwrap();
    assert_eq!(subject.send(&packet()), Sent::Waits);
    assert_eq!(subject.events().len(), 1, "{:?}", subject.events());
}

#[test]
fn what_nobody_replaces_ends_at_its_limit_or_by_order() {
    let path = super::scratch("orphans-unclaimed").join("kernel.journal");
    let mut killed = InMemory::on(Memory::default(), Some(path.clone()));
    let mut ending = Child::new(&killed, 10, OffloadMode::No, networks());
    for sa in [&mut ending.inbound, &mut ending.outbound] {
        sa.limits.hard.time = Some(100 * SECOND);
    }
    let elsewhere = SelectorPair { remote: super::child::network(3), ..networks() };
    let lasting = Child::new(&killed, 20, OffloadMode::No, elsewhere);
    let shunt = PolicySpec { action: PolicyAction::Bypass, ..trap(30, OffloadMode::No, elsewhere) };
    let third = SelectorPair { remote: super::child::network(4), ..networks() };
    let bypass = PolicySpec { selectors: third, ..shunt };
    killed.apply([ending.up(), lasting.up(), vec![Op::InstallPolicy(bypass)]].concat()).unwrap();
    let mut subject = InMemory::on(killed.kill(), Some(path));
    // A bypass may not be configured any more.
    assert_eq!(subject.memory.world().policies.len(), 6);
    assert_eq!(subject.kernel.leftovers().len(), 6 + 4);
    subject.wait(115 * SECOND, SECOND);
    assert_eq!(subject.memory.counts(), (2, 3));
    subject.kernel.drop_leftovers().unwrap();
    assert!(subject.memory.is_empty());
}

#[test]
fn a_stop_takes_everything_along_and_leaves_no_journal() {
    let path = super::scratch("orphans-stop").join("kernel.journal");
    let mut subject = InMemory::on(Memory::default(), Some(path.clone()));
    let child = Child::new(&subject, 10, OffloadMode::No, networks());
    subject.apply(child.up()).unwrap();
    assert!(path.exists());
    subject.kernel.shut_down(OnStop::Open);
    assert_eq!(subject.host.books().stopped, Some(OnStop::Open));
    assert!(subject.memory.is_empty() && !path.exists());
}

/// What is refused halfway leaves an earlier run's traffic as it was.
#[test]
fn a_refused_request_gives_back_what_it_took_from_an_earlier_run() {
    let path = super::scratch("orphans-refused").join("kernel.journal");
    let mut killed = InMemory::on(Memory::default(), Some(path.clone()));
    let old = Child::new(&killed, 10, OffloadMode::No, networks());
    let elsewhere = SelectorPair { remote: super::child::network(3), ..networks() };
    let discard = PolicySpec { action: PolicyAction::Discard, ..trap(30, OffloadMode::No, elsewhere) };
    killed.apply([old.up(), vec![Op::InstallPolicy(discard.clone())]].concat()).unwrap();
    let mut subject = InMemory::on(killed.kill(), Some(path));
    let left = subject.kernel.leftovers();
    let policies = subject.held().0;
    let new = Child::new(&subject, 20, OffloadMode::No, networks());
    let nothing = Op::UpdatePolicy(PolicySpec { selectors: elsewhere, ..trap(99, OffloadMode::No, networks()) });
    subject.apply([new.up(), vec![Op::InstallPolicy(discard.clone()), nothing]].concat()).unwrap_err();
    // Refused by the kernel too, when some of it stands.
    subject.host.books().refused_route = Some(discard.handle);
    subject.apply([new.up(), vec![Op::InstallPolicy(discard.clone())]].concat()).unwrap_err();
    assert_eq!((subject.kernel.leftovers(), subject.held().0), (left, policies));
    assert!(matches!(subject.send(&packet()), Sent::Esp(id, _) if id == old.id()));
    subject.host.books().refused_route = None;
    subject.apply(vec![Op::InstallPolicy(discard)]).unwrap();
    assert_eq!(subject.kernel.leftovers().len(), 3 + 2, "{:?}", subject.kernel.leftovers());
}
