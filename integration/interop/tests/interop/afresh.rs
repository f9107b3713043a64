//! IKE SAs that begin without a child (RFC 6023), that are authenticated afresh (RFC 4478), and that replace those of a peer which has died.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::peer::Peer;
use lab::peer::charon::{Charon, TunedCharon};
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::sas::IkeSa;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::life;

/// Until something timed has happened, with room for a busy machine.
const LATER: Duration = Duration::from_secs(60);

/// An authentication of ours holds for this long.
const LIMITED: &str = "reauth_time = 15s\nrekey_time = 0\nover_time = 5s\nrand_time = 0";

type Test = fn(&Lab, &mut Pair<'_>) -> Result<()>;

pub(crate) fn trials() -> Vec<Trial> {
    // Name, keys of our connection, keys of charon's, make-before-break at both, test.
    let tests: [(&str, &str, &str, bool, Test); 10] = [
        ("childless::we_force_it", "childless = force", "", true, we_initiate),
        ("childless::we_prefer_it", "childless = prefer", "childless = force", true, we_initiate),
        ("childless::it_forces_it", "", "childless = force", true, it_initiates),
        ("childless::it_refuses_a_first_child", "", "childless = force", true, it_refuses),
        ("childless::we_refuse_a_first_child", "childless = force", "", true, we_refuse),
        ("reauthentication::by_us", "", "", true, by_us),
        ("reauthentication::by_us::break_before_make", "", "", false, by_us),
        ("reauthentication::by_it", "", "", true, by_it),
        ("reauthentication::told_by_us", LIMITED, "over_time = 5s", true, told_by_us),
        ("unique_replace::it_is_killed_and_comes_back", "unique = replace", "", true, it_comes_back),
    ];
    let run = |ours: &'static str, its: &'static str, make_before_break: bool, test: Test| {
        move || {
            let extra = format!("[ike]\nmake_before_break = {make_before_break}\n");
            let cygnet = Cygnet { extra, log: String::new() };
            let charon: &dyn Peer =
                if make_before_break { &TunedCharon { settings: "make_before_break = yes" } } else { &Charon };
            let configure = |side: Side, mut tunnel: Tunnel| {
                let options = if side == Side::A { ours } else { its };
                tunnel.options.extend(options.lines().map(str::to_owned));
                tunnel
            };
            with_pair(&Middle::Direct, [&cygnet, charon], configure, test)
        }
    };
    tests
        .into_iter()
        .map(|(name, ours, its, make_before_break, test)| {
            trial(format!("afresh::{name}"), run(ours, its, make_before_break, test))
        })
        .collect()
}

fn answers(lab: &Lab) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let (source, target) = (lab.a.host_address(family), lab.b.host_address(family));
        ensure!(ping::ping(&lab.a.host, source, target, 3, ping::PATIENCE)? == 3, "no answer over {family:?}");
    }
    Ok(())
}

fn we_initiate(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    answers(lab)
}

fn it_initiates(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::B)?;
    answers(lab)
}

fn it_refuses(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let failed = pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "30"]);
    ensure!(failed.is_err(), "charon took a first child");
    pair.a.wait_for("no SA", SOON, <[IkeSa]>::is_empty)?;
    Ok(())
}

fn we_refuse(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let failed = pair.b.swanctl(&["--initiate", "--child", "net4", "--timeout", "30"]);
    ensure!(failed.is_err(), "we took a first child");
    pair.a.wait_for("no SA", SOON, <[IkeSa]>::is_empty)?;
    ensure!(pair.a.log().contains("childless = force"), "the log does not say why");
    Ok(())
}

/// The one established IKE SA of both sides, with both children.
fn only(pair: &Pair<'_>) -> Result<(String, String)> {
    let mut spis = Vec::new();
    for side in [Side::A, Side::B] {
        let sas = pair.side(side).wait_for("one IKE SA with both children", LATER, |sas| {
            let up: Vec<&IkeSa> = sas.iter().filter(|sa| sa.state == "ESTABLISHED").collect();
            matches!(up[..], [sa] if sa.carries(&life::CHILDREN)) && sas.len() == 1
        })?;
        spis.extend(sas.into_iter().map(|sa| sa.spis));
    }
    let first = spis.remove(0);
    ensure!(spis == [first.clone()], "another IKE SA at the other side: {first:?} {spis:?}");
    Ok(first)
}

fn reauthenticate(lab: &Lab, pair: &mut Pair<'_>, from: Side) -> Result<()> {
    life::establish(pair, from)?;
    let before = only(pair)?;
    pair.side(from).swanctl(&["--rekey", "--ike", "site", "--reauth"])?;
    life::settle("another IKE SA with both children", || Ok(only(pair)? != before))?;
    answers(lab)
}

fn by_us(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    reauthenticate(lab, pair, Side::A)
}

fn by_it(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    reauthenticate(lab, pair, Side::B)
}

/// We limit the authentication and tell charon, which repeats it before we do.
//= RFC 4478 §2: the initiator repeats the initial exchange within the time that it was told
fn told_by_us(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::B)?;
    let before = only(pair)?;
    ensure!(pair.b.log().contains("received AUTH_LIFETIME of "), "charon was not told");
    pair.a.wait_for("another IKE SA that charon began", LATER, |sas| {
        sas.iter().any(|sa| sa.state == "ESTABLISHED" && !sa.initiator && sa.spis != before)
    })?;
    only(pair)?;
    answers(lab)
}

/// charon is killed and initiates when it is back: its INITIAL_CONTACT ends what it has forgotten, and traffic flows at once.
fn it_comes_back(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    let before = only(pair)?;
    pair.b.process().kill()?;
    pair.b.restart()?;
    for child in life::CHILDREN {
        pair.b.swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
    }
    answers(lab)?;
    ensure!(only(pair)? != before, "the IKE SA that charon has forgotten is still there");
    Ok(())
}
