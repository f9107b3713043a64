//! Address updates (RFC 4555) of a peer that holds the session keys and does not keep the rules.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Result;
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{Chain, Notify, Payload, encode_chain, parse_chain};
use lab::hostile::dice::Dice;
use lab::hostile::peer::{Asked, HalfOpen, IkeSa, Reply, polite};

use crate::core::{Core, Loopback, profile};

/// An IKE SA whose ends have both said MOBIKE_SUPPORTED.
fn mobile(trusting: bool) -> (Loopback, IkeSa) {
    let mut loopback = Loopback(Rc::new(RefCell::new(Core::mobile(trusting))));
    let half_open = HalfOpen::begin(&mut loopback, &profile(), &mut Dice::new(3));
    let half_open = half_open.unwrap_or_else(|error| panic!("{error:?}")).unwrap_or_else(|| panic!("no answer"));
    let mut payloads = half_open.auth_payloads(&profile(), 0x4711).unwrap_or_else(|error| panic!("{error:?}"));
    payloads.push(Payload::Notify(Notify::plain(NotifyType::MOBIKE_SUPPORTED)));
    let (mut ike, _) = half_open.into_ike_sa();
    let said = ask(&mut loopback, &mut ike, ExchangeType::IKE_AUTH, &payloads, &mut polite);
    assert!(said.iter().any(|(kind, _)| *kind == NotifyType::MOBIKE_SUPPORTED), "{said:?}");
    (loopback, ike)
}

type Said = Vec<(NotifyType, Vec<u8>)>;

fn notifies(chain: &Chain) -> Said {
    let payloads = parse_chain(chain.first, &chain.octets, 0).unwrap_or_else(|error| panic!("{error}"));
    payloads.notifies().map(|notify| (notify.kind, notify.data.to_vec())).collect()
}

fn ask(
    loopback: &mut Loopback,
    ike: &mut IkeSa,
    exchange: ExchangeType,
    payloads: &[Payload<'_>],
    answerer: &mut dyn FnMut(&IkeSa, &Asked) -> Result<Chain>,
) -> Said {
    let chain = encode_chain(payloads).unwrap_or_else(|error| panic!("{error}"));
    match ike.request(loopback, exchange, &chain, answerer).unwrap_or_else(|error| panic!("{error:?}")) {
        Reply::Response(chain) => notifies(&chain),
        Reply::Silence => panic!("no answer"),
    }
}

fn note(kind: NotifyType, data: &[u8]) -> Payload<'static> {
    Payload::Notify(Notify::new(kind, data.to_vec()))
}

/// Where the outbound SA of the daemon sends to.
fn sends_to(loopback: &Loopback) -> Vec<std::net::IpAddr> {
    loopback.0.borrow().outer_remotes()
}

fn move_to(loopback: &Loopback, address: [u8; 4]) -> std::net::IpAddr {
    loopback.0.borrow_mut().peer_at(SocketAddr::from((address, 500)));
    address.into()
}

//= RFC 4555 §3.7: COOKIE2 is copied as it is, and must come back as it was sent or the IKE SA is closed
#[test]
fn cookie2_is_returned_and_checked() {
    type Answer = fn(&[u8]) -> Option<Vec<u8>>;
    let answers: [(&str, Answer, bool); 4] = [
        ("as sent", |cookie| Some(cookie.to_vec()), true),
        ("not at all", |_| None, false),
        ("altered", |cookie| Some(cookie.iter().map(|octet| octet ^ 1).collect()), false),
        ("cut", |cookie| cookie.get(..8).map(<[u8]>::to_vec), false),
    ];
    for trusting in [true, false] {
        for (name, answer, lives) in answers {
            let (mut loopback, mut ike) = mobile(trusting);
            let old = sends_to(&loopback);
            let new = move_to(&loopback, [198, 51, 100, 66]);
            let mut asked_at = Vec::new();
            let seen = loopback.clone();
            let mut answerer = |_: &IkeSa, asked: &Asked| -> Result<Chain> {
                asked_at.push(sends_to(&seen));
                let cookie = notifies(&asked.chain).into_iter().find(|(kind, _)| *kind == NotifyType::COOKIE2);
                let payloads: Vec<_> = cookie
                    .and_then(|(_, data)| answer(&data))
                    .map(|data| note(NotifyType::COOKIE2, &data))
                    .into_iter()
                    .collect();
                Ok(encode_chain(&payloads)?)
            };
            let update = [note(NotifyType::UPDATE_SA_ADDRESSES, &[]), note(NotifyType::COOKIE2, &[9; 24])];
            let said = ask(&mut loopback, &mut ike, ExchangeType::INFORMATIONAL, &update, &mut answerer);
            assert_eq!(said, [(NotifyType::COOKIE2, vec![9; 24])], "{name}");
            // The daemon's check, and whatever it says then.
            for _ in 0..4 {
                let wait = std::time::Duration::ZERO;
                let none =
                    ike.await_response(&mut loopback, wait, &mut answerer).unwrap_or_else(|error| panic!("{error:?}"));
                assert!(none.is_none());
            }
            // A peer that the connection names moves at once, another one when it has shown that it is there.
            let expected = if trusting { vec![new] } else { old };
            assert_eq!(asked_at.first(), Some(&expected), "{name}");
            let established = loopback.0.borrow().counts().established;
            assert_eq!(established, usize::from(lives), "COOKIE2 {name}, trusting {trusting}");
            if lives {
                assert_eq!(sends_to(&loopback), [new], "{name}");
            }
        }
    }
}

//= RFC 4555 §4.2.5: 8 to 64 octets
#[test]
fn a_cookie2_of_illegal_length_is_not_returned() {
    for length in [0, 7, 65, 200] {
        let (mut loopback, mut ike) = mobile(true);
        let request = [note(NotifyType::COOKIE2, &vec![5; length])];
        assert_eq!(ask(&mut loopback, &mut ike, ExchangeType::INFORMATIONAL, &request, &mut polite), []);
        assert_eq!(loopback.0.borrow().counts().established, 1);
    }
}

//= RFC 4555 §3.9: contents of NO_NATS_ALLOWED that do not match are answered UNEXPECTED_NAT_DETECTED, and nothing moves
#[test]
fn an_update_that_forbids_nat_is_refused_behind_one() {
    let ends = |from: [u8; 4]| {
        let mut data = from.to_vec();
        data.extend_from_slice(&[192, 0, 2, 1, 1, 244, 1, 244]);
        data
    };
    for (claimed, refused) in [([198, 51, 100, 66], false), ([10, 0, 0, 1], true)] {
        let (mut loopback, mut ike) = mobile(true);
        let old = sends_to(&loopback);
        let new = move_to(&loopback, [198, 51, 100, 66]);
        let request = [note(NotifyType::UPDATE_SA_ADDRESSES, &[]), note(NotifyType::NO_NATS_ALLOWED, &ends(claimed))];
        let said = ask(&mut loopback, &mut ike, ExchangeType::INFORMATIONAL, &request, &mut polite);
        let expected = if refused { vec![(NotifyType::UNEXPECTED_NAT_DETECTED, Vec::new())] } else { Vec::new() };
        assert_eq!(said, expected);
        assert_eq!(sends_to(&loopback), if refused { old } else { vec![new] });
    }
}

//= RFC 4555 §3.8: a message without UPDATE_SA_ADDRESSES changes nothing, wherever it comes from; it is answered there
#[test]
fn other_messages_from_elsewhere_move_nothing() {
    let (mut loopback, mut ike) = mobile(true);
    let old = sends_to(&loopback);
    move_to(&loopback, [198, 51, 100, 66]);
    assert_eq!(ask(&mut loopback, &mut ike, ExchangeType::INFORMATIONAL, &[], &mut polite), []);
    let list = [note(NotifyType::ADDITIONAL_IP4_ADDRESS, &[203, 0, 113, 5])];
    assert_eq!(ask(&mut loopback, &mut ike, ExchangeType::INFORMATIONAL, &list, &mut polite), []);
    assert_eq!(sends_to(&loopback), old);
}

//= RFC 4555 §3.5: an address pair that is not acceptable is answered UNACCEPTABLE_ADDRESSES
#[test]
fn nonsense_addresses_are_unacceptable() {
    for address in [[224, 0, 0, 1], [0, 0, 0, 0], [255, 255, 255, 255]] {
        let (mut loopback, mut ike) = mobile(true);
        let old = sends_to(&loopback);
        move_to(&loopback, address);
        let request = [note(NotifyType::UPDATE_SA_ADDRESSES, &[])];
        let said = ask(&mut loopback, &mut ike, ExchangeType::INFORMATIONAL, &request, &mut polite);
        assert_eq!(said, [(NotifyType::UNACCEPTABLE_ADDRESSES, Vec::new())]);
        assert_eq!(sends_to(&loopback), old);
    }
}
