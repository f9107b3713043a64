//! IKE fragmentation (RFC 7383) with a foreign daemon, and the DSCP of IKE: long lists of selectors, a small limit on both sides, and a capture
//! that shows what really went over the outer link.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab::capture::Captured;
use lab::classify::Class;
use lab::frame::{ETHERNET, Network, parse, ports};
use lab::peer::charon::Charon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Peer, Recipe};
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;

use crate::harness::{Pair, trial};
use crate::{life, peers};

/// Octets of an IP datagram that both daemons are told to stay below.
const LIMIT: usize = 300;
/// Subnets behind A: enough to make more than two fragments of each message that lists them.
const SUBNETS: usize = 20;
/// DSCP of IKE packets, as configured and as a number: expedited forwarding.
const DSCP: (&str, u8) = ("dscp = 101110", 46);
const IKE_AUTH: u8 = 35;
const CREATE_CHILD_SA: u8 = 36;
const SK: u8 = 46;
const SKF: u8 = 53;

struct Case {
    name: &'static str,
    outer: Family,
    encap: bool,
    /// What each side is configured to do.
    fragmentation: [&'static str; 2],
    /// Whether each side sends fragments.
    fragments: [bool; 2],
}

pub(crate) fn trials() -> Vec<Trial> {
    let case = |name, outer, encap, fragmentation, fragments| Case { name, outer, encap, fragmentation, fragments };
    let cases = [
        case("v4", Family::V4, false, ["yes", "yes"], [true, true]),
        case("v6", Family::V6, false, ["yes", "yes"], [true, true]),
        case("nat_t_forced", Family::V4, true, ["yes", "yes"], [true, true]),
        case("we_only_accept", Family::V4, false, ["accept", "yes"], [false, true]),
        case("we_do_not", Family::V4, false, ["no", "yes"], [false, false]),
        case("it_only_accepts", Family::V6, false, ["yes", "accept"], [true, false]),
    ];
    cases.into_iter().map(|case| trial(format!("fragments::{}", case.name), move || case.run())).collect()
}

/// A daemon with the small limit.
struct Limited(&'static dyn Peer);

impl Peer for Limited {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn prepare(&self, directory: &Path) -> Result<Recipe> {
        if self.0.name() == Cygnet::default().name() {
            let extra = format!("[ike]\nfragment_size = {LIMIT}\n");
            return Cygnet { extra, ..Cygnet::default() }.prepare(directory);
        }
        let recipe = Charon.prepare(directory)?;
        let settings = recipe.environment.iter().find(|(name, _)| *name == "STRONGSWAN_CONF");
        let (_, settings) = settings.context("charon has no settings file")?;
        let mut file = std::fs::OpenOptions::new().append(true).open(settings)?;
        writeln!(file, "charon {{\n  fragment_size = {LIMIT}\n}}")?;
        Ok(recipe)
    }
}

impl Case {
    fn run(&self) -> Result<()> {
        let lab = Lab::new(&Middle::Direct)?;
        let [a, b] = peers::chosen()?;
        let (a, b) = (Limited(a), Limited(b));
        let mut pair = Pair::start(&lab, [&a, &b], |side| self.tunnel(&lab, side))?;
        pair.check(|pair| self.live(&lab, pair))
    }

    fn tunnel(&self, lab: &Lab, side: Side) -> Tunnel {
        let subnets = (0..SUBNETS).map(|number| format!("10.1.{number}.0/24")).collect::<Vec<_>>().join(", ");
        let mut tunnel = Tunnel::between(lab, side, self.outer);
        tunnel.encap = self.encap && side == Side::A;
        let [at_a, at_b] = self.fragmentation;
        let fragmentation = if side == Side::A { at_a } else { at_b };
        tunnel.options = vec![format!("fragmentation = {fragmentation}"), DSCP.0.into()];
        for child in tunnel.children.iter_mut().filter(|child| child.name == "net4") {
            if side == Side::A { child.local_ts.clone_from(&subnets) } else { child.remote_ts.clone_from(&subnets) }
        }
        tunnel
    }

    /// Each side initiates once, and both rekey below both IKE SAs.
    fn live(&self, lab: &Lab, pair: &Pair<'_>) -> Result<()> {
        for initiator in [Side::A, Side::B] {
            let capture = lab.capture()?;
            life::establish(pair, initiator)?;
            let streams = life::streams(lab)?;
            for side in [Side::A, Side::B] {
                life::rekey_child(pair, side, "net4")?;
                life::rekey_ike(pair, side)?;
            }
            life::rekey_child(pair, initiator, "net4")?;
            life::all_arrived(streams)?;
            life::delete_ike(pair, initiator.other())?;
            let [captured, _] = capture.finish()?;
            ensure!(captured.missed() == 0 && captured.counts.clear == 0, "{}", captured.counts);
            for (side, fragments) in [Side::A, Side::B].into_iter().zip(self.fragments) {
                let sent = sent_by(&captured, lab.site(side).outer_address(self.outer))?;
                check(&sent, fragments)
                    .with_context(|| format!("sent by {side:?}, initiated by {initiator:?}: {sent:#?}"))?;
            }
        }
        Ok(())
    }
}

fn check(sent: &[Seen], fragments: bool) -> Result<()> {
    ensure!(sent.iter().all(|seen| seen.dscp == DSCP.1), "another DSCP");
    ensure!(!sent.iter().any(|seen| seen.ip_fragment), "fragments of IP");
    ensure!(sent.iter().all(|seen| seen.next_payload != SKF || seen.length <= LIMIT), "a fragment is too long");
    for exchange in [IKE_AUTH, CREATE_CHILD_SA] {
        let mut of = sent.iter().filter(|seen| seen.exchange == exchange);
        ensure!(of.clone().next().is_some(), "nothing of exchange {exchange}");
        ensure!(
            of.any(|seen| seen.next_payload == SKF) == fragments,
            "exchange {exchange}: fragments wanted: {fragments}"
        );
    }
    let whole_and_long = sent.iter().any(|seen| seen.next_payload == SK && seen.length > LIMIT);
    ensure!(whole_and_long != fragments, "long messages in one datagram: {whole_and_long}");
    Ok(())
}

/// An IKE message on the outer link, as far as it can be read from outside.
#[derive(Debug)]
struct Seen {
    /// Octets of the IP datagram.
    length: usize,
    dscp: u8,
    ip_fragment: bool,
    next_payload: u8,
    exchange: u8,
}

fn sent_by(captured: &Captured, address: IpAddr) -> Result<Vec<Seen>> {
    let mut all = Vec::new();
    for frame in captured.frames.iter().filter(|frame| frame.class == Class::Ike) {
        let Network::Ip(packet) = parse(&frame.octets) else { continue };
        if packet.source != address {
            continue;
        }
        let octet = |at: usize| frame.octets.get(ETHERNET + at).copied().unwrap_or(0);
        let (traffic_class, more) = match address {
            IpAddr::V4(_) => (octet(1), octet(6) & 0x20 != 0),
            IpAddr::V6(_) => (octet(0) << 4 | octet(1) >> 4, octet(6) == 44),
        };
        let marked = ports(&packet).is_some_and(|(from, _)| from != 500);
        let message = packet.payload.get(if marked { 12 } else { 8 }..).unwrap_or_default();
        let (next_payload, exchange) = message.get(16).zip(message.get(18)).context("a short IKE message")?;
        all.push(Seen {
            length: frame.length - ETHERNET,
            dscp: traffic_class >> 2,
            ip_fragment: more || packet.later_fragment,
            next_payload: *next_payload,
            exchange: *exchange,
        });
    }
    Ok(all)
}
