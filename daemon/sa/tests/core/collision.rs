//! Both ends change the same SA at once.

use std::time::Duration;

use ike_model::{Command, Selector};

use crate::common::*;

fn command(world: &mut World, who: usize, id: u64, what: What) {
    let child = Selector { child: Some("net".into()), ..Selector::default() };
    let ike = Selector { ike: Some("gw".into()), ..Selector::default() };
    let command = match what {
        What::RekeyChild => Command::Rekey { selector: child },
        What::RekeyIke => Command::Rekey { selector: ike },
        What::DeleteChild => Command::Terminate { selector: child, force: false },
        What::DeleteIke => Command::Terminate { selector: ike, force: false },
    };
    world.command(who, id, command);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    RekeyChild,
    RekeyIke,
    DeleteChild,
    DeleteIke,
}

const ALL: [What; 4] = [What::RekeyChild, What::RekeyIke, What::DeleteChild, What::DeleteIke];

/// C11, I5: the exchange with the lowest of the four nonces loses, wherever that is.
#[test]
fn lowest_nonce_loses() {
    for what in [What::RekeyChild, What::RekeyIke] {
        for lowest in 0..4 {
            let [a, b] = plain();
            let mut world = World::up(a, b);
            let before = world.live(A);
            // Each end draws two nonces: that of its request, then that of its response.
            for (index, who) in [(0, A), (1, B), (2, B), (3, A)] {
                let octet = if index == lowest { 0 } else { 0x80 };
                world.peers[who].numbers.first.lock().unwrap().push_back(octet);
            }
            // A's request nonce and B's request nonce are drawn first.
            let (a_first, b_first) = (octet(lowest == 0), octet(lowest == 2));
            let (a_second, b_second) = (octet(lowest == 3), octet(lowest == 1));
            for (who, octets) in [(A, [a_first, a_second]), (B, [b_first, b_second])] {
                let mut queue = world.peers[who].numbers.first.lock().unwrap();
                queue.clear();
                queue.extend(octets);
            }
            command(&mut world, A, 7, what);
            command(&mut world, B, 8, what);
            world.run(Duration::from_secs(60));
            world.assert_one_tunnel();
            for side in [A, B] {
                // A's exchange holds nonces 0 and 1. What the peer's has made is taken back where that has lost.
                let won = (side == A) == (lowest >= 2);
                let rekeyed: &[&str] = match (what, won) {
                    (What::RekeyChild, true) => {
                        &["ChildSaPrepared", "ChildSaRekeyed", "ChildSaWithdrawn", "ChildSaRemoved"]
                    }
                    (What::RekeyChild, false) => &["ChildSaPrepared", "ChildSaRekeyed", "ChildSaRemoved"],
                    (What::RekeyIke | What::DeleteChild | What::DeleteIke, _) => &["IkeSaRekeyed"],
                };
                let expected = [&["IkeSaEstablished", "ChildSaInstalled"], rekeyed].concat();
                assert_eq!(world.types(side), expected, "{what:?} {lowest}");
                let sas = world.peers[side].endpoint.ike_sas(world.now);
                assert_eq!(sas.len(), 1);
                if what == What::RekeyIke {
                    assert_eq!(sas[0].initiator, (side == A) == (lowest >= 2));
                }
            }
            assert_eq!(world.live(A) == before, what == What::RekeyIke);
        }
    }
}

fn octet(lowest: bool) -> u8 {
    if lowest { 0 } else { 0x80 }
}

/// C11 to C35, I5 to I19: any two operations at once, any datagram held back for a while or lost; in the end both ends agree.
#[test]
fn any_two_operations_in_any_order_converge() {
    let mut cases = 0;
    for first in ALL {
        for second in ALL {
            for delay_ms in [0, 1, 9, 10, 11, 15, 20, 25, 40] {
                for held in [None, Some(A), Some(B)] {
                    let [a, b] = plain();
                    let mut world = World::up(a, b);
                    command(&mut world, A, 7, first);
                    world.run(Duration::from_millis(delay_ms));
                    if let Some(who) = held {
                        world.hold[who] = true;
                    }
                    command(&mut world, B, 8, second);
                    world.run(Duration::from_millis(25));
                    if let Some(who) = held {
                        world.release(who);
                    }
                    world.run(Duration::from_secs(120));
                    converged(&world, &format!("{first:?} {second:?} {delay_ms} {held:?}"));
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 4 * 4 * 9 * 3);
}

/// Exactly one usable CHILD SA with the same SPIs on both sides, or none on both.
fn converged(world: &World, case: &str) {
    let (a, b) = (world.live(A), world.live(B));
    let mirrored: Vec<_> = a.iter().map(|(i, o)| (*o, *i)).collect();
    assert_eq!(b, mirrored, "{case}: both ends have the same CHILD SAs");
    assert!(a.len() <= 1, "{case}: {a:x?}");
    for who in [A, B] {
        let tables = world.peers[who].backend.tables();
        assert_eq!(
            tables.sas.len(),
            2 * a.len(),
            "{case}: nothing else installed: {:#?}",
            world.peers[who].backend.log()
        );
        assert!(world.peers[who].endpoint.ike_sas(world.now).len() <= 1, "{case}");
    }
    if a.len() == 1 {
        world.assert_one_tunnel();
    }
}

/// Thousands of random interleavings with loss, duplication and reordering.
#[test]
fn random_storms_converge() {
    for seed in 0..300_u64 {
        let [a, b] = plain();
        let mut world = World::up(a, b);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for id in 0..12 {
            let who = usize::try_from(next(2)).unwrap();
            let what = if next(3) == 0 { What::RekeyIke } else { What::RekeyChild };
            let (lost, from) = (next(4) == 0, world.peers[who].sent);
            world.drop = Box::new(move |sender, number| lost && sender == who && number == from);
            world.latency = Duration::from_millis(1 + next(60));
            command(&mut world, who, 100 + id, what);
            world.run(Duration::from_millis(next(80)));
        }
        world.drop = Box::new(|_, _| false);
        world.run(Duration::from_secs(300));
        converged(&world, &format!("seed {seed}"));
        assert_eq!(world.live(A).len(), 1, "seed {seed}");
    }
}
