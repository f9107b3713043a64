//! Authentication afresh that breaks before it makes: the old IKE SA goes first, then a new one comes with the same children. For as long as that
//! takes nothing passes; afterwards everything must again. How long that was is printed.
//!
//! charon 5.9.8 does it like this by default, and has two weaknesses there, which no peer of it can do anything about:
//!
//! - It sends its IKE_SA_INIT before it can look up the new IKE SA. An answer that comes within a fraction of a millisecond finds nobody, and
//!   charon asks again after 4 s. Happens in one of about five runs.
//! - With several children it may give two of them the same reqid, and then sends the packets of both on the SA of one, see [`its_own_reqids`].

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::capture::Captured;
use lab::classify::Class;
use lab::peer::Peer;
use lab::peer::audit;
use lab::peer::charon::Charon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::sas::{ChildSa, IkeSa};
use lab::topology::{FAMILIES, Family, Lab, Middle, Side};
use lab::traffic::ping;
use lab::traffic::stream::{self, Load, Report, Stream};
use libtest_mimic::Trial;

use crate::harness::{Pair, trial, with_pair};
use crate::life;

/// Until both ends agree, with room for a busy machine.
const SETTLED: Duration = Duration::from_secs(60);
/// Packets a second of each stream: the resolution of what is printed is 5 ms.
const RATE: u32 = 200;
/// Three round trips and two key exchanges; a retransmission would take longer, after 4 s.
const GAP: Duration = Duration::from_millis(3_800);
/// charon's first retransmission besides.
const GAP_OF_CHARON: Duration = Duration::from_millis(9_000);
/// Echo requests of each family.
const PINGS: u16 = 3;

/// What is on the way meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    /// Nothing before it is over.
    None,
    /// Streams both ways.
    Streams,
    /// The same, and packets at A without an SA wait for one that they ask for.
    Waiting,
}

pub(crate) fn trials() -> Vec<Trial> {
    let traffic = [("idle", Traffic::None), ("under_traffic", Traffic::Streams), ("packets_wait", Traffic::Waiting)];
    let mut trials = Vec::new();
    for (name, traffic) in traffic {
        trials.push(trial(format!("afresh::charon_breaks_before_it_makes::{name}"), move || {
            run([&ours(), &Charon], Side::B, traffic, GAP_OF_CHARON)
        }));
        trials.push(trial(format!("afresh::we_break_before_we_make::charon_responds::{name}"), move || {
            run([&ours(), &Charon], Side::A, traffic, GAP)
        }));
        trials.push(trial(format!("afresh::we_break_before_we_make::one_of_ours_responds::{name}"), move || {
            run([&ours(), &ours()], Side::A, traffic, GAP)
        }));
    }
    trials.push(trial("afresh::charon_breaks_before_it_makes::reqids_of_its_own_choice", its_own_reqids));
    trials
}

fn ours() -> Cygnet {
    Cygnet { extra: "[ike]\nmake_before_break = false\n".into(), log: String::new() }
}

/// The tunnel as it looks from a side. When charon breaks, it must not choose reqids itself.
fn configure(side: Side, mut tunnel: Tunnel, breaker: Side, traffic: Traffic) -> Tunnel {
    if side == Side::A && traffic == Traffic::Waiting {
        return tunnel.with_child_option("start_action = trap");
    }
    if side == Side::B && breaker == Side::B {
        for (child, reqid) in tunnel.children.iter_mut().zip(101..) {
            child.options.push(format!("reqid = {reqid}"));
        }
    }
    tunnel
}

//= RFC 7296 §2.8.3: reauthentication makes a new IKE SA from scratch, with new CHILD SAs, and deletes the old one
fn run(peers: [&dyn Peer; 2], breaker: Side, traffic: Traffic, limit: Duration) -> Result<()> {
    let configure = |side, tunnel| configure(side, tunnel, breaker, traffic);
    with_pair(&Middle::Direct, peers, configure, |lab, pair| {
        life::establish(pair, breaker)?;
        let streams = if traffic == Traffic::None { Vec::new() } else { streams(lab)? };
        sleep(Duration::from_millis(500));
        break_and_make(pair, breaker)?;
        life::settle_within(SETTLED, "both ends agree", || agree(pair, breaker, traffic))?;
        if traffic != Traffic::None {
            sleep(Duration::from_millis(500));
            let report = stream::finish_all(streams)?;
            eprintln!("longest interruption {:.3} s, {report}", longest(&report).as_secs_f64());
            ensure!(longest(&report) < limit && report.duplicated == 0, "{report}");
        }
        for family in FAMILIES {
            let answered = pings(lab, family)?;
            ensure!(answered == PINGS, "{answered} of {PINGS} answered over {family:?}");
        }
        let settled = life::streams(lab)?;
        sleep(Duration::from_secs(1));
        life::all_arrived(settled).context("afterwards")?;
        ensure!(!pair.a.log().contains("selector-mismatch"), "packets came on SAs that are not for them");
        Ok(())
    })
}

/// A packet that waits makes A begin, too, besides B. Then there may be two IKE SAs with the same children, which is nobody's fault
/// (`unique = no`).
fn agree(pair: &Pair<'_>, breaker: Side, traffic: Traffic) -> Result<bool> {
    let mut found = match (breaker, traffic) {
        (Side::B, Traffic::Waiting) => audit::in_pairs(&pair.a.sas()?, &pair.b.sas()?),
        (Side::A | Side::B, Traffic::None | Traffic::Streams) | (Side::A, Traffic::Waiting) => {
            audit::findings(&pair.a, &pair.b, &life::CHILDREN)?
        }
    };
    let orphans = pair.a.backend_sas()?.into_iter().filter(|sa| sa.orphan);
    found.extend(orphans.map(|sa| format!("SA {} of our data path is an orphan", sa.spi)));
    ensure!(found.is_empty(), "{}", found.join("; "));
    Ok(true)
}

fn streams(lab: &Lab) -> Result<Vec<Stream>> {
    let load = |family| Load { octets: 64, rate: f64::from(RATE), family };
    stream::start_both_ways(&lab.a, &lab.b, &FAMILIES.map(load))
}

/// The longest time for which one stream lost everything.
fn longest(report: &Report) -> Duration {
    let most = report.gaps.iter().map(|gap| gap.count).max().unwrap_or(0);
    Duration::from_secs(most) / RATE
}

fn pings(lab: &Lab, family: Family) -> Result<u16> {
    let (source, target) = (lab.a.host_address(family), lab.b.host_address(family));
    ping::ping(&lab.a.host, source, target, PINGS, ping::PATIENCE)
}

/// Waits until the old IKE SA is gone at both ends and another has both children.
fn break_and_make(pair: &Pair<'_>, breaker: Side) -> Result<()> {
    let before: Vec<_> = pair.side(breaker).sas()?.into_iter().map(|sa| sa.spis).collect();
    pair.side(breaker).swanctl(&["--rekey", "--reauth", "--ike", "site"])?;
    for side in [Side::A, Side::B] {
        pair.side(side).wait_for("another IKE SA with both children", SETTLED, |sas: &[IkeSa]| {
            sas.iter().all(|sa| !before.contains(&sa.spis)) && sas.iter().any(|sa| sa.carries(&life::CHILDREN))
        })?;
    }
    Ok(())
}

/// charon 5.9.8 asks for each child's former reqid again, but they have been given back meanwhile, the last child's first: the first child gets
/// the reqid of the second, and the second, which asks for it by number, gets it as well. charon picks outbound SAs by reqid, so from then on one
/// SA carries the packets of both children. We receive what does not fit that SA, and RFC 4301 says what becomes of it.
//= RFC 4301 §5.2: packets that do not match the selectors of the SA they came on must be discarded
fn its_own_reqids() -> Result<()> {
    with_pair(
        &Middle::Direct,
        [&ours(), &Charon],
        |_, tunnel| tunnel,
        |lab, pair| {
            life::establish(pair, Side::B)?;
            break_and_make(pair, Side::B)?;
            audit::settle(&pair.a, &pair.b, &life::CHILDREN, SETTLED)?;
            let capture = lab.capture()?;
            let answered = [pings(lab, Family::V4)?, pings(lab, Family::V6)?];
            let [from_both, _] = capture.finish()?;
            let at = |side, child| life::installed(pair, side, child);
            let ours = [at(Side::A, "net4")?, at(Side::A, "net6")?];
            let its = [at(Side::B, "net4")?, at(Side::B, "net6")?];
            let [first, second] = &its;
            if first.reqid == second.reqid {
                swapped(answered, &ours, &its, &from_both)?;
                ensure!(pair.a.log().contains("selector-mismatch"), "dropped without a word");
            } else {
                ensure!(answered == [PINGS; 2], "reqids differ and yet {answered:?} of {PINGS} answered");
            }
            Ok(())
        },
    )
}

/// Everything that charon has sent it has sent on the SA of one child, whose packets we take. The other child's requests reached charon.
fn swapped(answered: [u16; 2], ours: &[ChildSa; 2], its: &[ChildSa; 2], captured: &Captured) -> Result<()> {
    let all = u64::from(PINGS);
    let used = usize::from(its.iter().map(|sa| sa.packets_out).eq([0, 2 * all]));
    let [one, other] = if used == 0 { [0, 1] } else { [1, 0] };
    let said = format!("answered {answered:?}, ours {ours:#?}, its {its:#?}");
    let counts = |sas: &[ChildSa; 2], count: fn(&ChildSa) -> u64| [one, other].map(|at| sas.get(at).map_or(0, count));
    ensure!(counts(its, |sa| sa.packets_out) == [2 * all, 0], "charon has used both SAs: {said}");
    ensure!(counts(its, |sa| sa.packets_in) == [all, all], "requests did not reach charon: {said}");
    ensure!(counts(ours, |sa| sa.packets_in) == [all, 0], "we took what is not for the SA: {said}");
    ensure!([one, other].map(|at| answered.get(at).copied()) == [Some(PINGS), Some(0)], "{said}");
    let on_wire = |sa: Option<&ChildSa>| {
        let spi = sa.and_then(|sa| u32::from_str_radix(&sa.spi_in, 16).ok()).unwrap_or_default();
        captured.frames.iter().filter(|frame| frame.class == Class::UdpEsp(spi)).count()
    };
    let seen = [one, other].map(|at| on_wire(ours.get(at)));
    ensure!(seen == [2 * usize::from(PINGS), 0], "ESP packets on the wire for each SA: {seen:?}; {said}");
    Ok(())
}
