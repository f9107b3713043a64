//! Identities as VICI clients know them: those of networks and ranges as such, distinguished names by their attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ike_model::Identity;
use ipsec::AddressRange;

use crate::certificate;

/// An identity in words; what is not printable ASCII cannot drive a terminal.
#[must_use]
pub fn identity(id: &Identity) -> String {
    let words = match id {
        Identity::DistinguishedName(der) => certificate::distinguished_name(der),
        Identity::Other(SUBNET_V4, octets) => pair::<4, Ipv4Addr>(octets).and_then(network),
        Identity::Other(SUBNET_V6, octets) => pair::<16, Ipv6Addr>(octets).and_then(network),
        Identity::Other(RANGE_V4, octets) => pair::<4, Ipv4Addr>(octets).map(range),
        Identity::Other(RANGE_V6, octets) => pair::<16, Ipv6Addr>(octets).map(range),
        Identity::Any
        | Identity::Address(_)
        | Identity::Fqdn(_)
        | Identity::Rfc822(_)
        | Identity::KeyId(_)
        | Identity::Other(..) => None,
    };
    words.unwrap_or_else(|| id.to_string())
}

const SUBNET_V4: u8 = 4;
const SUBNET_V6: u8 = 6;
const RANGE_V4: u8 = 7;
const RANGE_V6: u8 = 8;

/// Two addresses of `N` octets.
fn pair<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(octets: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (first, second) = octets.split_at_checked(N)?;
    let address = |octets: &[u8]| <[u8; N]>::try_from(octets).ok().map(|octets| A::from(octets).into());
    Some((address(first)?, address(second)?))
}

/// An address and a mask whose ones are in front.
fn network((address, mask): (IpAddr, IpAddr)) -> Option<String> {
    let (ones, leading) = match mask {
        IpAddr::V4(mask) => (mask.to_bits().count_ones(), mask.to_bits().leading_ones()),
        IpAddr::V6(mask) => (mask.to_bits().count_ones(), mask.to_bits().leading_ones()),
    };
    let length = u8::try_from(ones).ok().filter(|_| ones == leading)?;
    AddressRange::prefix(address, length).map(|network| format!("{}/{length}", network.start()))
}

fn range((from, to): (IpAddr, IpAddr)) -> String {
    format!("{from}-{to}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::parse;

    #[test]
    fn as_they_are_written() {
        for text in [
            "10.0.0.0/8",
            "2001:db8::/32",
            "10.0.0.1-10.0.0.2",
            "::1-::2",
            "C=CH, O=x, CN=y",
            "UID=1",
            "DC=a, DC=b",
            "E=a@b",
            "ST=a, L=b, STREET=c",
            "gw.example",
            "a@b.example",
            "%any",
            "192.0.2.1",
        ] {
            assert_eq!(identity(&parse(text).unwrap()), text);
        }
    }

    #[test]
    fn what_a_peer_made_up_is_harmless() {
        let other = |kind, octets: &[u8]| identity(&Identity::Other(kind, octets.to_vec()));
        assert_eq!(other(4, &[10, 0, 0, 0, 255, 0, 255, 0]), "{4}:#0a000000ff00ff00");
        assert_eq!(other(4, &[10, 0, 0]), "{4}:#0a0000");
        assert_eq!(other(7, &[0; 9]), "{7}:#000000000000000000");
        let name = |der: &[u8]| identity(&Identity::DistinguishedName(der.to_vec()));
        assert_eq!(name(b"nonsense"), "asn1dn:#6e6f6e73656e7365");
        let escape = [0x30, 0x0f, 0x31, 0x0d, 0x30, 0x0b, 6, 3, 0x55, 4, 3, 0x0c, 4, 0x1b, b'[', b'2', b'J'];
        assert_eq!(name(&escape), "CN=?[2J");
    }
}
