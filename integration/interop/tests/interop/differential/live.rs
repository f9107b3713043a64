//! Commands about SAs that are there, are on their way, or are not what the command says: given to a charon and to Cygnet, both with the same charon
//! behind them. What is answered is compared, and which SAs and policies there are afterwards.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lab::pair::Pair;
use lab::peer::Peer;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::process::{all_threads_are, wait_until};
use lab::topology::{Family, Lab, Middle, Side};
use rustix::process::Signal;
use swanctl_compat::vici::{Element, Message, Packet};

use super::acts::{ACTS, Act, TOGETHER, Together};
use super::compare::{self, Step};
use super::intended::{Judge, LIVE, Version};
use crate::recorder::{Line, answer_of, event_of};

/// How long SAs may take to become what a command makes of them.
const SETTLED: Duration = Duration::from_secs(30);

/// How long one that is about to go may take.
const LEAVING: Duration = Duration::from_secs(10);

pub(super) fn commands_on_live_sas(other: &'static (dyn Peer + Sync), version: Version) -> Result<()> {
    let (theirs, ours) = thread::scope(|scope| {
        let theirs = scope.spawn(|| life(other, other, Whose::Theirs));
        let ours = life(&Cygnet::default(), other, Whose::Ours);
        (theirs.join().unwrap_or_else(|_| Err(anyhow!("charon's life panicked"))), ours)
    });
    let (theirs, ours) = (theirs.context("charon's life")?, ours.context("Cygnet's life")?);
    let mut judge = Judge::of(LIVE, version);
    judge.take("live", &compare::steps(&theirs, &ours));
    judge.finish()
}

/// Gives every command; what was answered, and what there was then.
fn life(peer: &dyn Peer, other: &dyn Peer, whose: Whose) -> Result<Vec<Step>> {
    let lab = Lab::new(&Middle::Direct)?;
    let mut pair = Pair::start(&lab, [peer, other], |side| scene(&lab, side))?;
    let mut out = Vec::new();
    pair.check(|pair| {
        let mut line = Line::new(UnixStream::connect(pair.a.socket())?)?;
        for event in ["list-sa", "list-policy"] {
            line.ask(&Packet::EventRegister(event.to_owned()))?;
        }
        for act in ACTS {
            out.push(one(&lab, &mut line, act, whose).with_context(|| act.name)?);
        }
        for together in TOGETHER {
            out.push(at_once(pair, &mut line, together, whose).with_context(|| together.name)?);
        }
        Ok(())
    })?;
    Ok(out)
}

/// The tunnel that all begins with.
pub(super) fn scene(lab: &Lab, side: Side) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, Family::V4);
    // charon's user-space ESP always travels in UDP, and it would tell of the device that it makes.
    tunnel.encap = true;
    tunnel.options.push("mobike = no".to_owned());
    tunnel
}

/// A connection to where nobody is.
pub(super) fn silent(lab: &Lab) -> Tunnel {
    let mut tunnel = scene(lab, Side::A);
    tunnel.name = "silent".into();
    if let IpAddr::V4(address) = lab.b.outer_address(Family::V4) {
        let [a, b, c, _] = address.octets();
        tunnel.remote = Ipv4Addr::new(a, b, c, 99).to_string();
    }
    tunnel.children.truncate(1);
    tunnel.children.iter_mut().for_each(|child| {
        child.name = "quiet".into();
        child.remote_ts = "10.99.0.0/24".into();
    });
    tunnel
}

/// The message that loads a connection.
pub(super) fn load_conn(tunnel: &Tunnel) -> Message {
    let list = |message: &mut Message, name: &str, value: &str| message.list(name, [value]);
    let options = |message: &mut Message, options: &[String]| {
        for (key, value) in options.iter().filter_map(|option| option.split_once(" = ")) {
            message.set(key, value);
        }
    };
    let mut content = Message::new().with("version", "2");
    list(&mut content, "local_addrs", &tunnel.local);
    list(&mut content, "remote_addrs", &tunnel.remote);
    list(&mut content, "proposals", &tunnel.proposals);
    if tunnel.encap {
        content.set("encap", "yes");
    }
    options(&mut content, &tunnel.options);
    for (name, id) in [("local", &tunnel.local_id), ("remote", &tunnel.remote_id)] {
        content.section(name, Message::new().with("auth", "psk").with("id", id.as_str()));
    }
    let mut children = Message::new();
    for child in &tunnel.children {
        let mut section = Message::new();
        list(&mut section, "local_ts", &child.local_ts);
        list(&mut section, "remote_ts", &child.remote_ts);
        list(&mut section, "esp_proposals", &child.esp_proposals);
        options(&mut section, &child.options);
        children.section(&child.name, section);
    }
    content.section("children", children);
    let mut message = Message::new();
    message.section(&tunnel.name, content);
    message
}

/// Who is given the commands.
#[derive(Clone, Copy)]
enum Whose {
    Theirs,
    Ours,
}

impl Whose {
    /// What there is to be afterwards.
    fn expects(self, leaves: &str) -> &str {
        match (leaves.split_once(" / "), self) {
            (None, _) => leaves,
            (Some((theirs, _)), Self::Theirs) => theirs,
            (Some((_, ours)), Self::Ours) => ours,
        }
    }
}

fn one(lab: &Lab, line: &mut Line, act: &Act, whose: Whose) -> Result<Step> {
    let answers = line.ask(&Packet::CmdRequest(act.command.to_owned(), (act.request)(lab)))?;
    let mut all: Vec<(String, Message)> = answers.iter().map(answered).collect();
    if act.command == "rekey" {
        all.iter_mut().for_each(|(_, answer)| *answer = some_matches(answer));
    }
    all.push(("afterwards".to_owned(), settled(line, whose.expects(act.leaves))?));
    Ok(Step { name: act.name.to_owned(), answers: all })
}

/// Gives two commands at once while the peer does not answer.
fn at_once(pair: &mut Pair<'_>, line: &mut Line, together: &Together, whose: Whose) -> Result<Step> {
    let mut lines = Vec::new();
    for _ in together.commands {
        lines.push(Line::new(UnixStream::connect(pair.a.socket())?)?);
    }
    let peer = pair.b.process();
    peer.signal(Signal::STOP)?;
    let id = peer.id();
    // A signal is not there at once on a busy machine.
    ensure!(wait_until(SETTLED, || all_threads_are(id, 'T')), "the peer does not stop");
    let told = lines.iter_mut().zip(together.commands).try_for_each(|(line, (command, request))| {
        line.say(&Packet::CmdRequest((*command).to_owned(), request()))?;
        // The first is on its way when the second comes.
        thread::sleep(Duration::from_millis(500));
        Ok(())
    });
    peer.signal(Signal::CONT)?;
    told.and_then(|()| {
        let mut all = Vec::new();
        for (number, line) in lines.iter_mut().enumerate() {
            let octets = line.next()?.context("the daemon closed the connection")?;
            all.push((format!("answer {number}"), answered(&Packet::decode(&octets)?).1));
        }
        all.push(("afterwards".to_owned(), settled(line, whose.expects(together.leaves))?));
        Ok(Step { name: together.name.to_owned(), answers: all })
    })
}

/// charon counts CHILD SAs that have a successor as long as it remembers them, which is a matter of time.
fn some_matches(answer: &Message) -> Message {
    let mut out = Message::new();
    for element in answer.elements() {
        out.push(match element {
            Element::KeyValue(name, value) if name == "matches" && value.as_str() != Some("0") => {
                Element::KeyValue(name.clone(), "some".into())
            }
            Element::KeyValue(..) | Element::List(..) | Element::Section(..) => element.clone(),
        });
    }
    out
}

fn answered(packet: &Packet) -> (String, Message) {
    match answer_of(packet) {
        Some(message) => ("answer".to_owned(), message.clone()),
        None => (format!("{packet:?}"), Message::new()),
    }
}

/// What there is as soon as it is `expected`, or after a while.
fn settled(line: &mut Line, expected: &str) -> Result<Message> {
    let began = Instant::now();
    loop {
        let (found, leaving) = there_is(line)?;
        // The next command would find an IKE SA that is about to go, or not.
        let gone = leaving == 0 || began.elapsed() > LEAVING;
        if found == expected && gone || began.elapsed() > SETTLED {
            return Ok(Message::new().with("there is", found));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// All SAs and policies in one line; those that have a successor or are about to go are left out, and such IKE SAs are counted.
fn there_is(line: &mut Line) -> Result<(String, usize)> {
    let (mut all, mut leaving): (Vec<String>, usize) = (Vec::new(), 0);
    for packet in line.ask(&Packet::CmdRequest("list-sas".into(), Message::new()))? {
        let Some((_, message)) = event_of(&packet) else { continue };
        for (name, ike) in message.sections() {
            match ike_sa(name, ike) {
                Some(told) => all.push(told),
                None => leaving += 1,
            }
        }
    }
    let kinds = Message::new().with("trap", "yes").with("drop", "yes").with("pass", "yes");
    for packet in line.ask(&Packet::CmdRequest("list-policies".into(), kinds))? {
        let Some((_, message)) = event_of(&packet) else { continue };
        all.extend(message.sections().map(|(name, _)| format!("policy {name}")));
    }
    all.sort();
    Ok((all.join(", "), leaving))
}

fn ike_sa(name: &str, ike: &Message) -> Option<String> {
    let state = ike.get_str("state").unwrap_or("-");
    if matches!(state, "REKEYED" | "DELETING") {
        return None;
    }
    let mut children: Vec<String> = Vec::new();
    for element in ike.get_section("child-sas").map(Message::elements).unwrap_or_default() {
        let Element::Section(_, child) = element else { continue };
        let (name, state) = (child.get_str("name").unwrap_or("-"), child.get_str("state").unwrap_or("-"));
        match state {
            "DELETED" | "REKEYED" | "DELETING" => {}
            "INSTALLED" => children.push(name.to_owned()),
            other => children.push(format!("{name}:{other}")),
        }
    }
    children.sort();
    let state = if state == "ESTABLISHED" { String::new() } else { format!(":{state}") };
    Some(format!("{name}{state}[{}]", children.join(" ")))
}
