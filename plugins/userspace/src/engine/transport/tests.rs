use super::*;
use crate::packet::{checksum, parse};

/// Headers of IPv6 extension headers, each 8 octets, behind a fixed header; UDP at the end.
fn v6(chain: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, (chain.len() * 8 + 8) as u8, chain.first().copied().unwrap_or(17), 44];
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    for next in chain.iter().skip(1).chain([&17]) {
        packet.extend([*next, 0, 1, 4, 0, 0, 0, 0]);
    }
    packet.extend([0x13, 0x88, 0, 7, 0, 8, 0, 0]);
    packet
}

/// What goes outside of ESP and what begins inside, or why it cannot be.
fn shape(packet: &[u8]) -> Result<(usize, u8), Reason> {
    let parsed = parse(packet).unwrap();
    cut(packet, &parsed).map(|cut| (cut.outside(&parsed), cut.next_header))
}

//= RFC 4303 §3.1.1: before ESP stand hop-by-hop, routing and fragment headers, destination options may stand behind
#[test]
fn ipv6_headers_are_cut_where_esp_goes() {
    assert_eq!(shape(&v6(&[])), Ok((40, 17)));
    assert_eq!(shape(&v6(&[HOP_BY_HOP])), Ok((48, 17)));
    assert_eq!(shape(&v6(&[HOP_BY_HOP, DESTINATION])), Ok((48, DESTINATION)));
    assert_eq!(shape(&v6(&[DESTINATION])), Ok((40, DESTINATION)));
    for refused in [&[ROUTING][..], &[HOP_BY_HOP, ROUTING], &[DESTINATION, ROUTING], &[HOP_BY_HOP, HOP_BY_HOP]] {
        assert_eq!(shape(&v6(refused)), Err(Reason::HeadersInTransport), "{refused:?}");
    }
    // An atomic fragment is whole, but its header cannot be put before ESP.
    let mut atomic = v6(&[FRAGMENT]);
    atomic[42..44].copy_from_slice(&[0, 0]);
    assert_eq!(shape(&atomic), Err(Reason::HeadersInTransport));
    atomic[43] = 1;
    assert_eq!(shape(&atomic), Err(Reason::FragmentInTransport));
    let mut long = v6(&[HOP_BY_HOP]);
    long[5] += 64;
    long[41] = 8;
    long.splice(48..48, [0; 64]);
    assert_eq!(shape(&long), Err(Reason::HeadersInTransport));
}

fn came(source: &str, destination: &str) -> Came {
    Came { source: source.parse().unwrap(), destination: destination.parse().unwrap(), hops: 33, class: 0xb8 }
}

#[test]
fn a_rebuilt_packet_has_a_sound_header() {
    let mut room = [0xff; 200];
    for (source, destination, header) in [("192.0.2.1", "192.0.2.2", 20), ("2001:db8::1", "2001:db8::2", 40)] {
        let length = rebuild(&came(source, destination), 17, &[0x13, 0x88, 0, 7, 0, 9, 0, 0, 5], &mut room).unwrap();
        assert_eq!(length, header + 9);
        let parsed = parse(&room[..length]).unwrap();
        assert_eq!((parsed.length, parsed.upper, parsed.traffic_class), (length, header, 0xb8));
        assert_eq!((parsed.selectors.source.to_string(), parsed.selectors.ports), (source.into(), Some((5000, 7))));
        assert!(!parsed.fragment && parsed.dont_fragment);
        assert_eq!(room[if header == 20 { 8 } else { 7 }], 33);
        assert!(header == 40 || checksum(&room[..20]) == 0);
        assert_eq!(rebuild(&came(source, destination), 17, &[0; 9], &mut room[..length - 1]), None);
    }
    assert_eq!(rebuild(&came("192.0.2.1", "2001:db8::2"), 17, &[], &mut room), None);
    let mut large = vec![0; 70_000];
    assert_eq!(rebuild(&came("192.0.2.1", "192.0.2.2"), 17, &[0; 65_516], &mut large), None);
    assert_eq!(rebuild(&came("192.0.2.1", "192.0.2.2"), 17, &[0; 65_515], &mut large), Some(65_535));
}

/// The checksum over pseudo-header and segment: zero when the one inside is right.
fn over(packet: &[u8], source: IpAddr, destination: IpAddr, protocol: u8) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let segment = &packet[if source.is_ipv4() { 20 } else { 40 }..];
    let length = (segment.len() as u16).to_be_bytes();
    checksum(&[&octets(source)[..], &octets(destination), &[0, protocol], &length, segment].concat())
}

//= RFC 3948 §3.1.2: incremental, for every protocol whose checksum covers the addresses, whatever the sum is
#[test]
fn checksums_follow_the_addresses() {
    let cases = [
        (6, 16, "192.0.2.1", "192.0.2.2", "10.0.0.7", "203.0.113.5"),
        (17, 6, "192.0.2.1", "192.0.2.2", "10.0.0.7", "192.0.2.2"),
        (136, 6, "192.0.2.1", "192.0.2.2", "192.0.2.1", "203.0.113.5"),
        (33, 6, "192.0.2.1", "192.0.2.2", "10.0.0.7", "203.0.113.5"),
        (17, 6, "2001:db8::1", "2001:db8::2", "fd00::7", "fd01::5"),
        (58, 2, "2001:db8::1", "2001:db8::2", "fd00::7", "fd01::5"),
    ];
    for (protocol, at, source, destination, remote, local) in cases {
        let came = came(source, destination);
        let view = OuterAddresses { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
        let (mut room, mut zeros) = ([0; 100], 0);
        for filler in 0..=u16::MAX {
            let mut segment = [0x11; 24];
            segment[20..22].copy_from_slice(&filler.to_be_bytes());
            segment[at..at + 2].fill(0);
            let length = rebuild(&came, protocol, &segment, &mut room).unwrap();
            let packet = &mut room[..length];
            let header = length - segment.len();
            let mut sum = over(packet, view.remote, view.local, protocol);
            if sum == 0 && protocol == 17 {
                (sum, zeros) = (0xffff, zeros + 1);
            }
            packet[header + at..header + at + 2].copy_from_slice(&sum.to_be_bytes());
            let parsed = parse(packet).unwrap();
            translate(packet, &parsed, &came, &view);
            assert_eq!(over(packet, came.source, came.destination, protocol), 0, "protocol {protocol}, {filler}");
            assert!(protocol != 17 || packet[header + at..header + at + 2] != [0, 0]);
        }
        assert!(protocol != 17 || zeros > 0);
    }
}

#[test]
fn a_missing_udp_checksum_stays_missing_and_short_segments_are_left_alone() {
    let came = came("192.0.2.1", "192.0.2.2");
    let view = OuterAddresses { local: "203.0.113.5".parse().unwrap(), remote: "10.0.0.7".parse().unwrap() };
    for (protocol, payload) in
        [(17, &[1, 2, 3, 4, 0, 8, 0, 0][..]), (6, &[1; 17]), (17, &[1; 7]), (47, &[1; 20]), (1, &[1; 20])]
    {
        let mut room = [0; 64];
        let length = rebuild(&came, protocol, payload, &mut room).unwrap();
        let before = room;
        let parsed = parse(&room[..length]).unwrap();
        translate(&mut room[..length], &parsed, &came, &view);
        assert_eq!(room, before, "protocol {protocol}");
    }
}
