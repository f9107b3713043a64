//! Rules about requests and answers; no packets needed.

use std::collections::BTreeSet;

use super::setup::{Bench, HairPin, SHARD, networks, protect};
use super::{Kept, Verdict, ensure};
use crate::algorithm::KeyMaterial;
use crate::backend::{Answer, Applied, OffloadError, OnStop, Op, Request, Scope};
use crate::handle::{PolicyHandle, SaHandle, Tag};
use crate::policy::{GuardSpec, PolicySpec};
use crate::sa::{Direction, ModeInUse, OffloadMode, SaSpec};

pub(super) fn a_request_is_answered_exactly_once(bench: &mut Bench<'_>) -> Kept {
    let missing = SaHandle::new(SHARD, 999);
    let pin = bench.hair_pin(networks())?;
    let requests = [
        Request::Apply(Vec::new()),
        Request::Apply(pin.everything()),
        // Refused: the names are taken.
        Request::Apply(pin.everything()),
        Request::List(Scope::All),
        Request::Query(pin.outbound.handle),
        Request::Query(missing),
        Request::Apply(vec![Op::Flush]),
    ];
    for request in requests {
        let answers = bench.submit(request.clone()).len();
        ensure(answers == 1, || format!("{request:?} was answered {answers} times"))?;
    }
    Ok(())
}

pub(super) fn a_refused_request_leaves_nothing_behind(bench: &mut Bench<'_>) -> Kept {
    let kept = bench.connected()?;
    let before = bench.installed()?;
    let refused = bench.hair_pin(networks())?;
    let mut ops = refused.everything();
    ops.insert(0, Op::RemoveSa(kept.outbound.handle));
    ops.push(Op::Activate { policy: PolicyHandle::new(SHARD, 998), sa: refused.outbound.handle });
    let outcome = bench.ask(Request::Apply(ops))?;
    ensure(outcome.is_err(), || "activating a policy that does not exist was accepted".into())?;
    let after = bench.installed()?;
    ensure(before == after, || format!("SAs before {before:?}, after the refused request {after:?}"))?;
    // Names that the refused request used are free.
    bench.apply(refused.everything())?;
    // So is the policy, whose SA is still the one it had.
    bench.apply(vec![kept.activate()]).map(|_| ())
}

pub(super) fn removing_what_is_missing_is_no_error(bench: &mut Bench<'_>) -> Kept {
    bench
        .apply(vec![Op::RemoveSa(SaHandle::new(SHARD, 997)), Op::RemovePolicy(PolicyHandle::new(SHARD, 996))])
        .map(|_| ())
}

pub(super) fn an_spi_is_unique_and_never_reserved_by_the_protocol(bench: &mut Bench<'_>) -> Kept {
    let mut seen = BTreeSet::new();
    for _ in 0..1_000 {
        let spi = bench.reserve()?;
        ensure(spi.get() >= 256, || format!("SPI {spi} is below 256"))?;
        ensure(seen.insert(spi), || format!("SPI {spi} was given out twice"))?;
    }
    Ok(())
}

pub(super) fn an_spi_passes_to_another_sa_in_one_request(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let (old, spi) = (pin.inbound.handle, pin.inbound.spi);
    let named = |count| SaSpec { handle: SaHandle::new(SHARD, count), ..pin.inbound.clone() };
    bench.apply(vec![Op::RemoveSa(old), Op::InstallSa(Box::new(named(995)))])?;
    for _ in 0..100 {
        ensure(bench.reserve()? != spi, || format!("SPI {spi} was given out while an SA has it"))?;
    }
    // Once more, so that it was not given back the first time.
    let again = vec![Op::RemoveSa(SaHandle::new(SHARD, 995)), Op::InstallSa(Box::new(named(994)))];
    bench.apply(again).map(|_| ())
}

pub(super) fn two_entries_of_one_name_are_refused(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    for op in [Op::InstallSa(Box::new(pin.inbound)), Op::InstallPolicy(pin.policy)] {
        match bench.ask(Request::Apply(vec![op]))? {
            Err(OffloadError::Exists(_)) => {}
            other => return Err(Verdict::Broken(format!("a second entry of one name was answered with {other:?}"))),
        }
    }
    Ok(())
}

pub(super) fn an_sa_that_does_not_fit_its_keys_is_refused(bench: &mut Bench<'_>) -> Kept {
    let mut pin = bench.hair_pin(networks())?;
    let octets = pin.inbound.algorithm.encryption.keymat_octets();
    pin.inbound.key = KeyMaterial::new(&vec![1; octets - 1], None);
    let outcome = bench.ask(Request::Apply(vec![Op::InstallSa(Box::new(pin.inbound))]))?;
    ensure(outcome.is_err(), || "a key one octet short was accepted".into())?;
    ensure(bench.installed()?.is_empty(), || "the refused SA is there".into())
}

pub(super) fn after_shut_down_everything_is_refused_and_answered(bench: &mut Bench<'_>) -> Kept {
    bench.connected()?;
    bench.subject().backend().shut_down(OnStop::Block);
    let policy = bench.policy(networks(), 1, protect());
    let answers = bench.submit(Request::Apply(vec![Op::InstallPolicy(policy)]));
    ensure(answers.len() == 1, || format!("a request after shut down was answered {} times", answers.len()))?;
    ensure(matches!(answers.first(), Some(Err(OffloadError::Unavailable(_)))), || {
        format!("a request after shut down was answered with {answers:?}")
    })
}

/// Nobody waits for an answer that does not come.
pub(super) fn a_stop_answers_what_is_outstanding(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.hair_pin(networks())?;
    let mut requests = vec![Request::Apply(pin.everything())];
    requests.extend((0..50).flat_map(|_| [Request::List(Scope::All), Request::Query(pin.outbound.handle)]));
    let tags: Vec<Tag> = requests.into_iter().map(|request| bench.submit_only(request)).collect();
    bench.subject().backend().shut_down(OnStop::Block);
    bench.settle();
    for tag in tags {
        let answers = bench.log().outcomes(tag).len();
        ensure(answers == 1, || format!("a request before a stop was answered {answers} times"))?;
    }
    Ok(())
}

/// What the core does for a CHILD SA, in its order: guard, inbound and forward policy and inbound SA, outbound SA, outbound policy, activation.
pub(super) fn an_install_in_its_order_is_taken(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.hair_pin(networks())?;
    let mut ops = vec![Op::InstallGuard(GuardSpec { name: pin.policy.name.clone(), selectors: networks() })];
    let mut handles = vec![pin.policy.handle];
    for direction in [Direction::Inbound, Direction::Forward] {
        let spec = PolicySpec { direction, ..bench.policy(networks(), 1000, protect()) };
        handles.push(spec.handle);
        ops.push(Op::InstallPolicy(spec));
    }
    let pin = HairPin { inward: Vec::new(), ..pin };
    ops.extend(pin.everything());
    bench.apply(ops)?;
    let listed: BTreeSet<_> = bench.list(Scope::All)?.policies.into_iter().map(|policy| policy.policy).collect();
    ensure(handles.iter().all(|handle| listed.contains(handle)), || format!("of {handles:?} listed are {listed:?}"))?;
    bench.apply(handles.into_iter().map(Op::RemovePolicy).collect())?;
    let left = bench.list(Scope::All)?.policies;
    ensure(left.is_empty(), || format!("after their removal policies are listed: {left:?}"))
}

pub(super) fn the_mode_in_use_is_read_back(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.hair_pin(networks())?;
    let answer = bench.apply(pin.everything())?;
    let Answer::Applied(Applied { modes, .. }) = answer else {
        return Err(Verdict::Broken(format!("an install was answered with {answer:?}")));
    };
    let handles: Vec<SaHandle> = modes.iter().map(|(handle, _)| *handle).collect();
    ensure(handles == [pin.inbound.handle, pin.outbound.handle], || format!("modes were told of {handles:?}"))?;
    let claimed = bench.device().rung(bench.mode()).map(|rung| rung.mode.clone());
    let listed = bench.list(Scope::All)?;
    for (handle, mode) in modes {
        ensure(Some(&mode) == claimed.as_ref(), || format!("{claimed:?} was asked for, {mode:?} is in use"))?;
        ensure(bench.status(handle)?.mode == mode, || "the status tells another mode".into())?;
        ensure(listed.sas.iter().any(|sa| sa.sa == handle && sa.mode == mode), || {
            "the list tells another mode".into()
        })?;
    }
    let policy = listed.policies.iter().find(|policy| policy.policy == pin.policy.handle);
    // Crypto offload is the SAs' alone: their policies are looked up in software.
    let expected = claimed.filter(|mode| mode.mode == OffloadMode::Packet).unwrap_or(ModeInUse::SOFTWARE);
    ensure(policy.map(|policy| &policy.mode) == Some(&expected), || format!("the list shows the policy as {policy:?}"))
}

/// A wish that cannot be had is refused, never replaced by something else.
pub(super) fn a_wish_for_a_missing_rung_is_refused(bench: &mut Bench<'_>) -> Kept {
    for wish in [OffloadMode::No, OffloadMode::Crypto, OffloadMode::Packet] {
        if bench.device().rung(wish).is_some() {
            continue;
        }
        let mut pin = bench.hair_pin(networks())?;
        pin.inbound.offload = wish;
        pin.policy.offload = wish;
        for op in [Op::InstallSa(Box::new(pin.inbound)), Op::InstallPolicy(pin.policy)] {
            match bench.ask(Request::Apply(vec![op]))? {
                Err(OffloadError::Unsupported { .. }) => {}
                other => return Err(Verdict::Broken(format!("{wish:?} was asked for and answered with {other:?}"))),
            }
        }
    }
    Ok(())
}

/// `Auto` is a choice that was made before: what arrives here is one rung.
pub(super) fn auto_is_no_rung(bench: &mut Bench<'_>) -> Kept {
    let mut pin = bench.hair_pin(networks())?;
    pin.inbound.offload = OffloadMode::Auto;
    pin.policy.offload = OffloadMode::Auto;
    for op in [Op::InstallSa(Box::new(pin.inbound)), Op::InstallPolicy(pin.policy)] {
        match bench.ask(Request::Apply(vec![op]))? {
            Err(OffloadError::Invalid(_)) => {}
            other => return Err(Verdict::Broken(format!("a rung called auto was answered with {other:?}"))),
        }
    }
    Ok(())
}
