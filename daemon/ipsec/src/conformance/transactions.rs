//! Rules about requests as a whole: all or nothing, in order.

use super::packets::pings;
use super::setup::{Bench, HairPin, SHARD, networks};
use super::{Kept, Verdict, ensure};
use crate::backend::{Installed, OffloadError, Op, Request, Scope};
use crate::handle::PolicyHandle;
use crate::policy::{GuardSpec, PolicyAction, PolicySpec};
use crate::sa::{Direction, OuterAddresses};
use crate::selector::SelectorPair;

/// An operation that every backend refuses.
fn impossible(pin: &HairPin) -> Op {
    Op::UpdatePolicy(PolicySpec { handle: PolicyHandle::new(SHARD, 995), ..pin.policy.clone() })
}

/// Everything a rekey does, and a little more, on top of `old`.
fn everything_at_once(bench: &Bench<'_>, old: &HairPin, new: &HairPin) -> Vec<Op> {
    let mut ops = vec![Op::InstallGuard(GuardSpec { name: "conformance/child".into(), selectors: networks() })];
    ops.extend(new.everything());
    if bench.claims().in_place_move {
        let outer = OuterAddresses { remote: super::setup::ELSEWHERE, ..new.outbound.outer };
        ops.push(Op::UpdateSa { sa: new.outbound.handle, outer, encapsulation: None });
        ops.push(Op::UpdateSa { sa: old.outbound.handle, outer, encapsulation: None });
    }
    ops.push(Op::Activate { policy: old.policy.handle, sa: new.outbound.handle });
    ops.push(Op::UpdatePolicy(PolicySpec { priority: 2000, ..old.policy.clone() }));
    ops.extend([
        Op::RemovePolicy(old.policy.handle),
        Op::RemoveSa(old.outbound.handle),
        Op::RemoveSa(old.inbound.handle),
    ]);
    ops
}

/// A list without what goes on by itself.
fn lasting(mut list: Installed) -> Installed {
    list.sas.iter_mut().for_each(|sa| sa.idle_seconds = None);
    list
}

pub(super) fn a_refusal_at_any_step_is_undone(bench: &mut Bench<'_>) -> Kept {
    let old = bench.connected()?;
    let new = bench.hair_pin(networks())?;
    let ops = everything_at_once(bench, &old, &new);
    // The last step first: what an earlier attempt left behind would hide what a later one does.
    for refused_at in (0..=ops.len()).rev() {
        let before = lasting(bench.list(Scope::All)?);
        let mut broken = ops.clone();
        broken.insert(refused_at, impossible(&new));
        let outcome = bench.ask(Request::Apply(broken))?;
        ensure(outcome.is_err(), || format!("a request that cannot be done was answered with {outcome:?}"))?;
        let after = lasting(bench.list(Scope::All)?);
        ensure(before == after, || format!("refused at step {refused_at}, {before:?} became {after:?}"))?;
    }
    bench.apply(ops).map(drop)
}

pub(super) fn a_refusal_at_any_step_leaves_the_traffic_alone(bench: &mut Bench<'_>) -> Kept {
    let old = bench.connected()?;
    let new = bench.hair_pin(networks())?;
    let ops = everything_at_once(bench, &old, &new);
    // The last step first: what an earlier attempt left behind would hide what a later one does.
    for refused_at in (0..=ops.len()).rev() {
        let mut broken = ops.clone();
        broken.insert(refused_at, impossible(&new));
        bench.ask(Request::Apply(broken))?.err();
        let sent = bench.send(&pings(2))?;
        let as_before = |packet: &super::OuterPacket| {
            packet.spi() == Some(old.outbound.spi.get()) && packet.destination.ip() == old.outbound.outer.remote
        };
        ensure(sent.len() == 2 && sent.iter().all(as_before), || {
            format!("refused at step {refused_at}, packets left as {sent:x?}")
        })?;
        let delivered = bench.receive(&sent)?.len();
        ensure(delivered == 2, || format!("refused at step {refused_at}, {delivered} of 2 packets arrived"))?;
    }
    Ok(())
}

pub(super) fn a_refusal_by_the_device_is_told_and_undone(bench: &mut Bench<'_>) -> Kept {
    bench.connected()?;
    let before = bench.list(Scope::All)?;
    let pin = bench.hair_pin(networks())?;
    let can = bench.subject().refuse_install();
    bench.power(can)?;
    let outcome = bench.ask(Request::Apply(pin.everything()))?;
    ensure(outcome.is_err(), || "what the device refused was said to stand".into())?;
    let after = bench.list(Scope::All)?;
    ensure(before == after, || format!("refused by the device, {before:?} became {after:?}"))?;
    bench.apply(pin.everything()).map(drop)
}

pub(super) fn operations_take_effect_in_order(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.hair_pin(networks())?;
    let (outbound, policy) = (Op::InstallSa(Box::new(pin.outbound.clone())), Op::InstallPolicy(pin.policy.clone()));
    for ops in
        [vec![pin.activate(), outbound.clone(), policy.clone()], vec![outbound.clone(), pin.activate(), policy.clone()]]
    {
        let outcome = bench.ask(Request::Apply(ops))?;
        ensure(matches!(outcome, Err(OffloadError::Missing(_))), || {
            format!("activation before what it needs was answered with {outcome:?}")
        })?;
    }
    bench.apply(vec![outbound.clone(), policy, pin.activate()])?;
    // What is removed first can be installed again in the same request.
    bench.apply(vec![Op::RemoveSa(pin.outbound.handle), outbound, pin.activate()])?;
    let active = bench.list(Scope::All)?.policies.first().and_then(|policy| policy.sa);
    ensure(active == Some(pin.outbound.handle), || format!("the policy uses {active:?}"))
}

pub(super) fn activation_needs_an_outbound_sa_and_a_protecting_policy(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let missing = crate::handle::SaHandle::new(SHARD, 994);
    for sa in [pin.inbound.handle, missing] {
        let outcome = bench.ask(Request::Apply(vec![Op::Activate { policy: pin.policy.handle, sa }]))?;
        ensure(matches!(outcome, Err(OffloadError::Missing(_) | OffloadError::Invalid(_))), || {
            format!("activation of what is no outbound SA was answered with {outcome:?}")
        })?;
    }
    let mut other =
        vec![PolicySpec { direction: Direction::Inbound, ..bench.policy(networks(), 900, pin.policy.action.clone()) }];
    if bench.claims().all_policy_kinds {
        other.push(bench.policy(networks(), 5000, PolicyAction::Discard));
    }
    for policy in other {
        let activate = Op::Activate { policy: policy.handle, sa: pin.outbound.handle };
        let outcome = bench.ask(Request::Apply(vec![Op::InstallPolicy(policy), activate]))?;
        ensure(matches!(outcome, Err(OffloadError::Missing(_) | OffloadError::Invalid(_))), || {
            format!("activation of what protects nothing that is sent was answered with {outcome:?}")
        })?;
    }
    Ok(())
}

pub(super) fn a_refused_move_changes_nothing(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.in_place_move)?;
    let pin = bench.connected()?;
    bench.send(&pings(3))?;
    let outer = OuterAddresses { remote: super::setup::ELSEWHERE, ..pin.outbound.outer };
    let moved = Op::UpdateSa { sa: pin.outbound.handle, outer, encapsulation: None };
    let mixed = OuterAddresses { remote: std::net::Ipv6Addr::LOCALHOST.into(), ..outer };
    let mixed = Op::UpdateSa { sa: pin.outbound.handle, outer: mixed, encapsulation: None };
    let before = bench.status(pin.outbound.handle)?;
    for ops in [vec![moved, impossible(&pin)], vec![mixed]] {
        let outcome = bench.ask(Request::Apply(ops))?;
        ensure(outcome.is_err(), || format!("an impossible move was answered with {outcome:?}"))?;
    }
    let after = bench.status(pin.outbound.handle)?;
    ensure(before == after, || format!("a refused move changed {before:?} to {after:?}"))?;
    let sent = bench.send(&pings(1))?;
    let to: Vec<_> = sent.iter().map(|packet| packet.destination.ip()).collect();
    ensure(to == [pin.outbound.outer.remote], || format!("after a refused move packets go to {to:?}"))
}

pub(super) fn an_updated_policy_takes_effect_at_once(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let elsewhere = SelectorPair { remote: super::setup::network(3), ..networks() };
    let mut policy = pin.policy.clone();
    if let PolicyAction::Protect { sa, .. } = &mut policy.action {
        *sa = Some(pin.outbound.handle);
    }
    let narrowed = PolicySpec { selectors: elsewhere, ..policy.clone() };
    for (policy, expected) in [(narrowed, 0), (policy, 2)] {
        bench.apply(vec![Op::UpdatePolicy(policy)])?;
        let sent = bench.send(&pings(2))?.len();
        ensure(sent == expected, || format!("{sent} of 2 packets left after the update, {expected} should have"))?;
    }
    if !bench.claims().all_policy_kinds {
        return Ok(());
    }
    bench.apply(vec![Op::UpdatePolicy(PolicySpec { action: PolicyAction::Discard, ..pin.policy.clone() })])?;
    let sent = bench.send(&pings(2))?.len();
    ensure(sent == 0, || format!("{sent} packets left although they are to be discarded"))
}

pub(super) fn two_inbound_sas_of_one_spi_are_refused(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let mut twin = bench.hair_pin(networks())?;
    twin.inbound.spi = pin.inbound.spi;
    twin.outbound.spi = pin.outbound.spi;
    for sa in [twin.inbound, twin.outbound] {
        match bench.ask(Request::Apply(vec![Op::InstallSa(Box::new(sa))]))? {
            Err(OffloadError::Exists(_)) => {}
            other => return Err(Verdict::Broken(format!("a second SA of one SPI was answered with {other:?}"))),
        }
    }
    Ok(())
}
