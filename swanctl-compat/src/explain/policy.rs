//! `ip xfrm policy add`.

use std::net::IpAddr;

use ipsec::{
    Direction, OffloadMode, OuterAddresses, PolicyAction, PolicySpec, PortRange, Reqid, SaMode, SaSpec, TrafficSelector,
};

use super::Surroundings;

/// Ports of a range that are written one by one; the kernel compares masks, which `ip` cannot write.
const MOST_PORTS: u16 = 16;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
const ESP: u8 = 50;

/// The commands of one policy: one for each pair of prefixes and ports.
pub(super) fn commands(policy: &PolicySpec, sa: Option<&SaSpec>, around: &Surroundings) -> Vec<String> {
    let (local, remote) = (&policy.selectors.local, &policy.selectors.remote);
    let (way, from, to) = match policy.direction {
        Direction::Outbound => ("out", local, remote),
        Direction::Inbound => ("in", remote, local),
        Direction::Forward => ("fwd", remote, local),
    };
    let upper = match upper(from, to) {
        Ok(upper) => upper,
        Err(reason) => return vec![format!("# {way} {}: {reason}", policy.selectors)],
    };
    let rest = rest(policy, sa, around);
    let mut out = Vec::new();
    for (source, source_length) in from.addresses.prefixes() {
        for (destination, length) in to.addresses.prefixes() {
            for upper in &upper {
                out.push(format!(
                    "ip xfrm policy add src {source}/{source_length} dst {destination}/{length}{upper} dir {way}{rest}"
                ));
            }
        }
    }
    out
}

/// Everything behind the direction.
fn rest(policy: &PolicySpec, sa: Option<&SaSpec>, around: &Surroundings) -> String {
    let mut text = String::new();
    if let Some(mark) = policy.tags.mark {
        text.push_str(&format!(" mark {:#x} mask {:#x}", mark.value, mark.mask));
    }
    if policy.action == PolicyAction::Discard {
        text.push_str(" action block");
    }
    text.push_str(&format!(" priority {}", policy.priority));
    if policy.tags.if_id != 0 {
        text.push_str(&format!(" if_id {:#x}", policy.tags.if_id));
    }
    // Forwarding is checked by software whoever does the work.
    if policy.offload == OffloadMode::Packet && policy.direction != Direction::Forward {
        let device = around.devices.get(&policy.device).map_or("?", |name| &**name);
        text.push_str(&format!(" offload packet dev {device}"));
    }
    match &policy.action {
        PolicyAction::Bypass | PolicyAction::Discard => {}
        PolicyAction::Protect { reqid, mode, outer, .. } => {
            text.push_str(&template(policy.direction, Some(*outer), *reqid, *mode, sa));
        }
        PolicyAction::Trap { reqid, mode } => text.push_str(&template(policy.direction, None, *reqid, *mode, None)),
    }
    text
}

fn template(
    direction: Direction,
    outer: Option<OuterAddresses>,
    reqid: Reqid,
    mode: SaMode,
    sa: Option<&SaSpec>,
) -> String {
    let ends = outer.map(|outer| match direction {
        Direction::Outbound => (outer.local, outer.remote),
        Direction::Inbound | Direction::Forward => (outer.remote, outer.local),
    });
    let ends = ends.map(|(from, to)| format!(" src {from} dst {to}")).unwrap_or_default();
    let spi = sa.map(|sa| format!(" spi 0x{}", sa.spi)).unwrap_or_default();
    format!(" tmpl{ends} proto esp{spi} reqid {} mode {}", reqid.0, mode_word(mode))
}

pub(super) fn mode_word(mode: SaMode) -> &'static str {
    match mode {
        SaMode::Tunnel => "tunnel",
        SaMode::Transport => "transport",
    }
}

/// Protocol and ports of a packet from one side to the other, or why `ip` cannot say them.
fn upper(from: &TrafficSelector, to: &TrafficSelector) -> Result<Vec<String>, &'static str> {
    let protocol = if from.protocol == 0 { to.protocol } else { from.protocol };
    match protocol {
        0 if from.ports.is_any() && to.ports.is_any() => Ok(vec![String::new()]),
        0 => Err("ports without a protocol cannot be written"),
        ICMP | ICMPV6 => icmp(protocol, if from.ports.is_any() { to.ports } else { from.ports }),
        _ => {
            let mut out = Vec::new();
            for from in ports("sport", from.ports)? {
                out.extend(ports("dport", to.ports)?.iter().map(|to| format!(" proto {protocol}{from}{to}")));
            }
            Ok(out)
        }
    }
}

fn icmp(protocol: u8, range: PortRange) -> Result<Vec<String>, &'static str> {
    let name = if protocol == ICMP { "icmp" } else { "ipv6-icmp" };
    let [kind, code] = range.start.to_be_bytes();
    let [last_kind, last_code] = range.end.to_be_bytes();
    if range.is_any() {
        Ok(vec![format!(" proto {name}")])
    } else if kind == last_kind && (code, last_code) == (0, u8::MAX) {
        Ok(vec![format!(" proto {name} type {kind}")])
    } else if range.start == range.end {
        Ok(vec![format!(" proto {name} type {kind} code {code}")])
    } else {
        Err("a range of ICMP types or codes is a mask, which ip cannot write")
    }
}

fn ports(word: &str, range: PortRange) -> Result<Vec<String>, &'static str> {
    if range.is_any() {
        return Ok(vec![String::new()]);
    }
    if range.is_opaque() {
        return Ok(vec![format!(" {word} 0")]);
    }
    if range.end.saturating_sub(range.start) >= MOST_PORTS {
        return Err("a range of ports becomes masks, which ip cannot write");
    }
    Ok((range.start..=range.end).map(|port| format!(" {word} {port}")).collect())
}

/// What the daemon's own sockets are let through with, as policies between the outer addresses of a protecting policy.
pub(super) fn bypass(policy: &PolicySpec, around: &Surroundings) -> Vec<String> {
    let outer = match &policy.action {
        PolicyAction::Protect { outer, .. } => Some(*outer),
        PolicyAction::Trap { .. } | PolicyAction::Bypass | PolicyAction::Discard => None,
    };
    let Some(OuterAddresses { local, remote }) = outer.filter(|outer| !outer.local.is_unspecified()) else {
        return Vec::new();
    };
    let length = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let there = if remote.is_unspecified() { format!("{remote}/0") } else { format!("{remote}/{}", length(remote)) };
    let here = format!("{local}/{}", length(local));
    let mut out = Vec::new();
    let mut add = |from: &str, to: &str, upper: String, way: &str| {
        out.push(format!("ip xfrm policy add src {from} dst {to} {upper} dir {way} action allow priority 1"));
    };
    for port in around.ike_ports.into_iter().filter(|port| *port != 0) {
        add(&here, &there, format!("proto {UDP} sport {port}"), "out");
        add(&there, &here, format!("proto {UDP} dport {port}"), "in");
    }
    add(&here, &there, format!("proto {ESP}"), "out");
    add(&there, &here, format!("proto {ESP}"), "in");
    out
}
