//! A history that is in trouble hurts nobody and loses nothing: its database away in every way, its disk full.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::away::{self, DATABASE, PASSWORD, Way};
use lab::busy::Busy;
use lab::postgres::Postgres;
use lab::topology::{Lab, Middle};
use libtest_mimic::Trial;

use crate::harness::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("trouble::a_postgres_that_is_away_hurts_nobody_and_misses_nothing", away_in_every_way)]
}

/// Runs a test with busy gateways; when it fails, the error carries both logs.
fn checked<T>(busy: &mut Busy<'_>, test: impl FnOnce(&mut Busy<'_>) -> Result<T>) -> Result<T> {
    let outcome = test(busy);
    outcome.map_err(|error| {
        let (a, b) = (busy.pair.a.log_tail(80), busy.pair.b.log_tail(20));
        error.context(format!("log of A:\n{a}\n\nlog of B:\n{b}\n"))
    })
}

fn away_in_every_way() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let mut postgres = Postgres::start(&lab.a.gateway, &lab.directory().join("postgres"))?;
    let url = postgres.database(DATABASE)?;
    postgres.ask_for_password(PASSWORD)?;
    let url = url.replacen("cygnet@", &format!("cygnet:{PASSWORD}@"), 1);
    let settings = away::settings(&lab.directory().join("a"), &url);
    let mut busy = Busy::start(&lab, &settings)?;
    // Frozen: longer than it takes to give a statement up.
    let ways = [
        (Way::Stopped, 5),
        (Way::Frozen, 12),
        (Way::Terminated, 1),
        (Way::ReadOnly, 2),
        (Way::Password, 2),
        // The last, for it takes with it what was there.
        (Way::Dropped, 2),
    ];
    checked(&mut busy, |busy| {
        for (way, seconds) in ways {
            let outage =
                way.go(&mut postgres, busy, Duration::from_secs(seconds)).with_context(|| format!("{way:?}"))?;
            println!("{way:?}: {outage:?}");
            ensure!(outage.done.rekeys > 2 && outage.done.handshakes > 2, "{way:?}: {outage:?}");
            if way != Way::Dropped {
                let events = busy.nothing_is_missing().with_context(|| format!("after {way:?}"))?;
                println!("{events} events");
            }
        }
        let packets = busy.end_traffic()?;
        println!("{packets} packets");
        let log = busy.pair.a.log();
        ensure!(!log.contains(PASSWORD), "the password is in the log");
        let loud: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR")).collect();
        let other: Vec<_> = loud.iter().filter(|line| !line.contains(away::TOLD[0])).collect();
        ensure!(other.is_empty(), "{other:#?}");
        Ok(())
    })
}
