//! Debian's `swanctl` drives our daemon: every command it has that we offer, its output read as a monitoring script would.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::Client;
use lab::peer::conf::Tunnel;
use lab::peer::sas;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::{life, peers};

type Test = fn(Client, &Lab, &mut Pair<'_>) -> Result<()>;

/// Debian 12's `swanctl` 5.9.8 and Debian 13's 6.0.1.
pub(crate) const CLIENTS: [(&str, Client); 2] = [("5_9", Client::Debian), ("6_0", Client::Debian13)];

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, Test); 6] = [
        ("version_and_stats", version_and_stats),
        ("load_all_and_list_conns", load_all_and_list_conns),
        ("initiate_list_rekey_terminate", initiate_list_rekey_terminate),
        ("install_and_uninstall", install_and_uninstall),
        ("load_all_twice_touches_no_sa", load_all_twice_touches_no_sa),
        ("failures_have_a_cause_and_an_exit_code", failures_have_a_cause_and_an_exit_code),
    ];
    let run = |client: Client, test: Test| {
        move || with_pair(&Middle::Direct, peers::ours()?, |_, tunnel| tunnel, |lab, pair| test(client, lab, pair))
    };
    let of = |(version, client): (&str, Client)| {
        tests.map(|(name, test)| trial(format!("debian_swanctl_{version}::{name}"), run(client, test)))
    };
    CLIENTS.into_iter().flat_map(of).collect()
}

/// Each word must stand in the text.
fn contains_all(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no {word:?} in:\n{text}");
    }
    Ok(())
}

fn version_and_stats(client: Client, _: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    contains_all(&pair.a.swanctl_of(client, &["--version", "--daemon"])?, &["Linux"])?;
    contains_all(&pair.a.swanctl_of(client, &["--stats"])?, &["uptime:", "IKE_SAs: 0 total"])?;
    contains_all(&pair.a.swanctl_of(client, &["--stats", "--raw"])?, &["uptime {", "ikesas {"])
}

fn load_all_and_list_conns(client: Client, lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    contains_all(
        &pair.a.swanctl_of(client, &["--load-all", "--noprompt"])?,
        &["loaded ike secret 'ike-site'", "loaded connection 'site'", "successfully loaded 1 connections"],
    )?;
    let (a, b) = (lab.a.outer_address(Family::V4).to_string(), lab.b.outer_address(Family::V4).to_string());
    let list = pair.a.swanctl_of(client, &["--list-conns"])?;
    contains_all(
        &list,
        &[
            "site: IKEv2",
            &a,
            &b,
            "pre-shared key",
            "gw-a.example",
            "gw-b.example",
            "net4: TUNNEL",
            "net6: TUNNEL",
            "10.1.0.0/24",
        ],
    )?;
    // A second connection comes and goes with the file.
    let own = Tunnel::between(lab, Side::A, Family::V4);
    let mut second = own.clone();
    second.name = "second".into();
    second.children.truncate(1);
    for child in &mut second.children {
        child.name = "other".into();
        child.remote_ts = "10.99.0.0/24".into();
    }
    pair.a.write_tunnels(&[own.clone(), second])?;
    contains_all(&pair.a.swanctl_of(client, &["--load-all", "--noprompt"])?, &["successfully loaded 2 connections"])?;
    pair.a.write_tunnels(&[own])?;
    contains_all(
        &pair.a.swanctl_of(client, &["--load-all", "--noprompt"])?,
        &["successfully loaded 1 connections, 1 unloaded"],
    )?;
    ensure!(
        !pair.a.swanctl_of(client, &["--list-conns"])?.contains("second"),
        "the unloaded connection is still listed"
    );
    Ok(())
}

fn initiate_list_rekey_terminate(client: Client, lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    for child in life::CHILDREN {
        contains_all(
            &pair.a.swanctl_of(client, &["--initiate", "--child", child, "--timeout", "30"])?,
            &["initiate completed successfully"],
        )?;
    }
    let (source, target) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
    ensure!(ping::ping(&lab.a.host, source, target, 3, ping::PATIENCE)? == 3, "ping");
    for daemon in [&pair.a, &pair.b] {
        let list = daemon.swanctl_of(client, &["--list-sas"])?;
        let words = [
            "site: #",
            "ESTABLISHED, IKEv2",
            "'gw-a.example' @ 192.0.2.1[",
            "'gw-b.example' @ 192.0.2.2[",
            "established ",
            "net4: #",
            "INSTALLED, TUNNEL",
            "ESP:AES_GCM_16-128",
            "installed ",
            "local  10.",
            "remote 10.",
        ];
        contains_all(&list, &words)?;
        ensure!(
            list.lines().any(|line| line.trim_start().starts_with("in  ") && line.contains(" 3 packets")),
            "three packets in:\n{list}"
        );
    }
    let raw = pair.a.swanctl_of(client, &["--list-sas", "--raw"])?;
    let parsed = sas::ike_sas(&sas::Node::parse_all(&raw));
    let ours = pair.a.sas()?;
    ensure!(parsed.len() == 1 && ours.len() == 1, "both clients see one IKE SA: {parsed:#?} {ours:#?}");
    let spis = |sas: &[sas::IkeSa]| {
        sas.iter().flat_map(|sa| &sa.children).map(|child| child.spi_in.clone()).collect::<Vec<_>>()
    };
    ensure!(spis(&parsed) == spis(&ours), "both clients see the same CHILD SAs: {parsed:#?} {ours:#?}");
    let before = life::installed(pair, Side::A, "net4")?;
    contains_all(&pair.a.swanctl_of(client, &["--rekey", "--child", "net4"])?, &["rekey completed successfully"])?;
    life::settle("a new CHILD SA", || Ok(life::installed(pair, Side::B, "net4")?.spi_out != before.spi_in))?;
    contains_all(&pair.b.swanctl_of(client, &["--rekey", "--ike", "site"])?, &["rekey completed successfully"])?;
    contains_all(
        &pair.b.swanctl_of(client, &["--terminate", "--child", "net6", "--timeout", "30"])?,
        &["terminate completed successfully"],
    )?;
    contains_all(
        &pair.a.swanctl_of(client, &["--terminate", "--ike", "site", "--timeout", "30"])?,
        &["terminate completed successfully"],
    )?;
    for daemon in [&pair.a, &pair.b] {
        daemon.wait_for("no SA", SOON, <[_]>::is_empty)?;
    }
    Ok(())
}

fn install_and_uninstall(client: Client, lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    ensure!(!pair.a.swanctl_of(client, &["--list-pols"])?.contains("net4"), "a policy before anything was installed");
    contains_all(&pair.a.swanctl_of(client, &["--install", "--child", "net4"])?, &["install completed successfully"])?;
    // Since 6.0 the reqid stands between the two.
    contains_all(
        &pair.a.swanctl_of(client, &["--list-pols", "--trap"])?,
        &["site/net4, ", "TUNNEL", "local:  10.1.0.0/24", "remote: 10.2.0.0/24"],
    )?;
    let (source, target) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
    ensure!(ping::ping(&lab.a.host, source, target, 1, ping::PATIENCE)? == 1, "the trap did not bring the tunnel up");
    pair.a.swanctl_of(client, &["--terminate", "--ike", "site", "--timeout", "30"])?;
    contains_all(
        &pair.a.swanctl_of(client, &["--uninstall", "--child", "net4"])?,
        &["uninstall completed successfully"],
    )?;
    ensure!(!pair.a.swanctl_of(client, &["--list-pols"])?.contains("net4"), "the policy is still listed");
    ensure!(
        ping::ping(&lab.a.host, source, target, 1, Duration::from_secs(1))? == 0,
        "something still brings the tunnel up"
    );
    Ok(())
}

fn load_all_twice_touches_no_sa(client: Client, lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::establish(pair, Side::A)?;
    let before = (life::installed(pair, Side::A, "net4")?, life::installed(pair, Side::A, "net6")?);
    let same = |pair: &Pair<'_>, child: &str, spi: &str| {
        life::installed(pair, Side::A, child).is_ok_and(|found| found.spi_in == spi)
    };
    for client in [client, Client::Cygnet] {
        pair.a.swanctl_of(client, &["--load-all", "--noprompt"])?;
        std::thread::sleep(Duration::from_millis(300));
        ensure!(
            same(pair, "net4", &before.0.spi_in) && same(pair, "net6", &before.1.spi_in),
            "{client:?}: an SA was touched by an unchanged file"
        );
    }
    let mut changed = Tunnel::between(lab, Side::A, Family::V4);
    let child = changed.children.last_mut().context("a child")?;
    child.options.push("rekey_time = 30m".into());
    pair.a.write_tunnels(&[changed])?;
    pair.a.swanctl_of(client, &["--load-all", "--noprompt"])?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(same(pair, "net4", &before.0.spi_in), "the unchanged child was touched");
    contains_all(&pair.a.swanctl_of(client, &["--list-conns"])?, &["rekeying every 1800s"])
}

fn failures_have_a_cause_and_an_exit_code(client: Client, lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let unknown = pair.a.swanctl_output(client, &["--initiate", "--child", "nothing", "--timeout", "2"])?;
    ensure!(!unknown.status.success(), "an unknown child was initiated");
    contains_all(&String::from_utf8_lossy(&unknown.stderr), &["CHILD_SA config 'nothing' not found"])?;
    let nothing = pair.a.swanctl_output(client, &["--terminate", "--ike", "site"])?;
    ensure!(!nothing.status.success(), "nothing was terminated with success");
    // The peer offers nothing that fits: the reason comes back to the one who asked.
    let mut other = Tunnel::between(lab, Side::B, Family::V4);
    other.proposals = "chacha20poly1305-prfsha256-ecp384".into();
    pair.b.write_tunnels(&[other])?;
    pair.b.load()?;
    let refused = pair.a.swanctl_output(client, &["--initiate", "--child", "net4", "--timeout", "5"])?;
    ensure!(!refused.status.success(), "an initiation without a common proposal succeeded");
    let said = String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
    contains_all(&said, &["NO_PROPOSAL_CHOSEN"])
}
