//! Several children below one IKE SA and several selectors of one child, each with traffic of its own; IPv6 outside; reload on either side.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::peer::audit;
use lab::peer::conf::{Child, Tunnel};
use lab::topology::{FAMILIES, Family, HOST, LAN, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::{life, peers};

const SIDES: [Side; 2] = [Side::A, Side::B];
/// Further networks on each side, beyond that of the lab.
const NETWORKS: [u8; 3] = [11, 12, 13];
/// Pings over each way.
const PINGS: u16 = 3;
/// How long rekeyed SAs may linger.
const LINGER: Duration = Duration::from_secs(45);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (role, initiator) in [("we_initiate", Side::A), ("it_initiates", Side::B)] {
        trials.push(trial(format!("several::children_each_with_traffic::{role}"), move || children(initiator)));
        trials.push(trial(format!("several::selectors_each_with_traffic::{role}"), move || selectors(initiator)));
        trials.push(trial(format!("several::ipv4_and_ipv6_in_ipv6::{role}"), move || in_ipv6(initiator)));
        trials.push(trial(format!("several::reload_touches_nothing_that_stands::{role}"), move || reload(initiator)));
    }
    trials
}

fn number(side: Side) -> u8 {
    match side {
        Side::A => 1,
        Side::B => 2,
    }
}

fn subnet(side: Side, network: u8) -> String {
    format!("10.{}.{network}.0/24", number(side))
}

fn host(side: Side, network: u8) -> IpAddr {
    IpAddr::from([10, number(side), network, 10])
}

/// Gives both LANs the further networks.
fn widen(lab: &Lab) -> Result<()> {
    for (side, network) in SIDES.into_iter().flat_map(|side| NETWORKS.map(|network| (side, network))) {
        let (site, number) = (lab.site(side), number(side));
        site.host.ip(&["address", "add", &format!("10.{number}.{network}.10/24"), "dev", HOST])?;
        site.gateway.ip(&["address", "add", &format!("10.{number}.{network}.1/24"), "dev", LAN])?;
    }
    Ok(())
}

fn child(name: &str, side: Side, networks: &[u8]) -> Child {
    let list = |side| networks.iter().map(|network| subnet(side, *network)).collect::<Vec<_>>().join(",");
    Child {
        name: name.into(),
        local_ts: list(side),
        remote_ts: list(side.other()),
        esp_proposals: "aes128gcm16-x25519".into(),
        options: Vec::new(),
    }
}

fn name(network: u8) -> String {
    format!("net{network}")
}

fn pings(lab: &Lab, from: u8, to: u8, patience: Duration) -> Result<u16> {
    ping::ping(&lab.a.host, host(Side::A, from), host(Side::B, to), PINGS, patience)
}

fn all_answer(lab: &Lab, pairs: impl IntoIterator<Item = (u8, u8)>) -> Result<()> {
    for (from, to) in pairs {
        let answered = pings(lab, from, to, ping::PATIENCE)?;
        ensure!(answered == PINGS, "network {from} to {to}: {answered} of {PINGS} answered");
    }
    Ok(())
}

/// Three children; each carries what is its own and nothing else, through rekeys from both ends and the end of one of them.
fn children(initiator: Side) -> Result<()> {
    let configure = |side, mut tunnel: Tunnel| {
        tunnel.children = NETWORKS.map(|network| child(&name(network), side, &[network])).into();
        tunnel
    };
    let names = NETWORKS.map(name);
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    with_pair(&Middle::Direct, peers::chosen()?, configure, |lab, pair| {
        widen(lab)?;
        for name in &names {
            pair.side(initiator).swanctl(&["--initiate", "--child", name, "--timeout", "30"])?;
        }
        audit::settle(&pair.a, &pair.b, &names, LINGER)?;
        all_answer(lab, NETWORKS.map(|network| (network, network)))?;
        for (side, name) in SIDES.into_iter().flat_map(|side| names.iter().map(move |name| (side, name))) {
            let sa = life::installed(pair, side, name)?;
            let exact = u64::from(PINGS);
            ensure!((sa.packets_in, sa.packets_out) == (exact, exact), "{name} at {side:?} carried {sa:?}");
        }
        for (name, side) in names.iter().zip([Side::A, Side::B, Side::A]) {
            life::rekey_child(pair, side, name)?;
        }
        all_answer(lab, NETWORKS.map(|network| (network, network)))?;
        let ended = names.remove(1);
        pair.side(initiator.other()).swanctl(&["--terminate", "--child", ended, "--timeout", "30"])?;
        audit::settle(&pair.a, &pair.b, &names, LINGER)?;
        all_answer(lab, [11, 13].map(|network| (network, network)))?;
        ensure!(pings(lab, 12, 12, Duration::from_secs(1))? == 0, "the closed child still carries traffic");
        Ok(())
    })
}

/// One child with two networks on each side: all four ways.
fn selectors(initiator: Side) -> Result<()> {
    let configure = |side, mut tunnel: Tunnel| {
        tunnel.children = vec![child("wide", side, &[11, 12])];
        tunnel
    };
    with_pair(&Middle::Direct, peers::chosen()?, configure, |lab, pair| {
        widen(lab)?;
        let ways = || [11, 12].into_iter().flat_map(|from| [11, 12].map(|to| (from, to)));
        pair.side(initiator).swanctl(&["--initiate", "--child", "wide", "--timeout", "30"])?;
        all_answer(lab, ways())?;
        for side in SIDES {
            life::rekey_child(pair, side, "wide")?;
            all_answer(lab, ways())?;
        }
        let sa = life::installed(pair, Side::A, "wide")?;
        ensure!(sa.packets_in == 4 * u64::from(PINGS), "{sa:?}");
        // Networks that are not selected are nobody's business: they go the way of all routed packets.
        pings(lab, 13, 13, Duration::from_secs(1))?;
        ensure!(life::installed(pair, Side::A, "wide")?.packets_out == sa.packets_out, "not selected, and encrypted");
        audit::settle(&pair.a, &pair.b, &["wide"], LINGER)
    })
}

/// Both families of traffic below an IKE SA between IPv6 addresses, through every rekey.
fn in_ipv6(initiator: Side) -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let mut pair = Pair::start(&lab, peers::chosen()?, |side| Tunnel::between(&lab, side, Family::V6))?;
    pair.check(|pair| {
        let capture = lab.capture()?;
        life::establish(pair, initiator)?;
        let streams = life::streams(&lab)?;
        for side in SIDES {
            for child in life::CHILDREN {
                life::rekey_child(pair, side, child)?;
            }
            life::rekey_ike(pair, side)?;
        }
        let sent = life::all_arrived(streams)?;
        for family in FAMILIES {
            let (source, target) = (lab.b.host_address(family), lab.a.host_address(family));
            ensure!(ping::answers_within(&lab.b.host, source, target, SOON)?, "{family:?}: no answer");
        }
        life::delete_ike(pair, initiator.other())?;
        for captured in capture.finish()? {
            let counts = &captured.counts;
            ensure!(counts.clear == 0 && captured.missed() == 0, "{counts}; missed {}", captured.missed());
            ensure!(counts.esp + counts.udp_esp >= sent, "{counts} for {sent} packets");
        }
        Ok(())
    })
}

/// Both sides learn of a further child, one after the other, while the others carry traffic.
fn reload(initiator: Side) -> Result<()> {
    with_pair(
        &Middle::Direct,
        peers::chosen()?,
        |_, tunnel| tunnel,
        |lab, pair| {
            widen(lab)?;
            life::establish(pair, initiator)?;
            let before = life::CHILDREN.map(|child| life::installed(pair, Side::A, child));
            let streams = life::streams(lab)?;
            for side in [initiator.other(), initiator] {
                let mut tunnel = Tunnel::between(lab, side, Family::V4);
                tunnel.children.push(child("net11", side, &[11]));
                // Charon would begin another IKE SA for its new child.
                if side == Side::A {
                    tunnel.options.push("dpd_delay = 20s".into());
                }
                pair.side(side).write_tunnels(&[tunnel])?;
                pair.side(side).load()?;
            }
            pair.side(initiator).swanctl(&["--initiate", "--child", "net11", "--timeout", "30"])?;
            all_answer(lab, [(11, 11)])?;
            life::all_arrived(streams)?;
            for (child, before) in life::CHILDREN.iter().zip(before) {
                let (before, now) = (before?, life::installed(pair, Side::A, child)?);
                ensure!(now.unique_id == before.unique_id && now.spi_in == before.spi_in, "{child} was replaced");
            }
            audit::settle(&pair.a, &pair.b, &["net4", "net6", "net11"], LINGER)
        },
    )
}
