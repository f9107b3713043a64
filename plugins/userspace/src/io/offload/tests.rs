use std::ops::Range;

use proptest::prelude::*;

use super::coalesce::deliver;
use super::segment::{complete, segment, transport_sum};
use super::*;

/// A TCP packet with a right checksum.
fn tcp(v6: bool, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet =
        if v6 { vec![0x60, 0, 0, 0, 0, 0, 6, 64] } else { vec![0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 6, 0, 0] };
    packet.resize(if v6 { 40 } else { 20 }, 0x0a);
    let transport = packet.len();
    packet.extend_from_slice(&[0x13, 0x88, 0, 80]);
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 1, 0x80, flags, 1, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet.extend_from_slice(payload);
    let length = packet.len();
    set_length(&mut packet, length, Some(9));
    let sum = transport_sum(&packet, transport, 6).unwrap().checksum();
    put(&mut packet, transport + 16, &sum);
    packet
}

/// What the kernel would see: writes with their headers.
fn written(packets: &[Vec<u8>]) -> Vec<(Header, Vec<u8>)> {
    let mut arena: Vec<u8> = Vec::new();
    let ranges: Vec<Range<usize>> = packets
        .iter()
        .map(|packet| {
            let start = arena.len();
            arena.extend_from_slice(packet);
            start..arena.len()
        })
        .collect();
    let mut all = Vec::new();
    deliver(&mut arena, &ranges, |pieces| {
        let octets: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        all.push((Header::read(*octets.first_chunk().unwrap()).unwrap(), octets[HEADER..].to_vec()));
    });
    all
}

/// And what it would cut them into.
fn cut(writes: &[(Header, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (header, packet) in writes {
        if header.kind == Kind::Single {
            all.push(packet.clone());
            continue;
        }
        let (mut out, mut lengths) = (vec![0; 1_000_000], Vec::new());
        segment(packet, header, &mut out, |length| lengths.push(length)).unwrap();
        let mut rest = &out[..];
        for length in lengths {
            let (one, after) = rest.split_at(length);
            all.push(one.to_vec());
            rest = after;
        }
    }
    all
}

fn stream(v6: bool, sizes: &[usize], push_last: bool) -> Vec<Vec<u8>> {
    let mut sequence = u32::MAX - 3_000;
    let flags = |at| if push_last && at + 1 == sizes.len() { 0x18 } else { 0x10 };
    let packets = sizes.iter().enumerate().map(|(at, size)| {
        let mut packet = tcp(v6, sequence, flags(at), &vec![at as u8; *size]);
        if !v6 {
            let length = packet.len();
            set_length(&mut packet, length, Some(9 + at as u16));
        }
        sequence = sequence.wrapping_add(*size as u32);
        packet
    });
    packets.collect()
}

#[test]
fn a_stream_becomes_one_write_and_the_same_packets_again() {
    for v6 in [false, true] {
        let packets = stream(v6, &[1_000, 1_000, 1_000, 1_000, 300], true);
        let writes = written(&packets);
        assert_eq!(writes.len(), 1, "IPv6: {v6}");
        assert_eq!((writes[0].0.segment, writes[0].1.len()), (1_000, packets[0].len() + 3_300));
        assert_eq!(cut(&writes), packets);
    }
}

#[test]
fn what_differs_is_not_joined() {
    let base = stream(false, &[500, 500, 500], false);
    let count = |packets: &[Vec<u8>]| written(packets).len();
    assert_eq!(count(&base), 1);
    assert_eq!(count(&[base[0].clone(), base[2].clone()]), 2, "a gap");
    assert_eq!(count(&stream(false, &[500, 600], false)), 2, "a longer one");
    assert_eq!(count(&stream(false, &[500, 400, 500], false)), 2, "one behind a shorter one");
    let mut forged = base.clone();
    *forged[1].last_mut().unwrap() ^= 1;
    let writes = written(&forged);
    assert_eq!(writes.len(), 3, "a wrong checksum");
    assert_eq!(writes[1].1, forged[1], "goes on as it came");
    let window = |mut packet: Vec<u8>| {
        packet[35] = 7;
        put(&mut packet, 36, &[0, 0]);
        let sum = transport_sum(&packet, 20, 6).unwrap().checksum();
        put(&mut packet, 36, &sum);
        packet
    };
    assert_eq!(count(&[base[0].clone(), window(base[1].clone())]), 2, "another window");
    assert_eq!(count(&[tcp(false, 1, 0x11, &[1; 9]), tcp(false, 10, 0x10, &[1; 9])]), 2, "FIN");
    assert_eq!(count(&[vec![0x45; 30], vec![], vec![0x60; 41]]), 3, "nonsense");
}

proptest! {
    #[test]
    fn nothing_is_lost_changed_or_reordered(
        sizes in prop::collection::vec(prop_oneof![Just(1_400_usize), 1_usize..1_400], 1..120), v6: bool, push: bool,
    ) {
        let packets = stream(v6, &sizes, push);
        let writes = written(&packets);
        prop_assert!(writes.iter().all(|(_, packet)| packet.len() <= 65_535));
        // A packet cut from a joined one has its identification counted from the first; that is what the stream has.
        prop_assert_eq!(cut(&writes), packets);
    }

    #[test]
    fn udp_is_cut_into_whole_datagrams(size in 1_usize..1_400, payload in 1_usize..30_000) {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend_from_slice(&[0, 5, 0, 6, 0, 0, 0, 0]);
        packet.extend((0..payload).map(|at| at as u8));
        let header = Header { kind: Kind::Udp, partial_checksum: true, transport: 20, checksum: 6, segment: size as u16, headers: 28 };
        let datagrams = cut(&[(header, packet.clone())]);
        let joined: Vec<u8> = datagrams.iter().flat_map(|datagram| datagram[28..].to_vec()).collect();
        prop_assert_eq!(&joined, &packet[28..]);
        for datagram in datagrams {
            prop_assert_eq!(transport_sum(&datagram, 20, 17).unwrap().checksum(), [0, 0]);
            prop_assert_eq!(word(&datagram, 24), Some((datagram.len() - 20) as u16));
            prop_assert_eq!(Sum::default().add(&datagram[..20]).checksum(), [0, 0]);
        }
    }

    #[test]
    fn partial_checksums_are_completed(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let whole = tcp(false, 1, 0x10, &payload);
        let mut partial = whole.clone();
        let pseudo = Sum::default().add(addresses(&whole).unwrap()).add_pseudo(6, whole.len() - 20).partial();
        put(&mut partial, 36, &pseudo);
        complete(&mut partial, &Header { partial_checksum: true, transport: 20, checksum: 16, ..Header::default() });
        prop_assert_eq!(partial, whole);
    }

    #[test]
    fn contradictions_do_not_panic(octets in prop::collection::vec(any::<u8>(), 0..200), fields: [u16; 4], kind in 0_u8..7) {
        let mut raw = [1, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, field) in fields.iter().enumerate() {
            put(&mut raw, 2 + at * 2, &(field % 300).to_ne_bytes());
        }
        if let Some(header) = Header::read(raw) {
            prop_assert_eq!(header.write()[1], kind);
            complete(&mut octets.clone(), &header);
            let _ = segment(&octets, &header, &mut [0; 5_000], |_| {});
        }
        written(&[octets]);
    }
}
