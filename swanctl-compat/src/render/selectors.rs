//! Traffic selectors as text: `10.1.0.0/16`, `10.0.0.1..10.0.0.9[tcp/http]`, `dynamic[udp/1024-2048]`.

use ike_model::ConfiguredSelector;
use ipsec::{PortRange, TrafficSelector};

use super::services;

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
    let protocol_name = services::protocol_name(protocol).map_or_else(|| protocol.to_string(), str::to_owned);
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
        return services::service(protocol, ports.start).map_or_else(|| ports.start.to_string(), str::to_owned);
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
const ICMPV6: u8 = 58;
