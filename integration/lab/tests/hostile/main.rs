//! The protocol core against a peer that holds the session keys, in one process: fast enough for many mutations in every test run.
//!
//! `HOSTILE_COUNT` and `HOSTILE_SEED` choose another run.

mod core;
mod fragments;
mod moving;
mod rules;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use lab::hostile::attacker::{Attacker, establish};
use lab::hostile::dice::Dice;
use lab::hostile::requests::Purpose;

use crate::core::{Core, Loopback, profile};

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A working pair first: without it the mutations would prove nothing.
#[test]
fn the_peer_and_the_core_agree() {
    let mut loopback = Loopback(Rc::new(RefCell::new(Core::new())));
    let ike = establish(&mut loopback, &profile(), &mut Dice::new(1)).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(ike.children.len(), 1);
    let counts = loopback.0.borrow().counts();
    assert_eq!((counts.established, counts.children), (1, 1));
}

/// Nothing panics, every handler is reached, and nothing is left behind.
#[test]
fn mutations_below_sk_reach_every_handler_and_leave_nothing() {
    let (count, seed) = (setting("HOSTILE_COUNT", 20_000), setting("HOSTILE_SEED", 7));
    let loopback = Loopback(Rc::new(RefCell::new(Core::new())));
    let mut attacker = Attacker::new(loopback.clone(), profile(), Dice::new(seed));
    let mut most = 0;
    while attacker.tally.total() < count {
        let number = attacker.tally.total();
        let step = catch_unwind(AssertUnwindSafe(|| {
            attacker.step().unwrap_or_else(|error| panic!("{error:?}"));
            if number.is_multiple_of(7) {
                loopback.0.borrow_mut().rekey(!number.is_multiple_of(3));
                attacker.listen(Duration::ZERO).unwrap_or_else(|error| panic!("{error:?}"));
            }
        }));
        let text = || format!("seed {seed}, mutation {number}, last message {}", hex(&attacker.last));
        assert!(step.is_ok(), "{}", text());
        most = most.max(loopback.0.borrow().counts().children);
    }
    println!("seed {seed}\n{}\nmost CHILD SAs at once {most}", attacker.tally.table());
    for purpose in Purpose::ALL.into_iter().filter(|purpose| *purpose != Purpose::Answer) {
        let reached = attacker.tally.reached.get(&purpose).copied().unwrap_or(0);
        assert!(reached >= count / 1_000, "{} was reached {reached} times", purpose.name());
    }
    assert!(attacker.tally.fragmented >= count / 20, "fragments: {}", attacker.tally.fragmented);
    assert!(
        attacker.tally.sent.get(&Purpose::Answer).is_some_and(|sent| *sent >= count / 1_000),
        "no answers were mutated"
    );
    attacker.finish().unwrap_or_else(|error| panic!("{error:?}"));
    // Whatever the attacker has abandoned is found dead by liveness checks.
    loopback.0.borrow_mut().pass(Duration::from_secs(3_600));
    let core = loopback.0.borrow();
    let counts = core.counts();
    assert_eq!((counts.ike_sas, counts.children, core.installed()), (0, 0, 0), "SAs are left behind");
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
