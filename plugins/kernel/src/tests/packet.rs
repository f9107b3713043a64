//! What the kernel in memory looks at in packets.

use std::net::IpAddr;

use ipsec::{PacketSelectors, SaMode};
use offload_host::xfrm::{PolicyKey, PortMask};

pub(super) fn readdressed(packet: &[u8], from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut packet = packet.to_vec();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet[12..16].copy_from_slice(&from.octets());
            packet[16..20].copy_from_slice(&to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet[8..24].copy_from_slice(&from.octets());
            packet[24..40].copy_from_slice(&to.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
    }
    packet
}

/// What an SA counts of a packet.
pub(super) fn octets(packet: &[u8], mode: SaMode) -> usize {
    match mode {
        SaMode::Tunnel => packet.len(),
        SaMode::Transport => packet.len() - if packet[0] >> 4 == 4 { 20 } else { 40 },
    }
}

pub(super) fn matches(key: &PolicyKey, packet: &PacketSelectors) -> bool {
    let port = |mask: PortMask, port: Option<u16>| port.unwrap_or(0) & mask.mask == mask.value;
    key.source.range().contains(packet.source)
        && key.destination.range().contains(packet.destination)
        && (key.protocol == 0 || key.protocol == packet.protocol)
        && port(key.source_port, packet.ports.map(|(source, _)| source))
        && port(key.destination_port, packet.ports.map(|(_, destination)| destination))
}

pub(super) fn selectors(packet: &[u8]) -> Option<PacketSelectors> {
    let (source, destination, protocol, rest): (IpAddr, IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let address = |at: usize| packet.get(at..at + 4)?.try_into().ok().map(|octets: [u8; 4]| octets.into());
            (address(12)?, address(16)?, *packet.get(9)?, packet.get(20..)?)
        }
        6 => {
            let address = |at: usize| packet.get(at..at + 16)?.try_into().ok().map(|octets: [u8; 16]| octets.into());
            (address(8)?, address(24)?, *packet.get(6)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| rest.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    let ports = port(0).zip(port(2)).filter(|_| matches!(protocol, 6 | 17));
    Some(PacketSelectors { source, destination, protocol, ports })
}
