//! Single messages that must not be understood, whoever sends them.

use std::cell::RefCell;
use std::rc::Rc;

use ike_wire::ids::{ExchangeType, NotifyType, PayloadType};
use ike_wire::{Chain, Header, Message, Nonce, Payload, encode, encode_chain, parse_chain};
use lab::hostile::attacker::establish;
use lab::hostile::carrier::Carrier;
use lab::hostile::dice::Dice;
use lab::hostile::peer::{self, HalfOpen, IkeSa, Profile, Reply, polite};
use std::time::Duration;

use crate::core::{Core, Loopback, profile};

fn start() -> (Loopback, IkeSa) {
    let mut loopback = Loopback(Rc::new(RefCell::new(Core::new())));
    let ike = establish(&mut loopback, &profile(), &mut Dice::new(1)).unwrap_or_else(|error| panic!("{error:?}"));
    (loopback, ike)
}

fn answer(loopback: &mut Loopback, ike: &mut IkeSa, exchange: ExchangeType, chain: &Chain) -> Option<Vec<NotifyType>> {
    match ike.request(loopback, exchange, chain, &mut polite).unwrap_or_else(|error| panic!("{error:?}")) {
        Reply::Response(chain) => {
            let payloads = parse_chain(chain.first, &chain.octets, 0).unwrap_or_else(|error| panic!("{error}"));
            Some(payloads.notifies().map(|notify| notify.kind).collect())
        }
        Reply::Silence => None,
    }
}

fn create_child(profile: &Profile) -> Vec<Payload<'static>> {
    let mut payloads = vec![
        Payload::Sa(ike_wire::SecurityAssociation::new(vec![peer::esp_proposal(0x5555, false)])),
        Payload::Nonce(Nonce::new(vec![3; 32])),
    ];
    payloads.extend(profile.selectors());
    payloads
}

#[test]
fn a_payload_twice_ends_the_ike_sa_with_invalid_syntax() {
    for twice in 0..4 {
        let (mut loopback, mut ike) = start();
        let mut payloads = create_child(&profile());
        let again = payloads.get(twice).cloned().unwrap_or_else(|| panic!("payload {twice}"));
        payloads.push(again);
        let chain = encode_chain(&payloads).unwrap_or_else(|error| panic!("{error}"));
        let said = answer(&mut loopback, &mut ike, ExchangeType::CREATE_CHILD_SA, &chain);
        assert_eq!(said, Some(vec![NotifyType::INVALID_SYNTAX]), "payload {twice} twice");
        assert_eq!(loopback.0.borrow().counts().established, 0);
    }
}

#[test]
fn a_payload_twice_in_ike_auth_is_refused_before_authentication() {
    let mut loopback = Loopback(Rc::new(RefCell::new(Core::new())));
    let half_open = HalfOpen::begin(&mut loopback, &profile(), &mut Dice::new(2))
        .unwrap_or_else(|error| panic!("{error:?}"))
        .unwrap_or_else(|| panic!("no answer"));
    let mut payloads = half_open.auth_payloads(&profile(), 0x7777).unwrap_or_else(|error| panic!("{error:?}"));
    let auth = payloads.iter().find(|payload| payload.kind() == PayloadType::AUTH).cloned();
    payloads.extend(auth);
    let chain = encode_chain(&payloads).unwrap_or_else(|error| panic!("{error}"));
    let (mut ike, _) = half_open.into_ike_sa();
    let said = answer(&mut loopback, &mut ike, ExchangeType::IKE_AUTH, &chain);
    assert_eq!(said, Some(vec![NotifyType::INVALID_SYNTAX]));
    assert_eq!(loopback.0.borrow().counts().established, 0);
}

#[test]
fn a_payload_twice_in_ike_sa_init_makes_no_half_open_sa() {
    let mut loopback = Loopback(Rc::new(RefCell::new(Core::new())));
    let public = peer::start_key_exchange().map(|started| started.public_value().to_vec());
    let mut payloads = peer::init_payloads(false, &[9; 32], &public.unwrap_or_else(|error| panic!("{error:?}")));
    payloads.push(Payload::Nonce(Nonce::new(vec![8; 32])));
    let header = peer::header((ike_wire::IkeSpi(77), ike_wire::IkeSpi(0)), ExchangeType::IKE_SA_INIT, false, 0);
    let message = encode(&header, &payloads).unwrap_or_else(|error| panic!("{error}"));
    loopback.send(&message).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(loopback.0.borrow().counts().half_open, 0);
}

#[test]
fn payloads_in_front_of_sk_have_no_effect() {
    let (mut loopback, mut ike) = start();
    let chain = encode_chain(&[]).unwrap_or_else(|error| panic!("{error}"));
    let header = peer::header(ike.spis, ExchangeType::INFORMATIONAL, false, ike.next);
    let odd = ike.keys.seal_behind(&header, (PayloadType::VENDOR_ID, b"in clear"), &chain);
    let odd = odd.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(Message::parse(&odd).map(|message| message.payloads.len()), Ok(2), "the message itself is well-formed");
    loopback.send(&odd).unwrap_or_else(|error| panic!("{error:?}"));
    let nothing = loopback.receive(Duration::ZERO).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(nothing, None);
    // The same message ID is still free for the same request in its right form.
    assert_eq!(answer(&mut loopback, &mut ike, ExchangeType::INFORMATIONAL, &chain), Some(Vec::new()));
}

#[test]
fn a_later_major_version_is_told_so_and_nothing_is_kept() {
    let mut loopback = Loopback(Rc::new(RefCell::new(Core::new())));
    let mut message = vec![0_u8; 28];
    message.iter_mut().zip([0, 0, 0, 0, 0, 0, 0, 5]).for_each(|(to, from)| *to = from);
    message.iter_mut().skip(17).zip([0x30, 34, 0x08]).for_each(|(to, from)| *to = from);
    loopback.send(&message).unwrap_or_else(|error| panic!("{error:?}"));
    let said = loopback.receive(Duration::ZERO).unwrap_or_else(|error| panic!("{error:?}"));
    let said = said.unwrap_or_else(|| panic!("no answer"));
    let parsed = Message::parse(&said).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(parsed.payloads.notify(NotifyType::INVALID_MAJOR_VERSION).is_some());
    assert!(Header::parse(&said).is_ok_and(|header| header.flags.response));
    assert_eq!(loopback.0.borrow().counts().ike_sas, 0);
}

/// A Delete with as many SPIs as fit into a message costs the daemon a look at each, and nothing stays.
#[test]
fn a_delete_of_thousands_of_strangers_leaves_everything() {
    let (mut loopback, mut ike) = start();
    let many: Vec<u32> = (1..=14_000).map(|number| number + 0x9000_0000).collect();
    let chain = encode_chain(&[Payload::Delete(ike_wire::Delete::child_sas(ike_wire::ids::ProtocolId::ESP, &many))]);
    let chain = chain.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(answer(&mut loopback, &mut ike, ExchangeType::INFORMATIONAL, &chain), Some(Vec::new()));
    let counts = loopback.0.borrow().counts();
    assert_eq!((counts.established, counts.children), (1, 1));
}

/// Guards outlive their SAs: what a peer narrows to must not add to them.
#[test]
fn narrowing_in_ever_new_ways_leaves_one_guard() {
    let (mut loopback, mut ike) = start();
    for last in 1..=50_u8 {
        let mut profile = profile();
        profile.local = [std::net::Ipv4Addr::new(10, 66, 0, last); 2];
        let mut payloads = create_child(&profile);
        payloads.splice(
            0..1,
            [Payload::Sa(ike_wire::SecurityAssociation::new(vec![peer::esp_proposal(
                0x5000 + u32::from(last),
                false,
            )]))],
        );
        let chain = encode_chain(&payloads).unwrap_or_else(|error| panic!("{error}"));
        let said = answer(&mut loopback, &mut ike, ExchangeType::CREATE_CHILD_SA, &chain);
        assert_eq!(said, Some(Vec::new()), "child {last} was refused");
    }
    let core = loopback.0.borrow();
    assert_eq!((core.counts().children, core.guards()), (51, 1));
}
