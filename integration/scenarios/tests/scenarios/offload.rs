//! Packet offload, crypto offload, software: a child is held against its device before a word is said, proposals hold only what a rung carries, and
//! the install climbs down the ladder, is undone whole, and is read back.

use std::time::Duration;

use ike_model::{Child, CommandError, EventBody};
use ike_wire::ids::EsnId;
use ipsec::recording::{able, device};
use ipsec::{Capabilities, Device, EspAlgorithm, LimitUnits, OffloadMode, ReplayWindows, SelectorSupport};
use scenarios::{A, B, Nat, Who, World, config};

mod install;
mod refused;
mod room;

use OffloadMode::{Auto, Crypto, No, Packet};

/// What packet offload of the device carries: AES-GCM with 32-bit sequence numbers in tunnel mode, whole prefixes, no UDP.
fn packet() -> Capabilities {
    Capabilities {
        algorithms: vec![EspAlgorithm::AES_128_GCM, EspAlgorithm::AES_256_GCM],
        transport: false,
        esn: false,
        replay_windows: ReplayWindows::Only(vec![32, 64]),
        selectors: SelectorSupport { ranges: false, ports: false, protocols: Some(vec![6, 17]) },
        udp_encapsulation: false,
        limits: LimitUnits { time: false, bytes: false, packets: true },
        in_place_move: false,
        ..able()
    }
}

/// What its crypto offload carries: AES-GCM.
fn crypto() -> Capabilities {
    Capabilities { algorithms: packet().algorithms, ..able() }
}

/// A device with all rungs.
fn nic() -> Device {
    device("eth0", [(Packet, packet()), (Crypto, crypto()), (No, able())])
}

/// A with this device and `hw_offload`, B with software; both ends with the same change to their child.
fn world(device: Device, wanted: OffloadMode, change: impl Fn(&mut Child)) -> World {
    let mut world = World::with_shards(1, &[1, 1]);
    world.gateway_mut(A).use_device(device);
    for (who, other) in [(A, B), (B, A)] {
        let connection = config::with_child(config::connection("gw", who, other), |child| {
            change(child);
            child.hw_offload = if who == A { wanted } else { No };
        });
        world.configure(who, connection);
    }
    world
}

/// The one rung on which A has all its SAs and policies, and which it shows.
fn rung(world: &World) -> OffloadMode {
    let tables = world.gateway(A).tables();
    let sas = tables.sas.values().map(|sa| sa.offload);
    let all: Vec<OffloadMode> = sas.chain(tables.policies.values().map(|policy| policy.offload)).collect();
    let children = world.gateway(A).live_children(world.now());
    let shown = children[0].offload.mode;
    world.check(all.iter().all(|mode| *mode == shown), &format!("{shown:?} is shown, {all:?} installed"));
    world.check(children[0].offload.device.is_some() == (shown != No), "the device is named where there is one");
    shown
}

/// Causes of `offload.degraded` at A, and the modes told with them.
fn degraded(world: &World) -> Vec<(OffloadMode, String)> {
    let told = world.gateway(A).events.iter().filter_map(|(_, body)| {
        let EventBody::Degraded { child, cause, .. } = body else { return None };
        Some((child.offload.mode, cause.text.clone()))
    });
    told.collect()
}

fn up(world: &mut World, initiator: Who) {
    let ticket = world.initiate(initiator, "gw", "net");
    world.run_for(Duration::from_secs(5));
    let reply = world.reply(initiator, ticket);
    world.check(reply.as_ref().is_some_and(|done| done.is_ok()), &format!("{reply:?}"));
    world.check_one_tunnel(A, B);
}

/// The cause that whoever asked for a child is told.
fn refusal(world: &mut World, initiator: Who, child: &str) -> String {
    let ticket = world.initiate(initiator, "gw", child);
    world.run_for(Duration::from_secs(5));
    match world.reply(initiator, ticket) {
        Some(Err(CommandError::Failed(cause))) => cause.text,
        other => world.fail(&format!("{other:?}")),
    }
}

/// A wish of a child, by the name of what it is about.
struct Wish {
    change: fn(&mut Child),
    /// NAT before A.
    nat: bool,
    /// Where `auto` ends.
    rung: OffloadMode,
    /// What packet offload says to it.
    packet: &'static str,
    /// What crypto offload says to it.
    crypto: &'static str,
}

const PACKET_ESN: &str = "device eth0 with packet offload carries no extended sequence numbers, only 32-bit ones: add `noesn` to `esp_proposals`";
const PACKET_NAT: &str = "device eth0 with packet offload carries no ESP in UDP, only native ESP, and there is NAT on the way to \
                          the peer: set `hw_offload = auto`";

fn wishes() -> Vec<Wish> {
    let none = Wish { change: |_| {}, nat: false, rung: Packet, packet: "", crypto: "" };
    vec![
        none,
        Wish {
            change: |child| child.replay_window = Some(512),
            nat: false,
            rung: Crypto,
            packet: "device eth0 with packet offload has replay windows of 32 or 64 packets, not 512: change `replay_window`",
            crypto: "",
        },
        Wish {
            change: |child| child.replay_window = Some(8),
            nat: false,
            rung: Auto,
            packet: "device eth0 with packet offload has replay windows of 32 or 64 packets, not 8: change `replay_window`",
            crypto: "device eth0 with crypto offload has replay windows of 32 to 1024 packets, or 0, not 8: change `replay_window`",
        },
        Wish {
            change: |child| child.esp_proposals[0].esn = vec![EsnId::EXT_SEQ],
            nat: false,
            rung: Crypto,
            packet: PACKET_ESN,
            crypto: "",
        },
        Wish {
            change: |child| child.esp_proposals[0].encryption = vec![config::chacha()],
            nat: false,
            rung: No,
            packet: "device eth0 with packet offload carries aes128gcm16 or aes256gcm16, not chacha20poly1305: change `esp_proposals`",
            crypto: "device eth0 with crypto offload carries aes128gcm16 or aes256gcm16, not chacha20poly1305: change `esp_proposals`",
        },
        Wish {
            change: |child| {
                child.mode = ike_model::ChildMode::Transport;
                let dynamic = ike_model::ConfiguredSelector::Dynamic { protocol: 0, ports: ipsec::PortRange::ANY };
                (child.local_ts, child.remote_ts) = (vec![dynamic], vec![dynamic]);
            },
            nat: false,
            rung: Crypto,
            packet: "device eth0 with packet offload carries tunnel mode only: set `mode = tunnel`",
            crypto: "",
        },
        Wish { change: |_| {}, nat: true, rung: Crypto, packet: PACKET_NAT, crypto: "" },
    ]
}

fn world_of(wish: &Wish, wanted: OffloadMode) -> World {
    let mut world = world(nic(), wanted, wish.change);
    if wish.nat {
        let mut any = config::connection("gw", B, A);
        any.remote_addrs = vec![ike_model::HostSpec::Any];
        world.configure(B, any);
        world.behind_nat(A, Nat::new([203, 0, 113, 1].into(), 40_000));
    }
    world
}

/// `auto` ends on the best rung that carries what is asked, at either end and over rekeys begun at both; a worse one than the best is told
/// once, with the reason.
#[test]
fn auto_takes_the_best_rung_that_carries_the_child() {
    for wish in wishes().iter().filter(|wish| wish.rung != Auto) {
        // Behind NAT only A can begin.
        for initiator in if wish.nat { vec![A] } else { vec![A, B] } {
            let mut world = world_of(wish, Auto);
            up(&mut world, initiator);
            assert_eq!(rung(&world), wish.rung, "{}", wish.packet);
            let told: Vec<&str> = [wish.packet, wish.crypto].into_iter().filter(|text| !text.is_empty()).collect();
            let expected = if told.is_empty() { Vec::new() } else { vec![(wish.rung, told.join("; "))] };
            assert_eq!(degraded(&world), expected);
            for who in [A, B] {
                world.rekey_child(who, "net");
                world.run_for(Duration::from_secs(20));
                world.check_one_tunnel(A, B);
                assert_eq!(rung(&world), wish.rung);
            }
            assert_eq!(degraded(&world), expected, "told once");
        }
    }
}

/// `packet` and `crypto` are that rung or nothing; compared with what the device shows, there is nothing to repair.
#[test]
fn one_rung_alone_is_that_rung() {
    for wanted in [No, Crypto, Packet] {
        let mut world = world(nic(), wanted, |_| {});
        world.check_regularly(A, Duration::from_secs(1));
        up(&mut world, A);
        assert_eq!(rung(&world), wanted);
        assert_eq!(degraded(&world), []);
        let before = world.gateway(A).tables().policies.clone();
        world.run_for(Duration::from_secs(30));
        assert_eq!(world.gateway(A).tables().policies, before, "{wanted:?}");
        for event in ["offload.repaired", "offload.state-lost"] {
            assert_eq!(world.gateway(A).count(event), 0, "{event} on {wanted:?}");
        }
    }
}

/// What is offered and what is chosen is what a rung can carry, in the configured order.
//= RFC 7296 §2.7: the responder chooses one suite out of what is offered
#[test]
fn proposals_are_narrowed_to_the_rungs() {
    let both = |child: &mut Child| {
        let gcm = child.esp_proposals[0].encryption[0];
        child.esp_proposals[0].encryption = vec![config::chacha(), gcm];
        child.esp_proposals[0].esn = vec![EsnId::EXT_SEQ, EsnId::NO_EXT_SEQ];
    };
    // A's wish, who begins, the cipher and sequence numbers agreed on, A's rung.
    let cases = [
        // Only what packet offload carries is offered, and chosen.
        (Packet, A, 20, false, Packet),
        (Packet, B, 20, false, Packet),
        (Crypto, A, 20, true, Crypto),
        (Crypto, B, 20, true, Crypto),
        // What software alone carries is offered too, and B prefers that.
        (Auto, A, 28, true, No),
        // Of what is equally good A chooses what its best rung carries.
        (Auto, B, 20, false, Packet),
        (No, A, 28, true, No),
        (No, B, 28, true, No),
    ];
    for (wanted, initiator, cipher, esn, expected) in cases {
        let what = format!("{wanted:?} begun by {initiator}");
        let mut world = world(nic(), wanted, both);
        up(&mut world, initiator);
        let agreed = world.gateway(A).live_children(world.now())[0].algorithms.unwrap();
        assert_eq!((agreed.encryption, agreed.esn, rung(&world)), (cipher, esn, expected), "{what}");
        // CREATE_CHILD_SA is narrowed alike. As responder the end that rekeys may be the other one.
        world.rekey_child(initiator, "net");
        world.run_for(Duration::from_secs(20));
        world.check_one_tunnel(A, B);
        let agreed = world.gateway(A).live_children(world.now())[0].algorithms.unwrap();
        assert_eq!((agreed.encryption, agreed.esn, rung(&world)), (cipher, esn, expected), "{what}, rekeyed");
    }
}

/// The peer decides for what only software carries: that is told with the reason.
#[test]
fn what_the_peer_has_chosen_can_be_the_reason() {
    let esn = |child: &mut Child| child.esp_proposals[0].esn = vec![EsnId::EXT_SEQ, EsnId::NO_EXT_SEQ];
    let mut world = world(nic(), Auto, esn);
    up(&mut world, A);
    assert_eq!(rung(&world), Crypto);
    assert_eq!(degraded(&world), [(Crypto, PACKET_ESN.to_owned())]);
}

/// A proposal per rung where no rung carries all: no combination is offered that could not be installed.
#[test]
fn combinations_that_no_rung_carries_are_not_offered() {
    let esn_only = Capabilities { algorithms: vec![EspAlgorithm::CHACHA20_POLY1305], ..able() };
    let split = device("eth0", [(Packet, packet()), (Crypto, esn_only)]);
    let both = |child: &mut Child| {
        let gcm = child.esp_proposals[0].encryption[0];
        child.esp_proposals[0].encryption = vec![gcm, config::chacha()];
        child.esp_proposals[0].esn = vec![EsnId::EXT_SEQ, EsnId::NO_EXT_SEQ];
    };
    let mut world = world(split, Auto, both);
    // B's first choice would be AES-GCM with ESN, which packet offload does not carry and crypto offload does not either.
    up(&mut world, A);
    let agreed = world.gateway(A).live_children(world.now())[0].algorithms.unwrap();
    let installable = [(20, false, Packet), (28, true, Crypto), (28, false, Crypto)];
    assert!(installable.contains(&(agreed.encryption, agreed.esn, rung(&world))), "{agreed:?}");
}

/// A trap waits where it hides no child: a device looks its own policies up first, so with a choice it is in software. The child it brings up runs
/// on its own rung.
#[test]
fn a_trap_hides_no_child() {
    let trap = |world: &World| world.gateway(A).tables().policies.into_values().next().unwrap().offload;
    for (wanted, expected) in [(Auto, No), (Packet, Packet)] {
        let mut trapped = world(nic(), wanted, |child| child.start_action = config::TRAP);
        trapped.run_for(Duration::from_secs(1));
        assert_eq!(trap(&trapped), expected, "{wanted:?}");
        up(&mut trapped, A);
        let children = trapped.gateway(A).live_children(trapped.now());
        assert_eq!(children[0].offload.mode, Packet, "{wanted:?}");
    }
}

#[test]
fn a_trap_is_on_a_rung_that_has_traps() {
    let no_traps = Capabilities { all_policy_kinds: false, ..packet() };
    let device = device("eth0", [(Packet, no_traps), (No, able())]);
    let mut trapped = world(device.clone(), Auto, |child| child.start_action = config::TRAP);
    trapped.run_for(Duration::from_secs(1));
    let trap = |world: &World| world.gateway(A).tables().policies.into_values().next().unwrap();
    assert_eq!(trap(&trapped).offload, No);
    up(&mut trapped, A);
    let children = trapped.gateway(A).live_children(trapped.now());
    assert_eq!(children[0].offload.mode, Packet);

    let refused = world(device, Packet, |child| child.start_action = config::TRAP);
    let state = refused.gateway(A).configured(refused.now()).remove(0).state;
    let text = "device eth0 with packet offload has no trap policies: take `trap` out of `start_action`".to_owned();
    assert_eq!(state, ike_model::snapshot::ConfiguredState::Refused(text));
}
