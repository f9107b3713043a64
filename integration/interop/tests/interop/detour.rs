//! The responder wants another key exchange method than the one begun with: INVALID_KE_PAYLOAD in IKE_SA_INIT, in rekeying a CHILD SA with PFS and
//! in rekeying the IKE SA; and both ends that begin the same tunnel at once.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::conf::Tunnel;
use lab::peer::{Daemon, audit};
use lab::process::wait_until;
use lab::relay::{Profile, Relay, both_ask, crossed};
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::{life, peers};

/// CREATE_CHILD_SA (RFC 7296 §3.1).
const CREATE_CHILD_SA: u8 = 36;
/// IKE_SA_INIT.
const IKE_SA_INIT: u8 = 34;
/// How long rekeyed SAs may linger.
const LINGER: Duration = Duration::from_secs(40);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (role, initiator) in [("we_initiate", Side::A), ("it_initiates", Side::B)] {
        trials.push(trial(format!("detour::another_group_is_wanted::{role}"), move || another_group(initiator)));
    }
    for (name, options) in [("as_it_comes", ""), ("unique_replace", "unique = replace")] {
        trials.push(trial(format!("at_once::both_initiate::{name}"), move || both_initiate(options)));
    }
    trials
}

//= RFC 7296 §1.2: INVALID_KE_PAYLOAD names the group to try again with
//= RFC 7296 §1.3: the same in CREATE_CHILD_SA
fn another_group(initiator: Side) -> Result<()> {
    let configure = |side, mut tunnel: Tunnel| {
        let groups = if side == initiator { "x25519-ecp256" } else { "ecp256" };
        tunnel.proposals = format!("aes128gcm16-prfsha256-{groups}");
        for child in &mut tunnel.children {
            child.esp_proposals = format!("aes128gcm16-{groups}");
        }
        tunnel
    };
    with_pair(&Middle::Relay(Profile::CLEAN), peers::chosen()?, configure, |lab, pair| {
        life::establish(pair, initiator)?;
        ensure!(requests(lab, 0, initiator, IKE_SA_INIT)? == 2, "no detour in IKE_SA_INIT");
        let streams = life::streams(lab)?;
        for child in life::CHILDREN {
            let skip = lab.relay.as_ref().context("no relay")?.ike_count();
            life::rekey_child(pair, initiator, child)?;
            // The group of net4, made in IKE_AUTH, is not known yet; that of net6 is.
            let wanted = if child == "net4" { 2 } else { 1 };
            let sent = requests(lab, skip, initiator, CREATE_CHILD_SA)?;
            ensure!(sent == wanted, "{sent} requests for rekeying {child}");
            for side in [Side::A, Side::B] {
                let sa = life::installed(pair, side, child)?;
                ensure!(sa.algorithms.contains("ECP_256"), "{side:?}: {sa:?}");
            }
        }
        // The group in use is known by now, so that no detour is needed; the other end never needs one.
        life::rekey_ike(pair, initiator)?;
        life::rekey_ike(pair, initiator.other())?;
        life::rekey_child(pair, initiator.other(), "net4")?;
        life::all_arrived(streams)?;
        audit::settle(&pair.a, &pair.b, &life::CHILDREN, LINGER)
    })
}

/// Different requests of an exchange that a side has sent; repetitions count once.
fn requests(lab: &Lab, skip: usize, side: Side, exchange: u8) -> Result<usize> {
    let seen = lab.relay.as_ref().context("no relay")?.ike_seen(skip);
    let sent = seen.iter().filter(|message| {
        message.exchange == exchange && !message.is_response && message.from_left == (side == Side::A)
    });
    // By what they say: IKE_SA_INIT begins anew at message 0.
    Ok(sent.map(|message| message.content).collect::<std::collections::BTreeSet<_>>().len())
}

/// Both begin before either has heard of the other: both ends agree on what stays, and it carries traffic both ways.
fn both_initiate(options: &'static str) -> Result<()> {
    let configure = |_, mut tunnel: Tunnel| {
        tunnel.options.extend(options.lines().map(str::to_owned));
        tunnel.children.retain(|child| child.name == "net4");
        tunnel
    };
    let path = Profile { delay: Duration::from_millis(25), ..Profile::CLEAN };
    with_pair(&Middle::Relay(path), peers::chosen()?, configure, |lab, pair| {
        let relay = lab.relay.as_ref().context("no relay")?;
        at_once(pair, relay)?;
        let begun = relay.ike_seen(0);
        ensure!(crossed(&begun, &[IKE_SA_INIT]), "they did not cross: {begun:?}");
        let (source, target) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
        ensure!(ping::answers_within(&lab.a.host, source, target, SOON)?, "no answer from B");
        ensure!(ping::answers_within(&lab.b.host, target, source, SOON)?, "no answer from A");
        // Whoever is the last to be told of the other's INITIAL_CONTACT decides how many stay; what matters is that both know the same.
        life::settle("both ends know the same", || agreed(pair))?;
        // Everything goes on from there: rekeys, and one end closes all.
        pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
        for side in [Side::A, Side::B] {
            pair.side(side).wait_for("no SA", SOON, <[_]>::is_empty)?;
        }
        Ok(())
    })
}

/// The path keeps both requests back until both are there.
fn at_once(pair: &Pair<'_>, relay: &Relay) -> Result<()> {
    relay.hold_ike(true);
    let together = Barrier::new(2);
    let initiate = |daemon: &Daemon<'_>| {
        together.wait();
        // One of them may be told that its IKE SA was replaced by the other's.
        let _ = daemon.swanctl(&["--initiate", "--child", "net4", "--timeout", "30"]);
    };
    thread::scope(|scope| {
        scope.spawn(|| initiate(&pair.b));
        scope.spawn(|| initiate(&pair.a));
        let asked = wait_until(SOON, || both_ask(&relay.ike_seen(0), &[IKE_SA_INIT]));
        relay.hold_ike(false);
        ensure!(asked, "not both have asked: {:?}", relay.ike_seen(0));
        Ok(())
    })
}

fn agreed(pair: &Pair<'_>) -> Result<bool> {
    let (a, b) = (pair.a.sas()?, pair.b.sas()?);
    let established = a.iter().chain(&b).all(|sa| sa.state == "ESTABLISHED");
    Ok(!a.is_empty() && established && audit::in_pairs(&a, &b).is_empty())
}
