//! Every verdict, from facts made by hand: a sound gateway, and what is wrong with it.

mod made;

use ipsec::{DeviceState, LimitUnit, PolicyAction};

use super::*;
use crate::snapshot::ConfiguredState;
use crate::{Cause, CauseKind, ChildMode};
use made::{TUNNEL, address, inbound, link, out, outbound, shunt, sound, trap};

/// A case: what is wrong, and what is said of it.
struct Case {
    name: &'static str,
    change: fn(&mut Facts),
    step: StepName,
    code: Code,
    /// Pieces of the sentence.
    says: &'static [&'static str],
}

fn check(sound: fn() -> Facts, cases: &[Case]) {
    for Case { name, change, step, code, says } in cases {
        let mut facts = sound();
        change(&mut facts);
        let report = walk(&facts);
        let broken = report.broken().unwrap_or_else(|| panic!("{name}: nothing is broken: {report:#?}"));
        assert_eq!((broken.name, broken.code), (*step, Some(*code)), "{name}: {report:#?}");
        let sentence = report.sentence();
        for piece in *says {
            assert!(sentence.contains(piece), "{name}: no '{piece}' in: {sentence}");
        }
        assert!(sentence.starts_with("Broken at ") && sentence.ends_with('.'), "{name}: {sentence}");
    }
}

#[test]
fn a_sound_gateway_delivers_both_ways() {
    for (facts, direction, steps) in [(outbound(), Direction::Outbound, 12), (inbound(), Direction::Inbound, 10)] {
        let report = walk(&facts);
        assert_eq!(report.broken(), None, "{report:#?}");
        assert_eq!((report.direction, report.steps.len()), (direction, steps), "{report:#?}");
        assert!(report.steps.iter().all(|step| step.state == State::Ok), "{report:#?}");
        assert!(report.sentence().starts_with("As far as this gateway can see"), "{}", report.sentence());
    }
}

#[test]
fn what_the_host_gets_wrong() {
    check(
        outbound,
        &[
            Case {
                name: "the link of the source is down",
                change: |facts| facts.host.source.near.as_mut().unwrap().up = false,
                step: StepName::Source,
                code: Code::SourceLinkDown,
                says: &["lan0 is down", "bring lan0 up"],
            },
            Case {
                name: "no way back to the source",
                change: |facts| {
                    facts.host.source.near = None;
                    facts.host.source.way = Way::Nowhere(NoWay::NoRoute);
                },
                step: StepName::Source,
                code: Code::SourceUnreachable,
                says: &["10.1.0.10"],
            },
            Case {
                name: "forwarding is off, and routing says so too",
                change: |facts| {
                    facts.host.source.near.as_mut().unwrap().forwarding = false;
                    facts.host.way = Way::Nowhere(NoWay::Unreachable);
                },
                step: StepName::Forwarding,
                code: Code::ForwardingOff,
                says: &["lan0", "net.ipv4.ip_forward = 1"],
            },
            Case {
                name: "a strict filter and another way back",
                change: |facts| {
                    facts.host.source.near.as_mut().unwrap().reverse_path = 1;
                    facts.host.source.way = out("wan0", 254);
                    facts.host.way = Way::Nowhere(NoWay::ReversePath);
                },
                step: StepName::ReversePath,
                code: Code::ReversePath,
                says: &["lan0 has a strict reverse path filter", "wan0", "net.ipv4.conf.lan0.rp_filter"],
            },
            Case {
                name: "no route",
                change: |facts| facts.host.way = Way::Nowhere(NoWay::NoRoute),
                step: StepName::Route,
                code: Code::NoRoute,
                says: &["10.2.0.10", "no route"],
            },
            Case {
                name: "a blackhole",
                change: |facts| facts.host.way = Way::Nowhere(NoWay::Blackhole),
                step: StepName::Route,
                code: Code::RouteRefuses,
                says: &["blackhole"],
            },
            Case {
                name: "another route",
                change: |facts| facts.host.way = out("wan0", 99),
                step: StepName::Route,
                code: Code::RouteElsewhere,
                says: &["wan0 via 192.0.2.254 (table 99)", "instead of into cygnet0"],
            },
            Case {
                name: "the tunnel device is gone",
                change: |facts| facts.host.tunnel.as_mut().unwrap().link = None,
                step: StepName::Route,
                code: Code::TunnelDeviceDown,
                says: &["cygnet0 is gone"],
            },
            Case {
                name: "somebody else's policy",
                change: |facts| facts.host.foreign_policy = Some("src 10.1.0.0/16 dst 10.2.0.0/16 dir fwd".into()),
                step: StepName::KernelPolicy,
                code: Code::ForeignPolicy,
                says: &["10.1.0.0/16", "ip xfrm policy delete"],
            },
            Case {
                name: "the outer address is gone",
                change: |facts| facts.outer[0].local_is_ours = false,
                step: StepName::OuterPath,
                code: Code::AddressGone,
                says: &["192.0.2.1"],
            },
            Case {
                name: "the outer link is down",
                change: |facts| {
                    facts.outer[0].link =
                        Some(Link { up: false, below: vec!["bond0".into(), "eth1".into()], ..link("bond0.7") });
                    facts.outer[0].way = Some(Way::Nowhere(NoWay::NoRoute));
                },
                step: StepName::OuterPath,
                code: Code::OuterLinkDown,
                says: &["bond0.7 (on bond0, eth1) is down", "bring bond0.7 up"],
            },
            Case {
                name: "no route to the peer",
                change: |facts| facts.outer[0].way = Some(Way::Nowhere(NoWay::NoRoute)),
                step: StepName::OuterPath,
                code: Code::NoRouteToPeer,
                says: &["203.0.113.9"],
            },
        ],
    );
}

#[test]
fn what_no_policy_takes() {
    check(
        outbound,
        &[
            Case {
                name: "another destination",
                change: |facts| facts.packet.destination = address("10.9.0.10"),
                step: StepName::Policy,
                code: Code::NoPolicy,
                says: &["nearest is site/net, whose remote_ts 10.2.0.0/24 does not hold 10.9.0.10", "widen remote_ts"],
            },
            Case {
                name: "another protocol",
                change: |facts| {
                    for pair in facts.children.iter_mut().flat_map(|child| &mut child.pairs) {
                        pair.remote.protocol = 17;
                    }
                    facts.specs.clear();
                },
                step: StepName::Policy,
                code: Code::NoPolicy,
                says: &["10.2.0.0/24[17] does not hold protocol 6"],
            },
            Case {
                name: "nothing near",
                change: |facts| {
                    facts.packet.source = address("2001:db8::1");
                    facts.packet.destination = address("2001:db8::2");
                },
                step: StepName::Policy,
                code: Code::NoPolicy,
                says: &["no connection covers 2001:db8::1 to 2001:db8::2; configure a child"],
            },
            Case {
                name: "a drop shunt in the way",
                change: |facts| facts.specs.push(shunt(PolicyAction::Discard, 90_000)),
                step: StepName::Policy,
                code: Code::DropShunt,
                says: &["drop shunt other/shunt", "priority 90000", "before site/net (priority 183616)"],
            },
            Case {
                name: "narrowed by the peer",
                change: |facts| made::narrow(facts, "10.2.0.77"),
                step: StepName::Policy,
                code: Code::Narrowed,
                says: &["10.2.0.77/32", "site/net", "hold 10.2.0.10"],
            },
        ],
    );
}

#[test]
fn a_shunt_that_is_worse_is_not_met_and_a_pass_shunt_delivers() {
    let mut facts = outbound();
    facts.specs.push(shunt(PolicyAction::Discard, 190_000));
    assert_eq!(walk(&facts).broken(), None);
    facts.specs.push(shunt(PolicyAction::Bypass, 80_000));
    facts.host.way = out("wan0", 254);
    let report = walk(&facts);
    assert_eq!(report.broken(), None, "{report:#?}");
    let note = report.steps.iter().find(|step| step.name == StepName::Policy).unwrap();
    assert!(note.state == State::Note && note.text.contains("in clear"), "{note:?}");
}

/// Takes the child down with a cause.
fn down(facts: &mut Facts, state: ConfiguredState, kind: CauseKind) {
    facts.specs.clear();
    facts.ike_sas.clear();
    facts.host.way = out("wan0", 254);
    let status = &mut facts.children[0].status;
    status.state = state;
    status.failures = 2;
    status.last_cause = Some((1_700_000_000, Cause::new(kind, "its very reason.")));
}

#[test]
fn why_a_child_is_not_up() {
    use CauseKind as Kind;
    let all = [
        (Kind::Operator, Code::ClosedByOperator),
        (Kind::Reload, Code::Failed),
        (Kind::PeerDeleted, Code::ClosedByPeer),
        (Kind::Rekeyed, Code::Failed),
        (Kind::CollisionLost, Code::Failed),
        (Kind::Replaced, Code::ClosedByPeer),
        (Kind::HardLimit, Code::HardExpired),
        (Kind::Inactive, Code::ClosedIdle),
        (Kind::PeerUnreachable, Code::PeerUnreachable),
        (Kind::NoProposal, Code::NoProposal),
        (Kind::SelectorsUnacceptable, Code::SelectorsUnacceptable),
        (Kind::AuthenticationFailed, Code::AuthenticationFailed),
        (Kind::NoSecret, Code::NoSecret),
        (Kind::NoConfiguration, Code::PeerRefuses),
        (Kind::PeerError, Code::PeerRefuses),
        (Kind::ProtocolViolation, Code::PeerRefuses),
        (Kind::OffloadFailed, Code::BackendRefused),
        (Kind::DeviceLost, Code::DeviceLost),
        (Kind::NoAddress, Code::NoPeerAddress),
        (Kind::Shutdown, Code::Failed),
        (Kind::Internal, Code::Failed),
    ];
    for (kind, code) in all {
        for state in
            [ConfiguredState::Down, ConfiguredState::RetryIn(17), ConfiguredState::Trapped, ConfiguredState::Connecting]
        {
            let mut facts = outbound();
            down(&mut facts, state.clone(), kind);
            let report = walk(&facts);
            let broken = report.broken().unwrap_or_else(|| panic!("{kind:?} {state:?}: {report:#?}"));
            assert_eq!((broken.name, broken.code), (StepName::Child, Some(code)), "{kind:?} {state:?}: {report:#?}");
            assert!(broken.text.contains("its very reason (at 22:13:20 UTC)"), "{}", broken.text);
            assert!(!broken.fix.is_empty() && !broken.fix.ends_with('.'));
        }
    }
    let mut facts = outbound();
    down(&mut facts, ConfiguredState::RetryIn(17), Kind::PeerUnreachable);
    assert!(walk(&facts).sentence().contains("the next attempt comes in 17 s; see that 203.0.113.9 runs"));
}

#[test]
fn a_child_that_has_not_failed() {
    check(
        outbound,
        &[
            Case {
                name: "nothing asks for it",
                change: |facts| made::absent(facts, ConfiguredState::Down),
                step: StepName::Child,
                code: Code::NotStarted,
                says: &["swanctl --initiate --child net", "start_action"],
            },
            Case {
                name: "refused",
                change: |facts| made::absent(facts, ConfiguredState::Refused("no such device".into())),
                step: StepName::Child,
                code: Code::Refused,
                says: &["no such device"],
            },
            Case {
                name: "just connecting",
                change: |facts| made::absent(facts, ConfiguredState::Connecting),
                step: StepName::Child,
                code: Code::Connecting,
                says: &["just now"],
            },
            Case {
                name: "connecting without an answer",
                change: |facts| {
                    let ike = facts.ike_sas.clone();
                    made::absent(facts, ConfiguredState::Connecting);
                    facts.ike_sas = ike;
                    let ike = &mut facts.ike_sas[0];
                    ike.state = crate::IkeSaState::Connecting;
                    ike.children.clear();
                    (ike.repeats, ike.waiting_seconds) = (2, Some(11));
                },
                step: StepName::Child,
                code: Code::PeerUnreachable,
                says: &["repeated twice, for 11 s", "UDP 500 and 4500"],
            },
        ],
    );
    let mut facts = outbound();
    made::absent(&mut facts, ConfiguredState::Trapped);
    facts.specs.push(trap());
    facts.host.way = out(TUNNEL, 220);
    let report = walk(&facts);
    assert_eq!(report.broken(), None, "{report:#?}");
    assert!(report.steps.iter().any(|step| step.text.contains("the first packet asks for it")), "{report:#?}");
}

#[test]
fn what_is_wrong_with_an_sa() {
    check(
        outbound,
        &[
            Case {
                name: "the peer is silent",
                change: |facts| {
                    let ike = &mut facts.ike_sas[0];
                    (ike.heard_seconds, ike.repeats, ike.waiting_seconds) = (42, 3, Some(31));
                },
                step: StepName::Peer,
                code: Code::PeerUnreachable,
                says: &["203.0.113.9 was last heard 42 s ago", "repeated 3 times, for 31 s"],
            },
            Case {
                name: "the outbound SA is lost",
                change: |facts| facts.after.retain(|status| status.sa != made::OUT),
                step: StepName::Sa,
                code: Code::StateLost,
                says: &["the outbound SA d4c3b2a1", "site/net"],
            },
            Case {
                name: "the device is down",
                change: |facts| facts.devices.devices[0].state = DeviceState::Down,
                step: StepName::Sa,
                code: Code::DeviceDown,
                says: &["eth1, the device of site/net, is down", "bring eth1 up"],
            },
            Case {
                name: "the device is gone, and its SAs with it",
                change: |facts| {
                    facts.devices.devices[0].state = DeviceState::Gone;
                    facts.after.clear();
                },
                step: StepName::Sa,
                code: Code::DeviceDown,
                says: &["was removed"],
            },
            Case {
                name: "the hard limit",
                change: |facts| facts.after[1].hard_expired = Some(LimitUnit::Packets),
                step: StepName::Limits,
                code: Code::HardExpired,
                says: &["outbound SA of site/net", "hard limit of packets"],
            },
            Case {
                name: "too large",
                change: |facts| facts.size = Some(1_439),
                step: StepName::Size,
                code: Code::TooLarge,
                says: &["1439 octets do not fit, 1438 is the most"],
            },
            Case {
                name: "one way from the beginning",
                change: |facts| {
                    (facts.before[0].packets, facts.after[0].packets, facts.after[0].idle_seconds) = (0, 0, None);
                },
                step: StepName::Counters,
                code: Code::OneWay,
                says: &["out 80 packets (5 of them just now), in 0 packets", "protocol 50", "encap = yes"],
            },
            Case {
                name: "one way, and nothing of IKE either",
                change: |facts| {
                    (facts.before[0].packets, facts.after[0].packets, facts.after[0].idle_seconds) = (0, 0, None);
                    facts.ike_sas[0].heard_seconds = 300;
                },
                step: StepName::Counters,
                code: Code::OneWay,
                says: &["see that 203.0.113.9 still runs", "300 s old", "protocol 50"],
            },
            Case {
                name: "one way since a while, in UDP",
                change: |facts| {
                    facts.before[0].packets = facts.after[0].packets;
                    facts.after[0].idle_seconds = Some(30);
                    facts.ike_sas[0].children[0].encap = true;
                },
                step: StepName::Counters,
                code: Code::OneWay,
                says: &["the last one 30 s ago", "ESP in UDP between our port 4500 and 203.0.113.9:4500"],
            },
            Case {
                name: "the system refuses to send",
                change: |facts| facts.drops.push(Drops { reason: "send-failed".into(), before: 2, after: 5 }),
                step: StepName::Counters,
                code: Code::Dropped,
                says: &["3 in 200 ms", "send-failed, 5 so far"],
            },
        ],
    );
}

#[test]
fn what_keeps_a_packet_from_coming_in() {
    check(
        inbound,
        &[
            Case {
                name: "nothing has come",
                change: |facts| (facts.before[0].packets, facts.after[0].packets) = (0, 0),
                step: StepName::Counters,
                code: Code::NothingArrives,
                says: &["in the 120 s since", "protocol 50"],
            },
            Case {
                name: "not what was agreed on",
                change: |facts| facts.drops.push(Drops { reason: "selector-mismatch".into(), before: 0, after: 4 }),
                step: StepName::Counters,
                code: Code::Dropped,
                says: &["selector-mismatch"],
            },
            Case {
                name: "narrowed",
                change: |facts| made::narrow(facts, "10.2.0.77"),
                step: StepName::Policy,
                code: Code::Narrowed,
                says: &["10.2.0.77/32"],
            },
            Case {
                name: "not forwarded",
                change: |facts| facts.host.tunnel.as_mut().unwrap().link.as_mut().unwrap().forwarding = false,
                step: StepName::Forwarding,
                code: Code::ForwardingOff,
                says: &["cygnet0"],
            },
            Case {
                name: "a strict filter on the tunnel device",
                change: |facts| {
                    facts.host.tunnel.as_mut().unwrap().link.as_mut().unwrap().reverse_path = 1;
                    facts.host.source.way = out("wan0", 254);
                },
                step: StepName::ReversePath,
                code: Code::ReversePath,
                says: &["cygnet0 has a strict"],
            },
            Case {
                name: "no way to the host",
                change: |facts| facts.host.destination.way = Way::Nowhere(NoWay::Prohibited),
                step: StepName::Destination,
                code: Code::DestinationUnreachable,
                says: &["10.1.0.10", "prohibit"],
            },
            Case {
                name: "its link is down",
                change: |facts| {
                    let down = Link { carrier: false, ..link("lan0") };
                    facts.host.destination.near = Some(down.clone());
                    facts.host.destination.way = Way::Out { link: down, gateway: None, table: 254, mtu: None };
                },
                step: StepName::Destination,
                code: Code::DestinationLinkDown,
                says: &["lan0 has no carrier"],
            },
        ],
    );
}

#[test]
fn drops_that_do_not_move_and_old_silence_mean_nothing() {
    let mut facts = outbound();
    facts.drops.push(Drops { reason: "send-failed".into(), before: 5, after: 5 });
    for status in [0, 1] {
        facts.before[status].packets = facts.after[status].packets;
        facts.after[status].idle_seconds = Some(4_000);
    }
    assert_eq!(walk(&facts).broken(), None);
}

#[test]
fn where_the_kernel_is_the_data_path_routing_leads_out() {
    let mut facts = outbound();
    facts.host.tunnel = None;
    facts.host.way = out("wan0", 254);
    assert_eq!(walk(&facts).broken(), None);
}

/// The kernel is the data path: no tunnel device, and its SPD has the entry.
fn outbound_kernel() -> Facts {
    let mut facts = outbound();
    facts.host.tunnel = None;
    facts.host.way = out("wan0", 220);
    facts.host.met = Some(Met::Entry("src 10.1.0.0/24 dst 10.2.0.0/24 dir out".into(), Some("eth1".into())));
    facts
}

#[test]
fn what_the_kernel_as_data_path_gets_wrong() {
    let report = walk(&outbound_kernel());
    assert_eq!(report.broken(), None, "{report:#?}");
    assert!(report.steps.iter().any(|step| step.text.contains("which eth1 holds")), "{report:#?}");
    let drops = |reason: &str| Drops { reason: reason.into(), before: 0, after: 4 };
    check(
        outbound_kernel,
        &[
            Case {
                name: "its entry is gone and the guard holds",
                change: |facts| facts.host.met = Some(Met::Guard("dir out action block".into())),
                step: StepName::KernelPolicy,
                code: Code::PolicyLost,
                says: &["the guard takes the packet", "action block"],
            },
            Case {
                name: "its entry is gone and there is no guard",
                change: |facts| facts.host.met = Some(Met::Nothing),
                step: StepName::KernelPolicy,
                code: Code::PolicyLost,
                says: &["goes in clear"],
            },
            Case {
                name: "an exemption comes first",
                change: |facts| facts.host.met = Some(Met::Exemption("dst 10.2.0.0/24 dir out".into())),
                step: StepName::KernelPolicy,
                code: Code::Exempt,
                says: &["in clear", "10.2.0.0/24"],
            },
            Case {
                name: "the device refuses packets",
                change: |facts| facts.drops.push(Drops { reason: "XfrmOutError".into(), before: 1, after: 3 }),
                step: StepName::Counters,
                code: Code::Dropped,
                says: &["2 in 200 ms", "XfrmOutError"],
            },
        ],
    );
    let mut facts = outbound_kernel();
    facts.drops = vec![drops("XfrmInNoStates")];
    assert_eq!(walk(&facts).broken(), None, "what arrives is another matter");
    // Nothing is up: the guard is as it should be, and the child is the reason.
    facts = outbound_kernel();
    facts.specs.clear();
    facts.ike_sas.clear();
    facts.children[0].status.state = ConfiguredState::Down;
    facts.host.met = Some(Met::Guard("dir out action block".into()));
    let report = walk(&facts);
    assert_eq!(report.broken().map(|step| step.name), Some(StepName::Child), "{report:#?}");
}

#[test]
fn only_what_protects_is_near() {
    let mut facts = sound();
    facts.packet.destination = address("10.9.0.1");
    let child = std::sync::Arc::make_mut(&mut facts.children[0].child);
    child.mode = ChildMode::Drop;
    assert!(!walk(&facts).sentence().contains("nearest"));
}

//= RFC 4303 §2, §3.3.4: what ESP adds
#[test]
fn the_largest_packet_is_what_esp_leaves_of_the_path() {
    use ipsec::{EspAlgorithm, SaMode};
    let cbc = EspAlgorithm::from_ids(12, Some(256), Some(12)).unwrap();
    let cases = [
        (EspAlgorithm::AES_128_GCM, SaMode::Tunnel, false, true, 1_500, 1_446),
        (EspAlgorithm::AES_128_GCM, SaMode::Tunnel, true, true, 1_500, 1_438),
        (EspAlgorithm::CHACHA20_POLY1305, SaMode::Tunnel, false, false, 1_500, 1_426),
        (cbc, SaMode::Tunnel, false, true, 1_500, 1_438),
        (EspAlgorithm::AES_128_GCM, SaMode::Transport, false, true, 1_500, 1_466),
        // Less than every path carries is not believed.
        (EspAlgorithm::AES_128_GCM, SaMode::Tunnel, false, true, 100, 522),
    ];
    for (algorithm, mode, udp, v4, path, largest) in cases {
        assert_eq!(largest_inner(algorithm, mode, udp, v4, path), largest, "{algorithm:?} {mode:?} {udp} {v4} {path}");
    }
}

#[test]
fn names_are_stable() {
    assert_eq!(Code::NoRouteToPeer.name(), "no-route-to-peer");
    assert_eq!(StepName::OuterPath.name(), "outer-path");
    assert_eq!(Direction::Inbound.name(), "inbound");
}
