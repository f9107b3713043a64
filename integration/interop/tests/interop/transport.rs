//! Transport mode between two gateways themselves: with ours over IPv4, IPv6 and NAT, and what Debian's charon makes of it.
//!
//! Charon's own ESP (kernel-libipsec) does tunnel mode only, so with it the negotiation is judged and that nothing is left behind.

use anyhow::{Result, ensure};
use lab::peer::conf::Tunnel;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial};
use crate::{life, peers};

const CHILD: &str = "hosts";

pub(crate) fn trials() -> Vec<Trial> {
    let ours = [
        ("native_v4", Middle::Direct, Family::V4),
        ("native_v6", Middle::Direct, Family::V6),
        ("routed_v4", Middle::Router, Family::V4),
        ("behind_nat_v4", Middle::NatBeforeA, Family::V4),
    ];
    let mut trials: Vec<Trial> = ours
        .into_iter()
        .map(|(name, middle, outer)| trial(format!("transport::{name}"), move || between_ours(&middle, outer)))
        .collect();
    trials.push(trial("transport::a_peer_with_a_tunnel_is_refused", a_peer_with_a_tunnel_is_refused));
    trials.push(trial("transport::charon_that_cannot_leaves_nothing", charon_that_cannot_leaves_nothing));
    trials
}

/// One child between the outer addresses, in a mode.
fn tunnel(lab: &Lab, side: Side, middle: &Middle, outer: Family, mode: &str) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, outer).with_child_option(&format!("mode = {mode}"));
    tunnel.children.truncate(1);
    for child in &mut tunnel.children {
        (child.name, child.local_ts, child.remote_ts) = (CHILD.into(), "dynamic".into(), "dynamic".into());
    }
    if *middle == Middle::NatBeforeA && side == Side::B {
        tunnel.remote = "%any".into();
    }
    tunnel
}

//= RFC 7296 §2.23.1: everything between the two hosts is ESP, from the first rekeying to the last, also through NAT
fn between_ours(middle: &Middle, outer: Family) -> Result<()> {
    let lab = Lab::new(middle)?;
    let mut pair = Pair::start(&lab, peers::ours()?, |side| tunnel(&lab, side, middle, outer, "transport"))?;
    pair.check(|pair| {
        let capture = lab.capture()?;
        pair.a.swanctl(&["--initiate", "--child", CHILD])?;
        for side in [Side::A, Side::B] {
            let shown = pair.side(side).swanctl(&["--list-sas"])?;
            ensure!(shown.contains("TRANSPORT"), "{shown}");
        }
        let (source, target) = (lab.a.outer_address(outer), lab.b.outer_address(outer));
        let mut sent = 0;
        for rekeyed_by in [None, Some(Side::A), Some(Side::B)] {
            if let Some(side) = rekeyed_by {
                life::rekey_child(pair, side, CHILD)?;
            }
            let answered = ping::ping(&lab.a.gateway, source, target, 10, ping::PATIENCE)?;
            ensure!(answered == 10, "{answered} of 10 answered, rekeyed by {rekeyed_by:?}");
            sent += 10;
        }
        for captured in capture.finish()? {
            let counts = &captured.counts;
            ensure!(counts.clear == 0 && counts.other == 0 && captured.missed() == 0, "{counts}");
            ensure!(counts.esp + counts.udp_esp == 2 * sent, "{counts} for {sent} pings");
        }
        life::delete_ike(pair, Side::B)
    })
}

//= RFC 7296 §1.3.1: without USE_TRANSPORT_MODE in the answer the initiator deletes what it cannot accept, and says why
fn a_peer_with_a_tunnel_is_refused() -> Result<()> {
    declined(peers::ours()?)
}

fn charon_that_cannot_leaves_nothing() -> Result<()> {
    declined([peers::by_name("cygnet")?, peers::by_name("charon")?])
}

fn declined(daemons: [&dyn lab::peer::Peer; 2]) -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let mode = |side| if side == Side::A { "transport" } else { "tunnel" };
    let configured = |side| {
        let tunnel = tunnel(&lab, side, &Middle::Direct, Family::V4, mode(side));
        // Charon's ESP leads all packets between two protected hosts into its tunnel, its own IKE with them; without policies it does not.
        if side == Side::B { tunnel.with_child_option("policies = no") } else { tunnel }
    };
    let mut pair = Pair::start(&lab, daemons, configured)?;
    pair.check(|pair| {
        let refused = match pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "20"]) {
            Ok(said) => anyhow::bail!("initiated: {said}"),
            Err(error) => error.to_string(),
        };
        ensure!(refused.contains("declines transport mode"), "{refused}");
        for side in [Side::A, Side::B] {
            pair.side(side).wait_for("no CHILD SA", SOON, |sas| sas.iter().all(|sa| sa.children.is_empty()))?;
        }
        Ok(())
    })
}
