//! Gateways whose address changes under traffic (MOBIKE, RFC 4555), and translators that forget their mappings, with each daemon in each role.
//!
//! How many packets a move costs is printed; what must hold is that the tunnel stays, uses the new address at both ends and then loses nothing
//! more.

use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::netns::Namespace;
use lab::peer::conf::Tunnel;
use lab::peer::sas::IkeSa;
use lab::peer::{Daemon, Peer};
use lab::topology::{Family, Lab, Middle, OUTER, Side};
use lab::traffic::ping;
use lab::traffic::stream::{self, Report};
use libtest_mimic::Trial;
use swanctl_compat::vici::Packet;

use crate::harness::{Pair, SOON, trial};
use crate::recorder::Line;
use crate::{life, peers};

/// Who is at A and B.
type Peers = fn() -> Result<[&'static dyn Peer; 2]>;

/// One gateway gets another address and loses the one in use.
struct Move {
    name: &'static str,
    peers: Peers,
    initiator: Side,
    mover: Side,
}

/// A translator in front of A forgets, while A's daemon asks for life every second or not at all.
struct Forgotten {
    name: &'static str,
    peers: Peers,
    mobike: bool,
    asks: bool,
}

/// The daemons of the matrix with their places exchanged.
fn turned() -> Result<[&'static dyn Peer; 2]> {
    let [ours, other] = peers::chosen()?;
    Ok([other, ours])
}

pub(crate) fn trials() -> Vec<Trial> {
    let step = |name, peers, initiator, mover| Move { name, peers, initiator, mover };
    let moves = [
        step("cygnet_initiator_moves_charon_responds", peers::chosen, Side::A, Side::A),
        step("charon_responder_moves_cygnet_decides", peers::chosen, Side::A, Side::B),
        step("charon_initiator_moves_cygnet_responds", peers::chosen, Side::B, Side::B),
        step("cygnet_responder_moves_charon_decides", peers::chosen, Side::B, Side::A),
        step("between_two_of_ours_the_initiator_moves", peers::ours, Side::A, Side::A),
        step("between_two_of_ours_the_responder_moves", peers::ours, Side::A, Side::B),
    ];
    let forgets = |name, peers, mobike, asks| Forgotten { name, peers, mobike, asks };
    let forgotten = [
        forgets("cygnet_behind_nat_with_mobike_charon_outside", peers::chosen as Peers, true, true),
        forgets("cygnet_behind_nat_without_mobike_charon_outside", peers::chosen, false, true),
        forgets("charon_behind_nat_with_mobike_cygnet_outside", turned, true, true),
        forgets("charon_behind_nat_without_mobike_cygnet_outside", turned, false, true),
        forgets("two_of_ours_with_mobike", peers::ours, true, false),
        forgets("two_of_ours_without_mobike", peers::ours, false, false),
    ];
    let mut trials: Vec<Trial> =
        moves.into_iter().map(|case| trial(format!("moving::{}", case.name), move || case.run())).collect();
    let forgotten = forgotten.into_iter().map(|case| trial(format!("mapping::{}", case.name), move || case.run()));
    trials.extend(forgotten);
    trials
}

/// Another address of a gateway on the shared outer link.
fn second_address(side: Side) -> &'static str {
    match side {
        Side::A => "192.0.2.11",
        Side::B => "192.0.2.12",
    }
}

/// Registers for `ike-update`.
fn listen(daemon: &Daemon<'_>) -> Result<Line> {
    let mut line = Line::new(UnixStream::connect(daemon.socket())?)?;
    let answer = line.ask(&Packet::EventRegister("ike-update".into()))?;
    ensure!(answer == [Packet::EventConfirm], "no such event: {answer:?}");
    Ok(line)
}

/// One of the updates told has the new address in front and the old one behind it, in the words that charon has for both.
fn update_told(line: &mut Line, key: &str, [old, new]: [&str; 2]) -> Result<()> {
    let mut seen = Vec::new();
    while let Some(octets) = line.next_within(SOON)? {
        let packet = Packet::decode(&octets)?;
        let Packet::Event(_, message) = &packet else { anyhow::bail!("no event: {packet:?}") };
        let before = message.get_section("site").and_then(|ike| ike.get_str(key).map(str::to_owned));
        if message.get_str(key) == Some(new) && before.as_deref() == Some(old) {
            return Ok(());
        }
        seen.push(packet);
    }
    anyhow::bail!("no ike-update with {key} {old} and then {new}: {seen:?}")
}

impl Move {
    fn run(&self) -> Result<()> {
        let lab = Lab::new(&Middle::Direct)?;
        for side in [Side::A, Side::B] {
            // The second address stays when the first one goes.
            lab.site(side).gateway.sysctl("net/ipv4/conf/all/promote_secondaries", "1")?;
        }
        let tunnel = |side: Side| {
            let mut tunnel = Tunnel::between(&lab, side, Family::V4);
            if side == self.mover {
                tunnel.local = "%any".into();
            }
            tunnel.options.push("dpd_delay = 2s".into());
            tunnel
        };
        let mut pair = Pair::start(&lab, (self.peers)()?, tunnel)?;
        pair.check(|pair| self.check(&lab, pair))
    }

    fn check(&self, lab: &Lab, pair: &Pair<'_>) -> Result<()> {
        life::establish(pair, self.initiator)?;
        let before = spis(pair)?;
        let mut updates = [listen(&pair.a)?, listen(&pair.b)?];
        let gateway = &lab.site(self.mover).gateway;
        let streams = life::streams(lab)?;
        sleep(Duration::from_secs(1));
        let new = second_address(self.mover);
        gateway.ip(&["address", "add", &format!("{new}/24"), "dev", OUTER])?;
        sleep(Duration::from_millis(700));
        let old = lab.site(self.mover).outer_address(Family::V4);
        gateway.ip(&["address", "del", &format!("{old}/24"), "dev", OUTER])?;
        let here = |sas: &[IkeSa]| matches!(sas, [sa] if sa.local_host == new && sa.state == "ESTABLISHED");
        let there = |sas: &[IkeSa]| matches!(sas, [sa] if sa.remote_host == new && sa.state == "ESTABLISHED");
        pair.side(self.mover).wait_for("the new address at the end that has it", SOON, here)?;
        pair.side(self.mover.other()).wait_for("the new address at the other end", SOON, there)?;
        let (old_host, moved) = (old.to_string(), [Side::A, Side::B].map(|side| side == self.mover));
        for (line, is_mover) in updates.iter_mut().zip(moved) {
            update_told(line, if is_mover { "local-host" } else { "remote-host" }, [&old_host, new])?;
        }
        // The CHILD SAs follow with the answers.
        sleep(Duration::from_millis(500));
        let report = stream::finish_all(streams)?;
        tell(self.name, &report);
        let settled = life::streams(lab)?;
        sleep(Duration::from_secs(1));
        life::all_arrived(settled).context("after the move")?;
        keeps_keys(self.name, before, spis(pair)?)?;
        // Two round trips with what the daemons take to hear of it; less than a retransmission.
        ensure!(report.lost < report.sent && longest(&report) < Duration::from_millis(3_900), "{report}");
        Ok(())
    }
}

/// SPIs of both children, to see that nothing was rekeyed.
fn spis(pair: &Pair<'_>) -> Result<Vec<(String, String)>> {
    let of = |child: &str| life::installed(pair, Side::A, child).map(|sa| (sa.spi_in, sa.spi_out));
    life::CHILDREN.iter().map(|child| of(child)).collect()
}

/// We move SAs in place. Charon's user-space ESP cannot, so charon rekeys them after a move.
fn keeps_keys(name: &str, before: Vec<(String, String)>, after: Vec<(String, String)>) -> Result<()> {
    ensure!(before == after || name.contains("charon"), "the keys were changed: {before:?}, now {after:?}");
    Ok(())
}

/// The longest time for which one stream lost everything; streams send 40 packets a second.
fn longest(report: &Report) -> Duration {
    let most = report.gaps.iter().map(|gap| gap.count).max().unwrap_or(0);
    Duration::from_millis(25 * most)
}

fn tell(name: &str, report: &Report) {
    eprintln!("{name}: longest interruption {:.2} s, {report}", longest(report).as_secs_f64());
}

impl Forgotten {
    fn run(&self) -> Result<()> {
        let lab = Lab::new(&Middle::NatBeforeA)?;
        let tunnel = |side: Side| {
            let mut tunnel = Tunnel::between(&lab, side, Family::V4);
            if side == Side::B {
                tunnel.remote = "%any".into();
            }
            if !self.mobike {
                tunnel.options.push("mobike = no".into());
            }
            if self.asks && side == Side::A {
                tunnel.options.push("dpd_delay = 1s".into());
            }
            tunnel
        };
        let mut pair = Pair::start(&lab, (self.peers)()?, tunnel)?;
        pair.check(|pair| self.check(&lab, pair))
    }

    fn check(&self, lab: &Lab, pair: &Pair<'_>) -> Result<()> {
        life::establish(pair, Side::A)?;
        sleep(Duration::from_millis(2_500));
        let port = |pair: &Pair<'_>| -> Result<String> {
            let sas = pair.side(Side::B).sas()?;
            Ok(sas.first().context("no IKE SA at B")?.remote_port.clone())
        };
        let (before, keys) = (port(pair)?, spis(pair)?);
        let streams = life::streams(lab)?;
        sleep(Duration::from_secs(1));
        forget(lab.middle.as_ref().context("a translator")?)?;
        life::settle("another port of the translator at B", || Ok(port(pair)? != before))?;
        sleep(Duration::from_secs(1));
        let report = stream::finish_all(streams)?;
        tell(self.name, &report);
        for (from, to) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
            let (source, target) = (from.host_address(Family::V4), to.host_address(Family::V4));
            let answered = ping::ping(&from.host, source, target, 3, ping::PATIENCE)?;
            ensure!(answered == 3, "{answered} of 3 answered from {:?}", from.side);
        }
        let settled = life::streams(lab)?;
        sleep(Duration::from_secs(1));
        life::all_arrived(settled).context("after the new mapping")?;
        keeps_keys(self.name, keys, spis(pair)?)?;
        Ok(())
    }
}

/// The translator forgets all mappings: with the link that it masquerades on, they go.
fn forget(middle: &Namespace) -> Result<()> {
    for state in ["down", "up"] {
        middle.ip(&["link", "set", "to-b", state])?;
    }
    Ok(())
}
