//! One case for each rule whose breach is refused, with the place and the octet that the error names, and the nearest legal
//! octets beside it.

use ike_wire::ids::{
    AttributeType, ConfigurationAttributeType, ConfigurationType, ExchangeType, IdType, NotifyType, PayloadType,
    ProtocolId, TransformType, TsType,
};
use ike_wire::{
    Attribute, AttributeValue, Configuration, ConfigurationAttribute, Delete, EncodeError, Encrypted,
    EncryptedFragment, Flags, Header, Identification, IkeSpi, MAX_MESSAGE, MAX_PAYLOADS, Malformed, Message, MessageId,
    Nonce, Notify, OtherSelector, ParseError, Payload, Place, Problem, Proposal, SecurityAssociation, TrafficSelector,
    TrafficSelectors, Transform, UnknownPayload, VendorId, encode, encode_chain, parse_chain,
};

use crate::octets::{datagram, hex, payload};

const END: PayloadType = PayloadType::NO_NEXT_PAYLOAD;

/// Parses one payload; the offset in the answer counts from its body.
fn body(kind: PayloadType, octets: &str) -> Result<Payload<'static>, (Place, i64, Problem)> {
    let octets = payload(END, &hex(octets));
    let relative = |Malformed { place, offset, problem }| (place, i64::try_from(offset).unwrap() - 4, problem);
    let mut payloads = parse_chain(kind, &octets, 0).map_err(relative)?.into_vec();
    Ok(payloads.remove(0).into_owned())
}

//= RFC 7296 §3.1: SPIs, versions, flags and length
#[test]
fn headers() {
    let good = datagram(END, &[]);
    assert!(Header::parse(&good).is_ok());
    let with = |position: usize, value: u8| {
        let mut octets = good.clone();
        octets[position] = value;
        octets
    };
    let malformed = |offset, problem| Err(ParseError::Malformed(Malformed { place: Place::Header, offset, problem }));

    assert_eq!(Header::parse(&[]), malformed(0, Problem::Truncated { needed: 8, left: 0 }));
    assert_eq!(Header::parse(&good[..27]), malformed(24, Problem::Truncated { needed: 4, left: 3 }));
    assert_eq!(Header::parse(&with(17, 0x10)), malformed(17, Problem::OldVersion { major: 1 }));
    let mut zero_spi = good.clone();
    zero_spi[..8].fill(0);
    assert_eq!(Header::parse(&zero_spi), malformed(0, Problem::ZeroInitiatorSpi));
    let longer = Problem::DatagramLength { header: 29, datagram: 28 };
    assert_eq!(Header::parse(&with(27, 29)), malformed(24, longer));
    let shorter = Problem::DatagramLength { header: 27, datagram: 28 };
    assert_eq!(Header::parse(&with(27, 27)), malformed(24, shorter));
    let huge = Problem::DatagramLength { header: 0xff00_001c, datagram: 28 };
    assert_eq!(Header::parse(&with(24, 0xff)), malformed(24, huge));
    let trailing = [good.clone(), vec![0]].concat();
    assert_eq!(Header::parse(&trailing), malformed(24, Problem::DatagramLength { header: 28, datagram: 29 }));
}

//= RFC 7296 §2.5: a higher major version is answered, a higher minor version is not looked at
//= RFC 7296 §2.5: a higher major version is told apart from nonsense
#[test]
fn versions() {
    let mut octets = datagram(END, &[]);
    octets[17] = 0x2f;
    assert_eq!(Header::parse(&octets).unwrap().version.minor, 15);
    octets[17] = 0x30;
    // The layout behind the header is unknown, so a length that does not fit must not hide the version.
    octets[27] = 99;
    let Err(ParseError::MajorVersion(header)) = Message::parse(&octets) else { panic!("not refused by its version") };
    assert_eq!((header.version.major, header.initiator_spi), (3, IkeSpi(0x0102_0304_0506_0708)));
    assert_eq!((header.exchange, header.message_id), (ExchangeType::IKE_SA_INIT, MessageId(0)));
}

//= RFC 7296 §3.1: reserved bits are ignored on receipt and sent as zero
#[test]
fn reserved_bits_of_the_header() {
    let mut octets = datagram(END, &[]);
    octets[19] = 0xff;
    let header = Header::parse(&octets).unwrap();
    assert_eq!(header.flags, Flags { initiator: true, version: true, response: true });
    assert_eq!(encode(&header, &[]).unwrap()[19], 0x38);
}

//= RFC 7296 §3.2: lengths that do not add up are refused
#[test]
fn chains() {
    let chain = |first, octets: &str| parse_chain(first, &hex(octets), 100).map(|payloads| payloads.len());
    let error = |place, offset, problem| Err(Malformed { place, offset, problem });
    let vendor = Place::Payload(PayloadType::VENDOR_ID);

    assert_eq!(chain(END, ""), Ok(0));
    assert_eq!(chain(PayloadType::VENDOR_ID, "00 00 0005 aa"), Ok(1));
    assert_eq!(chain(END, "00"), error(Place::Chain, 100, Problem::TrailingOctets { count: 1 }));
    assert_eq!(
        chain(PayloadType::VENDOR_ID, "00 00 0004 aa"),
        error(Place::Chain, 104, Problem::TrailingOctets { count: 1 })
    );
    assert_eq!(chain(PayloadType::VENDOR_ID, ""), error(vendor, 100, Problem::Truncated { needed: 1, left: 0 }));
    assert_eq!(
        chain(PayloadType::VENDOR_ID, "2b 00 0004"),
        error(vendor, 104, Problem::Truncated { needed: 1, left: 0 })
    );
    assert_eq!(
        chain(PayloadType::VENDOR_ID, "00 00 0006 aa"),
        error(vendor, 104, Problem::Truncated { needed: 2, left: 1 })
    );
    for claimed in 0..4_u8 {
        let problem = Problem::LengthField { claimed: usize::from(claimed), minimum: 4 };
        assert_eq!(chain(PayloadType::VENDOR_ID, &format!("00 00 000{claimed}")), error(vendor, 104, problem));
    }
}

#[test]
fn more_payloads_than_any_message_needs() {
    let vendor = Payload::VendorId(VendorId::new(Vec::new()));
    let chain = encode_chain(&vec![vendor.clone(); MAX_PAYLOADS]).unwrap();
    assert_eq!(parse_chain(chain.first, &chain.octets, 0).unwrap().len(), MAX_PAYLOADS);
    let one_more = [payload(PayloadType::VENDOR_ID, &[]), chain.octets].concat();
    let problem = Problem::TooMany { what: "payloads", limit: MAX_PAYLOADS };
    let place = Place::Payload(PayloadType::VENDOR_ID);
    assert_eq!(parse_chain(chain.first, &one_more, 0), Err(Malformed { place, offset: MAX_PAYLOADS * 4, problem }));
    assert!(matches!(
        encode_chain(&vec![vendor; MAX_PAYLOADS + 1]),
        Err(EncodeError::TooMany { what: "payloads", .. })
    ));
}

//= RFC 7296 §2.5: the critical bit matters for unknown types only
#[test]
fn the_critical_bit() {
    let chain = |octets: &str| parse_chain(PayloadType(200), &hex(octets), 0).unwrap().unsupported_critical();
    assert_eq!(chain("00 80 0004"), Some(PayloadType(200)));
    assert_eq!(chain("00 7f 0004"), None);
    assert_eq!(chain("c9 00 0004 00 80 0004"), Some(PayloadType(201)));
    // IKEv1's payload types are unknown ones.
    assert_eq!(
        parse_chain(PayloadType(1), &hex("00 80 0004"), 0).unwrap().unsupported_critical(),
        Some(PayloadType(1))
    );
    assert_eq!(parse_chain(PayloadType::VENDOR_ID, &hex("00 80 0004"), 0).unwrap().unsupported_critical(), None);
}

#[test]
fn a_second_payload_of_a_single_kind_is_seen() {
    let repeated = |kinds: &[(PayloadType, &str)]| {
        let following = kinds.iter().skip(1).map(|(kind, _)| *kind).chain([END]);
        let octets: Vec<u8> =
            kinds.iter().zip(following).flat_map(|((_, body), next)| payload(next, &hex(body))).collect();
        parse_chain(kinds[0].0, &octets, 0).unwrap().repeated()
    };
    use PayloadType as Kind;
    let sa = "00 00 0008 01 01 00 00";
    let nonce = "00".repeat(16);
    let singles = [
        (Kind::SA, sa),
        (Kind::KE, "001f 0000"),
        (Kind::ID_INITIATOR, "02 000000"),
        (Kind::ID_RESPONDER, "02 000000"),
        (Kind::AUTH, "02 000000"),
        (Kind::NONCE, &nonce),
        (Kind::TS_INITIATOR, "00 000000"),
        (Kind::TS_RESPONDER, "00 000000"),
        (Kind::CP, "01 000000"),
        (Kind::EAP, "03 01 0004"),
    ];
    assert_eq!(repeated(&singles), None);
    for single in singles {
        assert_eq!(repeated(&[single, (Kind::VENDOR_ID, ""), single]), Some(single.0));
    }
    for many in [(Kind::NOTIFY, "00 00 4000"), (Kind::DELETE, "01 00 0000"), (Kind::CERT, "04"), (Kind::VENDOR_ID, "")]
    {
        assert_eq!(repeated(&[many, many]), None);
    }
}

//= RFC 7296 §3.14: the encrypted payload is the last one
//= RFC 7296 §3.14: SK is the last payload
#[test]
fn nothing_follows_sk() {
    let message =
        |octets: &str| Message::parse(&datagram(PayloadType::SK, &hex(octets))).map(|message| message.payloads.len());
    assert_eq!(message("29 00 0006 aabb"), Ok(1));
    let problem = Problem::TrailingOctets { count: 8 };
    let error = Malformed { place: Place::Chain, offset: 34, problem };
    assert_eq!(message("29 00 0006 aabb 00 00 0008 00 00 4000"), Err(error.into()));
}

//= RFC 7296 §3.3, §3.3.1: numbers, SPI sizes and counts of proposals
#[test]
fn proposals() {
    let esp = "00 00 0014 01 03 04 01 a1a2a3a4 00 00 0008 05 00 0000";
    let Ok(Payload::Sa(sa)) = body(PayloadType::SA, esp) else { panic!("not an SA payload") };
    assert_eq!(sa.proposals[0].spi_u32(), Some(0xa1a2_a3a4));

    let cases: &[(&str, &str, Place, i64, Problem)] = &[
        ("no proposal", "", Place::Proposal, 0, Problem::Truncated { needed: 1, left: 0 }),
        (
            "length below its fixed part",
            "00 00 0007 01 01 00 00",
            Place::Proposal,
            4,
            Problem::LengthField { claimed: 7, minimum: 8 },
        ),
        (
            "longer than the payload",
            "00 00 0009 01 01 00 00",
            Place::Proposal,
            8,
            Problem::Truncated { needed: 1, left: 0 },
        ),
        (
            "last of many that is not",
            "02 00 0008 01 01 00 00",
            Place::Proposal,
            8,
            Problem::Truncated { needed: 1, left: 0 },
        ),
        (
            "another after the last",
            "00 00 0008 01 01 00 00 00 00 0008 02 01 00 00",
            Place::Payload(PayloadType::SA),
            8,
            Problem::TrailingOctets { count: 8 },
        ),
        (
            "odd value for last",
            "01 00 0008 01 01 00 00",
            Place::Proposal,
            1,
            Problem::LastSubstructure { found: 1, expected: 2 },
        ),
        (
            "transform's value for last",
            "03 00 0008 01 01 00 00",
            Place::Proposal,
            1,
            Problem::LastSubstructure { found: 3, expected: 2 },
        ),
        (
            "SPI longer than the proposal",
            "00 00 000a 01 01 08 00 0000",
            Place::Proposal,
            8,
            Problem::Truncated { needed: 8, left: 2 },
        ),
        (
            "ESP without SPI",
            "00 00 0008 01 03 00 00",
            Place::Proposal,
            8,
            Problem::SpiSize { protocol: ProtocolId::ESP, octets: 0 },
        ),
        (
            "AH with the SPI of IKE",
            "00 00 0010 01 02 08 00 0000000000000000",
            Place::Proposal,
            8,
            Problem::SpiSize { protocol: ProtocolId::AH, octets: 8 },
        ),
        (
            "IKE with the SPI of ESP",
            "00 00 000c 01 01 04 00 00000000",
            Place::Proposal,
            8,
            Problem::SpiSize { protocol: ProtocolId::IKE, octets: 4 },
        ),
        (
            "fewer transforms than counted",
            "00 00 0010 01 01 00 02 03 00 0008 01 00 0014",
            Place::Transform,
            16,
            Problem::Truncated { needed: 1, left: 0 },
        ),
        (
            "more transforms than counted",
            "00 00 0018 01 01 00 01 00 00 0008 01 00 0014 00 00 0008 01 00 0014",
            Place::Proposal,
            16,
            Problem::TrailingOctets { count: 8 },
        ),
    ];
    for &(name, octets, place, offset, problem) in cases {
        assert_eq!(body(PayloadType::SA, octets), Err((place, offset, problem)), "{name}");
    }
}

//= RFC 7296 §3.3.2: lengths and ends of transforms
#[test]
fn transforms() {
    let parse = |last: &str| body(PayloadType::SA, &format!("00 00 {:04x} 01 01 00 01 {last}", 8 + hex(last).len()));
    let Ok(Payload::Sa(sa)) = parse("00 00 000c 01 00 0014 800e 0100") else { panic!("not an SA payload") };
    assert_eq!(sa.proposals[0].transforms[0].to_string(), "AES_GCM_16_256");

    let cases: &[(&str, &str, i64, Problem)] = &[
        ("says that another follows", "03 00 0008 01 00 0014", 9, Problem::LastSubstructure { found: 3, expected: 0 }),
        ("length below its fixed part", "00 00 0007 01 00 0014", 12, Problem::LengthField { claimed: 7, minimum: 8 }),
        ("longer than the proposal", "00 00 0009 01 00 0014", 16, Problem::Truncated { needed: 1, left: 0 }),
        ("attribute cut short", "00 00 000b 01 00 0014 800e01", 18, Problem::Truncated { needed: 2, left: 1 }),
        (
            "long attribute beyond the transform",
            "00 00 000d 01 00 0014 0001 0002 aa",
            20,
            Problem::Truncated { needed: 2, left: 1 },
        ),
    ];
    for &(name, octets, offset, problem) in cases {
        assert_eq!(parse(octets), Err((Place::Transform, offset, problem)), "{name}");
    }
    let attributes = |count: usize| format!("00 00 {:04x} 01 00 0014 {}", 8 + 4 * count, "8001 0001".repeat(count));
    assert!(parse(&attributes(8)).is_ok());
    let problem = Problem::TooMany { what: "attributes", limit: 8 };
    assert_eq!(parse(&attributes(9)), Err((Place::Transform, 16 + 36, problem)));
}

//= RFC 7296 §3.3.6: what is not understood must not be chosen, so it must not be lost
//= RFC 7296 §3.3.5: attributes with and without length
#[test]
fn attributes_that_are_not_understood_are_kept() {
    let parse = |attributes: &str| {
        let transform = format!("00 00 {:04x} 01 00 000c {attributes}", 8 + hex(attributes).len());
        let proposal = format!("00 00 {:04x} 01 01 00 01 {transform}", 8 + hex(&transform).len());
        let Ok(Payload::Sa(mut sa)) = body(PayloadType::SA, &proposal) else { panic!("{attributes}") };
        sa.proposals.remove(0).transforms.remove(0)
    };
    assert!(parse("800e 0080").is_understood());
    let unknown = parse("800f 0080");
    assert_eq!((unknown.key_length, unknown.is_understood()), (None, false));
    let long_key_length = parse("000e 0002 0080");
    assert_eq!((long_key_length.key_length, long_key_length.is_understood()), (None, false));
    let two_key_lengths = parse("800e 0080 800e 0100");
    assert_eq!((two_key_lengths.key_length, two_key_lengths.is_understood()), (Some(128), false));
}

#[test]
fn more_proposals_than_any_peer_sends() {
    let proposal = |last: &str| format!("{last} 00 0008 01 01 00 00");
    let chain = |count: usize| format!("{} {}", proposal("02").repeat(count - 1), proposal("00"));
    assert!(body(PayloadType::SA, &chain(64)).is_ok());
    let problem = Problem::TooMany { what: "proposals", limit: 64 };
    assert_eq!(body(PayloadType::SA, &chain(65)), Err((Place::Payload(PayloadType::SA), 512, problem)));
}

//= RFC 7296 §3.4, §3.5, §3.8, §3.9, §3.10, §3.11, §3.12: each payload with its fields, none shorter than they are
#[test]
fn payloads_of_fixed_fields() {
    use PayloadType as Kind;
    let place = Place::Payload;
    let nonce = |octets: usize| "5a".repeat(octets);
    let short = |needed, left| Problem::Truncated { needed, left };
    let accepted: &[(Kind, &str)] = &[
        (Kind::NONCE, &nonce(16)),
        (Kind::NONCE, &nonce(256)),
        (Kind::KE, "001f 0000"),
        (Kind::ID_INITIATOR, "01 000000 c0000201"),
        (Kind::ID_INITIATOR, "02 ffffff"),
        (Kind::CERTREQ, "04"),
        (Kind::NOTIFY, "00 00 4000"),
        (Kind::NOTIFY, "03 04 4009 00000001"),
        (Kind::NOTIFY, "00 04 4009 00000001"),
        (Kind::NOTIFY, "01 08 4009 0000000000000001"),
        (Kind::NOTIFY, "07 03 4009 000001"),
        (Kind::DELETE, "01 00 0000"),
        (Kind::DELETE, "03 04 0000"),
        (Kind::DELETE, "03 04 0002 00000001 00000002"),
        (Kind::EAP, "03 01 0004"),
        (Kind::CP, "01 000000 8001 0000"),
    ];
    for (kind, octets) in accepted {
        assert!(body(*kind, octets).is_ok(), "{kind} {octets}");
    }
    let refused: &[(Kind, &str, i64, Problem)] = &[
        (Kind::NONCE, "", 0, Problem::NonceLength { octets: 0 }),
        (Kind::NONCE, &nonce(15), 0, Problem::NonceLength { octets: 15 }),
        (Kind::NONCE, &nonce(257), 0, Problem::NonceLength { octets: 257 }),
        (Kind::KE, "001f 00", 2, short(2, 1)),
        (Kind::ID_INITIATOR, "02 0000", 1, short(3, 2)),
        (Kind::ID_INITIATOR, "01 000000 c00002", 4, Problem::AddressLength { octets: 3, expected: 4 }),
        (Kind::ID_RESPONDER, "05 000000 c0000201", 4, Problem::AddressLength { octets: 4, expected: 16 }),
        (Kind::CERT, "", 0, short(1, 0)),
        (Kind::CERTREQ, "", 0, short(1, 0)),
        (Kind::AUTH, "02 0000", 1, short(3, 2)),
        (Kind::NOTIFY, "00 00 40", 2, short(2, 1)),
        (Kind::NOTIFY, "03 04 4009 000001", 4, short(4, 3)),
        (Kind::NOTIFY, "03 08 4009 0000000000000001", 4, Problem::SpiSize { protocol: ProtocolId::ESP, octets: 8 }),
        (Kind::NOTIFY, "01 04 4009 00000001", 4, Problem::SpiSize { protocol: ProtocolId::IKE, octets: 4 }),
        (Kind::DELETE, "03 04 00", 2, short(2, 1)),
        (Kind::DELETE, "03 04 0002 00000001", 4, Problem::SpiCount { count: 2, size: 4, left: 4 }),
        (Kind::DELETE, "03 04 0001 00000001 00000002", 4, Problem::SpiCount { count: 1, size: 4, left: 8 }),
        (Kind::DELETE, "03 04 ffff", 4, Problem::SpiCount { count: 65535, size: 4, left: 0 }),
        (Kind::DELETE, "03 00 0000", 4, Problem::SpiSize { protocol: ProtocolId::ESP, octets: 0 }),
        (Kind::DELETE, "01 08 0001 0000000000000001", 4, Problem::SpiSize { protocol: ProtocolId::IKE, octets: 8 }),
        (Kind::DELETE, "01 00 0001", 4, Problem::SpiCount { count: 1, size: 0, left: 0 }),
        (Kind::EAP, "03 01 00", 2, short(2, 1)),
        (Kind::EAP, "03 01 0005", 4, Problem::FixedLength { claimed: 5, expected: 4 }),
        (Kind::EAP, "03 01 0004 00", 4, Problem::FixedLength { claimed: 4, expected: 5 }),
    ];
    for &(kind, octets, offset, problem) in refused {
        assert_eq!(body(kind, octets), Err((place(kind), offset, problem)), "{kind} {octets}");
    }
    let attribute = |octets: &str| body(Kind::CP, octets).unwrap_err();
    assert_eq!(attribute("01 000000 0001"), (Place::ConfigurationAttribute, 6, short(2, 0)));
    assert_eq!(attribute("01 000000 0001 0001"), (Place::ConfigurationAttribute, 8, short(1, 0)));
    let many = format!("01 000000 {}", "0001 0000".repeat(257));
    let limit = 256;
    let problem = Problem::TooMany { what: "configuration attributes", limit };
    assert_eq!(attribute(&many), (Place::ConfigurationAttribute, 4 + 256 * 4, problem));
}

//= RFC 7296 §2.15: AUTH covers the identification payload as it was sent, its reserved octets included
#[test]
fn reserved_octets_of_an_identity_are_kept() {
    let Ok(Payload::IdInitiator(id)) = body(PayloadType::ID_INITIATOR, "02 abcdef 61") else { panic!("not IDi") };
    assert_eq!(id.to_octets(), hex("02 abcdef 61"));
    assert_eq!(Identification::new(IdType::ID_FQDN, b"a".to_vec()).to_octets(), hex("02 000000 61"));
}

//= RFC 7296 §3.13, §3.13.1: types, lengths and counts of selectors
#[test]
fn traffic_selectors() {
    let v4 = "07 00 0010 0000 ffff 0a010000 0a01ffff";
    let count =
        |count: u8, selectors: &str| body(PayloadType::TS_INITIATOR, &format!("{count:02x} 000000 {selectors}"));
    let Ok(Payload::TsInitiator(ts)) = count(2, &v4.repeat(2)) else { panic!("not a TSi payload") };
    assert_eq!(ts.ranges().count(), 2);
    // More selectors than a fixed table would hold are simply many.
    let Ok(Payload::TsInitiator(many)) = count(255, &v4.repeat(255)) else { panic!("not a TSi payload") };
    assert_eq!(many.selectors.len(), 255);

    let (ts, selector) = (Place::Payload(PayloadType::TS_INITIATOR), Place::TrafficSelector);
    let cases: &[(u8, &str, Place, i64, Problem)] = &[
        (1, "", ts, 4, Problem::Truncated { needed: 1, left: 0 }),
        (0, v4, ts, 4, Problem::TrailingOctets { count: 16 }),
        (2, v4, ts, 20, Problem::Truncated { needed: 1, left: 0 }),
        (1, "07 00 0003", ts, 8, Problem::LengthField { claimed: 3, minimum: 4 }),
        (1, "07 00 0010 0000 ffff 0a010000", ts, 8, Problem::Truncated { needed: 12, left: 8 }),
        (1, "07 00 000f 0000 ffff 0a010000 0a01ff", selector, 8, Problem::FixedLength { claimed: 15, expected: 16 }),
        (
            1,
            "07 00 0011 0000 ffff 0a010000 0a01ffff00",
            selector,
            8,
            Problem::FixedLength { claimed: 17, expected: 16 },
        ),
        (1, "08 00 0010 0000 ffff 0a010000 0a01ffff", selector, 8, Problem::FixedLength { claimed: 16, expected: 40 }),
    ];
    for &(number, octets, place, offset, problem) in cases {
        assert_eq!(count(number, octets), Err((place, offset, problem)), "{number} {octets}");
    }
    assert!(count(1, "0a 00 0008 6c61626c").is_ok(), "a kind nobody here knows");
}

#[test]
fn ranges_that_run_backwards_are_flagged_not_refused() {
    let range = |ports: &str, addresses: &str| {
        let octets = format!("01 000000 07 06 0010 {ports} {addresses}");
        let Ok(Payload::TsResponder(ts)) = body(PayloadType::TS_RESPONDER, &octets) else { panic!("{octets}") };
        let range = *ts.ranges().next().unwrap();
        (range.is_ordered(), range.is_opaque())
    };
    assert_eq!(range("0016 0016", "0a010001 0a010001"), (true, false));
    assert_eq!(range("0016 0015", "0a010001 0a010001"), (false, false));
    assert_eq!(range("ffff 0000", "0a010001 0a010001"), (true, true));
    assert_eq!(range("0000 ffff", "0a010002 0a010001"), (false, false));
}

#[test]
fn fragment_numbers() {
    let fragment = |octets: &str| Message::parse(&datagram(PayloadType::SKF, &payload(END, &hex(octets)))).map(drop);
    let error = |problem| Err(Malformed { place: Place::Payload(PayloadType::SKF), offset: 36, problem }.into());
    assert!(fragment("0001 0001").is_ok());
    assert!(fragment("0080 0080").is_ok());
    assert_eq!(fragment("0000 0001"), error(Problem::FragmentNumber { number: 0, total: 1 }));
    assert_eq!(fragment("0001 0000"), error(Problem::FragmentNumber { number: 1, total: 0 }));
    assert_eq!(fragment("0003 0002"), error(Problem::FragmentNumber { number: 3, total: 2 }));
    assert_eq!(fragment("0001 ffff"), error(Problem::TooMany { what: "fragments", limit: 128 }));
}

#[test]
fn what_the_parser_refuses_is_not_encoded() {
    let sa = |proposal: Proposal| Payload::Sa(SecurityAssociation::new(vec![proposal]));
    let ike = |transforms| Proposal::new(1, ProtocolId::IKE, transforms);
    let key_length = Attribute { kind: AttributeType::KEY_LENGTH, value: AttributeValue::Short(128) };
    let with_attributes = |attributes| Transform { attributes, ..Transform::new(TransformType::ENCR, 20) };
    let illegal = |payload: Payload<'static>| {
        let error = encode_chain(&[payload]).unwrap_err();
        assert!(!error.to_string().is_empty());
        error
    };
    let problem = |payload| {
        let error = illegal(payload);
        if let EncodeError::Illegal { problem, .. } = error { problem } else { panic!("{error}") }
    };

    assert_eq!(problem(Payload::Sa(SecurityAssociation::default())), Problem::Truncated { needed: 8, left: 0 });
    assert_eq!(
        problem(sa(Proposal::new(1, ProtocolId::ESP, Vec::new()))),
        Problem::SpiSize { protocol: ProtocolId::ESP, octets: 0 }
    );
    let many = EncodeError::TooMany { what: "proposals", count: 65, limit: 64 };
    assert_eq!(illegal(Payload::Sa(SecurityAssociation::new(vec![ike(Vec::new()); 65]))), many);
    let many = EncodeError::TooMany { what: "transforms", count: 256, limit: 255 };
    assert_eq!(illegal(sa(ike(vec![Transform::new(TransformType::PRF, 5); 256]))), many);
    let many = EncodeError::TooMany { what: "attributes", count: 9, limit: 8 };
    assert_eq!(illegal(sa(ike(vec![with_attributes(vec![key_length.clone(); 9])]))), many);
    let ambiguous = EncodeError::AmbiguousAttribute(TransformType::ENCR);
    assert_eq!(illegal(sa(ike(vec![with_attributes(vec![key_length.clone()])]))), ambiguous);
    let out_of_range = Attribute { kind: AttributeType(0x8001), value: AttributeValue::Long(Vec::new()) };
    assert_eq!(illegal(sa(ike(vec![with_attributes(vec![out_of_range])]))), ambiguous);

    assert_eq!(problem(Payload::Nonce(Nonce::new(vec![0; 15]))), Problem::NonceLength { octets: 15 });
    assert_eq!(
        problem(Payload::IdInitiator(Identification::new(IdType::ID_IPV4_ADDR, vec![0; 5]))),
        Problem::AddressLength { octets: 5, expected: 4 }
    );
    let about_ike = Notify::about(NotifyType::REKEY_SA, ProtocolId::IKE, 1);
    assert_eq!(problem(Payload::Notify(about_ike)), Problem::SpiSize { protocol: ProtocolId::IKE, octets: 4 });
    let torn = Delete { protocol: ProtocolId::ESP, spi_size: 4, octets: vec![0; 6].into() };
    assert_eq!(problem(Payload::Delete(torn)), Problem::SpiCount { count: 1, size: 4, left: 6 });
    let fragment = EncryptedFragment { first: END, number: 2, total: 1, body: Vec::new().into() };
    assert_eq!(problem(Payload::EncryptedFragment(fragment)), Problem::FragmentNumber { number: 2, total: 1 });

    let selector = OtherSelector { kind: TsType::TS_IPV4_ADDR_RANGE, protocol: 0, body: Vec::new() };
    let known = Payload::TsInitiator(TrafficSelectors::new(vec![TrafficSelector::Other(selector)]));
    assert_eq!(illegal(known), EncodeError::KnownSelector(TsType::TS_IPV4_ADDR_RANGE));
    for kind in [END, PayloadType::SA, PayloadType::EAP, PayloadType::SKF] {
        let known = Payload::Unknown(UnknownPayload { kind, critical: false, body: Vec::new().into() });
        assert_eq!(illegal(known), EncodeError::KnownPayload(kind));
    }
    let kind = ConfigurationAttributeType(0x8001);
    let attributes = vec![ConfigurationAttribute { kind, value: Vec::new().into() }];
    let wide = Payload::Configuration(Configuration { kind: ConfigurationType::CFG_REQUEST, attributes });
    assert_eq!(illegal(wide), EncodeError::ConfigurationAttribute(kind));
}

#[test]
fn what_does_not_fit_is_not_encoded() {
    let vendor = |octets: usize| Payload::VendorId(VendorId::new(vec![0; octets]));
    let place = Place::Payload(PayloadType::VENDOR_ID);
    let too_long = EncodeError::TooLong { place, octets: 65_536, limit: 65_535 };
    assert!(encode_chain(&[vendor(65_531)]).is_ok());
    assert_eq!(encode_chain(&[vendor(65_532)]).err(), Some(too_long));

    let header = Header::new(IkeSpi(1), IkeSpi(2), ExchangeType::INFORMATIONAL, Flags::default(), MessageId(0));
    assert_eq!(encode(&header, &[vendor(MAX_MESSAGE - 32)]).unwrap().len(), MAX_MESSAGE);
    let octets = MAX_MESSAGE + 1;
    let too_long = EncodeError::TooLong { place: Place::Chain, octets, limit: MAX_MESSAGE };
    assert_eq!(encode(&header, &[vendor(MAX_MESSAGE - 31)]), Err(too_long));

    let sk = Payload::Encrypted(Encrypted { first: END, body: Vec::new().into() });
    assert_eq!(encode(&header, &[sk, vendor(0)]), Err(EncodeError::NotLast(PayloadType::SK)));
}

#[test]
fn errors_say_where_and_what() {
    let error = Message::parse(&datagram(PayloadType::NONCE, &payload(END, &[0; 15]))).unwrap_err();
    assert_eq!(error.to_string(), "payload Nonce: nonce of 15 octets, must have 16 to 256 (octet 32)");
    let mut newer = datagram(END, &[]);
    newer[17] = 0x30;
    assert_eq!(Header::parse(&newer).unwrap_err().to_string(), "major version 3 is newer than 2");
}
