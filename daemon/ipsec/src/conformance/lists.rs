//! Rules about what is read back.

use std::time::Duration;

use super::packets::{alter, ping, pings};
use super::setup::{Bench, HairPin, SHARD, networks};
use super::{Kept, Verdict, ensure};
use crate::backend::{LimitUnit, OffloadError, Op, Request, SaStatus, Scope};
use crate::handle::{PolicyHandle, SaHandle, Shard};
use crate::limits::{Limits, Volume};

pub(super) fn query_and_list_agree(bench: &mut Bench<'_>) -> Kept {
    let (first, second) = (bench.connected()?, bench.connected()?);
    let listed = bench.list(Scope::All)?;
    let mut handles: Vec<SaHandle> = listed.sas.iter().map(|sa| sa.sa).collect();
    handles.sort_unstable();
    let mut expected: Vec<SaHandle> =
        [&first, &second].iter().flat_map(|pin| [pin.inbound.handle, pin.outbound.handle]).collect();
    expected.sort_unstable();
    ensure(handles == expected, || format!("installed are {expected:?}, listed {handles:?}"))?;
    for status in &listed.sas {
        let asked = bench.status(status.sa)?;
        ensure(asked == *status, || format!("a list says {status:?}, a query {asked:?}"))?;
    }
    for pin in [&first, &second] {
        let policy = listed.policies.iter().find(|policy| policy.policy == pin.policy.handle);
        let shown = policy.map(|policy| (policy.device, policy.sa));
        let wanted = (bench.device().id, Some(pin.outbound.handle));
        ensure(shown == Some(wanted), || format!("a policy with {wanted:?} is listed with {shown:?}"))?;
        let spi = listed.sas.iter().filter(|sa| sa.spi == pin.outbound.spi && sa.device == bench.device().id).count();
        ensure(spi == 2, || format!("the SPI of both directions is listed {spi} times"))?;
    }
    Ok(())
}

pub(super) fn a_query_for_a_missing_sa_is_refused(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    bench.apply(vec![Op::RemoveSa(pin.outbound.handle)])?;
    for sa in [pin.outbound.handle, SaHandle::new(SHARD, 993)] {
        let outcome = bench.ask(Request::Query(sa))?;
        ensure(matches!(outcome, Err(OffloadError::Missing(_))), || {
            format!("a query for an SA that is not there was answered with {outcome:?}")
        })?;
    }
    Ok(())
}

pub(super) fn a_list_covers_its_scope(bench: &mut Bench<'_>) -> Kept {
    let ours = bench.connected()?;
    let mut theirs = bench.hair_pin(networks())?;
    let count = theirs.outbound.handle.raw();
    theirs.outbound.handle = SaHandle::new(Shard(4), count);
    theirs.inbound.handle = SaHandle::new(Shard(4), count + 1);
    theirs.policy.handle = PolicyHandle::new(Shard(4), count + 2);
    for (more, (_, handle)) in (count + 3..).zip(&mut theirs.inward) {
        *handle = PolicyHandle::new(Shard(4), more);
    }
    bench.apply(theirs.everything())?;
    for (scope, pins) in
        [(Scope::Shard(SHARD), vec![&ours]), (Scope::Shard(Shard(4)), vec![&theirs]), (Scope::Shard(Shard(5)), vec![])]
    {
        let listed = bench.list(scope)?;
        let shard = |pin: &HairPin| pin.policy.handle.shard();
        let wanted: Vec<Shard> = pins.iter().flat_map(|pin| vec![shard(pin); 1 + pin.inward.len()]).collect();
        let policies: Vec<Shard> = listed.policies.iter().map(|policy| policy.policy.shard()).collect();
        let sas: Vec<Shard> = listed.sas.iter().map(|sa| sa.sa.shard()).collect();
        let twice: Vec<Shard> = pins.iter().flat_map(|pin| [shard(pin); 2]).collect();
        ensure((&policies, &sas) == (&wanted, &twice), || {
            format!("{scope:?} shows policies of {policies:?}, SAs of {sas:?}")
        })?;
    }
    let all = bench.list(Scope::All)?;
    let policies = 2 + ours.inward.len() + theirs.inward.len();
    ensure((all.sas.len(), all.policies.len()) == (4, policies), || format!("everything is {all:?}"))
}

/// Whoever missed the event sees it in the list.
pub(super) fn a_list_shows_what_expired(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.limits.packets)?;
    let mut pin = bench.hair_pin(networks())?;
    let packets = |count| Volume { packets: Some(count), ..Volume::default() };
    pin.outbound.limits = Limits { soft: packets(2), hard: packets(4) };
    bench.apply(pin.everything())?;
    let shown = |bench: &mut Bench<'_>| -> Result<(Option<LimitUnit>, Option<LimitUnit>), Verdict> {
        let listed = bench.list(Scope::All)?;
        let of = |status: &&SaStatus| status.sa == pin.outbound.handle;
        let status = listed.sas.iter().find(of).ok_or_else(|| Verdict::Broken("an SA is not listed".into()))?;
        Ok((status.soft_expired, status.hard_expired))
    };
    let unit = Some(LimitUnit::Packets);
    for (offered, expected) in [(1, (None, None)), (1, (unit, None)), (2, (unit, unit)), (3, (unit, unit))] {
        bench.send(&pings(offered))?;
        let seen = shown(bench)?;
        ensure(seen == expected, || format!("soft and hard limit are listed as {seen:?}, not {expected:?}"))?;
    }
    Ok(())
}

pub(super) fn counters_stand_still_for_refused_packets(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let sent = bench.send(&pings(3))?;
    bench.receive(&sent)?;
    let counted = |bench: &mut Bench<'_>| -> Result<Vec<(u64, u64, u64)>, Verdict> {
        [pin.inbound.handle, pin.outbound.handle]
            .into_iter()
            .map(|sa| bench.status(sa).map(|status| (status.packets, status.bytes, status.sequence)))
            .collect()
    };
    let before = counted(bench)?;
    let strange =
        bench.send_strange(&[ping("10.9.0.1", "10.2.0.1", 1), ping("10.1.0.1", "10.9.0.1", 2), vec![0x45; 10]])?.len();
    ensure(strange == 0, || format!("{strange} packets outside the selectors left"))?;
    let altered: Vec<_> = (4..30).map(|at| alter(&sent, at)).collect();
    let delivered = bench.receive(&sent)?.len() + bench.receive(&altered)?.len();
    ensure(delivered == 0, || format!("{delivered} replayed and altered packets arrived"))?;
    bench.pass_time(Duration::from_secs(1))?;
    let after = counted(bench)?;
    ensure(before == after, || format!("packets, octets and numbers went from {before:?} to {after:?}"))
}
