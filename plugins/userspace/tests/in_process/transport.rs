//! Transport mode held against packets that scapy sealed (`SecurityAssociation(ESP, spi=0x1000, crypt_algo='AES-GCM')`, IV = sequence number 1).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipsec::conformance::{OuterContent, OuterPacket, Wire};
use ipsec::{
    AddressRange, Direction, EspAlgorithm, EspEncryption, KeyMaterial, Op, OuterAddresses, PolicyAction, Request,
    SaMode, SaSpec, SelectorPair, Spi, TrafficSelector,
};

use crate::subject::InProcess;

const KEY: [u8; 20] = [9; 20];

struct Vector {
    clear: &'static str,
    esp: &'static str,
}

const V4: Vector = Vector {
    clear: "45100025000740002111d5adc0000201c00002021388000700113b757472616e73706f7274",
    esp: "00001000000000010000000000000001955d1da2e022a1b9e05dd4d575cb1cc81aed62d60908faa8640a5dc88c9ffdf945c458b0",
};
/// With a router alert option in the IPv4 header.
const OPTIONS: Vector = Vector {
    clear: "4600002500074000401121b9c0000201c00002029404000013880007000d2d62616c657274",
    esp: "00001000000000010000000000000001955d1da2e03eb7aef543d0c972ba72aba75a676bc906025c427734ebbffeeb8a",
};
/// With a router alert in a hop-by-hop header.
const V6: Vector = Vector {
    clear: "620000000013002c20010db800000000000000000000000120010db8000000000000000000000002110005020000010013880007000ba56a736978",
    esp: "00001000000000010000000000000001955d1da2e0383fa6e746cdba04b870abc5b40ccd15e4e12200af4a3b8e7d9d1f",
};

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn addresses(v4: bool) -> OuterAddresses {
    let [local, remote] = if v4 { ["192.0.2.1", "192.0.2.2"] } else { ["2001:db8::1", "2001:db8::2"] };
    OuterAddresses { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

/// Both SAs and the policy of two hosts in transport mode, as operations.
fn operations(subject: &InProcess, v4: bool, spi: Option<u32>) -> Vec<Op> {
    let outer = addresses(v4);
    let host = |address| TrafficSelector::all(AddressRange::host(address));
    let pair = SelectorPair { local: host(outer.local), remote: host(outer.remote) };
    let (mut ops, _) = subject.tunnel();
    let sealed = EspAlgorithm { encryption: EspEncryption::AesGcm16(128), integrity: None };
    for op in &mut ops {
        if let Op::InstallSa(sa) = op {
            let SaSpec { direction, spi: reserved, .. } = **sa;
            let selectors: Arc<[SelectorPair]> = Arc::new([pair]);
            let spi =
                if direction == Direction::Outbound { spi.and_then(Spi::new).unwrap_or(reserved) } else { reserved };
            let key = KeyMaterial::new(&KEY, None);
            **sa = SaSpec { mode: SaMode::Transport, outer, selectors, spi, key, algorithm: sealed, ..(**sa).clone() };
        } else if let Op::InstallPolicy(policy) = op {
            policy.selectors = pair;
            policy.action = PolicyAction::Protect { reqid: ipsec::Reqid(1), sa: None, mode: SaMode::Transport, outer };
        }
    }
    ops
}

pub(crate) fn connect(v4: bool, spi: Option<u32>) -> InProcess {
    let subject = InProcess::new(false);
    let ops = operations(&subject, v4, spi);
    subject.backend.control.execute(&Request::Apply(ops)).unwrap();
    subject
}

//= RFC 4303 §3.1.1: an independent implementation makes the same octets
#[test]
fn what_scapy_seals_we_seal_alike() {
    for (vector, v4) in [(V4, true), (OPTIONS, true), (V6, false)] {
        let mut subject = connect(v4, Some(0x1000));
        let sealed = subject.seal(&[octets(vector.clear)]);
        assert_eq!(sealed, [octets(vector.esp)]);
    }
}

/// Any octets that are authentic, and any that are not, come to an end in a count.
#[test]
fn whatever_comes_is_delivered_whole_or_counted() {
    let mut subject = connect(true, None);
    let clear = octets(V4.clear);
    let sealed = subject.seal(&vec![clear.clone(); 40]);
    let outer = addresses(true);
    let packet = |esp: Vec<u8>| OuterPacket {
        source: SocketAddr::new(outer.remote, 0),
        destination: SocketAddr::new(outer.local, 0),
        content: OuterContent::Esp(esp),
    };
    let mut expected = 0;
    for (number, esp) in sealed.into_iter().enumerate() {
        let (mut esp, from) = (esp, number % 4);
        match from {
            0 => expected += 1,
            1 => esp.truncate(esp.len() - 1),
            2 => *esp.last_mut().unwrap() ^= 1,
            _ => {}
        }
        let mut packet = packet(esp);
        if from == 3 {
            // Authentic, but from another host: not what the SA is for.
            packet.source = SocketAddr::new(IpAddr::from([192, 0, 2, 77]), 0);
        }
        subject.inject_outer(&[packet]);
    }
    let delivered = subject.captured_inner();
    assert_eq!(delivered.len(), expected);
    for packet in delivered {
        assert_eq!((&packet[12..16], &packet[20..]), (&[192, 0, 2, 2][..], &clear[20..]));
    }
}
