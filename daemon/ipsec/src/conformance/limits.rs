//! Rules about lifetimes and sequence numbers.

use std::time::Duration;

use super::packets::pings;
use super::setup::{Bench, HairPin, networks};
use super::{Kept, Verdict, ensure};
use crate::algorithm::{EspAlgorithm, EspEncryption};
use crate::backend::{Event, LimitUnit, Op};
use crate::handle::SaHandle;
use crate::limits::{Limits, Volume};

fn packets(soft: u64, hard: u64) -> Limits {
    Limits {
        soft: Volume { packets: Some(soft), ..Volume::default() },
        hard: Volume { packets: Some(hard), ..Volume::default() },
    }
}

/// A hair-pin whose outbound SA has these limits.
fn limited(bench: &mut Bench<'_>, limits: Limits) -> Result<HairPin, Verdict> {
    let mut pin = bench.hair_pin(networks())?;
    pin.outbound.limits = limits;
    bench.apply(pin.everything())?;
    Ok(pin)
}

/// Soft and hard events of an SA so far, of this unit and of any.
fn told(bench: &Bench<'_>, sa: SaHandle, unit: LimitUnit) -> (usize, usize, usize) {
    let soft = bench.told(|event| *event == Event::SoftExpire { sa, unit });
    let hard = bench.told(|event| *event == Event::HardExpire { sa, unit });
    let any = bench.told(|event| match event {
        Event::SoftExpire { sa: of, .. } | Event::HardExpire { sa: of, .. } => *of == sa,
        Event::Acquire { .. }
        | Event::InboundFirstUse { .. }
        | Event::MappingChange { .. }
        | Event::PeerForm { .. }
        | Event::DeviceDown(_)
        | Event::DeviceUp(_)
        | Event::DeviceGone(_)
        | Event::StateLost { .. }
        | Event::Resync
        | Event::Drops { .. } => false,
    });
    (soft, hard, any)
}

pub(super) fn packet_limits_are_told_once_and_end_the_sa(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.limits.packets)?;
    let pin = limited(bench, packets(5, 10))?;
    let sa = pin.outbound.handle;
    let steps = [(4, 4, (0, 0, 0)), (1, 1, (1, 0, 1)), (4, 4, (1, 0, 1)), (1, 1, (1, 1, 2)), (5, 0, (1, 1, 2))];
    for (offered, carried, events) in steps {
        let sent = bench.send(&pings(offered))?.len();
        ensure(sent == carried, || format!("{sent} of {offered} packets left, {carried} should have"))?;
        let seen = told(bench, sa, LimitUnit::Packets);
        ensure(seen == events, || format!("soft, hard and all events {seen:?}, not {events:?}"))?;
    }
    ensure(bench.status(sa)?.packets == 10, || "packets after the hard limit were counted".into())
}

pub(super) fn byte_limits_are_told_once_and_end_the_sa(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.limits.bytes)?;
    let octets = pings(1).first().map_or(0, Vec::len) as u64;
    let volume = |bytes| Volume { bytes: Some(bytes), ..Volume::default() };
    let pin = limited(bench, Limits { soft: volume(3 * octets), hard: volume(6 * octets) })?;
    let sa = pin.outbound.handle;
    for (offered, carried, events) in [(2, 2, (0, 0, 0)), (1, 1, (1, 0, 1)), (3, 3, (1, 1, 2)), (3, 0, (1, 1, 2))] {
        let sent = bench.send(&pings(offered))?.len();
        ensure(sent == carried, || format!("{sent} of {offered} packets left, {carried} should have"))?;
        let seen = told(bench, sa, LimitUnit::Bytes);
        ensure(seen == events, || format!("soft, hard and all events {seen:?}, not {events:?}"))?;
    }
    ensure(bench.status(sa)?.bytes == 6 * octets, || "octets after the hard limit were counted".into())
}

pub(super) fn time_limits_are_told_once_and_end_the_sa(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.limits.time)?;
    let volume = |seconds| Volume { time: Some(Duration::from_secs(seconds)), ..Volume::default() };
    let pin = limited(bench, Limits { soft: volume(10), hard: volume(20) })?;
    // Another SA with other limits keeps its own time.
    let other = bench.connected()?;
    bench.apply(vec![pin.activate()])?;
    let sa = pin.outbound.handle;
    let steps = [(9, 1, (0, 0, 0)), (1, 1, (1, 0, 1)), (9, 1, (1, 0, 1)), (1, 0, (1, 1, 2)), (100, 0, (1, 1, 2))];
    for (seconds, carried, events) in steps {
        bench.pass_time(Duration::from_secs(seconds))?;
        let sent = bench.send(&pings(1))?.len();
        ensure(sent == carried, || format!("after {seconds} more seconds {sent} packets left, not {carried}"))?;
        let seen = told(bench, sa, LimitUnit::Time);
        ensure(seen == events, || format!("after {seconds} more seconds events {seen:?}, not {events:?}"))?;
    }
    bench.apply(vec![other.activate()])?;
    let sent = bench.send(&pings(1))?.len();
    ensure(sent == 1, || "one SA's time ended another".into())
}

pub(super) fn an_inbound_sa_ends_at_its_own_limit(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.limits.packets)?;
    let mut pin = bench.hair_pin(networks())?;
    pin.inbound.limits = packets(2, 4);
    bench.apply(pin.everything())?;
    let sent = bench.send(&pings(8))?;
    let delivered = bench.receive(&sent)?.len();
    ensure(delivered == 4, || format!("{delivered} packets arrived over an SA for 4"))?;
    let seen = told(bench, pin.inbound.handle, LimitUnit::Packets);
    ensure(seen == (1, 1, 2), || format!("events {seen:?}"))?;
    let other = told(bench, pin.outbound.handle, LimitUnit::Packets);
    ensure(other == (0, 0, 0), || "the other direction expired too".into())
}

pub(super) fn a_limit_inside_a_batch_counts_exactly(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.limits.packets)?;
    let pin = limited(bench, packets(7, 13))?;
    let sent = bench.send(&pings(40))?.len();
    let status = bench.status(pin.outbound.handle)?;
    ensure((sent, status.packets, status.sequence) == (13, 13, 13), || {
        format!("{sent} of 40 packets left, {status:?}")
    })?;
    let seen = told(bench, pin.outbound.handle, LimitUnit::Packets);
    ensure(seen == (1, 1, 2), || format!("events {seen:?}"))
}

pub(super) fn sequence_numbers_never_wrap(bench: &mut Bench<'_>) -> Kept {
    let mut pin = bench.hair_pin(networks())?;
    pin.outbound.initial_sequence = u64::from(u32::MAX) - 2;
    pin.inbound.initial_sequence = u64::from(u32::MAX) - 2;
    bench.apply(pin.everything())?;
    let sent = bench.send(&pings(5))?;
    let delivered = bench.receive(&sent)?.len();
    ensure((sent.len(), delivered) == (2, 2), || {
        format!("{} packets left and {delivered} arrived with 2 sequence numbers to go", sent.len())
    })?;
    let hard = told(bench, pin.outbound.handle, LimitUnit::Packets).1;
    ensure(hard == 1, || format!("the end of the numbers was told {hard} times"))
}

pub(super) fn extended_sequence_numbers_cross_the_low_half(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.esn)?;
    let mut pin = bench.hair_pin(networks())?;
    for sa in [&mut pin.outbound, &mut pin.inbound] {
        sa.esn = true;
        sa.initial_sequence = (1 << 32) - 10;
    }
    bench.apply(pin.everything())?;
    let sent = bench.send(&pings(40))?;
    // Every third packet is lost and neighbours change places.
    let mut arriving: Vec<_> =
        sent.into_iter().enumerate().filter(|(at, _)| at % 3 != 1).map(|(_, packet)| packet).collect();
    arriving.chunks_exact_mut(2).for_each(<[_]>::reverse);
    let delivered = bench.receive(&arriving)?.len();
    ensure(delivered == arriving.len(), || {
        format!("{delivered} of {} packets arrived across the wrap", arriving.len())
    })?;
    let sequence = bench.status(pin.inbound.handle)?.sequence;
    ensure(sequence == (1 << 32) + 30, || format!("the highest number received is {sequence:#x}"))
}

/// One soft and one hard event for each SA, whichever units it has limits in.
pub(super) fn an_sa_expires_once_whatever_the_units(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.limits.packets && rung.limits.bytes && rung.limits.time)?;
    let octets = pings(1).first().map_or(0, Vec::len) as u64;
    let volume = |packets, seconds| Volume {
        packets: Some(packets),
        bytes: Some(packets * octets),
        time: Some(Duration::from_secs(seconds)),
    };
    let pin = limited(bench, Limits { soft: volume(3, 30), hard: volume(6, 60) })?;
    let other = limited(bench, Limits { soft: volume(30, 3), hard: volume(60, 6) })?;
    for _ in 0..8 {
        bench.apply(vec![pin.activate()])?;
        bench.send(&pings(1))?;
        bench.apply(vec![other.activate()])?;
        bench.send(&pings(1))?;
        bench.pass_time(Duration::from_secs(1))?;
    }
    bench.pass_time(Duration::from_secs(100))?;
    for (sa, first) in [(pin.outbound.handle, None), (other.outbound.handle, Some(LimitUnit::Time))] {
        // Octets and packets come at the same packet: which of the two is told is the backend's choice.
        let seen = [LimitUnit::Packets, LimitUnit::Bytes, LimitUnit::Time].map(|unit| told(bench, sa, unit));
        let (soft, hard) = seen.iter().fold((0, 0), |all, unit| (all.0 + unit.0, all.1 + unit.1));
        ensure((soft, hard) == (1, 1), || format!("an SA with limits in all units told {seen:?}"))?;
        let [.., time] = seen;
        let by_time = first == Some(LimitUnit::Time);
        ensure((time.0 == 1, time.1 == 1) == (by_time, by_time), || format!("the wrong unit was told: {seen:?}"))?;
    }
    Ok(())
}

/// Nothing brings an SA back.
pub(super) fn an_sa_that_ended_stays_ended(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.limits.packets)?;
    let mut pin = bench.hair_pin(networks())?;
    (pin.outbound.limits, pin.inbound.limits) = (packets(2, 3), packets(2, 3));
    bench.apply(pin.everything())?;
    let spare = bench.hair_pin(networks())?;
    bench.apply(vec![Op::InstallSa(Box::new(spare.outbound.clone()))])?;
    let mut sent = bench.send(&pings(4))?;
    bench.receive(&sent)?;
    // Packets that the inbound SA has not had.
    bench.apply(vec![Op::Activate { policy: pin.policy.handle, sa: spare.outbound.handle }])?;
    bench.send(&pings(3))?;
    let mut again = vec![pin.activate(), Op::UpdatePolicy(pin.policy.clone()), pin.activate()];
    if bench.claims().in_place_move {
        let outer = crate::sa::OuterAddresses { remote: super::setup::ELSEWHERE, ..pin.outbound.outer };
        again.extend([pin.outbound.handle, pin.inbound.handle].map(|sa| Op::UpdateSa {
            sa,
            outer,
            encapsulation: None,
        }));
    }
    bench.apply(again)?;
    bench.pass_time(Duration::from_secs(1))?;
    sent.extend(bench.send(&pings(3))?);
    ensure(sent.len() == 3, || format!("{} packets left over an SA for 3", sent.len()))?;
    let carried = [pin.outbound.handle, pin.inbound.handle]
        .into_iter()
        .map(|sa| bench.status(sa).map(|status| status.packets))
        .collect::<Result<Vec<_>, _>>()?;
    ensure(carried == [3, 3], || format!("SAs for 3 packets carried {carried:?}"))?;
    let seen = told(bench, pin.outbound.handle, LimitUnit::Packets);
    ensure(seen == (1, 1, 2), || format!("events {seen:?}"))
}

//= RFC 4303 §3.3.3: the end of 64-bit numbers is an end too
pub(super) fn extended_sequence_numbers_never_wrap(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.esn)?;
    let mut pin = bench.hair_pin(networks())?;
    for sa in [&mut pin.outbound, &mut pin.inbound] {
        sa.esn = true;
        sa.initial_sequence = u64::MAX - 2;
    }
    bench.apply(pin.everything())?;
    let sent = bench.send(&pings(5))?.len();
    ensure(sent == 2, || format!("{sent} packets left with 2 sequence numbers to go"))?;
    let hard = told(bench, pin.outbound.handle, LimitUnit::Packets).1;
    ensure(hard == 1, || format!("the end of the numbers was told {hard} times"))
}

/// Three quarters of the numbers are used: time for a new SA, whatever was configured.
pub(super) fn a_soft_limit_comes_before_the_numbers_end(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.limits.packets)?;
    let pin = bench.connected()?;
    let sa = pin.outbound.handle;
    let soft = Limits::default().bounded(pin.outbound.algorithm, false).soft.packets;
    let almost = Volume { packets: soft.map(|soft| soft - 2), ..Volume::default() };
    let can = bench.subject().pretend_carried(&pin.outbound, almost);
    bench.power(can)?;
    for (offered, expected) in [(1, 0), (1, 1), (3, 1)] {
        let sent = bench.send(&pings(offered))?.len();
        ensure(sent == usize::from(offered), || format!("{sent} of {offered} packets left"))?;
        let soft = told(bench, sa, LimitUnit::Packets).0;
        ensure(soft == expected, || format!("the soft limit was told {soft} times, not {expected}"))?;
    }
    Ok(())
}

pub(super) fn a_gcm_key_protects_no_more_than_it_may(bench: &mut Bench<'_>) -> Kept {
    let is_gcm = |algorithm: &&EspAlgorithm| matches!(algorithm.encryption, EspEncryption::AesGcm16(_));
    bench.needs(|rung| rung.limits.bytes && rung.algorithms.iter().any(|one| is_gcm(&one)))?;
    let mut pin = bench.hair_pin(networks())?;
    let algorithm = bench.claims().algorithms.iter().find(is_gcm).copied().unwrap_or(pin.outbound.algorithm);
    for sa in [&mut pin.outbound, &mut pin.inbound] {
        (sa.algorithm, sa.key) = (algorithm, super::setup::key(algorithm));
    }
    bench.apply(pin.everything())?;
    let octets = pings(1).first().map_or(0, Vec::len) as u64;
    let hard = Limits::default().bounded(algorithm, false).hard.bytes;
    let almost = Volume { bytes: hard.map(|hard| hard - 3 * octets), ..Volume::default() };
    let can = bench.subject().pretend_carried(&pin.outbound, almost);
    bench.power(can)?;
    let sent = bench.send(&pings(5))?.len();
    ensure(sent == 3, || format!("{sent} packets left with octets for 3 to go"))?;
    let seen = told(bench, pin.outbound.handle, LimitUnit::Bytes);
    ensure(seen == (1, 1, 2), || format!("events {seen:?}"))
}
