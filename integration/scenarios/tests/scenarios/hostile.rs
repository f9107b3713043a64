//! Messages that are not authentic change nothing, in no state: every message of a run again, from elsewhere, with every kind of damage.

use std::time::Duration;

use ike_model::IkeSaSnapshot;
use ike_wire::ids::ExchangeType;
use ipsec::Path;
use scenarios::{A, B, Dice, Who, World, config};

/// What a third party must not be able to change.
fn state(world: &World) -> Vec<(Vec<IkeSaSnapshot>, usize, usize)> {
    [A, B]
        .map(|who| {
            let gateway = world.gateway(who);
            (gateway.ike_sas(world.now()), gateway.with_tables(|tables| tables.sas.len()), gateway.events.len())
        })
        .into()
}

/// All messages sent so far, each with who gets it and on which way.
fn recorded(world: &World) -> Vec<(Who, Path, Vec<u8>)> {
    let of = |who: Who| {
        let turned = move |(_, path, octets): &(_, Path, Vec<u8>)| {
            (A + B - who, Path { local: path.remote, remote: path.local }, octets.clone())
        };
        world.gateway(who).sent.iter().map(turned).collect::<Vec<_>>()
    };
    [of(A), of(B)].concat()
}

/// Sends each recorded message with one bit changed, cut short, or lengthened, to its receiver. First requests are left out: whoever sends one
/// begins an IKE SA of its own.
fn damage(world: &mut World, dice: &mut Dice, per_message: usize) {
    for (to, path, octets) in recorded(world) {
        let header = ike_wire::Header::parse(&octets).unwrap();
        if header.exchange == ExchangeType::IKE_SA_INIT {
            continue;
        }
        for _ in 0..per_message {
            let mut bad = octets.clone();
            match dice.below(4) {
                0 => bad.truncate(usize::try_from(dice.below(bad.len() as u64)).unwrap()),
                1 => bad.extend([0; 5]),
                // Behind the header: who it is for stays readable.
                _ => {
                    let at = 28 + usize::try_from(dice.below(bad.len() as u64 - 28)).unwrap();
                    bad[at] ^= 1 << dice.below(8);
                }
            }
            world.inject(to, path, &bad);
        }
    }
}

/// Two gateways that tell strangers nothing: what is answered then is answered within an IKE SA.
fn pair(seed: u64) -> World {
    let mut world = World::pair(seed);
    for who in [A, B] {
        world.gateway_mut(who).config.settings.error_rate = 0;
    }
    world
}

/// The ways of a run, with a stop after each message.
fn script(world: &mut World, step: usize) -> bool {
    match step {
        0 => drop(world.initiate(A, "gw", "net")),
        1..=4 => {
            world.run_until(Duration::from_secs(9), move |world| world.sent(A) + world.sent(B) >= step);
        }
        5 => world.run_for(Duration::from_secs(1)),
        6 => drop(world.rekey_child(A, "net")),
        7..=9 => world.run_for(Duration::from_millis(10)),
        10 => drop(world.rekey_ike(B, "gw")),
        11..=13 => world.run_for(Duration::from_millis(10)),
        14 => {
            world.rekey_child(A, "net");
            world.rekey_child(B, "net");
        }
        15..=18 => world.run_for(Duration::from_millis(10)),
        19 => world.run_for(Duration::from_secs(60)),
        _ => return false,
    }
    true
}

#[test]
fn damaged_messages_change_nothing() {
    let mut dice = Dice::new(11);
    let mut world = pair(1);
    let mut step = 0;
    while script(&mut world, step) {
        let (before, sent) = (state(&world), (world.sent(A), world.sent(B)));
        damage(&mut world, &mut dice, 12);
        assert_eq!(state(&world), before, "after step {step}");
        assert_eq!((world.sent(A), world.sent(B)), sent, "nothing is answered, after step {step}");
        step += 1;
    }
    world.check_one_tunnel(A, B);
}

//= RFC 7296 §2.2: message IDs keep replays out
/// Every message again, as it was: answered at most with the same octets.
#[test]
fn old_messages_change_nothing() {
    let mut world = pair(1);
    let mut step = 0;
    while script(&mut world, step) {
        if step >= 5 {
            // Of a run at rest; while messages are on their way a copy may just be the first to arrive.
            let rest = matches!(step, 5 | 19);
            let before = state(&world);
            for (to, path, octets) in recorded(&world) {
                let header = ike_wire::Header::parse(&octets).unwrap();
                if rest && header.exchange != ExchangeType::IKE_SA_INIT {
                    world.inject(to, path, &octets);
                }
            }
            assert_eq!(state(&world), before, "after step {step}");
        }
        step += 1;
    }
    world.check_one_tunnel(A, B);
}

/// Messages of the right form under other keys: a third gateway that knows the SPIs of both.
#[test]
fn messages_under_other_keys_change_nothing() {
    let mut world = pair(1);
    let mut other = pair(2);
    let mut step = 0;
    while script(&mut world, step) {
        script(&mut other, step);
        let Some(ike) = world.gateway(A).ike_sas(world.now()).into_iter().next() else { break };
        let before = state(&world);
        for (to, path, octets) in recorded(&other) {
            let header = ike_wire::Header::parse(&octets).unwrap();
            if header.exchange == ExchangeType::IKE_SA_INIT || ike.responder_spi == 0 {
                continue;
            }
            let mut forged = octets.clone();
            forged[..8].copy_from_slice(&ike.initiator_spi.to_be_bytes());
            forged[8..16].copy_from_slice(&ike.responder_spi.to_be_bytes());
            for id in 0..6_u32 {
                forged[20..24].copy_from_slice(&id.to_be_bytes());
                world.inject(to, path, &forged);
            }
        }
        assert_eq!(state(&world), before, "after step {step}");
        step += 1;
    }
    assert_eq!(step, 20);
    world.check_one_tunnel(A, B);
}

//= RFC 7296 §2.21.4: messages outside of any IKE SA change nothing
/// Octets of no form at all.
#[test]
fn noise_changes_nothing() {
    let mut dice = Dice::new(7);
    let mut world = pair(1);
    world.establish();
    let before = state(&world);
    let path = Path {
        local: std::net::SocketAddr::new(config::address(B), 500),
        remote: std::net::SocketAddr::new(config::address(A), 500),
    };
    for _ in 0..20_000 {
        let length = dice.below(200);
        let noise: Vec<u8> = (0..length).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
        world.inject(B, path, &noise);
    }
    assert_eq!(state(&world), before);
}
