use super::*;
use proptest::prelude::*;

fn v4_packet(flags: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1];
    packet.extend_from_slice(payload);
    let length = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&length);
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn v6_packet(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&[0x20; 16]);
    packet.extend_from_slice(&[0x21; 16]);
    packet.extend_from_slice(payload);
    packet
}

#[test]
fn selectors_of_common_packets() {
    let udp = parse(&v4_packet(0x4000, 17, &[0, 53, 4, 0, 0, 8, 0, 0])).unwrap();
    assert_eq!((udp.selectors.ports, udp.dont_fragment, udp.fragment), (Some((53, 1024)), true, false));
    let echo = parse(&v4_packet(0, 1, &[8, 0, 0, 0])).unwrap();
    assert_eq!(echo.selectors.ports, Some((0x0800, 0x0800)));
    let first = parse(&v4_packet(0x2000, 17, &[0, 53, 4, 0, 0, 8, 0, 0])).unwrap();
    assert_eq!((first.selectors.ports, first.fragment), (None, true));
    let later = parse(&v4_packet(5, 17, &[0; 8])).unwrap();
    assert!(later.fragment);
}

#[test]
fn extension_headers_are_walked() {
    let options_then_tcp = v6_packet(0, &[6, 0, 1, 4, 0, 0, 0, 0, 0, 80, 1, 187]);
    let parsed = parse(&options_then_tcp).unwrap();
    assert_eq!((parsed.selectors.protocol, parsed.selectors.ports), (6, Some((80, 443))));
    let later_fragment = v6_packet(44, &[17, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0]);
    let parsed = parse(&later_fragment).unwrap();
    assert_eq!((parsed.selectors.protocol, parsed.selectors.ports, parsed.fragment), (17, None, true));
    let atomic = v6_packet(44, &[17, 0, 0, 0, 0, 0, 0, 1, 0, 53, 0, 54]);
    assert_eq!(parse(&atomic).unwrap().selectors.ports, Some((53, 54)));
}

#[test]
fn lengths_that_contradict_are_refused() {
    let mut packet = v4_packet(0, 17, &[0; 8]);
    assert!(parse(&packet[..27]).is_err());
    packet[0] = 0x44;
    assert!(parse(&packet).is_err());
    assert!(parse(&[]).is_err() && parse(&[0x00; 40]).is_err());
}

//= RFC 7296 §2.24: ECN at both ends of the tunnel
#[test]
fn ecn_follows_rfc_6040() {
    // Rows: inner 00, 01, 10, 11; columns: outer 00, 01, 10, 11.
    let expected = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for (inner, row) in expected.into_iter().enumerate() {
        for (outer, class) in row.into_iter().enumerate() {
            assert_eq!(
                inner_class(inner as u8, outer as u8, CopyDscp::Out, true),
                class,
                "inner {inner} outer {outer}"
            );
        }
        assert_eq!(outer_class(inner as u8, CopyDscp::No, true), inner as u8);
        assert_eq!(outer_class(inner as u8, CopyDscp::No, false), 0);
    }
    assert_eq!(outer_class(0xb9, CopyDscp::Out, true), 0xb9);
    assert_eq!(inner_class(0x00, 0xb8, CopyDscp::In, true), Some(0xb8));
    assert_eq!(inner_class(0x28, 0xb8, CopyDscp::Out, true), Some(0x28));
}

proptest! {
    #[test]
    fn any_octets_parse_or_fail(octets in prop::collection::vec(any::<u8>(), 0..200), version in prop_oneof![Just(0x45_u8), Just(0x60)]) {
        let mut octets = octets;
        if let Some(first) = octets.first_mut() {
            *first = version;
        }
        if let Ok(packet) = parse(&octets) {
            prop_assert!(packet.length <= octets.len() && packet.header <= packet.length);
        }
    }

    #[test]
    fn the_checksum_stays_right(class: u8, tos: u8) {
        let mut packet = v4_packet(0, 17, &[0; 8]);
        set_traffic_class(&mut packet, tos);
        set_traffic_class(&mut packet, class);
        prop_assert_eq!(checksum(&packet[..20]), 0);
        prop_assert_eq!(parse(&packet).unwrap().traffic_class, class);
    }

    #[test]
    fn fragments_add_up(size in 1_usize..4_000, mtu in 68_usize..1_500) {
        let data: Vec<u8> = (0..size).map(|at| at as u8).collect();
        let packet = v4_packet(0, 17, &data);
        let parsed = parse(&packet).unwrap();
        let (mut whole, mut last) = (Vec::new(), false);
        fragment_v4(&packet, &parsed, mtu, &mut [0; 2_000], |fragment| {
            assert!(!last && fragment.len() <= mtu && checksum(&fragment[..20]) == 0);
            let field = u16::from_be_bytes([fragment[6], fragment[7]]);
            assert_eq!(usize::from(field & 0x1fff) * 8, whole.len());
            last = field & 0x2000 == 0;
            whole.extend_from_slice(&fragment[20..]);
        });
        prop_assert_eq!(whole, data);
        prop_assert!(last);
    }
}

#[test]
fn options_without_the_copied_flag_stand_in_the_first_fragment_only() {
    let mut packet = v4_packet(0, 17, &[]);
    packet[0] = 0x47;
    // Record route (not copied) and loose source route (copied), four octets each.
    packet.extend_from_slice(&[7, 4, 4, 0, 0x83, 3, 4, 1]);
    packet.extend_from_slice(&[0; 100]);
    let length = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&length);
    let parsed = parse(&packet).unwrap();
    let mut options = Vec::new();
    fragment_v4(&packet, &parsed, 92, &mut [0; 200], |fragment| options.push(fragment[20..28].to_vec()));
    assert_eq!(options, [[7, 4, 4, 0, 0x83, 3, 4, 1], [1, 1, 1, 1, 0x83, 3, 4, 1]]);
}
