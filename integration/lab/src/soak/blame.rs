//! Which gateway sent packets in clear, which of the lost packets those are, and whether charon's own log says why.
//!
//! charon has no guard: what it has no SA for leaves in clear. Debian's charon (5.9.8) comes to that by itself where messages are lost. It
//! has answered our rekeying of a CHILD SA, and its own request to rekey the same one, repeated, is answered TEMPORARY_FAILURE because we are
//! closing that one (RFC 7296 §2.25.1). It then takes it for one that was never rekeyed ("REKEYED => INSTALLED"), and when our DELETE comes
//! closes it without beginning to send on the new one. It sends again after the next rekeying; it tries that 6 to 15 s later.
//!
//! A packet in clear, or a loss, that this does not explain remains ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lab::capture::{Captured, Frame};
use lab::classify::{Class, Prefix};
use lab::frame::{self, ETHERNET, Network};
use lab::topology::{Family, Lab, Site};
use lab::traffic::stream::{self, Gap};

/// Since the Unix epoch.
pub(super) type WallTime = Duration;

/// Log and capture may differ by so much.
const MARGIN: Duration = Duration::from_millis(50);

/// What was seen in clear on the outer links.
pub(super) struct InClear {
    /// Frames of gateway A, or of nobody known.
    pub(super) ours: u64,
    /// Frames of gateway B.
    pub(super) peers: u64,
    /// The stream packets among those of gateway B.
    packets: Vec<Packet>,
}

struct Packet {
    at: WallTime,
    stream: String,
    number: u64,
}

impl InClear {
    /// Sorts the frames that both captures have kept; clear ones are always kept.
    pub(super) fn sort(lab: &Lab, captured: &[Captured; 2]) -> Self {
        let prefixes: Vec<Prefix> =
            [Family::V4, Family::V6].iter().filter_map(|family| Prefix::parse(&lab.b.lan(*family))).collect();
        let is_peers = |frame: &&Frame| source(frame).is_some_and(|source| prefixes.iter().any(|p| p.contains(source)));
        let clear = |captured: &'_ Captured| -> Vec<Frame> {
            captured.frames.iter().filter(|frame| frame.class == Class::Clear).cloned().collect()
        };
        // What leaves one gateway is seen on both links.
        let [at_a, at_b] = captured.each_ref().map(clear);
        let count =
            |frames: &[Frame], peers: bool| frames.iter().filter(|frame| is_peers(frame) == peers).count() as u64;
        let most = |peers: bool| count(&at_a, peers).max(count(&at_b, peers));
        let packets = at_b.iter().filter(is_peers).filter_map(|frame| packet(frame, &lab.b, &lab.a)).collect();
        InClear { ours: most(false), peers: most(true), packets }
    }

    /// How many of these lost packets gateway B sent in clear in this time, while by its log it was at fault.
    pub(super) fn explains(&self, gaps: &[Gap], during: (WallTime, WallTime), faults: &[(WallTime, WallTime)]) -> u64 {
        let within = |at: WallTime, (from, to): (WallTime, WallTime)| {
            (from.saturating_sub(MARGIN)..=to.saturating_add(MARGIN)).contains(&at)
        };
        let of_fault =
            |packet: &&Packet| within(packet.at, during) && faults.iter().any(|fault| within(packet.at, *fault));
        let sent: BTreeSet<(&str, u64)> =
            self.packets.iter().filter(of_fault).map(|packet| (packet.stream.as_str(), packet.number)).collect();
        let lost = gaps.iter().flat_map(|gap| (gap.first..gap.first + gap.count).map(|number| (&*gap.stream, number)));
        lost.filter(|packet| sent.contains(packet)).count() as u64
    }
}

fn source(frame: &Frame) -> Option<IpAddr> {
    match frame::parse(&frame.octets) {
        Network::Ip(packet) => Some(packet.source),
        Network::Arp | Network::Other => None,
    }
}

fn packet(frame: &Frame, from: &Site, to: &Site) -> Option<Packet> {
    let Network::Ip(packet) = frame::parse(&frame.octets) else { return None };
    let number = stream::number(packet.payload.get(8..)?)?;
    let family = if packet.source.is_ipv4() { Family::V4 } else { Family::V6 };
    let stream = stream::name(from, to, family, frame.length.checked_sub(ETHERNET)?);
    Some(Packet { at: frame.time, stream, number })
}

/// When charon had no SA to send on by its own fault, as its log tells.
pub(super) fn faults(log: &str) -> Vec<(WallTime, WallTime)> {
    let mut forgotten = BTreeSet::new();
    let mut begun: BTreeMap<&str, WallTime> = BTreeMap::new();
    let mut found = Vec::new();
    for (at, text) in log.lines().filter_map(entry) {
        if let Some((sa, change)) = text.strip_prefix("CHILD_SA ").and_then(|rest| rest.split_once(" state change: ")) {
            if change == "REKEYED => INSTALLED" {
                forgotten.insert(sa);
            } else if change.ends_with("=> DELETING") && forgotten.remove(sa) {
                begun.entry(child(sa)).or_insert(at);
            }
        } else if let Some(sa) = text.strip_prefix("outbound CHILD_SA ").and_then(|rest| rest.split_once(' '))
            && let Some(from) = begun.remove(child(sa.0))
        {
            found.push((from, at));
        }
    }
    found.extend(begun.into_values().map(|from| (from, WallTime::MAX)));
    found
}

/// `net4` of `net4{7}`.
fn child(sa: &str) -> &str {
    sa.split_once('{').map_or(sa, |(name, _)| name)
}

/// The time and the text of a line: `2026-01-31T12:00:00 1769860800.123 07[IKE] text`.
fn entry(line: &str) -> Option<(WallTime, &str)> {
    let mut fields = line.splitn(4, ' ');
    let at = fields.nth(1)?.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())?;
    Some((at, fields.nth(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-31T12:00:00 100.000 07[CHD] CHILD_SA net4{70} state change: INSTALLED => REKEYING
2026-01-31T12:00:01 101.000 07[CHD] CHILD_SA net4{70} state change: REKEYING => REKEYED
2026-01-31T12:00:02 102.000 07[CHD] CHILD_SA net4{70} state change: REKEYED => INSTALLED
2026-01-31T12:00:02 102.100 07[IKE] outbound CHILD_SA net6{71} established with SPIs 1_i 2_o
2026-01-31T12:00:03 103.000 07[CHD] CHILD_SA net6{60} state change: REKEYED => DELETING
2026-01-31T12:00:03 103.500 07[CHD] CHILD_SA net4{70} state change: INSTALLED => DELETING
2026-01-31T12:00:04 104.000 07[IKE] outbound CHILD_SA net6{72} established with SPIs 1_i 2_o
2026-01-31T12:00:05 105.250 07[IKE] outbound CHILD_SA net4{74} established with SPIs 1_i 2_o
2026-01-31T12:00:06 106.000 07[CHD] CHILD_SA net4{74} state change: INSTALLED => DELETING
";

    #[test]
    fn a_fault_lasts_from_the_delete_of_what_was_forgotten_to_the_next_outbound_sa() {
        let millis = Duration::from_millis;
        assert_eq!(faults(LOG), [(millis(103_500), millis(105_250))]);
        let open = LOG.lines().take(7).collect::<Vec<_>>().join("\n");
        assert_eq!(faults(&open), [(millis(103_500), Duration::MAX)]);
        assert_eq!(faults(&LOG.replace("REKEYED => INSTALLED", "REKEYED => DELETING")), []);
    }

    #[test]
    fn only_lost_packets_that_the_peer_sent_in_clear_in_its_fault_are_explained() {
        let at = Duration::from_secs;
        let packet = |second, number| Packet { at: at(second), stream: "b to a".into(), number };
        let packets = vec![packet(10, 1), packet(11, 2), packet(20, 3), packet(11, 9)];
        let clear = InClear { ours: 0, peers: 4, packets };
        let gap = |stream: &str| Gap { stream: stream.into(), first: 1, count: 4, after: Duration::ZERO };
        let whole = (at(0), at(30));
        assert_eq!(clear.explains(&[gap("b to a")], whole, &[(at(10), at(12))]), 2);
        assert_eq!(clear.explains(&[gap("b to a")], whole, &[(at(10), Duration::MAX)]), 3);
        assert_eq!(clear.explains(&[gap("b to a")], (at(11), at(12)), &[(at(10), at(12))]), 1);
        assert_eq!(clear.explains(&[gap("b to a")], whole, &[]), 0);
        assert_eq!(clear.explains(&[gap("a to b")], whole, &[(at(10), at(12))]), 0);
    }
}
