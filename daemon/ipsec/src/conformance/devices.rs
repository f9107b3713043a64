//! Rules about devices: what belongs together, and what happens when one goes.

use std::collections::BTreeSet;

use super::packets::pings;
use super::setup::{Bench, networks, put_on};
use super::{Kept, Verdict, ensure};
use crate::backend::{Event, OffloadError, Op, Request, Scope};
use crate::capability::{DeviceState, Rung};
use crate::handle::DeviceId;
use crate::policy::PolicyAction;
use crate::sa::OffloadMode;

pub(super) fn devices_are_described_rung_by_rung(bench: &mut Bench<'_>) -> Kept {
    let table = bench.subject().backend().devices();
    let ids: BTreeSet<DeviceId> = table.devices.iter().map(|device| device.id).collect();
    ensure(ids.len() == table.devices.len(), || "two devices have one number".into())?;
    for device in &table.devices {
        let modes: Vec<OffloadMode> = device.rungs.iter().map(|rung| rung.mode.mode).collect();
        let best_first = [OffloadMode::Packet, OffloadMode::Crypto, OffloadMode::No];
        let sorted: Vec<OffloadMode> = best_first.into_iter().filter(|mode| modes.contains(mode)).collect();
        ensure(!modes.is_empty() && modes == sorted, || format!("{} offers {modes:?}", device.name))?;
        for rung in &device.rungs {
            let offloaded = rung.mode.mode != OffloadMode::No;
            let empty = rung.capabilities.algorithms.is_empty();
            ensure(rung.mode.device.is_some() == offloaded && !empty, || format!("{} offers {rung:?}", device.name))?;
        }
    }
    let found = bench.subject().backend().device_for(super::setup::LOCAL, super::setup::REMOTE);
    ensure(found.is_none_or(|device| ids.contains(&device)), || format!("{found:?} is not among the devices"))
}

pub(super) fn an_unknown_device_is_refused(bench: &mut Bench<'_>) -> Kept {
    let mut pin = bench.hair_pin(networks())?;
    let nowhere = DeviceId(999);
    (pin.inbound.device, pin.policy.device) = (nowhere, nowhere);
    for op in [Op::InstallSa(Box::new(pin.inbound)), Op::InstallPolicy(pin.policy)] {
        let outcome = bench.ask(Request::Apply(vec![op]))?;
        ensure(matches!(outcome, Err(OffloadError::Missing(_))), || {
            format!("a device that is not there: {outcome:?}")
        })?;
    }
    ensure(bench.installed()?.is_empty(), || "something stands on a device that is not there".into())
}

/// Makes a policy use an SA that lies elsewhere; it is refused, or finds no SA.
fn apart(bench: &mut Bench<'_>, device: DeviceId, rung: &Rung) -> Kept {
    let mut pin = bench.hair_pin(networks())?;
    for sa in [&mut pin.outbound, &mut pin.inbound] {
        sa.device = device;
        put_on(rung, sa);
    }
    let mut ops = pin.everything();
    let activate = ops.pop();
    bench.apply(ops)?;
    if bench.ask(Request::Apply(activate.into_iter().collect()))?.is_err() {
        return Ok(());
    }
    let sent = bench.send(&pings(2))?.len();
    ensure(sent == 0, || format!("{sent} packets left with an SA of another table than the policy's"))
}

pub(super) fn a_policy_uses_no_sa_of_another_device(bench: &mut Bench<'_>) -> Kept {
    let mode = bench.mode();
    let table = bench.subject().backend().devices();
    let other = table.devices.iter().find(|device| device.id != bench.device().id && device.rung(mode).is_some());
    // Software has no tables of its own for each device.
    let other = other.filter(|_| mode == OffloadMode::Packet).ok_or(Verdict::NotClaimed)?;
    let Some(rung) = other.rung(mode) else { return Err(Verdict::NotClaimed) };
    apart(bench, other.id, rung)
}

pub(super) fn a_policy_uses_no_sa_of_another_rung(bench: &mut Bench<'_>) -> Kept {
    let device = bench.device().clone();
    let in_nic = |mode| mode == OffloadMode::Packet;
    let apart_from = |rung: &&Rung| in_nic(rung.mode.mode) != in_nic(bench.mode());
    let other = device.rungs.iter().find(apart_from).ok_or(Verdict::NotClaimed)?;
    apart(bench, device.id, other)
}

/// A hit in the device ends the search, whatever software says.
pub(super) fn an_offloaded_policy_is_looked_up_first(bench: &mut Bench<'_>) -> Kept {
    let software = bench.device().rung(OffloadMode::No).is_some_and(|rung| rung.capabilities.all_policy_kinds);
    if bench.mode() != OffloadMode::Packet || !software {
        return Err(Verdict::NotClaimed);
    }
    bench.connected()?;
    let mut discard = bench.policy(networks(), 1, PolicyAction::Discard);
    discard.offload = OffloadMode::No;
    bench.apply(vec![Op::InstallPolicy(discard)])?;
    let sent = bench.send(&pings(2))?.len();
    ensure(sent == 2, || format!("{sent} of 2 packets left although a policy in the device protects them"))
}

/// What is carried in software is not lost with a link.
fn in_a_device(bench: &Bench<'_>) -> Kept {
    let offloaded = bench.mode() != OffloadMode::No;
    bench.needs(|_| offloaded)
}

pub(super) fn a_device_that_goes_down_is_told_and_carries_nothing(bench: &mut Bench<'_>) -> Kept {
    in_a_device(bench)?;
    let pin = bench.connected()?;
    let before = bench.send(&pings(2))?;
    let device = bench.pull()?;
    let told = bench.told(|event| *event == Event::DeviceDown(device));
    ensure(told == 1, || format!("that the device went down was told {told} times"))?;
    let state = bench.subject().backend().devices().get(device).map(|device| device.state);
    ensure(matches!(state, Some(DeviceState::Down | DeviceState::Gone)), || format!("the device shows as {state:?}"))?;
    let (sent, delivered) = (bench.send(&pings(2))?.len(), bench.receive(&before)?.len());
    ensure((sent, delivered) == (0, 0), || format!("without its device {sent} packets left and {delivered} arrived"))?;
    let told = bench.told(|event| matches!(event, Event::HardExpire { sa, .. } if *sa == pin.outbound.handle));
    ensure(told == 0, || "a device that went down was told as a limit".into())
}

pub(super) fn a_request_to_a_dead_device_is_answered(bench: &mut Bench<'_>) -> Kept {
    in_a_device(bench)?;
    let pin = bench.connected()?;
    let more = bench.hair_pin(networks())?;
    bench.pull()?;
    let requests = [
        (Request::Apply(more.everything()), true),
        (Request::Apply(vec![Op::RemovePolicy(pin.policy.handle), Op::RemoveSa(pin.outbound.handle)]), false),
        (Request::List(Scope::All), false),
        (Request::Query(pin.inbound.handle), false),
    ];
    for (request, refused) in requests {
        let answers = bench.submit(request.clone());
        ensure(answers.len() == 1, || format!("{request:?} to a dead device was answered {} times", answers.len()))?;
        let unavailable = matches!(answers.first(), Some(Err(OffloadError::Unavailable(_))));
        ensure(unavailable || !refused, || format!("an install on a dead device was answered with {answers:?}"))?;
    }
    Ok(())
}

/// Whatever the list shows after the device is back carries packets, with numbers that go on; what it does not show carries none.
pub(super) fn a_device_that_returns_holds_what_the_list_shows(bench: &mut Bench<'_>) -> Kept {
    in_a_device(bench)?;
    let pin = bench.connected()?;
    bench.send(&pings(3))?;
    let device = bench.pull()?;
    let can = bench.subject().plug_device(device);
    bench.power(can)?;
    bench.settle();
    let told = bench.told(|event| *event == Event::DeviceUp(device));
    ensure(told == 1, || format!("that the device came back was told {told} times"))?;
    let listed = bench.list(Scope::All)?;
    let holds = listed.sas.iter().any(|sa| sa.sa == pin.outbound.handle)
        && listed.policies.iter().any(|policy| policy.sa == Some(pin.outbound.handle));
    let sent = bench.send(&pings(2))?;
    let (expected, first) = if holds { (2, Some(4)) } else { (0, None) };
    let number = sent.first().and_then(super::OuterPacket::sequence);
    ensure((sent.len(), number) == (expected, first), || {
        format!("{} packets left from number {number:?} on, held is {listed:?}", sent.len())
    })?;
    bench.apply(vec![Op::Flush])?;
    bench.connected()?;
    let sent = bench.send(&pings(2))?.len();
    ensure(sent == 2, || format!("{sent} of 2 packets left over new SAs"))
}

pub(super) fn a_lost_sa_is_told_and_carries_nothing(bench: &mut Bench<'_>) -> Kept {
    in_a_device(bench)?;
    let pin = bench.connected()?;
    let before = bench.send(&pings(2))?;
    for spec in [&pin.outbound, &pin.inbound] {
        let can = bench.subject().lose_state(spec);
        bench.power(can)?;
        bench.settle();
        let sa = spec.handle;
        let told = bench.told(|event| *event == Event::StateLost { sa } || *event == Event::Resync);
        ensure(told > 0, || "that an SA was lost was not told".into())?;
    }
    let left = bench.installed()?;
    ensure(left.is_empty(), || format!("lost SAs are listed: {left:?}"))?;
    let (sent, delivered) = (bench.send(&pings(2))?.len(), bench.receive(&before)?.len());
    ensure((sent, delivered) == (0, 0), || format!("without its SAs {sent} packets left and {delivered} arrived"))
}
