//! Rules about what must never be in clear, and about the little that must be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::packets::{destination, ping, udp_v4, udp_v6};
use super::setup::{Bench, HairPin, LOCAL, LOCAL_V6, REMOTE, REMOTE_V6, networks, protect};
use super::{Fate, Kept, OuterContent, OuterPacket, Verdict, ensure};
use crate::backend::{OnStop, Op};
use crate::policy::{GuardSpec, PolicyAction, PolicySpec};
use crate::sa::Direction;
use crate::selector::{AddressRange, PortRange, SelectorPair, TrafficSelector};

fn guard(name: &str, selectors: SelectorPair) -> GuardSpec {
    GuardSpec { name: name.into(), selectors }
}

/// fd00:n::/32.
fn network_v6(n: u16) -> TrafficSelector {
    let address = IpAddr::V6(host_v6(n));
    TrafficSelector::prefix(address, 32).unwrap_or(TrafficSelector::all(AddressRange::host(address)))
}

fn host_v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, n, 0, 0, 0, 0, 0, 1)
}

/// What becomes of a packet of ours to the peer's side, of one from there, and of one that no selector covers.
fn fates(bench: &mut Bench<'_>) -> Result<[Fate; 3], Verdict> {
    Ok([
        bench.host(Direction::Outbound, &ping("10.1.0.1", "10.2.0.1", 1))?,
        bench.host(Direction::Inbound, &ping("10.2.0.1", "10.1.0.1", 1))?,
        bench.host(Direction::Outbound, &ping("10.1.0.1", "10.9.0.1", 1))?,
    ])
}

fn expect(bench: &mut Bench<'_>, expected: [Fate; 3], when: &str) -> Kept {
    let seen = fates(bench)?;
    ensure(seen == expected, || format!("{when}: out, in and beside the selectors {seen:?}, not {expected:?}"))
}

const GUARDED: [Fate; 3] = [Fate::Blocked, Fate::Blocked, Fate::Clear];
const OPEN: [Fate; 3] = [Fate::Clear; 3];

pub(super) fn a_guard_blocks_both_ways_before_the_first_policy(bench: &mut Bench<'_>) -> Kept {
    expect(bench, OPEN, "without a guard")?;
    let v6 = SelectorPair { local: network_v6(1), remote: network_v6(2) };
    let guards = [guard("conformance/v4", networks()), guard("conformance/v6", v6)];
    bench.apply(guards.iter().cloned().map(Op::InstallGuard).collect())?;
    expect(bench, GUARDED, "behind a guard")?;
    let (out, back) = (udp_v6(host_v6(1), host_v6(2), (1, 2), 9), udp_v6(host_v6(2), host_v6(1), (1, 2), 9));
    let v6 = [bench.host(Direction::Outbound, &out)?, bench.host(Direction::Inbound, &back)?];
    ensure(v6 == [Fate::Blocked; 2], || format!("behind a guard IPv6 packets are {v6:?}"))?;
    bench.apply(guards.into_iter().map(Op::RemoveGuard).collect())?;
    expect(bench, OPEN, "after the guard was removed")
}

pub(super) fn a_guard_yields_to_policies_and_outlives_them(bench: &mut Bench<'_>) -> Kept {
    bench.apply(vec![Op::InstallGuard(guard("conformance/child", networks()))])?;
    let pin = bench.connected()?;
    expect(bench, [Fate::Datapath, Fate::Blocked, Fate::Clear], "with a policy in front of the guard")?;
    bench.apply(vec![Op::RemovePolicy(pin.policy.handle), Op::RemoveSa(pin.outbound.handle)])?;
    expect(bench, GUARDED, "after the policy was removed")?;
    bench.connected()?;
    bench.apply(vec![Op::Flush])?;
    expect(bench, GUARDED, "after a flush")
}

/// Two connections with equal selectors each have one.
pub(super) fn a_guard_stands_until_its_last_owner_removes_it(bench: &mut Bench<'_>) -> Kept {
    let [primary, backup] = ["primary", "backup"].map(|name| guard(name, networks()));
    bench.apply(vec![Op::InstallGuard(primary.clone()), Op::InstallGuard(backup.clone())])?;
    bench.apply(vec![Op::RemoveGuard(primary)])?;
    expect(bench, GUARDED, "with one of two guards removed")?;
    bench.apply(vec![Op::RemoveGuard(backup)])?;
    expect(bench, OPEN, "with both guards removed")
}

pub(super) fn a_guard_outlives_a_stop_that_blocks(bench: &mut Bench<'_>) -> Kept {
    bench.apply(vec![Op::InstallGuard(guard("conformance/child", networks()))])?;
    bench.connected()?;
    bench.subject().backend().shut_down(OnStop::Block);
    bench.settle();
    expect(bench, GUARDED, "after a stop that blocks")
}

pub(super) fn a_guard_goes_with_a_stop_that_opens(bench: &mut Bench<'_>) -> Kept {
    bench.apply(vec![Op::InstallGuard(guard("conformance/child", networks()))])?;
    bench.connected()?;
    bench.subject().backend().shut_down(OnStop::Open);
    bench.settle();
    expect(bench, OPEN, "after a stop that opens")
}

/// A policy over all traffic of the two gateways, installed as it is.
fn between_gateways(bench: &mut Bench<'_>, local: IpAddr, remote: IpAddr) -> PolicySpec {
    let host = |address| TrafficSelector::all(AddressRange::host(address));
    bench.policy(SelectorPair { local: host(local), remote: host(remote) }, 1000, protect())
}

pub(super) fn ike_passes_whatever_is_protected(bench: &mut Bench<'_>) -> Kept {
    let v4 = between_gateways(bench, LOCAL, REMOTE);
    let v6 = between_gateways(bench, LOCAL_V6.into(), REMOTE_V6.into());
    let guards = [&v4, &v6].map(|policy| Op::InstallGuard(guard("conformance/child", policy.selectors)));
    bench.apply(guards.into_iter().chain([Op::InstallPolicy(v4), Op::InstallPolicy(v6)]).collect())?;
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (LOCAL, REMOTE) else { return Err(Verdict::CannotShow) };
    for port in [500, 4500] {
        let fates = [
            bench.host(Direction::Outbound, &udp_v4(local, remote, (port, 1024), 40, false))?,
            bench.host(Direction::Inbound, &udp_v4(remote, local, (1024, port), 40, false))?,
            bench.host(Direction::Outbound, &udp_v6(LOCAL_V6, REMOTE_V6, (port, 1024), 40))?,
            bench.host(Direction::Inbound, &udp_v6(REMOTE_V6, LOCAL_V6, (1024, port), 40))?,
        ];
        ensure(fates == [Fate::Clear; 4], || format!("IKE on port {port} is {fates:?}"))?;
    }
    let other = [
        bench.host(Direction::Outbound, &udp_v4(local, remote, (501, 500), 40, false))?,
        bench.host(Direction::Inbound, &udp_v4(remote, local, (500, 501), 40, false))?,
    ];
    // Without an SA the host blocks what it is to protect; a datapath of its own gets it first.
    let out = if bench.subject().is_the_host() { Fate::Blocked } else { Fate::Datapath };
    ensure(other == [out, Fate::Blocked], || format!("what is no IKE of ours is {other:?}"))
}

/// The bypass is for our own addresses: what a host behind us says on these ports is protected like everything else.
pub(super) fn ike_of_a_host_behind_us_is_protected(bench: &mut Bench<'_>) -> Kept {
    bench.connected()?;
    let host = |n| Ipv4Addr::new(10, n, 0, 1);
    let packets = [500, 4500].map(|port| udp_v4(host(1), host(2), (port, port), 40, false));
    let sent = bench.send_any(&packets)?;
    let sealed = sent.iter().filter(|packet| packet.esp().is_some()).count();
    ensure((sealed, sent.len()) == (2, 2), || {
        format!("of two IKE messages of a host behind us {sealed} were protected")
    })
}

pub(super) fn a_bypass_covers_its_selectors_only(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.all_policy_kinds && rung.selectors.ports)?;
    bench.connected()?;
    let port = TrafficSelector { protocol: 17, ports: PortRange::single(7), ..destination("10.2.0.9") };
    let hole = bench.policy(SelectorPair { remote: port, ..networks() }, 10, PolicyAction::Bypass);
    bench.apply(vec![Op::InstallPolicy(hole)])?;
    let udp = |to: u8, port| udp_v4(Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, to), (9, port), 30, false);
    let sealed = |sent: Vec<OuterPacket>| sent.iter().map(|packet| packet.esp().is_some()).collect::<Vec<_>>();
    let through = sealed(bench.send_any(&[udp(9, 7)])?);
    // In clear here, or led around the datapath before it comes here.
    ensure(!through.contains(&true), || "what is to pass in clear was protected".into())?;
    let beside = sealed(bench.send_any(&[udp(9, 8), udp(8, 7)])?);
    ensure(beside == [true, true], || format!("packets beside the bypass left protected: {beside:?}"))
}

pub(super) fn a_forged_packet_in_clear_is_not_delivered(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    // The hair-pin's policies are for what it hands back; these are for what it is forged to be.
    let inward = HairPin { inward: bench.inward(), ..pin };
    bench.apply(inward.inward_of(networks()).collect())?;
    let forged = ping("10.2.0.1", "10.1.0.1", 1);
    let address = |ip: &str| SocketAddr::new(ip.parse().unwrap_or(LOCAL), 0);
    let packet = OuterPacket {
        source: address("10.2.0.1"),
        destination: address("10.1.0.1"),
        content: OuterContent::Clear(forged),
    };
    let delivered = bench.receive(&[packet])?.len();
    ensure(delivered == 0, || "a packet in clear arrived although its traffic is protected".into())
}

pub(super) fn an_inbound_discard_is_obeyed(bench: &mut Bench<'_>) -> Kept {
    bench.needs(|rung| rung.all_policy_kinds)?;
    bench.connected()?;
    // As the receiver sees it: the hair-pin's far side is its own.
    let turned = SelectorPair { local: destination("10.2.0.9"), remote: networks().local };
    let mut ops = Vec::new();
    for direction in [Direction::Inbound, Direction::Forward] {
        ops.push(Op::InstallPolicy(PolicySpec { direction, ..bench.policy(turned, 10, PolicyAction::Discard) }));
    }
    bench.apply(ops)?;
    let packets = [ping("10.1.0.1", "10.2.0.9", 1), ping("10.1.0.1", "10.2.0.8", 2)];
    let sent = bench.send(&packets)?;
    let delivered = bench.receive(&sent)?;
    ensure(sent.len() == 2 && delivered == packets[1..], || {
        format!("{} of {} packets arrived, one is to be discarded", delivered.len(), sent.len())
    })?;
    let told = bench.told_drops("discard");
    ensure(told == 1, || "the drop was not told".into())
}
