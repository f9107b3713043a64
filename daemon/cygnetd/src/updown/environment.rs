//! What a script is told, in strongSwan's variables; and in ours what those cannot say.
//!
//! Values were compared with those of charon 5.9.8 by the interoperability tests. One is different on purpose: of a peer's identity only harmless
//! characters are handed on (charon passes on whatever the peer calls itself), because many scripts paste it into a command. An identity that
//! loses some is told in full as hexadecimal digits in `CYGNET_PEER_ID_HEX`.

use std::fmt::Write as _;
use std::net::IpAddr;

use ike_model::Identity;
use ipsec::{AddressRange, OffloadMode, PortRange, SelectorPair, TrafficSelector};

use super::Told;

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// ICMP, in both families: type and code are in the place of ports.
const ICMP: [u8; 2] = [1, 58];

/// `up-client`, `down-host-v6` and the like.
pub(super) fn verb(told: &Told, pair: &SelectorPair) -> String {
    let verb = if told.cause.is_none() { "up" } else { "down" };
    let local = pair.local.addresses;
    let who = if local == AddressRange::host(told.ike.local.ip()) { "host" } else { "client" };
    let family = if local.is_ipv4() { "" } else { "-v6" };
    format!("{verb}-{who}{family}")
}

/// All variables for one pair of selectors; `interface` is the one with our address.
pub(super) fn environment(told: &Told, pair: &SelectorPair, interface: &str) -> Vec<(String, String)> {
    let mut variables = Variables(Vec::new());
    variables.set("PATH", PATH);
    strongswan(told, pair, interface, &mut variables);
    ours(told, &mut variables);
    variables.0
}

struct Variables(Vec<(String, String)>);

impl Variables {
    /// A control character in a value is of no use to anybody.
    fn set(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string().replace(char::is_control, "_");
        self.0.push((name.to_owned(), value));
    }
}

fn strongswan(told: &Told, pair: &SelectorPair, interface: &str, variables: &mut Variables) {
    let Told { ike, child, .. } = told;
    variables.set("PLUTO_VERSION", "1.1");
    variables.set("PLUTO_VERB", verb(told, pair));
    variables.set("PLUTO_CONNECTION", &child.name);
    variables.set("PLUTO_INTERFACE", interface);
    variables.set("PLUTO_REQID", child.reqid.0);
    variables.set("PLUTO_PROTO", "esp");
    variables.set("PLUTO_UNIQUEID", ike.unique_id);
    let (local_ports, remote_ports) = ports(pair);
    let sides = [
        ("MY", "ME", ike.local.ip(), &ike.local_id, &pair.local, local_ports),
        ("PEER", "PEER", ike.remote.ip(), &ike.remote_id, &pair.remote, remote_ports),
    ];
    for (side, address_name, address, id, selector, ports) in sides {
        variables.set(&format!("PLUTO_{address_name}"), address);
        variables.set(&format!("PLUTO_{side}_ID"), harmless(&identity(id)));
        variables.set(&format!("PLUTO_{side}_CLIENT"), network(selector.addresses));
        variables.set(&format!("PLUTO_{side}_PORT"), ports);
        variables.set(&format!("PLUTO_{side}_PROTOCOL"), selector.protocol);
    }
    for (name, mark) in [("PLUTO_MARK_IN", child.tags.mark_in), ("PLUTO_MARK_OUT", child.tags.mark_out)] {
        if let Some(mark) = mark {
            variables.set(name, format!("{}/0x{:08x}", mark.value, mark.mask));
        }
    }
    for (name, id) in [("PLUTO_IF_ID_IN", child.tags.if_id_in), ("PLUTO_IF_ID_OUT", child.tags.if_id_out)] {
        if id != 0 {
            variables.set(name, id);
        }
    }
    if child.encap {
        variables.set("PLUTO_UDP_ENC", ike.remote.port());
    }
    if child.updown.as_ref().is_some_and(|updown| updown.host_access) {
        variables.set("PLUTO_HOST_ACCESS", 1);
    }
}

fn ours(told: &Told, variables: &mut Variables) {
    let Told { ike, child, cause } = told;
    variables.set("CYGNET_CONNECTION", &ike.connection);
    variables.set("CYGNET_CHILD_SA", child.unique_id);
    variables.set("CYGNET_GENERATION", child.generation);
    variables.set("CYGNET_BACKEND", child.backend);
    variables.set("CYGNET_OFFLOAD", offload(child.offload.mode));
    if let Some(device) = &child.offload.device {
        variables.set("CYGNET_OFFLOAD_DEV", device);
    }
    for (name, spi) in [("CYGNET_SPI_IN", child.spi_in), ("CYGNET_SPI_OUT", child.spi_out)] {
        if let Some(spi) = spi {
            variables.set(name, spi);
        }
    }
    if let Some(cause) = cause {
        variables.set("CYGNET_CAUSE", cause.kind.name());
        variables.set("CYGNET_CAUSE_TEXT", harmless(&cause.text));
    }
    let remote = identity(&ike.remote_id);
    if harmless(&remote) != remote
        && let Some((_, octets)) = ike.remote_id.to_wire()
    {
        variables.set("CYGNET_PEER_ID_HEX", hex(&octets, ""));
    }
}

fn offload(mode: OffloadMode) -> &'static str {
    match mode {
        OffloadMode::No | OffloadMode::Auto => "no",
        OffloadMode::Crypto => "crypto",
        OffloadMode::Packet => "packet",
    }
}

/// An identity as charon writes it.
fn identity(id: &Identity) -> String {
    match id {
        Identity::KeyId(octets) if octets.iter().any(|octet| !matches!(octet, b' '..=b'~')) => hex(octets, ":"),
        Identity::Any
        | Identity::Address(_)
        | Identity::Fqdn(_)
        | Identity::Rfc822(_)
        | Identity::DistinguishedName(_)
        | Identity::KeyId(_)
        | Identity::Other(..) => id.to_string(),
    }
}

fn hex(octets: &[u8], between: &str) -> String {
    let digits = octets.iter().map(|octet| format!("{octet:02x}"));
    digits.collect::<Vec<_>>().join(between)
}

/// With `_` in the place of everything that means something to a shell, quoted or not, or to a terminal.
fn harmless(text: &str) -> String {
    let harmless = |character: char| character.is_ascii_alphanumeric() || " @.,:=/+-_%#".contains(character);
    // What begins with a hyphen may be taken for an option.
    let mut out: String = text.chars().map(|character| if harmless(character) { character } else { '_' }).collect();
    if out.starts_with('-') {
        out.replace_range(..1, "_");
    }
    out
}

/// The smallest network around a range, which scripts know how to handle.
fn network(range: AddressRange) -> String {
    let length = match (range.start(), range.end()) {
        (IpAddr::V4(start), IpAddr::V4(end)) => (start.to_bits() ^ end.to_bits()).leading_zeros(),
        (IpAddr::V6(start), IpAddr::V6(end)) => (start.to_bits() ^ end.to_bits()).leading_zeros(),
        // No range has ends of two families.
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    let prefix = u8::try_from(length).ok().and_then(|length| AddressRange::prefix(range.start(), length));
    let mut out = String::new();
    let _ = write!(out, "{}/{length}", prefix.unwrap_or(range).start());
    out
}

/// Ports of both sides: `0` for all, a number, or `first:last`. With ICMP on either side, its type and its code.
fn ports(pair: &SelectorPair) -> (String, String) {
    let is_icmp = |side: &TrafficSelector| ICMP.contains(&side.protocol);
    if is_icmp(&pair.local) || is_icmp(&pair.remote) {
        let [kind, code] = pair.local.ports.start.max(pair.remote.ports.start).to_be_bytes();
        return (kind.to_string(), code.to_string());
    }
    let one = |ports: PortRange| match ports {
        ports if ports.is_any() => "0".to_owned(),
        PortRange { start, end } if start == end => start.to_string(),
        PortRange { start, end } => format!("{start}:{end}"),
    };
    (one(pair.local.ports), one(pair.remote.ports))
}

#[cfg(test)]
mod tests;
