//! Pass shunts as routing sees them.

use ipsec::{PortRange, SelectorPair, TrafficSelector};

use super::super::error::HostError;
use super::super::prefix::prefixes;
use super::super::rules::Around;

/// The jumps that a pass shunt amounts to, or why rules cannot express it.
pub(super) fn around(pair: &SelectorPair) -> Result<Vec<Around>, HostError> {
    let refuse = |reason| Err(HostError::NotExpressible { selector: pair.to_string(), reason });
    let protocol = if pair.local.protocol == 0 { pair.remote.protocol } else { pair.local.protocol };
    let (ours, theirs) = (pair.local.ports, pair.remote.ports);
    if ours.is_opaque() || theirs.is_opaque() {
        return refuse("a rule cannot match packets whose ports are not available");
    }
    let any_port = ours.is_any() && theirs.is_any();
    if !any_port && !matches!(protocol, 6 | 17 | 33 | 132) {
        return refuse("a rule matches ports of TCP, UDP, DCCP and SCTP only");
    }
    let ports = |range: PortRange| (!range.is_any()).then_some((range.start, range.end));
    if ports(ours).is_some_and(|(start, _)| start == 0) || ports(theirs).is_some_and(|(start, _)| start == 0) {
        return refuse("a rule cannot match port 0");
    }
    let mut out = Vec::new();
    for from in prefixes(pair.local.addresses) {
        for to in prefixes(pair.remote.addresses) {
            let (source_ports, destination_ports) = (ports(ours), ports(theirs));
            out.push(Around { from, to, protocol, source_ports, destination_ports, own: false });
        }
    }
    Ok(out)
}

/// Whether a shunt concerns all protocols and ports.
pub(super) fn is_whole(pair: &SelectorPair) -> bool {
    let whole = |selector: &TrafficSelector| selector.protocol == 0 && selector.ports.is_any();
    whole(&pair.local) && whole(&pair.remote)
}

/// Whether any address is in both.
pub(super) fn overlap(one: &TrafficSelector, other: &TrafficSelector) -> bool {
    one.addresses.intersection(other.addresses).is_some()
}
