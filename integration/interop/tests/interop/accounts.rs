//! What the history says that each SA has carried, against the packets on the wire: each ESP packet with its SPI is counted once, in the row of the
//! generation that sent it, however that ended.
#![allow(clippy::indexing_slicing, reason = "indexing JSON gives null where there is nothing")]

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::capture::Captured;
use lab::peer::Daemon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::stream::{self, Load, Report};
use libtest_mimic::Trial;
use serde_json::Value as Json;

use crate::harness::{Pair, trial, with_pair};
use crate::life;

const CYGNET: Cygnet = Cygnet { extra: String::new(), log: String::new() };
const CHILD: &str = "net4";
/// Each way; busy enough that packets are under way whenever something ends.
const LOAD: Load = Load { octets: 200, rate: 2_000.0, family: Family::V4 };

/// What a test does with the tunnel while streams run through it.
type Story = fn(&Lab, &mut Pair<'_>) -> Result<()>;

pub(crate) fn trials() -> Vec<Trial> {
    let stories: [(&str, Story, Losses); 5] = [
        ("rekeys_under_traffic_are_counted_to_the_packet", rekeys, Losses::None),
        ("a_child_closed_under_traffic_is_counted_to_the_packet", child_closed, Losses::Some),
        ("an_ike_sa_closed_under_traffic_is_counted_to_the_packet", ike_closed, Losses::Some),
        ("a_stop_under_traffic_is_counted_to_the_packet", stopped, Losses::Some),
        ("a_stop_without_an_answer_is_counted_to_the_packet", stopped_alone, Losses::Some),
    ];
    let run = |story: Story, losses| {
        move || with_pair(&Middle::Direct, [&CYGNET, &CYGNET], one_child, accounted(story, losses))
    };
    stories.into_iter().map(|(name, story, losses)| trial(format!("accounts::{name}"), run(story, losses))).collect()
}

/// Whether packets may be lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Losses {
    None,
    /// Those that come when nothing takes them any more.
    Some,
}

fn one_child(_: Side, mut tunnel: Tunnel) -> Tunnel {
    tunnel.children.retain(|child| child.name == CHILD);
    tunnel
}

fn accounted(story: Story, losses: Losses) -> impl FnOnce(&Lab, &mut Pair<'_>) -> Result<()> {
    move |lab, pair| {
        let capture = lab.capture()?;
        pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
        let streams = stream::start_both_ways(&lab.a, &lab.b, &[LOAD])?;
        thread::sleep(Duration::from_millis(300));
        story(lab, pair)?;
        let report = stream::finish_all(streams)?;
        let [a, b] = capture.finish()?;
        for (side, captured) in [(Side::A, &a), (Side::B, &b)] {
            if !pair_is_up(pair, side) {
                restart(pair, side)?;
            }
            life::settle_within(Duration::from_secs(60), "the history agrees with the wire", || {
                agrees(pair.side(side), captured, losses, &report)
            })?;
        }
        Ok(())
    }
}

fn rekeys(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    for from in [Side::A, Side::B, Side::A] {
        life::rekey_child(pair, from, CHILD)?;
    }
    Ok(())
}

fn child_closed(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::delete_child(pair, Side::B, CHILD)
}

fn ike_closed(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    life::delete_ike(pair, Side::A)
}

fn stopped(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    pair.a.process().terminate().map(|_| ())
}

/// The peer is gone already, and the daemon stops without its word.
fn stopped_alone(_: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    pair.b.process().kill()?;
    pair.a.process().terminate().map(|_| ())
}

fn pair_is_up(pair: &mut Pair<'_>, side: Side) -> bool {
    daemon(pair, side).process().is_running()
}

fn restart(pair: &mut Pair<'_>, side: Side) -> Result<()> {
    daemon(pair, side).restart()
}

fn daemon<'p, 'lab>(pair: &'p mut Pair<'lab>, side: Side) -> &'p mut Daemon<'lab> {
    if side == Side::A { &mut pair.a } else { &mut pair.b }
}

/// Whether each generation in the history has the packets that the wire has seen. False while some are still to be told.
fn agrees(daemon: &Daemon<'_>, captured: &Captured, losses: Losses, report: &Report) -> Result<bool> {
    let history = history(daemon)?;
    let rows = history["generations"].as_array().context("no list")?;
    let (mut sent, mut received, mut exact) = (0, 0, true);
    for row in rows {
        // Of a daemon that was killed the history knows what was told before.
        let died = row["cause"] == "daemon-died";
        let (outbound, inbound) = (packets(row, "out")?, packets(row, "in")?);
        let (leaving, arriving) = (on_the_wire(captured, row, "spi-out")?, on_the_wire(captured, row, "spi-in")?);
        let least = if losses == Losses::None { arriving } else { 0 };
        ensure!(
            outbound <= leaving && inbound <= arriving,
            "more than was on the wire ({leaving}, {arriving}): {row:#}"
        );
        exact &= died || (outbound == leaving && inbound >= least);
        (sent, received) = (sent + outbound, received + inbound);
    }
    let totals = ["packets-out", "packets-in"].map(|key| history["totals"][0][key].as_u64());
    ensure!(!exact || totals == [Some(sent), Some(received)], "{totals:?} in all, {sent} and {received} one by one");
    let lossless = losses == Losses::None;
    ensure!(!lossless || report.is_clean(), "{report}");
    // Each packet of the streams has left one gateway and reached the other.
    Ok(exact && (!lossless || sent + received >= report.sent))
}

/// ESP packets with the SPI in this field of a row.
fn on_the_wire(captured: &Captured, row: &Json, key: &str) -> Result<u64> {
    ensure!(captured.missed() == 0, "the capture missed {} packets", captured.missed());
    let spi = u32::from_str_radix(row[key].as_str().context("no SPI")?, 16)?;
    Ok(captured.counts.by_spi.get(&spi).copied().unwrap_or_default())
}

fn packets(row: &Json, direction: &str) -> Result<u64> {
    row[format!("packets-{direction}")].as_u64().with_context(|| format!("no packets: {row:#}"))
}

fn history(daemon: &Daemon<'_>) -> Result<Json> {
    let output = daemon.cygnet(&["history", "--json"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{} {text}", output.status);
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}
