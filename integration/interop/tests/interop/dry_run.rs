//! `swanctl --load-all --dry-run`: what it says for each connection is what the load then does.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use lab::peer::Client;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::life::{CHILDREN, settle};

const CYGNET: Cygnet = Cygnet { extra: String::new(), log: String::new() };

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("dry_run::foretells_the_load", || {
        let started = |side, tunnel: Tunnel| match side {
            Side::A => tunnel.with_child_option("start_action = start"),
            Side::B => tunnel,
        };
        with_pair(&Middle::Direct, [&CYGNET, &CYGNET], started, foretells_the_load)
    })]
}

/// Numbers of all SAs that are up.
fn up(pair: &Pair<'_>) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for ike in pair.a.sas()? {
        ids.insert(format!("ike {}", ike.unique_id));
        let live = ike.children.iter().filter(|child| child.state == "INSTALLED");
        ids.extend(live.map(|child| format!("child {}", child.unique_id)));
    }
    Ok(ids)
}

/// Writes the tunnels, checks what the dry run says and that it does nothing, loads them, and checks that as many SAs are new.
fn step(pair: &Pair<'_>, tunnels: &[Tunnel], lines: &str, code: i32, renewed: usize) -> Result<()> {
    let before = up(pair)?;
    pair.a.write_tunnels(tunnels)?;
    let output = pair.a.swanctl_output(Client::Cygnet, &["--load-all", "--dry-run"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said == lines, "it says {said:?}, expected {lines:?}: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(code), "ended with {}", output.status);
    ensure!(up(pair)? == before, "the dry run has done something");
    pair.a.load()?;
    settle(&format!("after {lines:?}: {renewed} SAs are new"), || {
        let after = up(pair)?;
        Ok(after.len() == before.len() && after.difference(&before).count() == renewed)
    })
}

fn foretells_the_load(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let both = |sas: &[lab::peer::sas::IkeSa]| matches!(sas, [sa] if sa.carries(&CHILDREN));
    pair.a.wait_for("one IKE SA with both children", SOON, both)?;
    let tunnel = Tunnel::between(lab, Side::A, Family::V4).with_child_option("start_action = start");
    step(pair, std::slice::from_ref(&tunnel), "site: unchanged\n", 0, 0)?;
    let mut settings = tunnel.clone();
    settings.options.push("dpd_delay = 30s".into());
    step(pair, std::slice::from_ref(&settings), "site: updated, SAs stay (settings)\n", 0, 0)?;
    let mut child = settings.clone();
    if let Some(first) = child.children.first_mut() {
        first.options.push("replay_window = 128".into());
    }
    step(pair, std::slice::from_ref(&child), "site: updated, 1 SA restart (changed net4)\n", 3, 1)?;
    let mut encap = child.clone();
    encap.encap = true;
    let mut other = tunnel.clone();
    (other.name, other.remote) = ("other".into(), "192.0.2.77".into());
    other.remote_id = "elsewhere.example".into();
    other.children.iter_mut().for_each(|child| child.options.clear());
    step(pair, &[encap.clone(), other], "site: replaced, 3 SAs restart\nother: new\n", 3, 3)?;
    step(pair, std::slice::from_ref(&encap), "site: unchanged\nother: removed\n", 0, 0)?;
    Ok(())
}
