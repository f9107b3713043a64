//! Every message in every state: each gets the documented answer, and what anybody could have sent changes nothing.
//!
//! The answers are data ([`table`]); `daemon/sa/ANSWERS.md` is the same table for readers.

mod messages;
pub(crate) mod puppet;
mod states;
mod table;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ike_model::IkeSaSnapshot;
use ike_wire::ids::{NotifyType, PayloadType};
use ike_wire::{Message, parse_chain};
use ipsec::Instant;
use scenarios::A;

use self::messages::{COOKIE2, Kind};
use self::puppet::{Loopback, Puppet, error_of, holds};
use self::states::State;
use self::table::{Answer, RULES, rule};

/// All that can be seen of a gateway.
#[derive(Debug, PartialEq)]
struct Seen {
    ikes: Vec<IkeSaSnapshot>,
    half_open: usize,
    tables: String,
    events: usize,
    deadline: Option<Instant>,
}

fn look(gateway: &Loopback) -> Seen {
    let world = gateway.0.borrow();
    let seen = world.gateway(A);
    Seen {
        ikes: seen.ike_sas(world.now()),
        half_open: seen.counts().half_open,
        tables: seen.with_tables(|tables| format!("{tables:?}")),
        events: seen.events.len(),
        deadline: seen.next_deadline(),
    }
}

fn is_there(gateway: &Loopback, puppet: &Puppet) -> bool {
    let spis = (puppet.spis.0.0, puppet.spis.1.0);
    look(gateway).ikes.iter().any(|ike| (ike.initiator_spi, ike.responder_spi) == spis)
}

/// What is sent in answer to one message, in the words of the table.
fn observe(gateway: &Loopback, puppet: &Puppet, octets: &[u8]) -> Answer {
    let (before, there) = (look(gateway), is_there(gateway, puppet));
    let sent = gateway.exchange(octets);
    let gone = there && !is_there(gateway, puppet);
    let responses: Vec<&Vec<u8>> =
        sent.iter().filter(|octets| Message::parse(octets).unwrap().header.flags.response).collect();
    assert!(responses.len() <= 1, "one answer at most");
    let Some(response) = responses.first() else {
        return match (gone, look(gateway) == before) {
            (true, _) => Answer::TakenAndGone,
            (false, true) => Answer::Nothing,
            (false, false) => Answer::Taken,
        };
    };
    if puppet.answered.as_ref().is_some_and(|(request, answer)| request == octets && answer == *response) {
        return Answer::Same;
    }
    let message = Message::parse(response).unwrap();
    if message.encrypted().is_none() {
        assert_eq!(look(gateway), before, "an error in clear changes nothing");
        return Answer::Clear(error_of(&message.payloads).unwrap());
    }
    let chain = puppet.open(response).expect("an answer under the keys of the IKE SA");
    let payloads = parse_chain(chain.first, &chain.octets, 0).unwrap();
    match (error_of(&payloads), gone) {
        (Some(kind), true) => Answer::ErrorAndGone(kind),
        (Some(kind), false) => Answer::Error(kind),
        (None, false) if holds(&payloads, PayloadType::SA) && holds(&payloads, PayloadType::NONCE) => Answer::Created,
        (None, false) if holds(&payloads, PayloadType::DELETE) => Answer::Delete,
        (None, false) if payloads.notify(NotifyType::COOKIE2).is_some_and(|cookie| *cookie.data == COOKIE2) => {
            Answer::Cookie2
        }
        (None, false) if payloads.is_empty() => Answer::Empty,
        (None, true) if payloads.is_empty() => Answer::EmptyAndGone,
        (None, _) => panic!("an answer that no table knows: {payloads:?}"),
    }
}

//= RFC 7296 §2.25, §2.8.1, §2.8.2, §1.4.1, §2.21, §2.5, §1.5, §2.1, §2.2, §2.3: the answer to each request in each state
#[test]
fn every_message_in_every_state() {
    let mut wrong = String::new();
    for state in State::ALL {
        for kind in Kind::ALL {
            let (gateway, puppet) = state.reach();
            let expected = rule(state, kind).2;
            let found = observe(&gateway, &puppet, &kind.octets(&puppet));
            if found != expected {
                let _ = writeln!(wrong, "{state:?}, {kind:?}: {found:?}, expected {expected:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What anybody could have sent leaves the window as it was too: the peer's next request is answered as if nothing had come before it.
//= RFC 7296 §2.21.4, §2.4: nobody may conclude anything from a message without cryptographic protection
#[test]
fn forged_messages_change_nothing() {
    let forged = Kind::ALL.into_iter().filter(|kind| kind.is_forged());
    for kind in forged {
        for state in State::ALL {
            let (gateway, puppet) = state.reach();
            let before = look(&gateway);
            let octets = kind.octets(&puppet);
            for _ in 0..3 {
                gateway.exchange(&octets);
            }
            assert_eq!(look(&gateway), before, "{kind:?} in {state:?}");
            let next = Kind::Liveness.octets(&puppet);
            assert_eq!(observe(&gateway, &puppet, &next), rule(state, Kind::Liveness).2, "after {kind:?} in {state:?}");
            if state == State::Asking {
                let found = observe(&gateway, &puppet, &Kind::EmptyResponse.octets(&puppet));
                assert_eq!(found, rule(state, Kind::EmptyResponse).2, "our request is still awaited after {kind:?}");
            }
        }
    }
}

/// X1: a peer that rekeys the same CHILD SA again before it has deleted it is put off, and the first successor stays.
//= RFC 7296 §2.25.1: TEMPORARY_FAILURE for a CHILD SA that is being rekeyed or closed
#[test]
fn a_second_rekeying_of_the_same_child_is_put_off() {
    let (gateway, mut puppet) = State::Idle.reach();
    let mut ask = |kind: Kind| {
        let answer = observe(&gateway, &puppet, &kind.octets(&puppet));
        puppet.next += 1;
        answer
    };
    assert_eq!(ask(Kind::RekeyChild), Answer::Created);
    let made = look(&gateway);
    for _ in 0..3 {
        assert_eq!(ask(Kind::RekeyChild), Answer::Error(NotifyType::TEMPORARY_FAILURE));
    }
    assert_eq!(look(&gateway), made, "nothing more was made");
    assert_eq!(ask(Kind::Liveness), Answer::Empty);
}

/// Each octet of the header and of a sealed message changed in turn, in each state: nothing changes.
//= RFC 7296 §2.21.4: messages that are not authentic change no state
#[test]
fn mutated_messages_change_nothing() {
    for state in State::ALL {
        let (gateway, puppet) = state.reach();
        gateway.0.borrow_mut().gateway_mut(A).config.settings.error_rate = 0;
        let before = look(&gateway);
        for kind in [Kind::DeleteIke, Kind::CreateChild, Kind::EmptyResponse, Kind::FatalNotify] {
            let octets = kind.octets(&puppet);
            for at in 0..octets.len() {
                for mask in [0x01, 0x20, 0x80] {
                    let mut bad = octets.clone();
                    bad[at] ^= mask;
                    assert!(gateway.exchange(&bad).is_empty(), "{kind:?} with octet {at} ^ {mask:02x} in {state:?}");
                }
            }
            for cut in 0..octets.len() {
                assert!(gateway.exchange(&octets[..cut]).is_empty(), "{kind:?} cut to {cut} in {state:?}");
            }
            assert_eq!(look(&gateway), before, "{kind:?} in {state:?}");
        }
    }
}

#[test]
fn every_rule_is_used() {
    let mut used = BTreeSet::new();
    for state in State::ALL {
        for kind in Kind::ALL {
            used.insert(std::ptr::from_ref(rule(state, kind)));
        }
    }
    for (number, found) in RULES.iter().enumerate() {
        assert!(used.contains(&std::ptr::from_ref(found)), "rule {number} fits no cell before another one");
    }
}

/// `ANSWERS.md` is the table. To write it anew: `UPDATE_ANSWERS=1 cargo test -p scenarios --test scenarios answers`.
#[test]
fn answers_are_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../daemon/sa/ANSWERS.md");
    let expected = document();
    if std::env::var_os("UPDATE_ANSWERS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let current = std::fs::read_to_string(path).unwrap_or_default() == expected;
    assert!(current, "daemon/sa/ANSWERS.md is out of date: UPDATE_ANSWERS=1 writes it anew");
}

fn document() -> String {
    let mut text = String::from(
        "# What is answered to which message in which state\n\n\
         One section for each message of the peer, with what is sent in answer in each state of the IKE SA that it names, and the section of the\n\
         RFC behind it. Every cell is tried in `integration/scenarios/tests/scenarios/matrix.rs`, which also keeps this file true.\n\n\
         | answer | meaning |\n|---|---|\n\
         | - | nothing is sent and nothing changes |\n\
         | taken | nothing is sent; what we had asked goes on with it, or ends |\n\
         | empty | a response without payloads |\n\
         | SA | a response with SA and nonce: a CHILD SA or an IKE SA is made |\n\
         | DELETE | a response with DELETE of our half |\n\
         | COOKIE2 | a response with the COOKIE2 of the request |\n\
         | same octets | the response that was sent before |\n\
         | in clear | outside of any IKE SA, at `error_rate` per second at most |\n\
         | gone | the IKE SA ends |\n\n\
         | state | meaning |\n|---|---|\n",
    );
    for state in State::ALL {
        let (name, meaning) = state.words();
        let _ = writeln!(text, "| {name} | {meaning} |");
    }
    for kind in Kind::ALL {
        let _ = writeln!(text, "\n## {}\n\n| state | answer | RFC |\n|---|---|---|", kind.words());
        let mut rows: Vec<(Vec<&str>, String, &str)> = Vec::new();
        for state in State::ALL {
            let found = rule(state, kind);
            let (name, answer) = (state.words().0, found.2.words());
            match rows.iter_mut().find(|row| row.1 == answer && row.2 == found.3) {
                Some(row) => row.0.push(name),
                None => rows.push((vec![name], answer, found.3)),
            }
        }
        for (states, answer, section) in rows {
            let _ = writeln!(text, "| {} | {answer} | {section} |", states.join(", "));
        }
    }
    text
}
