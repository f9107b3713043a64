use super::*;

#[test]
fn registered_numbers_print_their_names() {
    let cases: &[(&dyn fmt::Display, &str)] = &[
        (&EncryptionId::AES_GCM_16, "AES_GCM_16"),
        (&EncryptionId(12), "AES_CBC"),
        (&EncryptionId(3), "3DES_CBC"),
        (&EncryptionId(28), "CHACHA20_POLY1305"),
        (&PrfId(5), "PRF_HMAC_SHA2_256"),
        (&IntegrityId(12), "HMAC_SHA2_256_128"),
        (&KeyExchangeId(31), "CURVE_25519"),
        (&KeyExchangeId(36), "ML_KEM_768"),
        (&KeyExchangeId(28), "ECP_256_BP"),
        (&NotifyType(14), "NO_PROPOSAL_CHOSEN"),
        (&NotifyType(16393), "REKEY_SA"),
        (&ExchangeType(34), "IKE_SA_INIT"),
        (&PayloadType(46), "SK"),
        (&ProtocolId(3), "ESP"),
    ];
    for (id, text) in cases {
        assert_eq!(id.to_string(), *text);
    }
}

#[test]
fn unregistered_numbers_print_in_parentheses() {
    assert_eq!(EncryptionId(1025).to_string(), "(1025)");
    assert_eq!(NotifyType(40_000).to_string(), "(40000)");
    assert_eq!(PayloadType(5).to_string(), "(5)");
}

//= RFC 7296 §3.10.1: types below 16384 are errors
#[test]
fn notify_types_below_16384_are_errors() {
    assert!(NotifyType::NO_PROPOSAL_CHOSEN.is_error());
    assert!(NotifyType(16_383).is_error());
    assert!(!NotifyType::INITIAL_CONTACT.is_error());
    assert!(!NotifyType(65_535).is_error());
}

#[test]
fn spis_print_all_their_digits() {
    assert_eq!(IkeSpi(0xab).to_string(), "00000000000000ab");
    assert_eq!(IkeSpi::from_octets(IkeSpi(0x0102_0304_0506_0708).to_octets()), IkeSpi(0x0102_0304_0506_0708));
}

#[test]
fn additional_key_exchanges_are_transform_types_6_to_12() {
    for index in 1..=7 {
        let kind = TransformType::additional_key_exchange(index).unwrap();
        assert_eq!(kind.0, 5 + index);
        assert!(kind.is_key_exchange());
    }
    assert_eq!(TransformType::additional_key_exchange(0), None);
    assert_eq!(TransformType::additional_key_exchange(8), None);
}
