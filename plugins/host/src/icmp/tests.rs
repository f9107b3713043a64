use super::*;

const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));

fn packet_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut out = vec![0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
    out.extend_from_slice(&source);
    out.extend_from_slice(&destination);
    out.extend_from_slice(payload);
    out
}

fn packet_v6(source: &str, destination: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
    out.extend_from_slice(&source.parse::<Ipv6Addr>().unwrap().octets());
    out.extend_from_slice(&destination.parse::<Ipv6Addr>().unwrap().octets());
    out.extend_from_slice(payload);
    out
}

fn answer(original: &[u8], complaint: Complaint) -> Result<Vec<u8>, Silence> {
    let mut out = [0xaa; LARGEST_V6];
    let source = if original.first().is_some_and(|octet| octet >> 4 == 6) { GATEWAY_V6 } else { GATEWAY_V4 };
    error(original, complaint, source, &mut out).map(|length| out[..length].to_vec())
}

/// The sum over data that contains its own checksum is all ones.
fn verifies(octets: &[u8], pseudo: u32) -> bool {
    fold(sum(octets, pseudo)) == 0
}

#[test]
fn too_big_v4_carries_the_mtu_and_right_checksums() {
    let original = packet_v4([10, 1, 0, 5], [10, 2, 0, 7], 17, &[7; 1480]);
    let got = answer(&original, Complaint::TooBig { mtu: 1438 }).unwrap();
    assert_eq!(got.len(), LARGEST_V4);
    assert_eq!(&got[12..20], [10, 1, 0, 1, 10, 1, 0, 5]);
    assert_eq!(usize::from(u16::from_be_bytes([got[2], got[3]])), got.len());
    assert_eq!(got[20..22], [3, 4]);
    assert_eq!(u16::from_be_bytes([got[26], got[27]]), 1438);
    assert_eq!(got[28..], original[..LARGEST_V4 - 28]);
    assert!(verifies(&got[..20], 0) && verifies(&got[20..], 0));
}

#[test]
fn prohibited_v4_quotes_a_short_packet_whole() {
    let original = packet_v4([10, 1, 0, 5], [10, 2, 0, 7], 1, &[8, 0, 1, 2, 3]);
    let mut padded = original.clone();
    padded.extend_from_slice(&[9; 30]); // link-layer padding is not part of the packet
    let got = answer(&padded, Complaint::Prohibited).unwrap();
    assert_eq!(got[20..22], [3, 13]);
    assert_eq!(got[28..], original);
    assert!(verifies(&got[20..], 0));
}

#[test]
fn too_big_v6_carries_the_mtu_and_a_checksum_over_the_pseudo_header() {
    let original = packet_v6("2001:db8:1::5", "2001:db8:2::7", 6, &[3; 1460]);
    for (mtu, told) in [(1418, 1418_u32), (1000, 1280)] {
        let got = answer(&original, Complaint::TooBig { mtu }).unwrap();
        assert_eq!(got.len(), LARGEST_V6);
        assert_eq!(got[40..42], [2, 0]);
        assert_eq!(got[44..48], told.to_be_bytes());
        let pseudo = sum(&got[8..40], u32::try_from(got.len() - 40).unwrap() + 58);
        assert!(verifies(&got[40..], pseudo));
        assert_eq!(got[48..], original[..LARGEST_V6 - 48]);
    }
}

#[test]
fn prohibited_v6_is_unreachable_code_1() {
    let original = packet_v6("2001:db8:1::5", "2001:db8:2::7", 58, &[128, 0, 0, 0]);
    let got = answer(&original, Complaint::Prohibited).unwrap();
    assert_eq!(got[40..42], [1, 1]);
    assert_eq!(got[24..40], "2001:db8:1::5".parse::<Ipv6Addr>().unwrap().octets());
}

#[test]
fn no_error_about_errors_but_about_echo() {
    for (kind, silent) in [(0, false), (8, false), (3, true), (4, true), (5, true), (11, true), (12, true), (13, false)]
    {
        let original = packet_v4([10, 1, 0, 5], [10, 2, 0, 7], 1, &[kind, 0, 0, 0]);
        assert_eq!(answer(&original, Complaint::Prohibited).err(), silent.then_some(Silence::Error), "type {kind}");
    }
    for (kind, silent) in [(1, true), (2, true), (127, true), (128, false), (129, false), (137, true), (143, false)] {
        let original = packet_v6("2001:db8:1::5", "2001:db8:2::7", 58, &[kind, 0, 0, 0]);
        assert_eq!(answer(&original, Complaint::Prohibited).err(), silent.then_some(Silence::Error), "type {kind}");
    }
}

#[test]
fn an_error_hidden_behind_extension_headers_is_found() {
    let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
    let options = [51, 0, 1, 4, 0, 0, 0, 0];
    let authentication = [58, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    for (kind, expected) in [(1, Some(Silence::Error)), (128, None)] {
        let payload = [&hop_by_hop[..], &options, &authentication, &[kind, 0, 0, 0]].concat();
        let original = packet_v6("2001:db8:1::5", "2001:db8:2::7", 0, &payload);
        assert_eq!(answer(&original, Complaint::Prohibited).err(), expected);
    }
}

#[test]
fn only_first_fragments_are_answered() {
    let mut first = packet_v4([10, 1, 0, 5], [10, 2, 0, 7], 17, &[0; 8]);
    first[6] = 0x20;
    assert!(answer(&first, Complaint::Prohibited).is_ok());
    first[7] = 1;
    assert_eq!(answer(&first, Complaint::Prohibited), Err(Silence::Fragment));
    for (offset, expected) in [(0x0001_u16, None), (0x0008, Some(Silence::Fragment))] {
        let [high, low] = offset.to_be_bytes();
        let original = packet_v6("2001:db8:1::5", "2001:db8:2::7", 44, &[17, 0, high, low, 0, 0, 0, 1, 0, 0]);
        assert_eq!(answer(&original, Complaint::Prohibited).err(), expected);
    }
}

#[test]
fn neither_groups_nor_strange_sources_are_answered() {
    for source in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 5], [240, 0, 0, 1], [255, 255, 255, 255]] {
        let original = packet_v4(source, [10, 2, 0, 7], 17, &[0; 8]);
        assert_eq!(answer(&original, Complaint::Prohibited), Err(Silence::Source), "{source:?}");
    }
    for destination in [[224, 0, 0, 5], [255, 255, 255, 255]] {
        let original = packet_v4([10, 1, 0, 5], destination, 17, &[0; 8]);
        assert_eq!(answer(&original, Complaint::TooBig { mtu: 1400 }), Err(Silence::Destination));
    }
    for source in ["::", "::1", "ff02::1"] {
        let original = packet_v6(source, "2001:db8:2::7", 17, &[0; 8]);
        assert_eq!(answer(&original, Complaint::Prohibited), Err(Silence::Source), "{source}");
    }
    let group = packet_v6("2001:db8:1::5", "ff0e::1", 17, &[0; 8]);
    assert_eq!(answer(&group, Complaint::Prohibited), Err(Silence::Destination));
    assert!(answer(&group, Complaint::TooBig { mtu: 1400 }).is_ok());
}

#[test]
fn cut_or_foreign_octets_never_panic() {
    let whole = packet_v6("2001:db8:1::5", "2001:db8:2::7", 0, &[60, 0, 1, 4, 0, 0, 0, 0, 58, 1, 0, 0]);
    for length in 0..whole.len() {
        assert!(answer(&whole[..length], Complaint::Prohibited).is_err());
    }
    let whole = packet_v4([10, 1, 0, 5], [10, 2, 0, 7], 1, &[8]);
    for length in 0..whole.len() {
        assert!(answer(&whole[..length], Complaint::Prohibited).is_err());
    }
    let mut short_header = whole.clone();
    short_header[0] = 0x41;
    assert_eq!(answer(&short_header, Complaint::Prohibited), Err(Silence::Malformed));
    assert_eq!(error(&whole, Complaint::Prohibited, GATEWAY_V6, &mut [0; 2000]), Err(Silence::Malformed));
    assert_eq!(error(&whole, Complaint::Prohibited, GATEWAY_V4, &mut [0; 30]), Err(Silence::Buffer));
}

#[test]
fn the_rate_limit_gives_a_burst_and_then_the_rate() {
    let limit = RateLimit::new(10, 3);
    let second = 1_000_000_000_u64;
    let start = 5 * second;
    let taken = (0..10).filter(|_| limit.take(start)).count();
    assert_eq!(taken, 3);
    let taken = (0..1_000).filter(|step| limit.take(start + step * second / 1_000)).count();
    assert_eq!(taken, 9);
    assert!(!limit.take(start + second - second / 500));
    let taken = (0..10).filter(|_| limit.take(start + 60 * second)).count();
    assert_eq!(taken, 3);
}
