//! What a peer, or somebody who is none, can send.

use std::time::Duration;

use ike_model::{CauseKind, CommandError};
use ike_sa::Input;
use ike_wire::ids::{ExchangeType, NotifyType, PayloadType};
use ike_wire::{Flags, Header, IkeSpi, Message, MessageId, Notify, Payload, UnknownPayload, encode};
use ipsec::Path;

use crate::common::*;

fn path() -> Path {
    Path { local: socket("192.0.2.2:500"), remote: socket("192.0.2.1:500") }
}

/// A's first request.
fn first_request(world: &mut World) -> Vec<u8> {
    world.hold[A] = true;
    world.initiate(A, 1);
    world.held[A][0].octets.clone()
}

#[test]
fn flood_is_met_with_cookies_and_real_peers_get_through() {
    let [a, mut b] = plain();
    // All come from the one address that the configuration knows.
    (b.settings.cookie_threshold_ip, b.settings.block_threshold, b.settings.init_rate_ip) = (0, 0, 0);
    let mut world = World::new(a, b);
    let request = first_request(&mut world);
    for index in 0_u64..200 {
        let mut octets = request.clone();
        octets[..8].copy_from_slice(&(index + 1).to_be_bytes());
        let source = format!("198.51.100.{}:500", index % 250);
        let path = Path { local: socket("192.0.2.2:500"), remote: socket(&source) };
        // The configuration knows only 192.0.2.1, so forged sources must use it to get anywhere.
        world.input(B, Input::Datagram { path, octets: &octets });
        let path = Path { local: socket("192.0.2.2:500"), remote: socket("192.0.2.1:500") };
        world.input(B, Input::Datagram { path, octets: &octets });
    }
    assert_eq!(world.peers[B].endpoint.counts().half_open, 30, "no state beyond the threshold");
    world.link.clear();
    world.release(A);
    world.run(Duration::from_secs(2));
    assert!(world.peers[A].replies[&1].is_ok(), "{:?}", world.peers[A].replies);
    world.run(Duration::from_secs(31));
    assert_eq!(world.peers[B].endpoint.counts().half_open, 0, "they age");
    world.assert_one_tunnel();
}

#[test]
fn repeated_first_request_gets_the_same_answer() {
    let [a, b] = plain();
    let mut world = World::new(a, b);
    let request = first_request(&mut world);
    for _ in 0..3 {
        world.input(B, Input::Datagram { path: path(), octets: &request });
    }
    let answers: Vec<_> = world.link.iter().map(|flying| flying.octets.clone()).collect();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(world.peers[B].endpoint.counts().half_open, 1);
}

#[test]
fn no_common_proposal_names_both_sets() {
    let [a, b] = configs(|who, connection, _| {
        if who == B {
            connection.proposals[0].encryption[0].key_bits = Some(128);
        }
    });
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    world.run(Duration::from_secs(1));
    let Err(CommandError::Failed(cause)) = &world.peers[A].replies[&1] else { panic!("must fail") };
    assert_eq!(cause.kind, CauseKind::NoProposal);
    assert!(cause.text.contains("AES_GCM_16_256"), "{cause}");
    assert_eq!(world.peers[B].endpoint.counts().ike_sas, 0);
}

#[test]
fn no_common_selectors_keep_the_ike_sa() {
    let [a, b] = configs(|who, _, child| {
        if who == B {
            child.remote_ts = vec![ike_model::ConfiguredSelector::Fixed(ts("172.16.0.0", 12))];
        }
    });
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    world.run(Duration::from_secs(1));
    let Err(CommandError::Failed(cause)) = &world.peers[A].replies[&1] else { panic!("must fail") };
    assert_eq!(cause.kind, CauseKind::SelectorsUnacceptable);
    assert!(cause.text.contains("10.1.0.0/16 === 10.2.0.0/16"), "{cause}");
    assert_eq!(world.peers[B].endpoint.counts().established, 1);
    assert!(world.peers[A].backend.tables().sas.is_empty());
}

#[test]
fn another_key_exchange_method_is_asked_for_once() {
    let [a, b] = configs(|who, connection, _| {
        if who == B {
            connection.proposals[0].key_exchange.remove(0);
        }
    });
    let world = World::up(a, b);
    assert_eq!(world.peers[A].sent, 3);
    assert_eq!(world.peers[A].endpoint.ike_sas(world.now)[0].algorithms.unwrap().key_exchange, 19);
}

fn header(exchange: ExchangeType) -> Header {
    let flags = Flags { initiator: true, version: false, response: false };
    Header::new(IkeSpi(7), IkeSpi(0), exchange, flags, MessageId(0))
}

fn answer(world: &mut World, octets: &[u8]) -> Option<NotifyType> {
    world.link.clear();
    world.input(B, Input::Datagram { path: path(), octets });
    let answer = world.link.first()?.octets.clone();
    let message = Message::parse(&answer).unwrap();
    assert!(message.header.flags.response && !message.header.flags.initiator);
    message.payloads.notifies().next().map(|notify| notify.kind)
}

//= RFC 7296 §2.5, §2.21.3: INVALID_MAJOR_VERSION, UNSUPPORTED_CRITICAL_PAYLOAD
#[test]
fn versions_and_critical_payloads_are_refused() {
    let [a, b] = plain();
    let mut world = World::new(a, b);
    let unknown = Payload::Unknown(UnknownPayload { kind: PayloadType(200), critical: true, body: vec![1].into() });
    let octets = encode(&header(ExchangeType::IKE_SA_INIT), &[unknown]).unwrap();
    assert_eq!(answer(&mut world, &octets), Some(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD));
    let mut newer = octets.clone();
    newer[17] = 0x30;
    assert_eq!(answer(&mut world, &newer), Some(NotifyType::INVALID_MAJOR_VERSION));
    let empty =
        encode(&header(ExchangeType::IKE_SA_INIT), &[Payload::Notify(Notify::plain(NotifyType(40_000)))]).unwrap();
    assert_eq!(answer(&mut world, &empty), Some(NotifyType::INVALID_SYNTAX));
    let stray = encode(&header(ExchangeType::INFORMATIONAL), &[]).unwrap();
    assert_eq!(answer(&mut world, &stray), None, "nothing for an unknown IKE SA");
    assert_eq!(world.peers[B].endpoint.counts().ike_sas, 0);
}

/// Every message of a handshake, with each of its octets changed, at every moment: nothing but the handshake itself comes of it.
#[test]
fn altered_datagrams_change_nothing() {
    let [a, b] = plain();
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    let mut altered = 0;
    while world.live(A).is_empty() {
        let waiting: Vec<_> = world.link.iter().map(|flying| (flying.to, flying.path, flying.octets.clone())).collect();
        for (to, path, octets) in waiting {
            let message = Message::parse(&octets).unwrap();
            // What is in clear can be replaced by anybody on the way; RFC 7296 protects it by AUTH later.
            if message.encrypted().is_none() {
                continue;
            }
            // Octet 17 is the version: a newer one is answered, which is no change either. With another SPI of ours it is for an IKE SA
            // that is not there, which is answered too.
            let ours = if message.header.flags.initiator { 8..16 } else { 0..8 };
            for at in (0..octets.len()).filter(|at| *at != 17 && !ours.contains(at)) {
                let mut forged = octets.clone();
                forged[at] ^= 0x41;
                let sent = world.peers[to].sent;
                world.input(to, Input::Datagram { path, octets: &forged });
                assert_eq!(world.peers[to].sent, sent, "octet {at}");
                altered += 1;
            }
        }
        assert!(world.step(world.now + Duration::from_secs(1)));
    }
    assert!(altered > 300);
    world.run(Duration::from_secs(1));
    world.assert_one_tunnel();
}

#[test]
fn replayed_datagrams_change_nothing() {
    let [a, b] = plain();
    let mut world = World::new(a, b);
    world.initiate(A, 1);
    let mut seen = Vec::new();
    for _ in 0..40 {
        seen.extend(world.link.iter().map(|flying| (flying.to, flying.path, flying.octets.clone())));
        world.step(world.now + Duration::from_millis(50));
    }
    let before = (world.live(A), world.types(A), world.types(B));
    for _ in 0..3 {
        for (to, path, octets) in &seen {
            world.input(*to, Input::Datagram { path: *path, octets });
        }
    }
    world.run(Duration::from_secs(40));
    world.assert_one_tunnel();
    let types = |who: usize| world.types(who);
    assert_eq!((world.live(A), types(A)), (before.0, before.1));
    assert!(!types(B).contains(&"IkeSaClosed".to_owned()));
}

/// The limit of one address, by `block_threshold`, where no cookies are asked for.
#[test]
fn one_address_cannot_fill_the_memory() {
    let [a, mut b] = plain();
    (b.settings.cookie_threshold, b.settings.cookie_threshold_ip) = (0, 0);
    let mut world = World::new(a, b);
    let request = first_request(&mut world);
    world.peers[B].hold_work = true;
    for index in 0_u64..1_500 {
        let mut octets = request.clone();
        octets[..8].copy_from_slice(&(index + 1).to_be_bytes());
        world.input(B, Input::Datagram { path: path(), octets: &octets });
    }
    assert_eq!(world.peers[B].endpoint.counts().half_open, 5);
    assert_eq!(world.peers[B].works.len(), 5, "no key exchange for the others");
    world.run(Duration::from_secs(31));
    assert_eq!(world.peers[B].endpoint.counts().half_open, 0);
}
