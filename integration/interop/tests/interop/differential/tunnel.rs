//! The same tunnel twice, towards a charon: once made by charon, once by Cygnet; with 5.9.8 and with 6.0.1. What their SAs look like, and the events of their life.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use lab::pair::{Pair, SOON};
use lab::peer::Peer;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle};
use swanctl_compat::vici::{Element, Message, Packet};

use super::compare::{self, Step};
use super::intended::{Judge, TUNNEL, Version};
use crate::recorder::{Line, answer_of, event_of};

/// Events of a life, in the order of their names.
const EVENTS: [&str; 4] = ["child-rekey", "child-updown", "ike-rekey", "ike-updown"];

/// Values that no two runs share; that they are there, and where, is compared.
const OWN: [&str; 21] = [
    "uniqueid",
    "initiator-spi",
    "responder-spi",
    "spi-in",
    "spi-out",
    "established",
    "rekey-time",
    "reauth-time",
    "life-time",
    "install-time",
    "use-in",
    "use-out",
    "bytes-in",
    "bytes-out",
    "packets-in",
    "packets-out",
    "reqid",
    "local-port",
    "remote-port",
    "tasks-queued",
    "tasks-active",
];

/// The same of a line of the log.
const LINE: [&str; 5] = ["group", "level", "ikesa-name", "ikesa-uniqueid", "msg"];

pub(super) fn an_established_tunnel(other: &dyn Peer, version: Version) -> Result<()> {
    let (theirs, ours) = thread::scope(|scope| {
        let theirs = scope.spawn(|| life(other, other));
        let ours = life(&Cygnet::default(), other);
        (theirs.join().unwrap_or_else(|_| Err(anyhow!("charon's life panicked"))), ours)
    });
    let (theirs, ours) = (theirs.context("charon's life")?, ours.context("Cygnet's life")?);
    let mut judge = Judge::of(TUNNEL, version);
    judge.take("tunnel", &compare::steps(&theirs, &ours));
    judge.finish()
}

/// Makes a tunnel, rekeys it and ends it; what could be seen of it.
fn life(peer: &dyn Peer, other: &dyn Peer) -> Result<Vec<Step>> {
    let lab = Lab::new(&Middle::Direct)?;
    // charon's user-space ESP always travels in UDP; so does ours then.
    let tunnel = |side| {
        let mut tunnel = lab::peer::conf::Tunnel::between(&lab, side, Family::V4);
        tunnel.encap = true;
        // charon may tell its peer of the TUN device that it makes, at a time that no two runs share.
        tunnel.options.push("mobike = no".to_owned());
        tunnel.children.truncate(1);
        tunnel
    };
    let mut pair = Pair::start(&lab, [peer, other], tunnel)?;
    let mut out = Vec::new();
    pair.check(|pair| {
        out = steps(pair)?;
        out.extend(super::counting::steps(&lab, pair)?);
        Ok(())
    })?;
    Ok(out)
}

fn steps(pair: &Pair<'_>) -> Result<Vec<Step>> {
    let mut events = Line::new(std::os::unix::net::UnixStream::connect(pair.a.socket())?)?;
    for event in EVENTS {
        events.ask(&Packet::EventRegister(event.to_owned()))?;
    }
    let mut line = Line::new(std::os::unix::net::UnixStream::connect(pair.a.socket())?)?;
    for event in ["list-sa", "control-log"] {
        line.ask(&Packet::EventRegister(event.to_owned()))?;
    }
    let mut out = Vec::new();
    let mut ask = |name: &str, command: &str, request: Message| -> Result<()> {
        let answers = line.ask(&Packet::CmdRequest(command.to_owned(), request))?;
        out.push(step(name, &answers));
        Ok(())
    };
    let with = |key: &str, value: &str| Message::new().with(key, value);
    ask("initiate", "initiate", with("child", "net4").with("timeout", "30000"))?;
    pair.b.wait_for("the tunnel", SOON, |sas| matches!(sas, [sa] if sa.carries(&["net4"])))?;
    ask("list-sas", "list-sas", Message::new())?;
    ask("list-sas of the child", "list-sas", with("child", "net4"))?;
    ask("list-sas of another child", "list-sas", with("child", "other"))?;
    ask("list-sas of another ike", "list-sas", with("ike", "other"))?;
    ask("list-sas without waiting", "list-sas", with("noblock", "yes"))?;
    let before = pair.a.sas()?;
    let spi = |sas: &[lab::peer::sas::IkeSa]| {
        sas.first().and_then(|sa| sa.installed("net4")).map(|child| child.spi_in.clone())
    };
    ask("rekey the child", "rekey", with("child", "net4"))?;
    pair.a.wait_for("a new CHILD SA", SOON, |sas| spi(sas).is_some() && spi(sas) != spi(&before))?;
    // The old one is there for a while.
    thread::sleep(Duration::from_secs(1));
    ask("list-sas after a rekey", "list-sas", Message::new())?;
    let ike = |sas: &[lab::peer::sas::IkeSa]| sas.iter().find(|sa| sa.state == "ESTABLISHED").map(|sa| sa.spis.clone());
    ask("rekey the IKE SA", "rekey", with("ike", "site"))?;
    pair.a.wait_for("a new IKE SA", SOON, |sas| ike(sas).is_some() && ike(sas) != ike(&before))?;
    ask("terminate", "terminate", with("ike", "site").with("timeout", "30000"))?;
    pair.a.wait_for("no SA", SOON, <[_]>::is_empty)?;
    out.push(step("events", &events_until_down(&mut events)?));
    Ok(out)
}

/// All events until the IKE SA is down.
fn events_until_down(line: &mut Line) -> Result<Vec<Packet>> {
    let mut all = Vec::new();
    loop {
        let octets = line.next()?.context("the daemon closed the connection")?;
        let packet = Packet::decode(&octets)?;
        let Packet::Event(name, message) = &packet else { anyhow::bail!("no event: {packet:?}") };
        let last = name == "ike-updown" && !message.is_yes("up");
        all.push(packet);
        ensure!(all.len() < 100, "events without end");
        if last {
            // Something may still belong to it.
            while let Some(octets) = line.next_within(Duration::from_secs(1))? {
                all.push(Packet::decode(&octets)?);
            }
            return Ok(all);
        }
    }
}

/// One step, with names that differ between two runs made equal. Each event is numbered among those of its name.
fn step(name: &str, packets: &[Packet]) -> Step {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    let mut answers = Vec::new();
    for packet in packets {
        let Some((event, message)) = event_of(packet) else {
            let label = if answer_of(packet).is_some() { "answer".to_owned() } else { format!("{packet:?}") };
            answers.push((label, answer_of(packet).cloned().unwrap_or_default()));
            continue;
        };
        let number = seen.entry(event.to_owned()).or_default();
        *number += 1;
        if event == "control-log" {
            // Its lines are each daemon's own; that they come is what counts.
            if *number == 1 {
                answers.push((event.to_owned(), equalised(message, &LINE)));
            }
            continue;
        }
        let label = if name == "events" { format!("{event}-{number}") } else { event.to_owned() };
        answers.push((label, equalised(message, &OWN)));
    }
    Step { name: name.to_owned(), answers }
}

fn equalised(message: &Message, names: &[&str]) -> Message {
    let mut out = Message::new();
    let mut children = 0;
    for element in message.elements() {
        let own = names.contains(&element.name());
        out.push(match element {
            Element::KeyValue(name, _) if own => Element::KeyValue(name.clone(), "...".into()),
            Element::List(name, _) if own => Element::List(name.clone(), Vec::new()),
            Element::KeyValue(..) | Element::List(..) => element.clone(),
            Element::Section(name, content) => {
                // `net4-7` is called after its number.
                let numbered = name.starts_with("net4-");
                children += usize::from(numbered);
                let name = if numbered { format!("net4-#{children}") } else { name.clone() };
                Element::Section(name, equalised(content, names))
            }
        });
    }
    out
}
