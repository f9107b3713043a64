//! Address prefixes: what routes, rules and kernel policies are made of.
//!
//! Traffic selectors are ranges; [`prefixes`] splits them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipsec::AddressRange;

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// AF_INET or AF_INET6.
    pub const fn number(self) -> u16 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// All addresses whose first `length` bits are those of `address`; the other bits of `address` are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits around `address`; a length beyond the family's is cut to it.
    pub fn new(address: IpAddr, length: u8) -> Self {
        let length = length.min(width(address));
        let address = match address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !host))
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host))
            }
        };
        Self { address, length }
    }

    /// One address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: width(address) }
    }

    /// Every address of a family.
    pub const fn any(family: Family) -> Self {
        let address = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self { address, length: 0 }
    }

    /// First address.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Number of fixed bits.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Address family.
    pub const fn family(self) -> Family {
        Family::of(self.address)
    }

    /// Whether it is every address of its family.
    pub const fn is_any(self) -> bool {
        self.length == 0
    }

    /// Whether all of `other` is inside.
    pub fn covers(self, other: Self) -> bool {
        self.family() == other.family() && self.length <= other.length && Self::new(other.address, self.length) == self
    }

    /// The same addresses as a range; a prefix is always valid, so the fallback never shows.
    pub fn range(self) -> AddressRange {
        AddressRange::prefix(self.address, self.length).unwrap_or(AddressRange::host(self.address))
    }

    /// Whether any address is also in `range`.
    pub fn intersects(self, range: AddressRange) -> bool {
        self.range().intersection(range).is_some()
    }

    /// Whether `address` is inside.
    #[cfg(test)]
    pub fn contains(self, address: IpAddr) -> bool {
        self.covers(Self::host(address))
    }

    /// This prefix and every shorter one around it, the longest first.
    pub fn ancestors(self) -> impl Iterator<Item = Self> {
        (0..=self.length).rev().map(move |length| Self::new(self.address, length))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The prefixes that cover exactly `range`.
pub fn prefixes(range: AddressRange) -> Vec<Prefix> {
    range.prefixes().into_iter().map(|(address, length)| Prefix::new(address, length)).collect()
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `10.1.0.0/16` as written.
    pub(crate) fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), length.parse().unwrap())
    }

    #[test]
    fn host_bits_are_cleared_and_lengths_cut() {
        assert_eq!(prefix("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(prefix("2001:db8::1/32").to_string(), "2001:db8::/32");
        assert_eq!(prefix("10.1.2.3/64").to_string(), "10.1.2.3/32");
        assert_eq!(prefix("10.1.2.3/0"), Prefix::any(Family::V4));
    }

    #[test]
    fn covering_respects_family_and_length() {
        assert!(prefix("10.0.0.0/8").covers(prefix("10.1.0.0/16")));
        assert!(!prefix("10.1.0.0/16").covers(prefix("10.0.0.0/8")));
        assert!(!prefix("0.0.0.0/0").covers(prefix("::/0")));
        assert!(prefix("::/0").contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn ancestors_go_from_the_prefix_to_everything() {
        let all: Vec<_> = prefix("192.0.0.0/3").ancestors().collect();
        assert_eq!(all, [prefix("192.0.0.0/3"), prefix("192.0.0.0/2"), prefix("128.0.0.0/1"), prefix("0.0.0.0/0")]);
    }
}
