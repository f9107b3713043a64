//! Rules about which packet goes where.

use std::time::Duration;

use super::packets::{ping, pings};
use super::setup::{Bench, HairPin, SHARD, network, networks, protect, put_on};
use super::{Kept, Verdict, ensure};
use crate::backend::{Event, Op, Request};
use crate::handle::{PolicyHandle, Reqid};
use crate::policy::PolicyAction;
use crate::sa::SaMode;
use crate::selector::SelectorPair;

pub(super) fn an_outbound_sa_carries_nothing_before_activation(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.separate_activation)?;
    let pin = bench.hair_pin(networks())?;
    bench.apply(vec![Op::InstallSa(Box::new(pin.outbound.clone())), Op::InstallPolicy(pin.policy.clone())])?;
    let sent = bench.send(&pings(3))?.len();
    ensure(sent == 0, || format!("{sent} packets left on an SA that is only reserved"))?;
    bench.apply(vec![pin.activate()])?;
    let sent = bench.send(&pings(3))?.len();
    ensure(sent == 3, || format!("{sent} of 3 packets left after activation"))?;
    let status = bench.status(pin.outbound.handle)?;
    ensure((status.packets, status.sequence) == (3, 3), || format!("counters say {status:?}"))
}

pub(super) fn activation_switches_at_once_and_loses_nothing(bench: &mut Bench<'_>) -> Kept {
    let old = bench.connected()?;
    let new = bench.hair_pin(networks())?;
    bench.apply(vec![Op::InstallSa(Box::new(new.inbound.clone())), Op::InstallSa(Box::new(new.outbound.clone()))])?;
    let mut sent = bench.send(&pings(2))?;
    bench.apply(vec![Op::Activate { policy: old.policy.handle, sa: new.outbound.handle }])?;
    sent.extend(bench.send(&pings(2))?);
    let spis: Vec<_> = sent.iter().filter_map(super::OuterPacket::spi).collect();
    let expected = [old.outbound.spi.get(), old.outbound.spi.get(), new.outbound.spi.get(), new.outbound.spi.get()];
    ensure(spis == expected, || format!("packets left with {spis:x?}, not {expected:x?}"))?;
    let delivered = bench.receive(&sent)?.len();
    ensure(delivered == 4, || format!("{delivered} of 4 packets arrived across the switch"))
}

pub(super) fn a_missing_sa_drops_and_never_sends_in_clear(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.all_policy_kinds)?;
    let pin = bench.connected()?;
    // A wider entry behind it must not catch what the protecting one cannot carry.
    let bypass = bench.policy(networks(), 5000, PolicyAction::Bypass);
    bench.apply(vec![Op::InstallPolicy(bypass), Op::RemoveSa(pin.outbound.handle)])?;
    let sent = bench.send(&pings(3))?.len();
    ensure(sent == 0, || format!("{sent} packets left without an SA"))
}

pub(super) fn no_matching_entry_drops_and_never_sends_in_clear(bench: &mut Bench<'_>) -> Kept {
    // The host's own stack is more than a datapath for IPsec: what no policy is about passes there.
    let of_its_own = !bench.subject().is_the_host();
    bench.needs(|_| of_its_own)?;
    bench.connected()?;
    let stranger = ping("10.1.0.1", "172.16.0.1", 1);
    let sent = bench.send(&[stranger])?.len();
    ensure(sent == 0, || "a packet that matches no entry left".into())?;
    let told = bench.told_drops("no-policy");
    ensure(told == 1, || format!("{told} drop events"))
}

pub(super) fn the_lower_priority_number_wins(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.all_policy_kinds)?;
    bench.connected()?;
    let one = SelectorPair { remote: super::destination("10.2.0.9"), ..networks() };
    let discard = bench.policy(one, 999, PolicyAction::Discard);
    let behind = bench.policy(networks(), 1001, PolicyAction::Discard);
    bench.apply(vec![Op::InstallPolicy(discard), Op::InstallPolicy(behind)])?;
    let sent = bench.send(&[ping("10.1.0.1", "10.2.0.9", 1), ping("10.1.0.1", "10.2.0.8", 2)])?.len();
    ensure(sent == 1, || format!("{sent} packets left, one should have"))
}

pub(super) fn of_equal_selectors_the_last_activated_owns_and_the_next_takes_over(bench: &mut Bench<'_>) -> Kept {
    let (first, second) = (bench.connected()?, bench.connected()?);
    let expect = |bench: &mut Bench<'_>, spi: u32, when: &str| {
        let sent = bench.send(&pings(2))?;
        ensure(sent.len() == 2 && sent.iter().all(|packet| packet.spi() == Some(spi)), || {
            format!(
                "{when}: packets left as {:x?}, not {spi:x}",
                sent.iter().map(super::OuterPacket::spi).collect::<Vec<_>>()
            )
        })
    };
    expect(bench, second.outbound.spi.get(), "after two installs")?;
    bench.apply(vec![first.activate()])?;
    expect(bench, first.outbound.spi.get(), "after the first was activated again")?;
    bench.apply(vec![Op::RemovePolicy(first.policy.handle), Op::RemoveSa(first.outbound.handle)])?;
    expect(bench, second.outbound.spi.get(), "after the owner was removed")
}

/// A policy whose SA is reserved and not active yet, as a responder has it, must not stop what still goes over the old one. That may be on another rung:
/// a rekey goes up the ladder, or down.
pub(super) fn a_reserved_policy_hides_no_live_one(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.separate_activation)?;
    let rungs = bench.device().rungs.clone();
    for rung in &rungs {
        let mut live = bench.hair_pin(networks())?;
        put_on(rung, &mut live.outbound);
        put_on(rung, &mut live.inbound);
        live.policy.offload = rung.mode.mode;
        bench.apply(live.everything())?;
        let next = bench.hair_pin(networks())?;
        let mut ops = next.everything();
        let activate = ops.pop();
        let expect = |bench: &mut Bench<'_>, pin: &HairPin, when: &str| {
            let sent = bench.send(&pings(2))?;
            let spis: Vec<_> = sent.iter().filter_map(super::OuterPacket::spi).collect();
            ensure(spis == [pin.outbound.spi.get(); 2], || {
                format!("{when}, over {:?}: packets left as {spis:x?}", rung.mode)
            })
        };
        bench.apply(ops)?;
        expect(bench, &live, "with a policy reserved beside")?;
        bench.apply(activate.into_iter().collect())?;
        bench.apply(vec![Op::RemovePolicy(live.policy.handle), Op::RemoveSa(live.outbound.handle)])?;
        expect(bench, &next, "after the switch")?;
        bench.apply(vec![Op::Flush])?;
    }
    Ok(())
}

pub(super) fn a_trap_asks_once_and_delivers_what_it_held(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.all_policy_kinds)?;
    let trap = bench.policy(networks(), 2000, PolicyAction::Trap { reqid: Reqid(7), mode: SaMode::Tunnel });
    let handle = trap.handle;
    bench.apply(vec![Op::InstallPolicy(trap)])?;
    let sent = bench.send(&pings(5))?.len();
    ensure(sent == 0, || format!("{sent} packets left a trap"))?;
    let asked = bench.told(|event| matches!(event, Event::Acquire { policy, .. } if *policy == handle));
    ensure(asked == 1, || format!("{asked} acquires for 5 packets"))?;
    let pin = bench.connected()?;
    let held = bench.wire()?.captured_outer();
    ensure(held.len() == 5, || format!("{} of 5 held packets left once the SA stood", held.len()))?;
    let delivered = bench.receive(&held)?;
    ensure(delivered == pings(5), || "held packets were changed or reordered".into())?;
    ensure(bench.status(pin.outbound.handle)?.packets == 5, || "held packets were not counted".into())
}

pub(super) fn a_trap_asks_again_when_it_is_touched_or_the_acquire_aged(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.all_policy_kinds)?;
    let trap = bench.policy(networks(), 2000, PolicyAction::Trap { reqid: Reqid(7), mode: SaMode::Tunnel });
    let asked = |bench: &Bench<'_>| bench.told(|event| matches!(event, Event::Acquire { .. }));
    bench.apply(vec![Op::InstallPolicy(trap.clone())])?;
    bench.send(&pings(2))?;
    bench.apply(vec![Op::UpdatePolicy(trap)])?;
    bench.send(&pings(2))?;
    ensure(asked(bench) == 2, || format!("{} acquires after the trap was touched, not 2", asked(bench)))?;
    bench.pass_time(Duration::from_secs(600))?;
    // In a host what is held asks again for as long as it is held, each time when the last acquire has aged.
    let before = asked(bench);
    let most = if bench.subject().is_the_host() { 6 } else { 2 };
    ensure((2..=most).contains(&before), || format!("{before} acquires although nothing was sent since the second"))?;
    bench.send(&pings(2))?;
    let after = asked(bench);
    ensure(after == before + 1, || format!("{after} acquires after the last of {before} aged"))
}

pub(super) fn a_refused_request_leaves_the_traffic_alone(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    bench.wire()?;
    let other = bench.hair_pin(networks())?;
    let outcome = bench.ask(Request::Apply(vec![
        Op::RemovePolicy(pin.policy.handle),
        Op::RemoveSa(pin.inbound.handle),
        Op::InstallSa(Box::new(other.outbound.clone())),
        Op::InstallPolicy(other.policy.clone()),
        other.activate(),
        Op::UpdatePolicy(crate::policy::PolicySpec { handle: PolicyHandle::new(SHARD, 995), ..other.policy }),
    ]))?;
    ensure(outcome.is_err(), || "updating a policy that does not exist was accepted".into())?;
    let sent = bench.send(&pings(2))?;
    ensure(sent.len() == 2 && sent.iter().all(|packet| packet.spi() == Some(pin.outbound.spi.get())), || {
        "a refused request changed which SA is used".into()
    })?;
    let delivered = bench.receive(&sent)?.len();
    ensure(delivered == 2, || "a refused request removed the inbound SA".into())
}

pub(super) fn a_flush_ends_all_traffic(bench: &mut Bench<'_>) -> Kept {
    bench.connected()?;
    let elsewhere = SelectorPair { local: network(1), remote: network(3) };
    let other = bench.policy(elsewhere, 1000, protect());
    bench.apply(vec![Op::InstallPolicy(other)])?;
    let before = bench.send(&pings(2))?;
    bench.apply(vec![Op::Flush])?;
    ensure(bench.installed()?.is_empty(), || "SAs are left after a flush".into())?;
    let (sent, delivered) = (bench.send(&pings(2))?.len(), bench.receive(&before)?.len());
    ensure((sent, delivered) == (0, 0), || format!("after a flush {sent} packets left and {delivered} arrived"))?;
    match bench.connected() {
        Ok(_) => Ok(()),
        Err(Verdict::Broken(why)) => Err(Verdict::Broken(format!("after a flush nothing can be installed: {why}"))),
        Err(Verdict::CannotShow) => Err(Verdict::CannotShow),
        Err(Verdict::NotClaimed) => Err(Verdict::NotClaimed),
    }
}

pub(super) fn an_acquire_tells_its_packet(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.all_policy_kinds)?;
    let trap = bench.policy(networks(), 2000, PolicyAction::Trap { reqid: Reqid(7), mode: SaMode::Tunnel });
    let policy = trap.handle;
    bench.apply(vec![Op::InstallPolicy(trap)])?;
    bench.send(&[ping("10.1.0.5", "10.2.0.6", 77)])?;
    let [source, destination] = [[10, 1, 0, 5], [10, 2, 0, 6]].map(std::net::IpAddr::from);
    let packet = crate::selector::PacketSelectors { source, destination, protocol: 17, ports: Some((77, 7)) };
    let told = bench.told(|event| *event == Event::Acquire { policy, packet });
    ensure(told == 1, || format!("events {:?}", bench.log().events()))
}

/// Ten thousand packets of as many flows: the core hears of each policy once.
pub(super) fn a_storm_is_one_acquire_for_each_policy(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.all_policy_kinds)?;
    let kind = PolicyAction::Trap { reqid: Reqid(7), mode: SaMode::Tunnel };
    let elsewhere = SelectorPair { local: network(1), remote: network(3) };
    let traps = [bench.policy(networks(), 2000, kind.clone()), bench.policy(elsewhere, 2000, kind)];
    bench.apply(traps.iter().cloned().map(Op::InstallPolicy).collect())?;
    for round in 0..50 {
        let flow = |number: u16| {
            ping("10.1.0.1", if number.is_multiple_of(2) { "10.2.0.1" } else { "10.3.0.1" }, round * 200 + number)
        };
        let sent = bench.send(&(0..200).map(flow).collect::<Vec<_>>())?.len();
        ensure(sent == 0, || format!("{sent} packets left a trap"))?;
    }
    for trap in &traps {
        let asked = bench.told(|event| matches!(event, Event::Acquire { policy, .. } if *policy == trap.handle));
        ensure(asked == 1, || format!("5000 packets raised {asked} acquires of one policy"))?;
    }
    let all = bench.told(|event| matches!(event, Event::Acquire { .. }));
    ensure(all == 2, || format!("two policies raised {all} acquires"))?;
    // What is held is bounded too.
    bench.connected()?;
    let held = bench.wire()?.captured_outer().len();
    ensure((1..=1_000).contains(&held), || format!("{held} of 5000 packets were held"))
}

/// A reason for drops is told when its counter leaves zero, not for each packet.
pub(super) fn a_drop_is_told_once_for_each_reason(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.all_policy_kinds)?;
    let discard = bench.policy(networks(), 10, PolicyAction::Discard);
    bench.apply(vec![Op::InstallPolicy(discard)])?;
    for _ in 0..3 {
        bench.send_strange(&[pings(2), vec![ping("10.9.0.1", "10.9.0.2", 1); 2]].concat())?;
    }
    let reasons: &[&str] = if bench.subject().is_the_host() { &["discard"] } else { &["discard", "no-policy"] };
    for wanted in reasons {
        let told = bench.told_drops(wanted);
        ensure(told == 1, || format!("drops by {wanted} were told {told} times"))?;
    }
    Ok(())
}
