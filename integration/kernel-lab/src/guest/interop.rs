//! Ours on the kernel backend against Debian 13's strongSwan and libreswan, all on the kernel's ESP; strongSwan also with packet offload.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::life;
use lab::pair::Pair;
use lab::peer::Peer;
use lab::peer::charon::KernelCharon;
use lab::peer::conf::Tunnel;
use lab::topology::{Family, Side};
use lab::traffic::stream::{self, Load};
use libtest_mimic::Trial;

use crate::bench::{ip, trial};
use crate::ground::{Ground, RUNGS, Rung, child, ours, rung_of};
use crate::peers::{self, life_with_libreswan, with_libreswan};
use crate::tunnel::only_esp;

const CHARON: KernelCharon = KernelCharon { settings: "" };

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial("interop::libreswan::life", || with_libreswan(&ours(), life_with_libreswan))];
    for rung in RUNGS {
        trials.push(trial(&format!("interop::charon::{}::life", rung.name()), move || with_charon(rung, rung)));
    }
    trials.push(trial("interop::charon::packet::we_in_software", || with_charon(Rung::Software, Rung::Packet)));
    trials.push(trial("interop::charon::software::we_in_packet_offload", || with_charon(Rung::Packet, Rung::Software)));
    trials
}

/// Either side may have less than the device: ours in gateway A on one rung, charon in gateway B on another. Each initiates once, rekeys the
/// child under streams that lose nothing, rekeys the IKE SA, and deletes once.
fn with_charon(own: Rung, its: Rung) -> Result<()> {
    let over = if own == its { own } else { Rung::Packet };
    let ground = Ground::new(over)?;
    let families = over.inside(Family::V4);
    let children: Vec<&str> = families.iter().copied().map(child).collect();
    let rungs = |side, mut tunnel: Tunnel| {
        let rung = if side == Side::A { own } else { its };
        for child in &mut tunnel.children {
            child.options.retain(|option| !option.starts_with("hw_offload"));
        }
        tunnel.with_child_option(rung.option())
    };
    let ours = ours();
    let peers: [&dyn Peer; 2] = [&ours, &CHARON];
    ground.with_pair(peers, rungs, |ground, pair| {
        for initiator in [Side::A, Side::B] {
            let wire = ground.wire()?;
            life::establish_all(pair, initiator, &children)?;
            for (side, rung) in [(Side::A, own), (Side::B, its)] {
                holds(ground, pair, side, rung)?;
            }
            peers::carries(&ground.lab, &families)?;
            let loads: Vec<Load> =
                families.iter().map(|family| Load { octets: 400, rate: 40.0, family: *family }).collect();
            let streams = stream::start_both_ways(&ground.lab.a, &ground.lab.b, &loads)?;
            for name in &children {
                life::rekey_child(pair, Side::A, name)?;
                life::rekey_child(pair, Side::B, name)?;
            }
            std::thread::sleep(Duration::from_millis(300));
            life::all_arrived(streams)?;
            life::rekey_ike_with(pair, initiator.other(), &children)?;
            peers::carries(&ground.lab, &families)?;
            only_esp(&wire.finish()?)?;
            life::delete_ike(pair, initiator)?;
        }
        Ok(())
    })
}

/// The kernel of a side has the SAs of its children on this rung.
fn holds(ground: &Ground, pair: &Pair<'_>, side: Side, rung: Rung) -> Result<()> {
    let states = ip(&ground.lab.site(side).gateway, "xfrm state")?;
    for sa in pair.side(side).sas()?.iter().flat_map(|sa| &sa.children) {
        for spi in [&sa.spi_in, &sa.spi_out] {
            ensure!(rung_of(&states, spi) == Some(rung), "{spi} of {side:?} is not on {rung:?}:\n{states}");
        }
    }
    Ok(())
}
