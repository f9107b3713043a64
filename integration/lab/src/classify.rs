//! What a frame on an outer link is: ESP in either form, IKE, the link's own housekeeping, or clear traffic of a protected subnet.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::frame::{ESP, ICMPV6, Network, Packet, UDP, parse, ports};

/// The port that IKE and UDP-encapsulated ESP share (RFC 3948).
pub const NAT_PORT: u16 = 4500;
/// The port of IKE (RFC 7296).
pub const IKE_PORT: u16 = 500;

/// A kind of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// ESP directly in IP, with its SPI.
    Esp(u32),
    /// ESP in UDP 4500, with its SPI.
    UdpEsp(u32),
    /// IKE on port 500, or on port 4500 behind the non-ESP marker.
    Ike,
    /// A NAT keepalive: one octet on port 4500.
    Keepalive,
    /// ARP, IPv6 neighbour discovery, multicast listener reports.
    Housekeeping,
    /// A packet with an address of a protected subnet: must never be seen.
    Clear,
    /// Anything else between the gateways.
    Other,
}

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: u128,
    bits: u32,
    is_ipv4: bool,
}

impl Prefix {
    /// Reads `ADDRESS/BITS`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        Some(Prefix { address: number(address), bits: bits.parse().ok()?, is_ipv4: address.is_ipv4() })
    }

    /// Whether the address lies inside.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let width = if self.is_ipv4 { 32 } else { 128 };
        let host_bits = width - self.bits.min(width);
        address.is_ipv4() == self.is_ipv4
            && (host_bits == 128 || number(address) >> host_bits == self.address >> host_bits)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Says what a frame is.
#[must_use]
pub fn classify(frame: &[u8], protected: &[Prefix]) -> Class {
    let packet = match parse(frame) {
        Network::Arp => return Class::Housekeeping,
        Network::Other => return Class::Other,
        Network::Ip(packet) => packet,
    };
    let is_protected = |address| protected.iter().any(|prefix| prefix.contains(address));
    if is_protected(packet.source) || is_protected(packet.destination) {
        return Class::Clear;
    }
    match packet.protocol {
        ESP => spi(packet.payload).map_or(Class::Other, Class::Esp),
        ICMPV6 if packet.payload.first().is_some_and(|kind| matches!(kind, 130..=137 | 143)) => Class::Housekeeping,
        UDP => classify_udp(&packet),
        _ => Class::Other,
    }
}

fn classify_udp(packet: &Packet<'_>) -> Class {
    let Some((from, to)) = ports(packet) else { return Class::Other };
    let data = packet.payload.get(8..).unwrap_or_default();
    if from == IKE_PORT || to == IKE_PORT {
        return Class::Ike;
    }
    if from != NAT_PORT && to != NAT_PORT {
        return Class::Other;
    }
    match (data, spi(data)) {
        ([0xff], _) => Class::Keepalive,
        (_, Some(0)) => Class::Ike,
        (_, Some(spi)) => Class::UdpEsp(spi),
        (_, None) => Class::Other,
    }
}

fn spi(octets: &[u8]) -> Option<u32> {
    octets.first_chunk::<4>().map(|field| u32::from_be_bytes(*field))
}

/// How many frames of each kind were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Native ESP.
    pub esp: u64,
    /// ESP in UDP.
    pub udp_esp: u64,
    /// IKE.
    pub ike: u64,
    /// NAT keepalives.
    pub keepalive: u64,
    /// ARP and neighbour discovery.
    pub housekeeping: u64,
    /// Clear packets of protected subnets.
    pub clear: u64,
    /// Anything else.
    pub other: u64,
    /// ESP frames by SPI.
    pub by_spi: BTreeMap<u32, u64>,
}

impl Counts {
    /// Counts one frame.
    pub fn add(&mut self, class: Class) {
        match class {
            Class::Esp(spi) => {
                self.esp += 1;
                *self.by_spi.entry(spi).or_default() += 1;
            }
            Class::UdpEsp(spi) => {
                self.udp_esp += 1;
                *self.by_spi.entry(spi).or_default() += 1;
            }
            Class::Ike => self.ike += 1,
            Class::Keepalive => self.keepalive += 1,
            Class::Housekeeping => self.housekeeping += 1,
            Class::Clear => self.clear += 1,
            Class::Other => self.other += 1,
        }
    }

    /// All frames.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.esp + self.udp_esp + self.ike + self.keepalive + self.housekeeping + self.clear + self.other
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ESP {} UDP-ESP {} IKE {} keepalive {} ARP/ND {} other {} in-clear {}",
            self.esp, self.udp_esp, self.ike, self.keepalive, self.housekeeping, self.other, self.clear
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::udp;

    fn protected() -> Vec<Prefix> {
        ["10.1.0.0/24", "2001:db8:1::/64"].iter().filter_map(|text| Prefix::parse(text)).collect()
    }

    fn outer(port: u16, data: &[u8]) -> Vec<u8> {
        udp(
            [2; 6],
            [3; 6],
            format!("192.0.2.1:{port}").parse().unwrap(),
            format!("192.0.2.2:{port}").parse().unwrap(),
            data,
        )
    }

    #[test]
    fn kinds_are_told_apart() {
        let mut native = outer(1, &[0; 16]);
        native[14 + 9] = ESP;
        native[34..38].copy_from_slice(&[0, 0, 1, 5]);
        let mut arp = vec![0; 60];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        let cases = [
            (native, Class::Esp(0x105)),
            (arp, Class::Housekeeping),
            (outer(500, &[1; 28]), Class::Ike),
            (outer(4500, &[0, 0, 0, 0, 9, 9]), Class::Ike),
            (outer(4500, &[0xff]), Class::Keepalive),
            (outer(4500, &[1, 2, 3, 4, 0, 0, 0, 1]), Class::UdpEsp(0x0102_0304)),
            (outer(53, &[1; 28]), Class::Other),
        ];
        for (frame, expected) in cases {
            assert_eq!(classify(&frame, &protected()), expected);
        }
    }

    #[test]
    fn an_address_of_a_protected_subnet_is_clear_whatever_the_port() {
        for (source, destination) in [
            ("10.1.0.10:4500", "192.0.2.2:4500"),
            ("192.0.2.2:500", "10.1.0.10:500"),
            ("[2001:db8:2::1]:9", "[2001:db8:1::9]:9"),
        ] {
            let frame = udp([2; 6], [3; 6], source.parse().unwrap(), destination.parse().unwrap(), &[9; 40]);
            assert_eq!(classify(&frame, &protected()), Class::Clear);
        }
    }

    #[test]
    fn prefixes_of_both_families() {
        let any = Prefix::parse("::/0").unwrap();
        assert!(any.contains("2001:db8::1".parse().unwrap()));
        assert!(!any.contains("10.0.0.1".parse().unwrap()));
        let host = Prefix::parse("10.1.0.10/32").unwrap();
        assert!(host.contains("10.1.0.10".parse().unwrap()));
        assert!(!host.contains("10.1.0.11".parse().unwrap()));
    }
}
