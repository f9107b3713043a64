use ike_crypto::ring_provider;

use super::*;

const GCM_256: Encryption = Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(256) };
const GCM_128: Encryption = Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(128) };
const CBC_256: Encryption = Encryption { id: EncryptionId::AES_CBC, key_bits: Some(256) };
const CHACHA: Encryption = Encryption { id: EncryptionId::CHACHA20_POLY1305, key_bits: None };

fn ike(encryption: &[Encryption], integrity: &[IntegrityId], methods: &[KeyExchangeId]) -> IkeProposal {
    IkeProposal {
        encryption: encryption.to_vec(),
        integrity: integrity.to_vec(),
        prf: vec![PrfId::PRF_HMAC_SHA2_256],
        key_exchange: methods.to_vec(),
    }
}

fn esp(encryption: &[Encryption], integrity: &[IntegrityId], methods: &[KeyExchangeId], esn: &[EsnId]) -> EspProposal {
    EspProposal {
        encryption: encryption.to_vec(),
        integrity: integrity.to_vec(),
        key_exchange: methods.to_vec(),
        esn: esn.to_vec(),
    }
}

fn device() -> Capabilities {
    Capabilities {
        algorithms: vec![
            EspAlgorithm::AES_128_GCM,
            EspAlgorithm::AES_256_GCM,
            EspAlgorithm::from_ids(12, Some(256), Some(12)).unwrap(),
        ],
        tunnel: true,
        transport: true,
        esn: true,
        replay_windows: ipsec::ReplayWindows::Range(32, 1024),
        selectors: ipsec::SelectorSupport::FULL,
        udp_encapsulation: true,
        limits: ipsec::capability::LimitUnits { time: true, bytes: true, packets: true },
        sa_table: None,
        policy_table: None,
        all_policy_kinds: true,
        in_place_move: true,
        separate_activation: true,
        marks: true,
        interface_ids: true,
    }
}

fn spi() -> Spi {
    Spi::new(0xc000_0001).unwrap()
}

const X25519: KeyExchangeId = KeyExchangeId::CURVE_25519;
const P256: KeyExchangeId = KeyExchangeId::ECP_256;

//= RFC 7296 §2.7: one proposal is chosen, with one transform of each type
#[test]
fn own_order_wins() {
    let ours = [ike(&[GCM_128, GCM_256], &[], &[P256, X25519])];
    let theirs = offer_ike(&[ike(&[GCM_256, GCM_128], &[], &[X25519, P256])], ring_provider(), None);
    let chosen = choose_ike(&ours, ring_provider(), &theirs, None).unwrap();
    assert_eq!((chosen.suite.encryption, chosen.suite.method, chosen.number), (GCM_128, P256, 1));
    let chosen = choose_ike(&ours, ring_provider(), &theirs, Some(X25519)).unwrap();
    assert_eq!(chosen.suite.method, X25519, "unless it costs a round trip");
}

#[test]
fn first_of_our_proposals_that_any_of_theirs_meets() {
    let mac = [IntegrityId::HMAC_SHA2_256_128];
    let theirs = [ike(&[GCM_256], &[], &[X25519]), ike(&[CBC_256], &mac, &[X25519])];
    let ours = [ike(&[CBC_256], &mac, &[X25519]), ike(&[GCM_256], &[], &[X25519])];
    let offered = offer_ike(&theirs, ring_provider(), None);
    let chosen = choose_ike(&ours, ring_provider(), &offered, None).unwrap();
    assert_eq!((chosen.number, chosen.suite.integrity), (2, Some(IntegrityId::HMAC_SHA2_256_128)));
    assert!(chosen.suite.allowed_by(&ours));
}

#[test]
fn what_cannot_be_done_is_neither_offered_nor_chosen() {
    let unknown = KeyExchangeId(1025);
    let gcm_192 = Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(192) };
    assert!(offer_ike(&[ike(&[GCM_256], &[], &[unknown])], ring_provider(), None).is_empty());
    let offered = offer_esp(
        &[esp(&[CHACHA, gcm_192, GCM_256], &[], &[], &[EsnId::NO_EXT_SEQ])],
        &[&device()],
        ring_provider(),
        spi(),
        ChildKeyExchange::Absent,
    );
    assert_eq!(describe(&offered), "ESP:AES_GCM_16_256/NO_EXT_SEQ");
    let without_esn = Capabilities { esn: false, ..device() };
    let only_esn = [esp(&[GCM_256], &[], &[], &[EsnId::EXT_SEQ])];
    assert!(offer_esp(&only_esn, &[&without_esn], ring_provider(), spi(), ChildKeyExchange::Absent).is_empty());
}

#[test]
fn transforms_that_are_not_understood_are_not_chosen() {
    let ours = [ike(&[GCM_256], &[], &[X25519])];
    let mut offered = offer_ike(&ours, ring_provider(), None);
    offered[0].transforms.push(Transform::new(TransformType::ADDKE1, 36));
    assert_eq!(choose_ike(&ours, ring_provider(), &offered, None), None, "an additional key exchange must be chosen");
    let mut offered = offer_ike(&ours, ring_provider(), None);
    offered[0].transforms.push(Transform::integrity(IntegrityId::HMAC_SHA2_256_128));
    assert_eq!(choose_ike(&ours, ring_provider(), &offered, None), None, "an AEAD beside an integrity algorithm");
    offered[0].transforms.push(Transform::integrity(IntegrityId::NONE));
    assert!(choose_ike(&ours, ring_provider(), &offered, None).is_some());
}

#[test]
fn key_exchange_of_a_child_is_required_optional_or_absent() {
    let no_esn = [EsnId::NO_EXT_SEQ];
    let cases = [
        (vec![], vec![], Some(None)),
        (vec![X25519], vec![], None),
        (vec![X25519, KeyExchangeId::NONE], vec![], Some(None)),
        (vec![X25519, KeyExchangeId::NONE], vec![X25519], Some(Some(X25519))),
        (vec![], vec![X25519], None),
        (vec![], vec![X25519, KeyExchangeId::NONE], Some(None)),
        (vec![P256, X25519], vec![X25519, P256], Some(Some(P256))),
    ];
    for (ours, theirs, expected) in cases {
        let configured = ChildKeyExchange::Configured;
        let offered =
            offer_esp(&[esp(&[GCM_256], &[], &theirs, &no_esn)], &[&device()], ring_provider(), spi(), configured);
        let ours = [esp(&[GCM_256], &[], &ours, &no_esn)];
        let chosen = choose_esp(&ours, &[&device()], ring_provider(), &offered, configured, None);
        assert_eq!(chosen.map(|chosen| chosen.suite.method), expected, "{ours:?} {theirs:?}");
    }
}

#[test]
fn key_exchange_is_left_out_of_ike_auth() {
    let proposals = [esp(&[GCM_256], &[], &[X25519], &[EsnId::NO_EXT_SEQ])];
    let offered = offer_esp(&proposals, &[&device()], ring_provider(), spi(), ChildKeyExchange::Absent);
    assert_eq!(offered[0].transforms_of(TransformType::KE).count(), 0);
    let chosen =
        choose_esp(&proposals, &[&device()], ring_provider(), &offered, ChildKeyExchange::Absent, None).unwrap();
    assert_eq!((chosen.suite.method, chosen.spi), (None, spi()));
}

//= RFC 7296 §3.3.3: ESN is mandatory for ESP
#[test]
fn missing_sequence_transform_means_32_bits() {
    let ours = [esp(&[GCM_256], &[], &[], &[EsnId::EXT_SEQ, EsnId::NO_EXT_SEQ])];
    let mut offered = offer_esp(&ours, &[&device()], ring_provider(), spi(), ChildKeyExchange::Absent);
    let chosen = choose_esp(&ours, &[&device()], ring_provider(), &offered, ChildKeyExchange::Absent, None).unwrap();
    assert!(chosen.suite.esn);
    offered[0].transforms.retain(|transform| transform.kind != TransformType::ESN);
    let chosen = choose_esp(&ours, &[&device()], ring_provider(), &offered, ChildKeyExchange::Absent, None).unwrap();
    assert!(!chosen.suite.esn);
}

#[test]
fn the_first_difference_of_the_closest_pair_is_named() {
    let ours = offer_ike(&[ike(&[GCM_256], &[], &[P256])], ring_provider(), None);
    let theirs = offer_ike(
        &[ike(&[CBC_256], &[IntegrityId::HMAC_SHA2_256_128], &[P256]), ike(&[GCM_256, GCM_128], &[], &[X25519])],
        ring_provider(),
        None,
    );
    assert_eq!(difference(&ours, &theirs), "; first difference: KE ECP_256 configured, CURVE_25519 received");
    assert_eq!(difference(&ours, &ours), "");
}
