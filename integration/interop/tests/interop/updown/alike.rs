//! The same script told by charon and by Cygnet, of the same tunnels with the same peers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use lab::life;
use lab::peer::Peer;
use lab::peer::charon::{Charon, TunedCharon};
use lab::peer::conf::{Child, Tunnel};
use lab::peer::cygnet::Cygnet;
use lab::peer::sas::IkeSa;
use lab::topology::{self, Family, Lab, Middle, Side};
use libtest_mimic::Trial;

use super::{Call, Record, verbs};
use crate::harness::{Pair, SOON, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("updown::a_life_is_told_as_charon_tells_it", a_life),
        trial("updown::selectors_and_identities_are_told_as_charon_tells_them", selectors),
    ]
}

fn charon() -> TunedCharon {
    TunedCharon {
        settings: "make_before_break = yes\n  delete_rekeyed_delay = 1\n  retransmit_tries = 1\n  retransmit_timeout = 0.5",
    }
}

fn cygnet() -> Cygnet {
    let extra = "[ike]\nmake_before_break = true\ndelete_rekeyed_delay = 1\nretransmit_tries = 1\nretransmit_timeout = \"500ms\"\n".to_owned();
    Cygnet { extra, log: String::new() }
}

/// What strongSwan knows of, besides what is `left_out`; anything else that is told begins with our name.
fn compare(theirs: &[Call], ours: &[Call], left_out: &[&str]) -> Result<()> {
    let strongswan = |call: &Call| -> (String, BTreeMap<String, String>) {
        let known = call.environment.clone().into_iter().filter(|(name, _)| name.starts_with("PLUTO_"));
        (call.argument.clone(), known.filter(|(name, _)| !left_out.contains(&name.as_str())).collect())
    };
    for (step, (their, our)) in theirs.iter().zip(ours).enumerate() {
        ensure!(strongswan(their) == strongswan(our), "call {step}: charon told {their:#?}, we {our:#?}");
    }
    ensure!(theirs.len() == ours.len(), "charon: {:#?}\nwe: {:#?}", verbs(theirs), verbs(ours));
    for call in ours {
        let others = call.environment.keys().filter(|name| !name.starts_with("PLUTO_") && !name.starts_with("CYGNET_"));
        ensure!(others.eq(["PATH"]), "there is more in the environment: {call:#?}");
    }
    Ok(())
}

fn a_life() -> Result<()> {
    let (mut theirs, mut ours) = (life_of(&charon())?, life_of(&cygnet())?);
    // The children of an IKE SA have no order among each other; which step a call belongs to is known.
    theirs.sort_by_key(|call| call.value("PLUTO_CONNECTION").to_owned());
    ours.sort_by_key(|call| call.value("PLUTO_CONNECTION").to_owned());
    // A reqid that was set free is given out again by charon, a new one by us.
    compare(&theirs, &ours, &["PLUTO_REQID"])?;
    ends_have_the_reqid_of_their_beginnings(&ours)?;
    // The causes, which only we tell, in the order of the ends: authenticated afresh, by an operator, by the peer, dead, and our own end.
    let net4 = ours.iter().filter(|call| call.value("PLUTO_CONNECTION") == "net4");
    let mut causes: Vec<&str> = net4.map(|call| call.value("CYGNET_CAUSE")).collect();
    causes.dedup();
    let expected =
        ["", "replaced", "operator", "", "peer-deleted", "", "operator", "", "peer-unreachable", "", "shutdown"];
    ensure!(causes == expected, "{causes:?}");
    Ok(())
}

fn ends_have_the_reqid_of_their_beginnings(calls: &[Call]) -> Result<()> {
    for (at, down) in calls.iter().enumerate().filter(|(_, call)| call.value("PLUTO_VERB").starts_with("down")) {
        let about = |call: &&Call| ["PLUTO_CONNECTION", "PLUTO_MY_CLIENT"].map(|name| call.value(name).to_owned());
        let before = calls.iter().take(at).filter(|call| call.value("PLUTO_VERB").starts_with("up"));
        let known = before
            .filter(|up| about(up) == about(&down))
            .any(|up| up.value("PLUTO_REQID") == down.value("PLUTO_REQID"));
        ensure!(known, "no beginning with the reqid of {down:#?}");
    }
    Ok(())
}

/// Everything that a tunnel may go through, told to a script of the daemon in gateway A.
fn life_of(peer: &dyn Peer) -> Result<Vec<Call>> {
    let lab = Lab::new(&Middle::Direct)?;
    // charon wants an address of its own in each.
    lab.a.gateway.ip(&["address", "add", "10.1.0.129/25", "dev", topology::LAN])?;
    let record = Record::new(lab.directory())?;
    let tunnel = |side, argument: &str| told_tunnel(&lab, side, &record, argument);
    let mut pair = Pair::start(&lab, [peer, &Charon], |side| tunnel(side, "first"))?;
    pair.check(|pair| {
        through_life(pair, &record, &tunnel(Side::A, "second"))?;
        Ok(())
    })?;
    Ok(record.calls())
}

/// Two pairs of selectors in one child and one in the other; charon's user-space ESP always goes in UDP, and so does ours then.
fn told_tunnel(lab: &Lab, side: Side, record: &Record, argument: &str) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, Family::V4);
    tunnel.encap = true;
    let several = ["10.1.0.0/25, 10.1.0.128/25".to_owned(), lab.b.lan(Family::V4)];
    let [local, remote] = if side == Side::A { several } else { several.rev_pair() };
    if let Some(net4) = tunnel.children.first_mut() {
        (net4.local_ts, net4.remote_ts) = (local, remote);
    }
    if side == Side::A {
        tunnel.options.push("dpd_delay = 1s".into());
        for child in &mut tunnel.children {
            child.options.push(record.option(argument));
        }
        if let Some(net4) = tunnel.children.first_mut() {
            net4.options.push("hostaccess = yes".into());
        }
    }
    tunnel
}

trait RevPair {
    fn rev_pair(self) -> Self;
}

impl<T> RevPair for [T; 2] {
    fn rev_pair(self) -> Self {
        let [a, b] = self;
        [b, a]
    }
}

fn through_life(pair: &mut Pair<'_>, record: &Record, changed: &Tunnel) -> Result<()> {
    let initiate = |pair: &Pair<'_>, child: &str| pair.a.swanctl(&["--initiate", "--child", child, "--timeout", "30"]);
    life::establish(pair, Side::A)?;
    record.wait_for(3, "initiating both children")?;
    life::rekey_child(pair, Side::A, "net4")?;
    life::rekey_child(pair, Side::B, "net6")?;
    life::rekey_ike(pair, Side::A)?;
    record.wait_for(3, "rekeying")?;
    // charon puts it off while something lingers.
    let lingers = |sas: &[IkeSa]| sas.iter().flat_map(|sa| &sa.children).any(|child| child.state != "INSTALLED");
    pair.a.wait_for("nothing lingers", SOON, |sas| !lingers(sas))?;
    pair.a.swanctl(&["--rekey", "--ike", "site", "--reauth"])?;
    record.wait_for(9, "authenticating afresh")?;
    pair.a.write_tunnels(std::slice::from_ref(changed))?;
    pair.a.load()?;
    record.wait_for(9, "loading another script")?;
    pair.a.swanctl(&["--terminate", "--child", "net4"])?;
    record.wait_for(11, "terminating a child")?;
    initiate(pair, "net4")?;
    record.wait_for(13, "initiating it again")?;
    pair.b.swanctl(&["--terminate", "--child", "net4"])?;
    record.wait_for(15, "the peer terminating it")?;
    initiate(pair, "net4")?;
    record.wait_for(17, "initiating it again")?;
    pair.a.swanctl(&["--terminate", "--ike", "site"])?;
    record.wait_for(20, "terminating the IKE SA")?;
    life::establish(pair, Side::A)?;
    record.wait_for(23, "initiating both children again")?;
    pair.b.process().kill()?;
    record.wait_for(26, "the peer's death")?;
    pair.b.restart()?;
    life::establish(pair, Side::A)?;
    record.wait_for(29, "the peer's return")?;
    pair.a.process().terminate()?;
    record.wait_for(32, "the daemon's end")
}

/// Selectors of our side and of the peer's, and further keys.
fn several(a: IpAddr, family: Family) -> Vec<(&'static str, String, &'static str, &'static str)> {
    match family {
        Family::V4 => vec![
            ("host", format!("{a}/32"), "10.2.0.0/24[tcp]", "hostaccess = yes"),
            ("range", "10.1.0.1-10.1.0.9".into(), "10.2.0.0-10.2.0.12", "reqid = 77"),
            ("ping", "10.1.0.0/24[icmp/2048]".into(), "10.2.0.0/24", ""),
            ("kind", "10.1.0.0/24[icmp]".into(), "10.2.0.0/24[icmp/11]", ""),
            ("dns", "10.1.0.0/24".into(), "10.2.0.0/24[udp/53]", ""),
            (
                "pairs",
                "10.1.0.0/24[tcp/80], 10.1.0.0/24[udp]".into(),
                "10.2.0.0/24[tcp/1024-65535], 10.2.0.0/24[udp/53]",
                "",
            ),
            ("mixed", "10.1.0.0/24[sctp], 2001:db8:1::/64".into(), "10.2.0.0/24[sctp], 2001:db8:2::/64[udp]", ""),
        ],
        Family::V6 => vec![
            ("six", "2001:db8:1::/64[ipv6-icmp/260]".into(), "2001:db8:2::/64", ""),
            ("four", "10.1.0.0/24".into(), "10.2.0.0/24", ""),
        ],
    }
}

fn selectors() -> Result<()> {
    for (family, ids) in
        [(Family::V4, ["moon@example.org", "@#0a41200d"]), (Family::V6, ["keyid:moon", "sun.example.org"])]
    {
        let (theirs, ours) = (told_of(&charon(), family, ids)?, told_of(&cygnet(), family, ids)?);
        compare(&theirs, &ours, &[])?;
    }
    Ok(())
}

/// All of these up and down once, told to a script of the daemon in gateway A.
fn told_of(peer: &dyn Peer, family: Family, ids: [&str; 2]) -> Result<Vec<Call>> {
    let lab = Lab::new(&Middle::Direct)?;
    let record = Record::new(lab.directory())?;
    let all = several(lab.a.outer_address(family), family);
    let tunnel = |side: Side| {
        let ids = if side == Side::A { ids } else { ids.rev_pair() };
        let mut tunnel = Tunnel { encap: true, ..Tunnel::between(&lab, side, family) };
        [tunnel.local_id, tunnel.remote_id] = ids.map(|id| format!("\"{id}\""));
        let child = |(name, a, b, options): &(&str, String, &str, &str)| {
            let [local_ts, remote_ts] =
                if side == Side::A { [a.clone(), (*b).into()] } else { [(*b).into(), a.clone()] };
            let mut options: Vec<String> = options.lines().map(str::to_owned).collect();
            if side == Side::A {
                options.push(record.option(name));
            } else {
                options.clear();
            }
            Child { name: (*name).into(), local_ts, remote_ts, esp_proposals: "aes128gcm16".into(), options }
        };
        tunnel.children = all.iter().map(child).collect();
        tunnel
    };
    // Not charon in gateway B: the routes of its user-space ESP would lead IKE into a tunnel of the gateway's own address.
    let mut pair = Pair::start(&lab, [peer, &Cygnet::default()], tunnel)?;
    pair.check(|pair| {
        for (name, ..) in &all {
            let before = record.calls().len();
            pair.a.swanctl(&["--initiate", "--child", name, "--timeout", "30"])?;
            ensure!(lab::process::wait_until(SOON, || record.calls().len() > before), "nothing is told of {name}");
        }
        pair.a.swanctl(&["--terminate", "--ike", "site"])?;
        let is_down = |call: &Call| call.value("PLUTO_VERB").starts_with("down");
        let whole = || record.calls().iter().filter(|call| is_down(call)).count() * 2 == record.calls().len();
        ensure!(lab::process::wait_until(SOON, whole), "not all ends are told: {:#?}", verbs(&record.calls()));
        Ok(())
    })?;
    Ok(record.calls())
}
