//! Addresses of `local_addrs` and `remote_addrs`, and traffic selectors of `local_ts` and `remote_ts`.

use std::net::IpAddr;

use ike_model::{ConfiguredSelector, HostSpec};
use ipsec::{AddressRange, PortRange, TrafficSelector};

use crate::render::services;
use crate::units;

/// Why text is no address or selector: the piece that does not fit, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    /// The piece.
    pub fragment: String,
    /// What was expected instead.
    pub expected: &'static str,
}

fn wrong(fragment: &str, expected: &'static str) -> AddressError {
    AddressError { fragment: fragment.to_owned(), expected }
}

/// An item of `local_addrs` or `remote_addrs`: `%any`, an address, a network, a range, or a DNS name.
///
/// # Errors
/// When the text is none of these.
pub fn host(text: &str) -> Result<HostSpec, AddressError> {
    match text {
        "%any" | "0.0.0.0" | "::" => return Ok(HostSpec::Any),
        "%any4" => return Ok(HostSpec::Range(AddressRange::ANY_V4)),
        "%any6" => return Ok(HostSpec::Range(AddressRange::ANY_V6)),
        _ => {}
    }
    if let Ok(address) = text.parse() {
        return Ok(HostSpec::Address(address));
    }
    if text.contains('/') {
        return network(text).map(HostSpec::Range);
    }
    if let Some(range) = range(text) {
        return range.map(HostSpec::Range);
    }
    if is_dns_name(text) {
        Ok(HostSpec::Name(text.to_owned()))
    } else {
        Err(wrong(text, "an address, network, range, DNS name or `%any`"))
    }
}

/// Letters, digits, `-`, `_` and dots, and not just digits and dots (a mistyped address).
fn is_dns_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let label =
        |l: &str| (1..=63).contains(&l.len()) && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    labels.len() <= 253 && labels.split('.').all(label) && !labels.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn network(text: &str) -> Result<AddressRange, AddressError> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let Ok(ip) = address.parse::<IpAddr>() else { return Err(wrong(address, "an IPv4 or IPv6 address")) };
    let digits = length.len() <= 3 && !length.is_empty() && length.chars().all(|c| c.is_ascii_digit());
    let length_error =
        || wrong(length, if ip.is_ipv4() { "a prefix length from 0 to 32" } else { "a prefix length from 0 to 128" });
    let parsed = length.parse().ok().filter(|_| digits).ok_or_else(length_error)?;
    AddressRange::prefix(ip, parsed).ok_or_else(length_error)
}

/// `from-to`; `None` when the text is no such thing at all.
fn range(text: &str) -> Option<Result<AddressRange, AddressError>> {
    let (from, to) = text.split_once('-')?;
    let (Ok(from), to) = (from.trim().parse::<IpAddr>(), to.trim()) else { return None };
    let Ok(last) = to.parse::<IpAddr>() else { return Some(Err(wrong(to, "the last address of the range"))) };
    Some(AddressRange::new(from, last).ok_or_else(|| wrong(text, "a range whose first address is not above its last")))
}

/// A traffic selector: `dynamic`, an address, network or range, each with an optional `[protocol]` or `[protocol/port]`.
///
/// # Errors
/// Names the piece that does not fit.
pub fn selector(text: &str) -> Result<ConfiguredSelector, AddressError> {
    let (addresses, upper) = match text.split_once('[') {
        Some((addresses, rest)) => {
            let Some(inner) = rest.strip_suffix(']') else { return Err(wrong(text, "a closing `]` at the end")) };
            (addresses.trim_end(), Some(inner))
        }
        None => (text, None),
    };
    let (protocol, ports) = upper.map_or(Ok((0, PortRange::ANY)), upper_layer)?;
    if addresses == "dynamic" {
        return Ok(ConfiguredSelector::Dynamic { protocol, ports });
    }
    let addresses = selector_addresses(addresses)?;
    Ok(ConfiguredSelector::Fixed(TrafficSelector { addresses, protocol, ports }))
}

fn selector_addresses(text: &str) -> Result<AddressRange, AddressError> {
    if let Ok(address) = text.parse() {
        return Ok(AddressRange::host(address));
    }
    if text.contains('/') {
        return network(text);
    }
    range(text).unwrap_or_else(|| Err(wrong(text, "`dynamic`, an address, a network such as 10.1.0.0/16, or a range")))
}

fn upper_layer(text: &str) -> Result<(u8, PortRange), AddressError> {
    let (protocol, ports) = text.split_once('/').map_or((text, None), |(protocol, ports)| (protocol, Some(ports)));
    let protocol = parse_protocol(protocol.trim())?;
    let ports = ports.map_or(Ok(PortRange::ANY), |ports| parse_ports(protocol, ports.trim()))?;
    Ok((protocol, ports))
}

fn parse_protocol(text: &str) -> Result<u8, AddressError> {
    if text.is_empty() || text.eq_ignore_ascii_case("any") {
        return Ok(0);
    }
    services::protocol(text)
        .or_else(|| u8::try_from(units::u32(text)?).ok())
        .ok_or_else(|| wrong(text, "a protocol: a name such as tcp, udp or icmp, or a number from 0 to 255"))
}

fn parse_ports(protocol: u8, text: &str) -> Result<PortRange, AddressError> {
    match text {
        "" | "any" | "%any" => return Ok(PortRange::ANY),
        "opaque" | "OPAQUE" => return Ok(PortRange::OPAQUE),
        _ => {}
    }
    let (from, to) = match text.split_once('-') {
        Some((from, to)) if number(from.trim()).is_some() => (from.trim(), to.trim()),
        Some(_) | None => (text, text),
    };
    let (from, to) = (port(from)?, port(to)?);
    if from > to {
        return Err(wrong(text, "a port range whose first port is not above its last"));
    }
    if matches!(protocol, 1 | 58) && to < 256 {
        // A number below 256 is an ICMP type with code 0.
        return Ok(PortRange { start: from << 8, end: to << 8 });
    }
    Ok(PortRange { start: from, end: to })
}

fn port(text: &str) -> Result<u16, AddressError> {
    services::port(text).or_else(|| number(text)).ok_or_else(|| {
        wrong(text, "a port: a number from 0 to 65535, a range, a well-known service name, `any` or `opaque`")
    })
}

/// In C's notation, as charon reads it: `0x50` and `0120` are 80.
fn number(text: &str) -> Option<u16> {
    if text.is_empty() { None } else { u16::try_from(units::u32(text)?).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match selector(text) {
            Ok(ConfiguredSelector::Fixed(ts)) => crate::render::selector(&ts),
            Ok(ConfiguredSelector::Dynamic { protocol, ports }) => {
                format!("dynamic {protocol} {}-{}", ports.start, ports.end)
            }
            Err(error) => format!("{}: {}", error.fragment, error.expected),
        }
    }

    #[test]
    fn selectors() {
        let cases = [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("10.1.0.1", "10.1.0.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("10.0.0.1-10.0.0.9", "10.0.0.1..10.0.0.9"),
            ("10.0.0.0-10.0.0.255", "10.0.0.0/24"),
            ("10.1.0.0/16[tcp]", "10.1.0.0/16[tcp]"),
            ("10.1.0.0/16[tcp/http]", "10.1.0.0/16[tcp/http]"),
            ("10.1.0.0/16[6/80]", "10.1.0.0/16[tcp/http]"),
            ("10.1.0.0/16[udp/1024-2048]", "10.1.0.0/16[udp/1024-2048]"),
            ("10.1.0.0/16[/500]", "10.1.0.0/16[0/isakmp]"),
            ("10.1.0.0/16[any/any]", "10.1.0.0/16"),
            ("10.1.0.0/16[tcp/opaque]", "10.1.0.0/16[tcp/OPAQUE]"),
            ("10.1.0.0/16[icmp/8]", "10.1.0.0/16[icmp/8]"),
            ("10.1.0.0/16[icmp/8-9]", "10.1.0.0/16[icmp/8-9]"),
            ("10.1.0.0/16[icmp/2048-2303]", "10.1.0.0/16[icmp/8-8(255)]"),
            ("10.1.0.0/16[77]", "10.1.0.0/16[77]"),
            ("10.1.0.0/16[tcp/0x50]", "10.1.0.0/16[tcp/http]"),
            ("10.1.0.0/16[0x6/0120-0377]", "10.1.0.0/16[tcp/80-255]"),
            ("10.1.0.0/16[tcp/mysql]", "10.1.0.0/16[tcp/mysql]"),
            ("10.1.0.0/16[tcp/5432]", "10.1.0.0/16[tcp/postgresql]"),
            ("10.1.0.0/16[tcp/ftp-data]", "10.1.0.0/16[tcp/ftp-data]"),
            ("10.1.0.0/16[udp/514]", "10.1.0.0/16[udp/syslog]"),
            ("10.1.0.0/16[udp/80]", "10.1.0.0/16[udp/80]"),
            ("10.1.0.0/16[tcp/www]", "10.1.0.0/16[tcp/http]"),
            ("10.1.0.0/16[vrrp]", "10.1.0.0/16[vrrp]"),
            ("10.1.0.0/16[136]", "10.1.0.0/16[udplite]"),
            ("10.1.0.0/16[OSPFIGP]", "10.1.0.0/16[ospf]"),
            ("10.1.0.0/16[ip]", "10.1.0.0/16"),
            ("dynamic", "dynamic 0 0-65535"),
            ("dynamic[tcp/22]", "dynamic 6 22-22"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn bad_selectors_name_the_piece() {
        let cases = [
            ("10.1.0.0/33", "33: a prefix length from 0 to 32"),
            ("10.1.0/16", "10.1.0: an IPv4 or IPv6 address"),
            ("::/129", "129: a prefix length from 0 to 128"),
            ("10.1.0.0/+8", "+8: a prefix length from 0 to 32"),
            ("10.0.0.9-10.0.0.1", "10.0.0.9-10.0.0.1: a range whose first address is not above its last"),
            ("10.0.0.9-::1", "10.0.0.9-::1: a range whose first address is not above its last"),
            ("10.1.0.0/16[tcpp]", "tcpp: a protocol: a name such as tcp, udp or icmp, or a number from 0 to 255"),
            (
                "10.1.0.0/16[tcp/99999]",
                "99999: a port: a number from 0 to 65535, a range, a well-known service name, `any` or `opaque`",
            ),
            ("10.1.0.0/16[tcp/90-80]", "90-80: a port range whose first port is not above its last"),
            (
                "10.1.0.0/16[tcp/080]",
                "080: a port: a number from 0 to 65535, a range, a well-known service name, `any` or `opaque`",
            ),
            ("10.1.0.0/16[tcp", "10.1.0.0/16[tcp: a closing `]` at the end"),
            ("lan", "lan: `dynamic`, an address, a network such as 10.1.0.0/16, or a range"),
            ("", ": `dynamic`, an address, a network such as 10.1.0.0/16, or a range"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn hosts() {
        let address = |text: &str| HostSpec::Address(text.parse().unwrap());
        assert_eq!(host("192.0.2.1"), Ok(address("192.0.2.1")));
        assert_eq!(host("2001:db8::1"), Ok(address("2001:db8::1")));
        assert_eq!(host("%any"), Ok(HostSpec::Any));
        assert_eq!(host("%any6"), Ok(HostSpec::Range(AddressRange::ANY_V6)));
        assert!(matches!(host("192.0.2.0/24"), Ok(HostSpec::Range(_))));
        assert!(matches!(host("192.0.2.1-192.0.2.9"), Ok(HostSpec::Range(_))));
        assert_eq!(host("gw-1.example.org"), Ok(HostSpec::Name("gw-1.example.org".into())));
        for bad in ["300.1.1.1", "10.1.1", "", "a..b", "two words", "%gw"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
