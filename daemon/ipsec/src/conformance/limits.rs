//! Rules about lifetimes and sequence numbers.

use std::time::Duration;

use super::packets::pings;
use super::setup::{Bench, HairPin, networks};
use super::{Kept, Verdict, ensure};
use crate::backend::{Event, LimitUnit};
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
