//! Rules about capabilities: what a rung claims is accepted, and what it does not claim is refused, by name.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::packets::pings;
use super::setup::{Bench, ELSEWHERE, LOCAL, REMOTE, UDP, key, network, networks, put_on};
use super::{Kept, ensure};
use crate::algorithm::EspAlgorithm;
use crate::backend::{Event, OffloadError, Op, Request};
use crate::handle::Reqid;
use crate::limits::{Limits, Volume};
use crate::policy::{PolicyAction, PolicySpec};
use crate::sa::{OffloadMode, SaMode, SaSpec};
use crate::selector::{AddressRange, PortRange, SelectorPair, TrafficSelector};
use crate::tags::{Mark, Tags};

/// Tries operations that a rung claims to carry, or does not, and takes back what stands.
fn try_one(bench: &mut Bench<'_>, what: &str, claimed: bool, ops: Vec<Op>, words: &[&str]) -> Kept {
    let outcome = bench.ask(Request::Apply(ops))?;
    if outcome.is_ok() {
        bench.apply(vec![Op::Flush])?;
    }
    if claimed {
        return ensure(outcome.is_ok(), || format!("{what} is claimed and was refused: {outcome:?}"));
    }
    let name = bench.device().name.to_string();
    let Err(OffloadError::Unsupported { device, what: named, reason }) = outcome else {
        return ensure(false, || format!("{what} is not claimed and was answered with {outcome:?}"));
    };
    // A name may say more than the device's, for example that it is a simulation.
    let text = format!("{named}: {reason}").to_lowercase();
    let says = words.iter().any(|word| text.contains(&word.to_lowercase()));
    ensure(says && name.contains(&*device), || format!("the refusal of {what} by {name} says {device}: {text}"))
}

fn both(bench: &mut Bench<'_>, what: &str, claimed: bool, words: &[&str], change: impl Fn(&mut SaSpec)) -> Kept {
    let mut pin = bench.hair_pin(networks())?;
    change(&mut pin.outbound);
    change(&mut pin.inbound);
    for sa in [pin.inbound, pin.outbound] {
        try_one(bench, what, claimed, vec![Op::InstallSa(Box::new(sa))], words)?;
    }
    Ok(())
}

fn all_algorithms() -> Vec<EspAlgorithm> {
    let bits = [128, 192, 256];
    let gcm = bits.into_iter().filter_map(|bits| EspAlgorithm::from_ids(20, Some(bits), None));
    let cbc = bits.into_iter().flat_map(|bits| {
        [12, 13, 14].into_iter().filter_map(move |integrity| EspAlgorithm::from_ids(12, Some(bits), Some(integrity)))
    });
    gcm.chain([EspAlgorithm::CHACHA20_POLY1305]).chain(cbc).collect()
}

pub(super) fn algorithms_are_as_claimed(bench: &mut Bench<'_>) -> Kept {
    for algorithm in all_algorithms() {
        let claimed = bench.claims().algorithms.contains(&algorithm);
        let bits = algorithm.encryption.key_bits().map(|bits| bits.to_string());
        let word = bits.as_deref().unwrap_or("chacha");
        both(bench, &format!("{algorithm:?}"), claimed, &[word], |sa| {
            (sa.algorithm, sa.key) = (algorithm, key(algorithm));
        })?;
    }
    Ok(())
}

/// Whatever algorithm is claimed carries packets there and back.
pub(super) fn every_algorithm_carries_packets(bench: &mut Bench<'_>) -> Kept {
    for algorithm in bench.claims().algorithms.clone() {
        let mut pin = bench.hair_pin(networks())?;
        for sa in [&mut pin.outbound, &mut pin.inbound] {
            (sa.algorithm, sa.key) = (algorithm, key(algorithm));
        }
        bench.apply(pin.everything())?;
        let sent = bench.send(&pings(3))?;
        let delivered = bench.receive(&sent)?;
        ensure(delivered == pings(3), || format!("{} of 3 packets arrived with {algorithm:?}", delivered.len()))?;
        bench.apply(vec![Op::Flush])?;
    }
    Ok(())
}

fn host(address: IpAddr) -> TrafficSelector {
    TrafficSelector::all(AddressRange::host(address))
}

pub(super) fn modes_are_as_claimed(bench: &mut Bench<'_>) -> Kept {
    let (tunnel, transport) = (bench.claims().tunnel, bench.claims().transport);
    for (mode, claimed, word) in [(SaMode::Tunnel, tunnel, "tunnel"), (SaMode::Transport, transport, "transport")] {
        both(bench, word, claimed, &[word], |sa| {
            sa.mode = mode;
            sa.selectors = [SelectorPair { local: host(LOCAL), remote: host(REMOTE) }].into();
        })?;
    }
    Ok(())
}

pub(super) fn extended_sequence_numbers_are_as_claimed(bench: &mut Bench<'_>) -> Kept {
    let claimed = bench.claims().esn;
    both(bench, "ESN", claimed, &["ESN", "extended"], |sa| sa.esn = true)
}

pub(super) fn replay_windows_are_as_claimed(bench: &mut Bench<'_>) -> Kept {
    for window in [0, 1, 16, 31, 32, 33, 64, 100, 128, 256, 512, 1_024, 1_025, 2_048, 4_096, 65_536] {
        let claimed = bench.claims().replay_windows.allow(window);
        let mut pin = bench.hair_pin(networks())?;
        pin.inbound.replay_window = window;
        let op = Op::InstallSa(Box::new(pin.inbound));
        try_one(bench, &format!("a window of {window}"), claimed, vec![op], &[&window.to_string()])?;
    }
    Ok(())
}

pub(super) fn udp_encapsulation_is_as_claimed(bench: &mut Bench<'_>) -> Kept {
    let claimed = bench.claims().udp_encapsulation;
    both(bench, "ESP in UDP", claimed, &["UDP", "encap"], |sa| sa.encapsulation = Some(UDP))?;
    if !bench.claims().in_place_move {
        return Ok(());
    }
    let pin = bench.connected()?;
    let op = Op::UpdateSa { sa: pin.outbound.handle, outer: pin.outbound.outer, encapsulation: Some(UDP) };
    try_one(bench, "a change to ESP in UDP", claimed, vec![op], &["UDP", "encap"])
}

pub(super) fn moves_are_as_claimed(bench: &mut Bench<'_>) -> Kept {
    let claimed = bench.claims().in_place_move;
    let pin = bench.connected()?;
    let outer = crate::sa::OuterAddresses { remote: ELSEWHERE, ..pin.outbound.outer };
    let op = Op::UpdateSa { sa: pin.outbound.handle, outer, encapsulation: None };
    try_one(bench, "a move", claimed, vec![op], &["move", "path", "place", "address"])
}

fn policy_with(bench: &mut Bench<'_>, remote: TrafficSelector) -> Op {
    Op::InstallPolicy(bench.policy(SelectorPair { remote, ..networks() }, 1000, super::setup::protect()))
}

pub(super) fn selectors_are_as_claimed(bench: &mut Bench<'_>) -> Kept {
    let support = bench.claims().selectors.clone();
    let address = |last| IpAddr::V4(Ipv4Addr::new(10, 2, 0, last));
    let range = AddressRange::new(address(3), address(9)).map(TrafficSelector::all).unwrap_or(network(2));
    let op = policy_with(bench, range);
    try_one(bench, "a range", support.ranges, vec![op], &["range", "prefix"])?;
    for protocol in [1, 6, 17, 47, 132] {
        let claimed = support.protocols.as_ref().is_none_or(|known| known.contains(&protocol));
        let op = policy_with(bench, TrafficSelector { protocol, ..network(2) });
        try_one(bench, &format!("protocol {protocol}"), claimed, vec![op], &["protocol"])?;
    }
    let udp = support.protocols.as_ref().is_none_or(|known| known.contains(&17));
    let op = policy_with(bench, TrafficSelector { protocol: 17, ports: PortRange::single(7), ..network(2) });
    try_one(bench, "a port", support.ports && udp, vec![op], &["port"])
}

pub(super) fn policy_kinds_are_as_claimed(bench: &mut Bench<'_>) -> Kept {
    let claimed = bench.claims().all_policy_kinds;
    let trap = PolicyAction::Trap { reqid: Reqid(7), mode: SaMode::Tunnel };
    for (action, word) in [(PolicyAction::Bypass, "bypass"), (PolicyAction::Discard, "discard"), (trap, "trap")] {
        let op = Op::InstallPolicy(bench.policy(networks(), 1000, action));
        try_one(bench, word, claimed, vec![op], &[word, "protect", "policies", "policy"])?;
    }
    Ok(())
}

pub(super) fn marks_and_interface_ids_are_as_claimed(bench: &mut Bench<'_>) -> Kept {
    let (marks, interface_ids) = (bench.claims().marks, bench.claims().interface_ids);
    let mark = Tags { mark: Some(Mark::new(7, 0xff)), ..Tags::NONE };
    let set_mark = Tags { set_mark: Some(Mark::new(7, 0xff)), ..Tags::NONE };
    let if_id = Tags { if_id: 7, ..Tags::NONE };
    for (tags, claimed, word) in [(mark, marks, "mark"), (set_mark, marks, "mark"), (if_id, interface_ids, "interface")]
    {
        both(bench, word, claimed, &[word], |sa| sa.tags = tags)?;
        let policy = PolicySpec { tags, ..bench.policy(networks(), 1000, super::setup::protect()) };
        try_one(bench, word, claimed, vec![Op::InstallPolicy(policy)], &[word])?;
    }
    Ok(())
}

/// A unit that the rung does not raise is left to whoever watches the counters: the SA stands, and counts, and nothing is told.
pub(super) fn limits_are_raised_in_the_units_claimed_only(bench: &mut Bench<'_>) -> Kept {
    let units = bench.claims().limits;
    let none = Volume::default();
    let one = [
        (units.time, Volume { time: Some(Duration::from_secs(1)), ..none }),
        (units.bytes, Volume { bytes: Some(1), ..none }),
        (units.packets, Volume { packets: Some(1), ..none }),
    ];
    for (claimed, soft) in one {
        let mut pin = bench.hair_pin(networks())?;
        pin.outbound.limits = Limits { soft, hard: none };
        bench.apply(pin.everything())?;
        bench.send(&pings(1))?;
        bench.pass_time(Duration::from_secs(2))?;
        bench.send(&pings(1))?;
        let sa = pin.outbound.handle;
        let told = bench.told(|event| matches!(event, Event::SoftExpire { sa: of, .. } if *of == sa));
        let carried = bench.status(sa)?.packets;
        ensure((told, carried) == (usize::from(claimed), 2), || {
            format!("claimed {claimed}: {soft:?} was told {told} times, {carried} of 2 packets were counted")
        })?;
        bench.apply(vec![Op::Flush])?;
    }
    Ok(())
}

/// How many entries a table is filled with, at most: larger ones are not filled here.
const FILLED: u32 = 300;

fn fill(
    bench: &mut Bench<'_>,
    table: &str,
    size: Option<u32>,
    mut entry: impl FnMut(&mut Bench<'_>) -> Result<Op, super::Verdict>,
) -> Kept {
    let fits = size.unwrap_or(FILLED).min(FILLED);
    for held in 0..fits {
        let op = entry(bench)?;
        let outcome = bench.ask(Request::Apply(vec![op]))?;
        ensure(outcome.is_ok(), || format!("with {held} of {size:?} entries the {table} answered {outcome:?}"))?;
    }
    if size == Some(fits) {
        let op = entry(bench)?;
        match bench.ask(Request::Apply(vec![op]))? {
            Err(OffloadError::Full { table: named, size: told, .. }) => {
                ensure((named, told) == (table, fits), || format!("a full {table} of {fits} said {named} of {told}"))?;
            }
            other => ensure(false, || format!("a full {table} answered {other:?}"))?,
        }
    }
    Ok(())
}

/// Reserved outbound SAs take their place like all others, and what is removed makes room.
pub(super) fn the_sad_holds_what_is_claimed(bench: &mut Bench<'_>) -> Kept {
    let size = bench.claims().sa_table;
    let mut inbound = false;
    fill(bench, "SAD", size, |bench| {
        let pin = bench.hair_pin(networks())?;
        inbound = !inbound;
        Ok(Op::InstallSa(Box::new(if inbound { pin.inbound } else { pin.outbound })))
    })?;
    let held = bench.installed()?;
    let pin = bench.hair_pin(networks())?;
    let ops = held.first().copied().map(Op::RemoveSa).into_iter().chain([Op::InstallSa(Box::new(pin.inbound))]);
    bench.apply(ops.collect()).map(drop)
}

pub(super) fn the_spd_holds_what_is_claimed(bench: &mut Bench<'_>) -> Kept {
    let size = bench.claims().policy_table;
    let mut count: u16 = 0;
    fill(bench, "SPD", size, |bench| {
        count += 1;
        let [high, low] = count.to_be_bytes();
        let remote = host(IpAddr::V4(Ipv4Addr::new(10, 2, high, low)));
        Ok(policy_with(bench, remote))
    })
}

/// A full table refuses, and leaves what it holds alone.
pub(super) fn a_full_table_leaves_its_sas_alone(bench: &mut Bench<'_>) -> Kept {
    let size = bench.claims().sa_table.filter(|size| *size <= FILLED);
    bench.needs(|_| size.is_some())?;
    let pin = bench.connected()?;
    for _ in 2..size.unwrap_or(2) {
        let more = bench.hair_pin(networks())?;
        bench.apply(vec![Op::InstallSa(Box::new(more.inbound))])?;
    }
    let new = bench.hair_pin(networks())?;
    let mut ops = new.everything();
    ops.push(Op::Activate { policy: pin.policy.handle, sa: new.outbound.handle });
    let outcome = bench.ask(Request::Apply(ops))?;
    ensure(matches!(outcome, Err(OffloadError::Full { .. })), || format!("a full table answered {outcome:?}"))?;
    let sent = bench.send(&pings(2))?;
    let spis: Vec<_> = sent.iter().filter_map(super::OuterPacket::spi).collect();
    ensure(spis == [pin.outbound.spi.get(); 2], || format!("with a full table packets leave as {spis:x?}"))?;
    let delivered = bench.receive(&sent)?.len();
    ensure(delivered == 2, || format!("with a full table {delivered} of 2 packets arrive"))
}

/// The mode of each rung, once installed.
pub(super) fn every_rung_shows_its_own_mode(bench: &mut Bench<'_>) -> Kept {
    let device = bench.device().clone();
    for rung in &device.rungs {
        let mut pin = bench.hair_pin(networks())?;
        put_on(rung, &mut pin.inbound);
        bench.apply(vec![Op::InstallSa(Box::new(pin.inbound.clone()))])?;
        let shown = bench.status(pin.inbound.handle)?.mode;
        ensure(shown == rung.mode, || format!("an SA of {:?} shows as {shown:?}", rung.mode))?;
        ensure(shown.mode != OffloadMode::Auto, || "auto is shown as a mode in use".into())?;
    }
    Ok(())
}
