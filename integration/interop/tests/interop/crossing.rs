//! Exchanges of both ends that cross on the wire, other than two rekeys: deletes against rekeys, against each other, new children against a rekey of
//! the IKE SA (RFC 7296 §2.25). Both ends must agree afterwards, and nothing may be left of what was deleted.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::{Daemon, audit};
use lab::process::wait_until;
use lab::relay::{Profile, Relay, both_ask, crossed};
use lab::topology::{Family, Lab, Middle};
use lab::traffic::ping;
use libtest_mimic::Trial;
use swanctl_compat::vici::Message;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::{life, peers};

/// One way: what follows on the requests may cross, too.
const DELAY: Duration = Duration::from_millis(60);
/// After TEMPORARY_FAILURE an end waits for up to 15 s; rekeyed SAs linger besides.
const SETTLED: Duration = Duration::from_secs(60);
/// CREATE_CHILD_SA and INFORMATIONAL (RFC 7296 §3.1).
const EXCHANGES: [u8; 2] = [36, 37];

/// What an end is told.
#[derive(Clone, Copy)]
enum Order {
    RekeyChild,
    DeleteChild,
    RekeyIke,
    DeleteIke,
    /// A second child.
    Create,
}

/// What both must have in the end.
#[derive(Clone, Copy)]
enum End {
    Nothing,
    /// The IKE SA with these children.
    Children(&'static [&'static str]),
    /// The same children on both sides, however often: two that make the same child at once have two of it, which is nobody's fault.
    Alike,
}

impl Order {
    /// VICI command and its message.
    fn command(self) -> (&'static str, Message) {
        let timeout = |message: Message| message.with("timeout", "30000");
        match self {
            Order::RekeyChild => ("rekey", Message::new().with("child", "net4")),
            Order::DeleteChild => ("terminate", timeout(Message::new().with("child", "net4"))),
            Order::RekeyIke => ("rekey", Message::new().with("ike", "site")),
            Order::DeleteIke => ("terminate", timeout(Message::new().with("ike", "site"))),
            Order::Create => ("initiate", timeout(Message::new().with("child", "net6"))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Order::RekeyChild => "child_rekey",
            Order::DeleteChild => "child_delete",
            Order::RekeyIke => "ike_rekey",
            Order::DeleteIke => "ike_delete",
            Order::Create => "new_child",
        }
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    let none = End::Children(&[]);
    let both = End::Children(&life::CHILDREN);
    let cases = [
        (Order::DeleteChild, Order::RekeyChild, none),
        (Order::RekeyChild, Order::DeleteChild, none),
        (Order::DeleteChild, Order::DeleteChild, none),
        (Order::DeleteChild, Order::RekeyIke, none),
        (Order::RekeyIke, Order::DeleteChild, none),
        (Order::DeleteIke, Order::RekeyChild, End::Nothing),
        (Order::RekeyChild, Order::DeleteIke, End::Nothing),
        (Order::DeleteIke, Order::RekeyIke, End::Nothing),
        (Order::RekeyIke, Order::DeleteIke, End::Nothing),
        (Order::DeleteIke, Order::DeleteIke, End::Nothing),
        (Order::Create, Order::RekeyIke, both),
        (Order::RekeyIke, Order::Create, both),
        (Order::Create, Order::Create, End::Alike),
    ];
    let run = |ours, its, end| move || run(ours, its, end);
    let name = |ours: Order, its: Order| format!("crossing::our_{}_its_{}", ours.name(), its.name());
    cases.into_iter().map(|(ours, its, end)| trial(name(ours, its), run(ours, its, end))).collect()
}

//= RFC 7296 §2.25: exchange collisions
//= RFC 7296 §1.4.1: both ends close the same SA
fn run(ours: Order, its: Order, end: End) -> Result<()> {
    let path = Profile { delay: DELAY, ..Profile::CLEAN };
    with_pair(
        &Middle::Relay(path),
        peers::chosen()?,
        |_, tunnel| tunnel,
        |lab, pair| {
            pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "30"])?;
            audit::settle(&pair.a, &pair.b, &["net4"], SOON)?;
            let relay = lab.relay.as_ref().context("no relay")?;
            let skip = relay.ike_count();
            at_once(pair, relay, ours, its)?;
            ensure!(crossed(&relay.ike_seen(skip), &EXCHANGES), "they did not cross: {:?}", relay.ike_seen(skip));
            match end {
                End::Nothing => nothing_left(pair),
                End::Alike => {
                    life::settle_within(SETTLED, "both ends agree", || alike(pair))?;
                    carries(lab, &life::CHILDREN)
                }
                End::Children(children) => {
                    life::settle_within(SETTLED, "both ends agree", || agreed(pair, children))?;
                    carries(lab, children)
                }
            }
        },
    )
}

/// The path keeps both requests back until both are there.
fn at_once(pair: &Pair<'_>, relay: &Relay, ours: Order, its: Order) -> Result<()> {
    let skip = relay.ike_count();
    relay.hold_ike(true);
    let together = Barrier::new(2);
    let tell = |daemon: &Daemon<'_>, order: Order| -> Result<()> {
        let mut vici = daemon.vici()?;
        let (command, message) = order.command();
        together.wait();
        // What crosses may well be refused.
        vici.command(command, message, |_, _| Ok(()))?;
        Ok(())
    };
    thread::scope(|scope| {
        let ends = [scope.spawn(|| tell(&pair.a, ours)), scope.spawn(|| tell(&pair.b, its))];
        let asked = wait_until(SOON, || both_ask(&relay.ike_seen(skip), &EXCHANGES));
        relay.hold_ike(false);
        for end in ends {
            end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        ensure!(asked, "not both have asked: {:?}", relay.ike_seen(skip));
        Ok(())
    })
}

fn nothing_left(pair: &Pair<'_>) -> Result<()> {
    life::settle_within(SETTLED, "nothing left", || {
        Ok(pair.a.sas()?.is_empty() && pair.b.sas()?.is_empty() && data_path_is_empty(&pair.a)?)
    })
}

fn data_path_is_empty(daemon: &Daemon<'_>) -> Result<bool> {
    Ok(!daemon.tells_backend_sas() || daemon.backend_sas()?.is_empty())
}

fn agreed(pair: &Pair<'_>, children: &[&str]) -> Result<bool> {
    let found = audit::findings(&pair.a, &pair.b, children)?;
    ensure!(found.is_empty(), "{}", found.join("; "));
    Ok(true)
}

fn alike(pair: &Pair<'_>) -> Result<bool> {
    let (a, b) = (pair.a.sas()?, pair.b.sas()?);
    let orphans = pair.a.tells_backend_sas() && pair.a.backend_sas()?.iter().any(|sa| sa.orphan);
    Ok(matches!(a.as_slice(), [sa] if sa.carries(&life::CHILDREN)) && audit::in_pairs(&a, &b).is_empty() && !orphans)
}

fn carries(lab: &Lab, children: &[&str]) -> Result<()> {
    for (child, family) in [("net4", Family::V4), ("net6", Family::V6)] {
        if children.contains(&child) {
            let (source, target) = (lab.a.host_address(family), lab.b.host_address(family));
            ensure!(ping::answers_within(&lab.a.host, source, target, SOON)?, "{child}: no answer");
        }
    }
    Ok(())
}
