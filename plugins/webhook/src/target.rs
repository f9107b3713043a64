//! Where messages may go: never to an address that only means something on this very link or machine of a cloud.
//!
//! A name is judged by the addresses it stands for, at each connection and by the one that is connected to: a name that changes between a look and
//! a connection gains nothing. Addresses in a URL are judged alike. Loopback and private networks are where receivers usually are, and allowed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Addresses of metadata services that lie outside of link-local networks: Alibaba, Azure, Oracle; over IPv6 Google, Oracle, Scaleway, Linode and
/// Alibaba.
const METADATA: [IpAddr; 8] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200)),
];
/// Amazon's, of which several answer: the metadata service, and the one that gives containers their rights.
const AMAZON: [u16; 2] = [0xfd00, 0xec2];

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    LinkLocal,
    Metadata,
    Unspecified,
    Multicast,
    Reserved,
}

impl Kind {
    /// `allow_link_local` lets it through. No server has one of the other addresses.
    fn may_be_allowed(self) -> bool {
        match self {
            Self::LinkLocal | Self::Metadata => true,
            Self::Unspecified | Self::Multicast | Self::Reserved => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkLocal => {
                "link-local, where clouds keep secrets of their machines (allow_link_local = true allows it)"
            }
            Self::Metadata => "that of a cloud's metadata service (allow_link_local = true allows it)",
            Self::Unspecified => "no address of anybody",
            Self::Multicast => "a multicast address",
            Self::Reserved => "reserved",
        })
    }
}

/// That an address must not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}")]
pub(crate) struct Forbidden {
    address: IpAddr,
    kind: Kind,
}

/// Lets an address through or says why not.
pub(crate) fn check(address: IpAddr, allow_link_local: bool) -> Result<(), Forbidden> {
    match kind(address) {
        Some(kind) if !(allow_link_local && kind.may_be_allowed()) => Err(Forbidden { address, kind }),
        Some(_) | None => Ok(()),
    }
}

fn kind(address: IpAddr) -> Option<Kind> {
    if METADATA.contains(&address) {
        return Some(Kind::Metadata);
    }
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

fn v4(address: Ipv4Addr) -> Option<Kind> {
    match address.octets() {
        [0, ..] => Some(Kind::Unspecified),
        [169, 254, ..] => Some(Kind::LinkLocal),
        [224..=239, ..] => Some(Kind::Multicast),
        [240..=255, ..] => Some(Kind::Reserved),
        _ => None,
    }
}

fn v6(address: Ipv6Addr) -> Option<Kind> {
    if address.is_unspecified() {
        return Some(Kind::Unspecified);
    }
    if address.is_multicast() {
        return Some(Kind::Multicast);
    }
    if address.is_unicast_link_local() {
        return Some(Kind::LinkLocal);
    }
    if address.segments().starts_with(&AMAZON) {
        return Some(Kind::Metadata);
    }
    embedded(address).and_then(|inner| kind(IpAddr::V4(inner)))
}

/// The IPv4 address that an IPv6 address leads to: mapped and compatible ones (RFC 4291 §2.5.5), NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) | (0x64, 0xff9b, 1, _, _, _) => Some(join(g, h)),
        // ::1 is no embedded address but loopback.
        (0, 0, 0, 0, 0, 0) if g != 0 => Some(join(g, h)),
        (0x2002, high, low, _, _, _) => Some(join(high, low)),
        _ => None,
    }
}

/// Judges the host of a URL as far as it can be judged without asking anybody.
pub(crate) fn check_literal(url: &Url, allow_link_local: bool) -> Result<(), Forbidden> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().map_or(Ok(()), |address| check(address, allow_link_local))
}

/// Why a name led nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotResolved {
    #[error("the name {0} cannot be resolved: {1}")]
    Failed(String, std::io::Error),
    #[error("the name {0} has no address")]
    Empty(String),
    #[error("the name {0} stands for a forbidden address: {1}")]
    Forbidden(String, Forbidden),
}

/// Resolves names to the addresses that may be connected to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guarded {
    pub(crate) allow_link_local: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_link_local = self.allow_link_local;
        Box::pin(async move {
            let name = name.as_str().to_owned();
            // The port comes from the URL.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = found.map_err(|error| NotResolved::Failed(name.clone(), error))?.collect();
            Ok(Box::new(permitted(name, found, allow_link_local)?.into_iter()) as Addrs)
        })
    }
}

fn permitted(name: String, found: Vec<SocketAddr>, allow: bool) -> Result<Vec<SocketAddr>, NotResolved> {
    let mut refused = None;
    let mut good = Vec::new();
    for address in found {
        match check(address.ip(), allow) {
            Ok(()) => good.push(address),
            Err(reason) => refused = Some(reason),
        }
    }
    match refused {
        Some(reason) if good.is_empty() => Err(NotResolved::Forbidden(name, reason)),
        None if good.is_empty() => Err(NotResolved::Empty(name)),
        Some(_) | None => Ok(good),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_write_a_forbidden_address_is_refused() {
        let forbidden = [
            ("169.254.169.254", Kind::LinkLocal),
            ("169.254.0.1", Kind::LinkLocal),
            ("::ffff:169.254.169.254", Kind::LinkLocal),
            ("::169.254.169.254", Kind::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Kind::LinkLocal),
            ("64:ff9b:1::a9fe:a9fe", Kind::LinkLocal),
            ("2002:a9fe:a9fe::1", Kind::LinkLocal),
            ("fe80::1", Kind::LinkLocal),
            ("febf::1", Kind::LinkLocal),
            ("100.100.100.200", Kind::Metadata),
            ("::ffff:100.100.100.200", Kind::Metadata),
            ("168.63.129.16", Kind::Metadata),
            ("192.0.0.192", Kind::Metadata),
            ("fd00:ec2::254", Kind::Metadata),
            ("fd00:ec2::23", Kind::Metadata),
            ("fd20:ce::254", Kind::Metadata),
            ("fd00:c1::a9fe:a9fe", Kind::Metadata),
            ("fd00:42::42", Kind::Metadata),
            ("fd00:a9fe:a9fe::1", Kind::Metadata),
            ("fd00:100::100:200", Kind::Metadata),
            ("0.0.0.0", Kind::Unspecified),
            ("0.1.2.3", Kind::Unspecified),
            ("::", Kind::Unspecified),
            ("::ffff:0.0.0.0", Kind::Unspecified),
            ("224.0.0.1", Kind::Multicast),
            ("ff02::1", Kind::Multicast),
            ("240.0.0.1", Kind::Reserved),
            ("255.255.255.255", Kind::Reserved),
        ];
        for (text, kind) in forbidden {
            let address = text.parse().unwrap();
            assert_eq!(check(address, false), Err(Forbidden { address, kind }), "{text}");
            assert_eq!(check(address, true).is_ok(), kind.may_be_allowed(), "{text}");
        }
        let fine = [
            "127.0.0.1",
            "::1",
            "10.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.2.1",
            "fd00::1",
            "fd00:42::1",
            "2001:db8::1",
        ];
        for text in fine {
            assert_eq!(check(text.parse().unwrap(), false), Ok(()), "{text}");
        }
    }

    /// Whatever form the URL has: the parser makes it an address first.
    #[test]
    fn addresses_in_urls_are_judged_in_every_form() {
        let forbidden = ["169.254.169.254", "0xA9FEA9FE", "2852039166", "0251.0376.0251.0376", "[::ffff:a9fe:a9fe]"];
        for host in forbidden {
            let url = Url::parse(&format!("http://{host}/latest/meta-data")).unwrap();
            assert!(check_literal(&url, false).is_err(), "{host}");
            assert!(check_literal(&url, true).is_ok(), "{host}");
        }
        for host in ["127.0.0.1:8080", "[::1]:8080", "hooks.example", "localhost"] {
            assert!(check_literal(&Url::parse(&format!("http://{host}/")).unwrap(), false).is_ok(), "{host}");
        }
    }

    #[test]
    fn of_several_addresses_only_the_permitted_are_used() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let (good, bad) = (at("192.0.2.1"), at("169.254.169.254"));
        assert_eq!(permitted("a".into(), vec![bad, good], false).unwrap(), [good]);
        assert_eq!(permitted("a".into(), vec![bad, good], true).unwrap(), [bad, good]);
        let error = permitted("a".into(), vec![bad], false).unwrap_err();
        assert!(matches!(error, NotResolved::Forbidden(..)), "{error}");
        assert!(matches!(permitted("a".into(), Vec::new(), false), Err(NotResolved::Empty(_))));
    }
}
