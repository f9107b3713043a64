//! Rules about requests and answers; no packets needed.

use std::collections::BTreeSet;

use super::setup::{Bench, networks, protect};
use super::{Kept, Subject, Verdict, ensure};
use crate::algorithm::KeyMaterial;
use crate::backend::{Answer, OffloadError, OnStop, Op, Request, Scope};
use crate::handle::{PolicyHandle, SaHandle, Shard};
use crate::sa::{Direction, OffloadMode};

pub(super) fn a_request_is_answered_exactly_once(subject: &mut dyn Subject) -> Kept {
    let mut bench = Bench::new(subject);
    let missing = SaHandle::new(Shard(3), 999);
    for request in [Request::Apply(Vec::new()), Request::List(Scope::All), Request::Query(missing)] {
        let answers = bench.submit(request.clone()).len();
        ensure(answers == 1, || format!("{request:?} was answered {answers} times"))?;
    }
    Ok(())
}

pub(super) fn a_refused_request_leaves_nothing_behind(subject: &mut dyn Subject) -> Kept {
    let mut bench = Bench::new(subject);
    let kept = bench.connected()?;
    let before = bench.installed()?;
    let refused = bench.hair_pin(networks())?;
    let mut ops = refused.everything();
    ops.insert(0, Op::RemoveSa(kept.outbound.handle));
    ops.push(Op::Activate { policy: PolicyHandle::new(Shard(3), 998), sa: refused.outbound.handle });
    let outcome = bench.ask(Request::Apply(ops))?;
    ensure(outcome.is_err(), || "activating a policy that does not exist was accepted".into())?;
    let after = bench.installed()?;
    ensure(before == after, || format!("SAs before {before:?}, after the refused request {after:?}"))?;
    // Names that the refused request used are free.
    bench.apply(refused.everything())?;
    // So is the policy, whose SA is still the one it had.
    bench.apply(vec![kept.activate()]).map(|_| ())
}

pub(super) fn removing_what_is_missing_is_no_error(subject: &mut dyn Subject) -> Kept {
    let mut bench = Bench::new(subject);
    bench
        .apply(vec![Op::RemoveSa(SaHandle::new(Shard(3), 997)), Op::RemovePolicy(PolicyHandle::new(Shard(3), 996))])
        .map(|_| ())
}

pub(super) fn an_spi_is_unique_and_never_reserved_by_the_protocol(subject: &mut dyn Subject) -> Kept {
    let mut bench = Bench::new(subject);
    let mut seen = BTreeSet::new();
    for _ in 0..1_000 {
        let spi = bench.reserve()?;
        ensure(spi.get() >= 256, || format!("SPI {spi} is below 256"))?;
        ensure(seen.insert(spi), || format!("SPI {spi} was given out twice"))?;
    }
    Ok(())
}

pub(super) fn two_entries_of_one_name_are_refused(subject: &mut dyn Subject) -> Kept {
    let mut bench = Bench::new(subject);
    let pin = bench.connected()?;
    for op in [Op::InstallSa(Box::new(pin.inbound)), Op::InstallPolicy(pin.policy)] {
        match bench.ask(Request::Apply(vec![op]))? {
            Err(OffloadError::Exists(_)) => {}
            other => return Err(Verdict::Broken(format!("a second entry of one name was answered with {other:?}"))),
        }
    }
    Ok(())
}

pub(super) fn an_sa_that_does_not_fit_its_keys_is_refused(subject: &mut dyn Subject) -> Kept {
    let mut bench = Bench::new(subject);
    let mut pin = bench.hair_pin(networks())?;
    pin.inbound.key = KeyMaterial::new(&[1; 35], None);
    let outcome = bench.ask(Request::Apply(vec![Op::InstallSa(Box::new(pin.inbound))]))?;
    ensure(outcome.is_err(), || "a key one octet short was accepted".into())?;
    ensure(bench.installed()?.is_empty(), || "the refused SA is there".into())
}

pub(super) fn after_shut_down_everything_is_refused_and_answered(subject: &mut dyn Subject) -> Kept {
    let mut bench = Bench::new(subject);
    bench.connected()?;
    bench.subject().backend().shut_down(OnStop::Block);
    let policy = bench.policy(networks(), 1, protect());
    let answers = bench.submit(Request::Apply(vec![Op::InstallPolicy(policy)]));
    ensure(answers.len() == 1, || format!("a request after shut down was answered {} times", answers.len()))?;
    ensure(matches!(answers.first(), Some(Err(OffloadError::Unavailable(_)))), || {
        format!("a request after shut down was answered with {answers:?}")
    })
}

pub(super) fn the_mode_in_use_is_read_back(subject: &mut dyn Subject) -> Kept {
    let mut bench = Bench::new(subject);
    let pin = bench.hair_pin(networks())?;
    let answer = bench.apply(pin.everything())?;
    let Answer::Applied(modes) = answer else {
        return Err(Verdict::Broken(format!("an install was answered with {answer:?}")));
    };
    let handles: Vec<SaHandle> = modes.iter().map(|(handle, _)| *handle).collect();
    ensure(handles == [pin.inbound.handle, pin.outbound.handle], || format!("modes were told of {handles:?}"))?;
    for (handle, mode) in modes {
        ensure(mode.mode == OffloadMode::No, || format!("no offload was asked for, {mode:?} is in use"))?;
        ensure(bench.status(handle)?.mode == mode, || "the status tells another mode".into())?;
    }
    // A wish that cannot be had is refused, never replaced by something else.
    let spi = bench.reserve()?;
    let mut wish = bench.sa(Direction::Inbound, spi, networks());
    wish.offload = OffloadMode::Packet;
    match bench.ask(Request::Apply(vec![Op::InstallSa(Box::new(wish))]))? {
        Err(OffloadError::Unsupported { .. }) => Ok(()),
        Ok(Answer::Applied(modes)) if modes.iter().all(|(_, mode)| mode.mode == OffloadMode::Packet) => Ok(()),
        other => Err(Verdict::Broken(format!("packet offload was asked for and answered with {other:?}"))),
    }
}
