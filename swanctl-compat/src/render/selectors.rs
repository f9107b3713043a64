//! Traffic selectors as text: `10.1.0.0/16`, `10.0.0.1..10.0.0.9[tcp/http]`, `dynamic[udp/1024-2048]`.

use ike_model::ConfiguredSelector;
use ipsec::{PortRange, TrafficSelector};

/// A selector as listings show it. Protocols and well-known ports appear by name.
#[must_use]
pub fn selector(ts: &TrafficSelector) -> String {
    format!("{}{}", ts.addresses, upper_layer(ts.protocol, ts.ports))
}

/// A selector as configured; `dynamic` stays a word.
#[must_use]
pub(super) fn configured(ts: &ConfiguredSelector) -> String {
    match ts {
        ConfiguredSelector::Dynamic { protocol, ports } => format!("dynamic{}", upper_layer(*protocol, *ports)),
        ConfiguredSelector::Fixed(ts) => selector(ts),
    }
}

fn upper_layer(protocol: u8, ports: PortRange) -> String {
    if protocol == 0 && ports.is_any() {
        return String::new();
    }
    let protocol_name = protocol_name(protocol).map_or_else(|| protocol.to_string(), str::to_owned);
    if ports.is_any() {
        return format!("[{protocol_name}]");
    }
    format!("[{protocol_name}/{}]", port_text(protocol, ports))
}

fn port_text(protocol: u8, ports: PortRange) -> String {
    if ports.is_opaque() {
        return "OPAQUE".to_owned();
    }
    if matches!(protocol, ICMP | ICMPV6) {
        return icmp(ports);
    }
    if ports.start == ports.end {
        let name =
            SERVICES.iter().find(|(port, on, _)| *port == ports.start && (protocol == 0 || on.contains(&protocol)));
        return name.map_or_else(|| ports.start.to_string(), |(_, _, name)| (*name).to_owned());
    }
    format!("{}-{}", ports.start, ports.end)
}

/// ICMP ports hold type * 256 + code; a code of 0 is not shown.
fn icmp(ports: PortRange) -> String {
    let one = |port: u16| match port & 0xff {
        0 => (port >> 8).to_string(),
        code => format!("{}({code})", port >> 8),
    };
    if ports.start == ports.end { one(ports.start) } else { format!("{}-{}", one(ports.start), one(ports.end)) }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Protocols by name, both for reading and for showing.
pub(crate) const PROTOCOLS: [(u8, &str); 14] = [
    (ICMP, "icmp"),
    (2, "igmp"),
    (4, "ipencap"),
    (TCP, "tcp"),
    (8, "egp"),
    (UDP, "udp"),
    (33, "dccp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (ICMPV6, "ipv6-icmp"),
    (89, "ospf"),
    (115, "l2tp"),
    (SCTP, "sctp"),
];

/// Well-known ports by name, with the protocols that use the name.
pub(crate) const SERVICES: [(u16, &[u8], &str); 22] = [
    (20, &[TCP], "ftp-data"),
    (21, &[TCP], "ftp"),
    (22, &[TCP], "ssh"),
    (23, &[TCP], "telnet"),
    (25, &[TCP], "smtp"),
    (53, &[TCP, UDP], "domain"),
    (67, &[UDP], "bootps"),
    (68, &[UDP], "bootpc"),
    (69, &[UDP], "tftp"),
    (80, &[TCP], "http"),
    (123, &[UDP], "ntp"),
    (143, &[TCP], "imap2"),
    (161, &[TCP, UDP], "snmp"),
    (179, &[TCP], "bgp"),
    (389, &[TCP, UDP], "ldap"),
    (443, &[TCP, UDP], "https"),
    (500, &[UDP], "isakmp"),
    (514, &[UDP], "syslog"),
    (853, &[TCP], "domain-s"),
    (993, &[TCP], "imaps"),
    (1701, &[UDP], "l2f"),
    (4500, &[UDP], "ipsec-nat-t"),
];

fn protocol_name(protocol: u8) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(number, _)| *number == protocol).map(|(_, name)| *name)
}
