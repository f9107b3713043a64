//! The judges before the judged: other daemons with the kernel's ESP among themselves, and our user-space ESP against the kernel's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::life::{self, CHILDREN};
use lab::pair::{SOON, with_pair};
use lab::peer::charon::KernelCharon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, Peer};
use lab::topology::{FAMILIES, Family, Lab, Middle, Side};
use lab::traffic::ping::ping;
use libtest_mimic::Trial;

use crate::bench::trial;
use crate::libreswan::Libreswan;

const CHARON: KernelCharon = KernelCharon { settings: "" };
const CYGNET: Cygnet = Cygnet { extra: String::new(), log: String::new() };

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("peers::charon_and_charon_on_kernel_esp", charon_and_charon_on_kernel_esp),
        trial("peers::libreswan_and_charon_on_kernel_esp", libreswan_and_charon_on_kernel_esp),
        trial("peers::our_user_space_esp_and_libreswan", || with_libreswan(&CYGNET, life_with_libreswan)),
        trial("peers::our_user_space_esp_and_kernel_esp", our_user_space_esp_and_kernel_esp),
    ]
}

/// Every host reaches the other over the children of these families.
pub(crate) fn carries(lab: &Lab, families: &[Family]) -> Result<()> {
    for side in [Side::A, Side::B] {
        let (here, there) = (lab.site(side), lab.site(side.other()));
        for family in families {
            let (from, to) = (here.host_address(*family), there.host_address(*family));
            let answered = ping(&here.host, from, to, 4, Duration::from_secs(1))?;
            ensure!(answered == 4, "{family:?} from {side:?}: {answered} of 4 echo requests answered");
        }
    }
    Ok(())
}

fn charon_and_charon_on_kernel_esp() -> Result<()> {
    with_pair(
        &Middle::Direct,
        [&CHARON, &CHARON],
        |_, tunnel| tunnel,
        |lab, pair| {
            life::establish(pair, Side::A)?;
            let capture = lab.capture_sent()?;
            carries(lab, &FAMILIES)?;
            life::rekey_child(pair, Side::B, CHILDREN[0])?;
            carries(lab, &FAMILIES)?;
            for captured in capture.finish()? {
                let counts = captured.counts;
                ensure!(counts.esp > 0 && counts.udp_esp == 0 && counts.clear == 0, "the link carried {counts:?}");
            }
            life::delete_ike(pair, Side::A)
        },
    )
}

/// Native ESP both ways; each side rekeys once under a light stream, which loses nothing.
fn our_user_space_esp_and_kernel_esp() -> Result<()> {
    with_pair(
        &Middle::Direct,
        [&CYGNET, &CHARON],
        |_, tunnel| tunnel,
        |lab, pair| {
            life::establish(pair, Side::A)?;
            let capture = lab.capture_sent()?;
            let streams = life::streams(lab)?;
            life::rekey_child(pair, Side::A, CHILDREN[0])?;
            life::rekey_child(pair, Side::B, CHILDREN[1])?;
            life::rekey_ike(pair, Side::B)?;
            life::all_arrived(streams)?;
            for captured in capture.finish()? {
                let counts = captured.counts;
                ensure!(counts.esp > 0 && counts.udp_esp == 0 && counts.clear == 0, "the link carried {counts:?}");
            }
            life::delete_ike(pair, Side::B)
        },
    )
}

fn libreswan_and_charon_on_kernel_esp() -> Result<()> {
    with_libreswan(&CHARON, |lab, charon, libreswan| {
        libreswan.initiate()?;
        let sas = charon.wait_for("the child", SOON, |sas| sas.iter().any(|sa| sa.carries(&CHILDREN[..1])))?;
        ensure!(sas.len() == 1 && libreswan.children()?.len() == 1, "libreswan lists {:?}", libreswan.children()?);
        carries(lab, &[Family::V4])?;
        libreswan.terminate()?;
        charon.wait_for("no SA", SOON, <[_]>::is_empty).map(drop)
    })
}

/// A daemon in gateway A and libreswan in gateway B with one child, IPv4 in IPv4; when the test fails, the error carries both logs.
pub(crate) fn with_libreswan(
    peer: &dyn Peer,
    test: impl FnOnce(&Lab, &Daemon<'_>, &Libreswan<'_>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let tunnel = |side| {
        let mut tunnel = Tunnel::between(&lab, side, Family::V4);
        tunnel.children.truncate(1);
        tunnel
    };
    let daemon = Daemon::start(peer, &lab.a.gateway, &lab.directory().join("a"), &[tunnel(Side::A)])?;
    let libreswan = Libreswan::start(&lab.b.gateway, &lab.directory().join("b"), &tunnel(Side::B), "")?;
    test(&lab, &daemon, &libreswan).map_err(|error| {
        error.context(format!("log of A:\n{}\n\nlog of libreswan:\n{}", daemon.log_tail(80), libreswan.log()))
    })
}

/// The life of a tunnel between ours in gateway A and libreswan: each side rekeys the child and the IKE SA, and each deletes once.
pub(crate) fn life_with_libreswan(lab: &Lab, ours: &Daemon<'_>, libreswan: &Libreswan<'_>) -> Result<()> {
    let child = CHILDREN[0];
    let initiate = || ours.swanctl(&["--initiate", "--child", child, "--timeout", "20"]);
    initiate()?;
    carries(lab, &[Family::V4])?;
    changes(ours, libreswan, "the child rekeyed by ours", || ours.swanctl(&["--rekey", "--child", child]))?;
    changes(ours, libreswan, "the child rekeyed by libreswan", || libreswan.rekey_child())?;
    carries(lab, &[Family::V4])?;
    changes(ours, libreswan, "the IKE SA rekeyed by ours", || ours.swanctl(&["--rekey", "--ike", "site"]))?;
    changes(ours, libreswan, "the IKE SA rekeyed by libreswan", || libreswan.rekey_ike())?;
    carries(lab, &[Family::V4])?;
    libreswan.terminate()?;
    ours.wait_for("no SA", SOON, <[_]>::is_empty)?;
    initiate()?;
    carries(lab, &[Family::V4])?;
    ours.swanctl(&["--terminate", "--ike", "site", "--timeout", "20"])?;
    life::settle("libreswan without SAs", || Ok(libreswan.children()?.is_empty()))
}

/// One IKE SA and one child, by their SPIs.
#[derive(PartialEq)]
struct Spis {
    ike: (String, String),
    child: [String; 2],
}

fn spis(ours: &Daemon<'_>) -> Result<Spis> {
    let sas = ours.sas()?;
    let sa = sas.iter().find(|sa| sa.carries(&CHILDREN[..1])).context("no IKE SA with the child")?;
    let child = sa.installed(CHILDREN[0]).context("the child is not installed")?;
    Ok(Spis { ike: sa.spis.clone(), child: [child.spi_in.clone(), child.spi_out.clone()] })
}

/// Something makes both sides use other SPIs: of the child, or of the IKE SA that then carries the same child.
fn changes(
    ours: &Daemon<'_>,
    libreswan: &Libreswan<'_>,
    what: &str,
    act: impl FnOnce() -> Result<String>,
) -> Result<()> {
    let before = spis(ours)?;
    act()?;
    life::settle(what, || {
        let now = spis(ours)?;
        Ok(now != before && ours.sas()?.len() == 1 && libreswan.has(&now.child)?)
    })
}
