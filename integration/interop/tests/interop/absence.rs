//! A peer that stops, dies or forgets: liveness, the configured actions, INITIAL_CONTACT, and that nothing stale or doubled stays afterwards.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::peer::charon::TunedCharon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::peer::sas::IkeSa;
use lab::peer::{Peer, audit};
use lab::relay::Profile;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::life;

/// The only child.
const CHILD: &str = "net4";
/// With `dpd_delay = 1s` a silent peer is given up after 1 + 0.4 + 0.7 + 1.3 + 2.3 s.
const RETRANSMISSION: &str = "retransmit_timeout = 0.4\nretransmit_tries = 3\n";
/// The same for charon; what it half opened for a request that came late goes soon.
const CHARON: TunedCharon =
    TunedCharon { settings: "retransmit_timeout = 0.4\n  retransmit_tries = 3\n  half_open_timeout = 5" };
/// Until a silent peer is given up, with room for a busy machine.
const GIVEN_UP: Duration = Duration::from_secs(40);
/// Until a tunnel is back, which may take an attempt or two.
const BACK: Duration = Duration::from_secs(60);
/// How long rekeyed and half-open SAs may stay.
const LINGER: Duration = Duration::from_secs(45);

type Test = fn(&Lab, &mut Pair<'_>, Side) -> Result<()>;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, &str, Side, Test); 9] = [
        ("stopped_peer::dpd_action_start::we_initiated", "dpd_action = start", Side::A, start_action_brings_it_back),
        ("stopped_peer::dpd_action_start::it_initiated", "dpd_action = start", Side::B, start_action_brings_it_back),
        ("stopped_peer::dpd_action_trap", "dpd_action = trap", Side::A, trap_waits_for_a_packet),
        ("stopped_peer::dpd_action_clear", "dpd_action = clear", Side::B, clear_leaves_it_down),
        ("killed_peer_comes_back::we_initiated", ALWAYS, Side::A, killed_peer_comes_back),
        ("killed_peer_comes_back::it_initiated", START, Side::B, killed_peer_comes_back),
        ("we_are_killed_and_come_back::we_initiated", START, Side::A, we_are_killed_and_come_back),
        ("we_are_killed_and_come_back::it_initiated", START, Side::B, we_are_killed_and_come_back),
        ("stopped_for_a_moment_nothing_happens", "dpd_action = clear", Side::A, stopped_for_a_moment),
    ];
    let run = |options: &'static str, initiator: Side, test: Test| {
        move || {
            let ours = Cygnet { extra: format!("[ike]\n{RETRANSMISSION}"), log: String::new() };
            let peers: [&dyn Peer; 2] = [&ours, &CHARON];
            let configure = |side: Side, mut tunnel: Tunnel| {
                tunnel.children.retain(|child| child.name == CHILD);
                if side == Side::A {
                    tunnel.options.push("dpd_delay = 1s".into());
                    tunnel
                        .children
                        .iter_mut()
                        .for_each(|child| child.options.extend(options.lines().map(str::to_owned)));
                }
                tunnel
            };
            with_pair(&Middle::Direct, peers, configure, |lab, pair| {
                establish(lab, pair, initiator)?;
                test(lab, pair, initiator)
            })
        }
    };
    let mut trials: Vec<Trial> = tests
        .into_iter()
        .map(|(name, options, initiator, test)| trial(format!("absence::{name}"), run(options, initiator, test)))
        .collect();
    trials.push(trial("absence::path_cut::both_begin_again", path_cut_both_begin_again));
    trials
}

/// Both ends watch each other and both are to begin again: whoever comes first, one tunnel stands afterwards.
fn path_cut_both_begin_again() -> Result<()> {
    let ours = Cygnet { extra: format!("[ike]\n{RETRANSMISSION}"), log: String::new() };
    let configure = |_, mut tunnel: Tunnel| {
        tunnel.children.retain(|child| child.name == CHILD);
        tunnel.options.push("dpd_delay = 1s".into());
        tunnel.with_child_option("dpd_action = start")
    };
    let path = Profile { delay: Duration::from_millis(20), ..Profile::CLEAN };
    with_pair(&Middle::Relay(path), [&ours, &CHARON], configure, |lab, pair| {
        establish(lab, pair, Side::A)?;
        let relay = lab.relay.as_ref().context("no relay")?;
        relay.cut(true);
        for side in [Side::A, Side::B] {
            let given_up = |sas: &[IkeSa]| sas.iter().all(|sa| sa.state != "ESTABLISHED");
            pair.side(side).wait_for("the silent peer given up", GIVEN_UP, given_up)?;
        }
        relay.cut(false);
        back_within(lab, BACK, "the path was whole again")?;
        settled(pair)
    })
}

/// Ours is to be up, whatever happens.
const ALWAYS: &str = "start_action = start\ndpd_action = start";
/// The same, but not with the load: the other side is to initiate.
const START: &str = "dpd_action = start";

fn establish(lab: &Lab, pair: &Pair<'_>, from: Side) -> Result<()> {
    pair.side(from).swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
    settled(pair)?;
    ensure!(answers(lab, SOON)?, "the tunnel does not carry traffic to begin with");
    Ok(())
}

fn settled(pair: &Pair<'_>) -> Result<()> {
    audit::settle(&pair.a, &pair.b, &[CHILD], LINGER)
}

fn answers(lab: &Lab, limit: Duration) -> Result<bool> {
    let (source, target) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
    ping::answers_within(&lab.a.host, source, target, limit)
}

/// Charon stops without a word; we wait until we have given it up.
fn stop_until_given_up(pair: &mut Pair<'_>) -> Result<()> {
    pair.b.process().signal(Signal::STOP)?;
    let stopped = Instant::now();
    pair.a.wait_for("the silent peer given up", GIVEN_UP, |sas| sas.iter().all(|sa| sa.state != "ESTABLISHED"))?;
    println!("  given up after {:.1} s", stopped.elapsed().as_secs_f64());
    Ok(())
}

//= RFC 7296 §2.4: liveness; the IKE SA of a peer that does not answer is given up
fn start_action_brings_it_back(lab: &Lab, pair: &mut Pair<'_>, _: Side) -> Result<()> {
    stop_until_given_up(pair)?;
    // Long enough for several attempts to wait in charon's receive buffer.
    thread::sleep(Duration::from_secs(4));
    pair.b.process().signal(Signal::CONT)?;
    back_within(lab, BACK, "charon went on")?;
    settled(pair)
}

fn trap_waits_for_a_packet(lab: &Lab, pair: &mut Pair<'_>, _: Side) -> Result<()> {
    stop_until_given_up(pair)?;
    let list = pair.a.swanctl(&["--list-pols", "--trap"])?;
    ensure!(list.contains("site/net4"), "no trap: {list}");
    pair.b.process().signal(Signal::CONT)?;
    thread::sleep(Duration::from_secs(2));
    ensure!(pair.a.sas()?.is_empty(), "something came up without a packet: {:#?}", pair.a.sas()?);
    back_within(lab, BACK, "the first packet")?;
    settled(pair)
}

fn clear_leaves_it_down(lab: &Lab, pair: &mut Pair<'_>, _: Side) -> Result<()> {
    stop_until_given_up(pair)?;
    pair.b.process().signal(Signal::CONT)?;
    ensure!(!answers(lab, Duration::from_secs(3))?, "something brings the tunnel up");
    ensure!(pair.a.sas()?.is_empty(), "{:#?}", pair.a.sas()?);
    //= RFC 7296 §2.4: INITIAL_CONTACT ends what charon still believes in
    establish(lab, pair, Side::A)
}

/// Shorter than it takes to give it up: everything goes on as it was.
fn stopped_for_a_moment(lab: &Lab, pair: &mut Pair<'_>, _: Side) -> Result<()> {
    let before = life::installed(pair, Side::A, CHILD)?;
    pair.b.process().signal(Signal::STOP)?;
    thread::sleep(Duration::from_secs(2));
    pair.b.process().signal(Signal::CONT)?;
    ensure!(answers(lab, SOON)?, "no answer after a moment's silence");
    let after = life::installed(pair, Side::A, CHILD)?;
    ensure!(
        (before.spi_in, before.spi_out) == (after.spi_in, after.spi_out),
        "another CHILD SA after a moment's silence"
    );
    settled(pair)
}

/// `kill -9`, and a new charon that knows nothing: we notice by its silence and begin again.
fn killed_peer_comes_back(lab: &Lab, pair: &mut Pair<'_>, _: Side) -> Result<()> {
    pair.b.process().kill()?;
    thread::sleep(Duration::from_millis(500));
    pair.b.restart()?;
    back_within(lab, BACK, "the new charon was ready")?;
    settled(pair)
}

/// `kill -9` of ours: charon keeps its SAs until our INITIAL_CONTACT tells that they are stale.
//= RFC 7296 §2.4: INITIAL_CONTACT: the SAs of a former life are deleted
fn we_are_killed_and_come_back(lab: &Lab, pair: &mut Pair<'_>, _: Side) -> Result<()> {
    let stale = life::installed(pair, Side::B, CHILD)?;
    pair.a.process().kill()?;
    let mut tunnel = Tunnel::between(lab, Side::A, Family::V4).with_child_option("start_action = start");
    tunnel.children.retain(|child| child.name == CHILD);
    pair.a.write_tunnels(&[tunnel])?;
    pair.a.restart()?;
    back_within(lab, BACK, "our new daemon was ready")?;
    settled(pair)?;
    let now = life::installed(pair, Side::B, CHILD)?;
    ensure!(now.spi_in != stale.spi_in, "charon still has its old CHILD SA");
    Ok(())
}

fn back_within(lab: &Lab, limit: Duration, since: &str) -> Result<()> {
    let started = Instant::now();
    if !answers(lab, limit)? {
        bail!("the tunnel is not back {} s after {since}", limit.as_secs());
    }
    println!("  carries traffic again {:.1} s after {since}", started.elapsed().as_secs_f64());
    Ok(())
}
