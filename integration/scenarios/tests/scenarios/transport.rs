//! Transport mode: who gets it, with which selectors, and what NAT makes of them.

use std::net::IpAddr;
use std::time::Duration;

use ike_model::{CauseKind, Child, ChildMode, ConfiguredSelector, Connection, HostSpec};
use ipsec::{AddressRange, OuterAddresses, PacketSelectors, PortRange, SaMode, TrafficSelector};
use scenarios::{A, B, C, Nat, Who, World, config};

const ANY_PORT: ConfiguredSelector = ConfiguredSelector::Dynamic { protocol: 0, ports: PortRange::ANY };

fn transport(child: &mut Child) {
    child.mode = ChildMode::Transport;
    (child.local_ts, child.remote_ts) = (vec![ANY_PORT], vec![ANY_PORT]);
}

fn tunnel(child: &mut Child) {
    transport(child);
    child.mode = ChildMode::Tunnel;
}

fn connection(who: Who, other: Who, change: impl FnOnce(&mut Child)) -> Connection {
    config::with_child(config::connection("gw", who, other), change)
}

fn host(address: IpAddr) -> TrafficSelector {
    TrafficSelector::all(AddressRange::host(address))
}

fn fixed(address: &str, length: u8) -> Vec<ConfiguredSelector> {
    vec![ConfiguredSelector::Fixed(TrafficSelector::prefix(address.parse().unwrap(), length).unwrap())]
}

/// Mode and selectors of the only CHILD SA of a gateway.
fn shape(world: &World, who: Who) -> (SaMode, Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let children = world.gateway(who).live_children(world.now());
    assert_eq!(children.len(), 1);
    (children[0].mode, children[0].local_ts.clone(), children[0].remote_ts.clone())
}

/// What every SA of a gateway says of mode, addresses and the peer's view of them.
fn installed(world: &World, who: Who) -> (SaMode, OuterAddresses, Option<OuterAddresses>) {
    let tables = world.gateway(who).tables();
    let all: Vec<_> = tables.sas.values().map(|sa| (sa.mode, sa.outer, sa.peer_view)).collect();
    assert!(!all.is_empty() && all.iter().all(|one| *one == all[0]), "{all:?}");
    all[0]
}

struct Case {
    name: &'static str,
    a: fn(&mut Child),
    b: fn(&mut Child),
    /// The mode that both ends have in the end, or why there is none, as the initiator says it.
    outcome: Result<SaMode, (CauseKind, &'static str)>,
    /// Datagrams of the initiator: IKE_SA_INIT, IKE_AUTH, and the DELETE of what it cannot accept.
    sent: usize,
}

//= RFC 7296 §1.3.1: USE_TRANSPORT_MODE in request and response; an initiator to whom tunnel mode is not acceptable deletes it
#[test]
fn both_ends_must_want_it() {
    let cases = [
        Case { name: "both", a: transport, b: transport, outcome: Ok(SaMode::Transport), sent: 2 },
        Case { name: "none", a: tunnel, b: tunnel, outcome: Ok(SaMode::Tunnel), sent: 2 },
        Case {
            name: "the responder declines",
            a: transport,
            b: tunnel,
            outcome: Err((CauseKind::NoProposal, "the peer declines transport mode for 'net'")),
            sent: 3,
        },
        Case {
            name: "the responder insists",
            a: tunnel,
            b: transport,
            outcome: Err((CauseKind::NoProposal, "peer answered NO_PROPOSAL_CHOSEN")),
            sent: 2,
        },
        Case {
            name: "wide selectors shrink to the two hosts",
            a: |child| {
                transport(child);
                (child.local_ts, child.remote_ts) = (fixed("192.0.2.0", 24), fixed("0.0.0.0", 0));
            },
            b: transport,
            outcome: Ok(SaMode::Transport),
            sent: 2,
        },
        Case {
            name: "a responder with wide selectors",
            a: transport,
            b: |child| {
                transport(child);
                (child.local_ts, child.remote_ts) = (fixed("0.0.0.0", 0), fixed("0.0.0.0", 0));
            },
            outcome: Ok(SaMode::Transport),
            sent: 2,
        },
        Case {
            name: "selectors without the two hosts are never offered",
            a: |child| child.mode = ChildMode::Transport,
            b: transport,
            outcome: Err((CauseKind::SelectorsUnacceptable, "carries packets between 192.0.2.1 and 192.0.2.2 only")),
            sent: 1,
        },
        Case {
            name: "selectors of the responder without the two hosts",
            a: transport,
            b: |child| child.mode = ChildMode::Transport,
            outcome: Err((CauseKind::SelectorsUnacceptable, "peer answered TS_UNACCEPTABLE")),
            sent: 2,
        },
    ];
    for case in cases {
        let mut world = World::pair_of(7, connection(A, B, case.a), connection(B, A, case.b));
        let ticket = world.initiate(A, "gw", "net");
        world.run_for(Duration::from_secs(2));
        let reply = world.reply(A, ticket);
        match case.outcome {
            Ok(mode) => {
                assert!(reply.is_some_and(|reply| reply.is_ok()), "{}", case.name);
                world.check_one_tunnel(A, B);
                for (who, other) in [(A, B), (B, A)] {
                    let hosts = (mode, vec![host(config::address(who))], vec![host(config::address(other))]);
                    assert_eq!(shape(&world, who), hosts, "{}", case.name);
                    let outer = OuterAddresses { local: config::address(who), remote: config::address(other) };
                    assert_eq!(installed(&world, who), (mode, outer, None), "{}", case.name);
                }
            }
            Err((kind, text)) => {
                let error = format!("{:?}", reply.unwrap().unwrap_err());
                assert!(error.contains(text), "{}: {error}", case.name);
                assert!(error.contains(&format!("{kind:?}")), "{}: {error}", case.name);
                for who in [A, B] {
                    assert_eq!(world.gateway(who).live_children(world.now()).len(), 0, "{}", case.name);
                    assert!(world.gateway(who).tables().sas.is_empty(), "{}", case.name);
                }
            }
        }
        assert_eq!(world.sent(A), case.sent, "{}", case.name);
    }
}

/// The responder has one child for each mode: the request decides.
#[test]
fn the_child_with_the_mode_asked_for_is_chosen() {
    for (wanted, mode) in [("host", SaMode::Transport), ("net", SaMode::Tunnel)] {
        let both = |who, other| {
            let mut connection = connection(who, other, tunnel);
            let mut host = (*connection.children[0]).clone();
            (host.name, host.mode) = ("host".into(), ChildMode::Transport);
            connection.children.insert(who, host.into());
            connection
        };
        let mut world = World::pair_of(3, both(A, B), both(B, A));
        let ticket = world.initiate(A, "gw", wanted);
        world.run_for(Duration::from_secs(2));
        assert!(world.reply(A, ticket).unwrap().is_ok());
        world.check_one_tunnel(A, B);
        for who in [A, B] {
            let children = world.gateway(who).live_children(world.now());
            assert_eq!((&*children[0].name, children[0].mode), (wanted, mode));
        }
    }
}

/// Protocols and ports of both ends are narrowed as ever, the packet that asked comes first.
#[test]
fn protocols_and_ports_are_narrowed() {
    let tcp = ConfiguredSelector::Dynamic { protocol: 6, ports: PortRange::ANY };
    let web = ConfiguredSelector::Dynamic { protocol: 6, ports: PortRange::single(443) };
    let mut a = connection(A, B, transport);
    a = config::with_child(a, |child| {
        (child.local_ts, child.remote_ts) = (vec![tcp], vec![tcp]);
        child.start_action = config::TRAP;
    });
    let b = config::with_child(connection(B, A, transport), |child| child.local_ts = vec![web]);
    let mut world = World::pair_of(5, a, b);
    world.run_for(Duration::from_secs(1));
    let packet = |source: IpAddr, destination: IpAddr| PacketSelectors {
        source,
        destination,
        protocol: 6,
        ports: Some((40_000, 443)),
    };
    assert!(!world.acquire(A, packet(config::address(A), config::address(C))));
    assert!(world.acquire(A, packet(config::address(A), config::address(B))));
    world.run_for(Duration::from_secs(2));
    world.check_one_tunnel(A, B);
    let (mode, local, remote) = shape(&world, A);
    let selector = |address, ports| TrafficSelector { protocol: 6, ports, ..host(address) };
    assert_eq!(mode, SaMode::Transport);
    assert_eq!(local, [selector(config::address(A), PortRange::ANY)]);
    assert_eq!(remote, [selector(config::address(B), PortRange::single(443))]);
}

//= RFC 7296 §1.3.3: rekeying by either end, and by both at once, keeps the mode
#[test]
fn rekeying_keeps_mode_and_selectors() {
    for (name, by) in [("initiator", &[A][..]), ("responder", &[B]), ("both at once", &[A, B])] {
        let mut world = World::pair_of(11, connection(A, B, transport), connection(B, A, transport));
        world.establish();
        world.strict(true);
        world.traffic_every = Some(Duration::from_millis(10));
        let before = (shape(&world, A), shape(&world, B));
        by.iter().for_each(|who| {
            world.rekey_child(*who, "net");
        });
        world.run_for(Duration::from_secs(30));
        world.check_one_tunnel(A, B);
        assert_eq!((shape(&world, A), shape(&world, B)), before, "{name}");
        assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0), "{name}");
        assert_eq!(world.gateway(A).count("child-sa.rekeyed"), 1, "{name}");
        world.rekey_ike(B, "gw");
        world.run_for(Duration::from_secs(10));
        world.rekey_child(B, "net");
        world.run_for(Duration::from_secs(10));
        assert_eq!((shape(&world, A), shape(&world, B)), before, "{name}, after the IKE SA was rekeyed");
    }
}

/// The configuration of one end changes while the CHILD SA is up: what is up stays what it is, what is new is as configured.
#[test]
fn a_changed_mode_counts_for_new_ones() {
    let mut world = World::pair_of(13, connection(A, B, transport), connection(B, A, transport));
    world.establish();
    world.gateway_mut(A).load(connection(A, B, tunnel));
    world.reload(A, &["gw"], &[]);
    world.run_for(Duration::from_secs(2));
    world.rekey_child(A, "net");
    world.run_for(Duration::from_secs(10));
    assert_eq!(shape(&world, A).0, SaMode::Transport);
    world.check_one_tunnel(A, B);
}

const PUBLIC_A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
const PUBLIC_B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));

/// A is the client, behind a translator that gives out ports; B the server, behind one that only has another address.
fn translated(a: bool, b: bool) -> World {
    let mut client = connection(A, B, transport);
    if b {
        client.remote_addrs = vec![HostSpec::Address(PUBLIC_B)];
    }
    let mut server = connection(B, A, transport);
    server.remote_addrs = vec![HostSpec::Any];
    let mut world = World::pair_of(17, client, server);
    if a {
        world.behind_nat(A, Nat::new(PUBLIC_A, 40_000));
    }
    if b {
        world.behind_nat(B, Nat::forwarding(PUBLIC_B, config::address(B)));
    }
    world
}

//= RFC 7296 §2.23.1: each end has the addresses that it sees, and keeps those of the other for the checksums (RFC 3948 §3.1.2)
#[test]
fn translated_addresses_are_replaced() {
    for (name, nat_a, nat_b) in [("client", true, false), ("server", false, true), ("both", true, true)] {
        let mut world = translated(nat_a, nat_b);
        world.establish();
        world.strict(true);
        let a_as_seen = if nat_a { PUBLIC_A } else { config::address(A) };
        let b_as_seen = if nat_b { PUBLIC_B } else { config::address(B) };
        let check = |world: &World| {
            for (who, own, peer, own_seen, peer_own) in [
                (A, config::address(A), b_as_seen, a_as_seen, config::address(B)),
                (B, config::address(B), a_as_seen, b_as_seen, config::address(A)),
            ] {
                assert_eq!(shape(world, who), (SaMode::Transport, vec![host(own)], vec![host(peer)]), "{name}");
                let outer = OuterAddresses { local: own, remote: peer };
                let view = OuterAddresses { local: own_seen, remote: peer_own };
                assert_eq!(installed(world, who), (SaMode::Transport, outer, Some(view)), "{name}");
            }
        };
        check(&world);
        for who in [A, B] {
            world.rekey_child(who, "net");
            world.run_for(Duration::from_secs(30));
            world.check_one_tunnel(A, B);
            check(&world);
        }
    }
}

//= RFC 7296 §2.23.1: where transport mode is not allowed, the addresses are put back and a tunnel is looked for
#[test]
fn behind_nat_a_responder_may_decline_too() {
    let mut world = translated(true, false);
    let mut server = connection(B, A, tunnel);
    server.remote_addrs = vec![HostSpec::Any];
    // Only the address that the client has itself fits: found after the substitution is undone.
    server = config::with_child(server, |child| child.remote_ts = fixed("192.0.2.1", 32));
    world.gateway_mut(B).load(server);
    let ticket = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(2));
    let error = format!("{:?}", world.reply(A, ticket).unwrap().unwrap_err());
    assert!(error.contains("declines transport mode"), "{error}");
    assert_eq!(world.gateway(B).count("child-sa.installed"), 1);
    assert!(world.gateway(A).tables().sas.is_empty() && world.gateway(B).tables().sas.is_empty());
}

/// A new port of the translator is followed in place; a new address is another host, so another CHILD SA takes over.
#[test]
fn a_new_mapping_is_followed_and_a_new_address_makes_a_new_sa() {
    let mut world = translated(true, false);
    world.establish();
    let before = world.tunnels(A, B);
    world.gateway_mut(A).nat.as_mut().unwrap().rebind();
    world.initiate(A, "gw", "net");
    world.rekey_ike(A, "gw");
    world.run_for(Duration::from_secs(10));
    world.check_one_tunnel(A, B);
    assert_eq!(world.tunnels(A, B), before, "a new port moves it in place");
    // The new one is made like the first: for the time of the answer only one end has it.
    world.strict(false);
    let moved: IpAddr = [203, 0, 113, 9].into();
    world.gateway_mut(A).nat = Some(Nat::new(moved, 45_000));
    world.rekey_ike(A, "gw");
    world.run_for(Duration::from_secs(30));
    world.check_one_tunnel(A, B);
    assert_eq!(shape(&world, B), (SaMode::Transport, vec![host(config::address(B))], vec![host(moved)]));
    assert_eq!(shape(&world, A), (SaMode::Transport, vec![host(config::address(A))], vec![host(config::address(B))]));
    assert_eq!(world.gateway(B).count("child-sa.closed"), 1);
}
