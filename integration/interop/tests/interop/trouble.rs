//! A history that is in trouble hurts nobody and loses nothing: its database away in every way, its disk full.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::away::{self, DATABASE, PASSWORD, Way};
use lab::busy::{self, Busy};
use lab::netns::command;
use lab::postgres::Postgres;
use lab::topology::{Lab, Middle};
use libtest_mimic::Trial;

use crate::harness::trial;
use crate::{http, life};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("trouble::a_postgres_that_is_away_hurts_nobody_and_misses_nothing", away_in_every_way),
        trial("trouble::a_full_disk_of_the_database_hurts_nobody_and_misses_nothing", full_disk),
        trial("trouble::a_full_disk_of_database_and_spool_stops_new_handshakes_only", full_disk_for_both),
    ]
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
        let other: Vec<_> = loud(&log).filter(|line| !line.contains(away::TOLD[0])).collect();
        ensure!(other.is_empty(), "{other:#?}");
        Ok(())
    })
}

/// A file system of its own, in memory.
fn mount(directory: &Path, size: &str) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let options = format!("size={size},mode=0750");
    let directory = directory.to_str().context("a path")?;
    command("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", directory]).map(drop)
}

/// Fills a file system to the last octet.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(directory: &Path) -> Result<Self> {
        let path = directory.join("ballast");
        let mut file = std::fs::File::create(&path)?;
        for size in [64 << 10, 512, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(Self(path))
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // It is gone with the file system at the latest.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The database alone has no room: its disk is full, the spool is elsewhere.
fn full_disk() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let directory = lab.directory().join("a");
    let disk = directory.join("disk");
    mount(&disk, "24m")?;
    let mut busy = Busy::start(&lab, &away::settings(&directory, &format!("sqlite://{}/history.db", disk.display())))?;
    checked(&mut busy, |busy| {
        busy.round()?;
        let ballast = Ballast::fill(&disk)?;
        let done = busy.work(Duration::from_secs(3))?;
        ensure!(done.handshakes > 2, "{done:?}");
        let output = busy.pair.a.cygnet(&["history", "--ike-sas"])?;
        ensure!(output.status.success(), "what is known can be asked: {}", String::from_utf8_lossy(&output.stderr));
        drop(ballast);
        back_without_loss(busy, &[1, 1])?;
        let packets = busy.end_traffic()?;
        println!("{done:?}, {packets} packets, {} events", busy.nothing_is_missing()?);
        Ok(())
    })
}

fn back_without_loss(busy: &Busy<'_>, told: &[usize; 2]) -> Result<()> {
    life::settle_within(Duration::from_secs(60), "the database is used again", || Ok(away::told(busy) == *told))?;
    busy.nothing_is_missing()?;
    let log = busy.pair.a.log();
    let loud: Vec<_> = loud(&log).filter(|line| !line.contains(away::TOLD[0])).collect();
    ensure!(loud.is_empty(), "{loud:#?}");
    Ok(())
}

fn loud(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR"))
}

/// Database and spool are on one disk, and that is full: first there is room in reserve, then there is none, then the daemon is killed and starts
/// like that.
fn full_disk_for_both() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let disk = lab.directory().join("a/disk");
    mount(&disk, "24m")?;
    let settings = format!(
        "[http]\nlisten = \"127.0.0.1:9470\"\n[history]\nurl = \"sqlite://{}/history.db\"\nspool_size = {}\n",
        disk.display(),
        4 << 20
    );
    let mut busy = Busy::start(&lab, &settings)?;
    checked(&mut busy, |busy| {
        busy.round()?;
        let ballast = Ballast::fill(&disk)?;
        for _ in 0..8 {
            busy.round()?;
        }
        drop(ballast);
        back_without_loss(busy, &[1, 1])?;

        let ballast = Ballast::fill(&disk)?;
        http::get_well(&lab, "/readyz").context("it is not ready")?;
        exhaust(busy)?;
        ensure!(http::get(&lab, "/readyz")?.0 == 503, "it is said to be ready");
        drop(ballast);
        gap_is_told(busy)?;
        http::get_well(&lab, "/readyz").context("it is not ready again")?;
        busy.end_traffic()?;

        let ballast = Ballast::fill(&disk)?;
        let (before, gap) = (busy.told(), lost(busy)?);
        exhaust(busy)?;
        busy.pair.a.process().kill()?;
        busy.pair.a.restart()?;
        ensure!(
            busy.pair.a.log().contains("no new handshakes are begun until it does"),
            "a start without room is told"
        );
        ensure!(busy.handshake_of_a().is_err(), "a handshake is begun whose events cannot be kept");
        drop(ballast);
        life::settle("there is room again", || busy.handshake_of_a().map(|()| true))?;
        life::settle("what was told before is kept", || {
            let kept = busy::kept(&busy.pair.a)?;
            let missing = before.keys().filter(|number| !kept.contains_key(number));
            let missing: Vec<u64> = missing.map(|(_, number)| *number).collect();
            ensure!(missing == gap, "{missing:?} beyond {gap:?}");
            Ok(true)
        })
    })
}

/// Goes on until nothing new is begun any more; what stands is rekeyed all the same.
fn exhaust(busy: &mut Busy<'_>) -> Result<()> {
    let mut refused = None;
    for _ in 0..400 {
        busy.rekey()?;
        if let Err(error) = busy.handshake_of_a() {
            refused = Some(error.to_string());
            break;
        }
    }
    let refused = refused.context("400 handshakes found room on a full disk")?;
    ensure!(refused.contains("the history cannot take down what happens"), "{refused}");
    for _ in 0..3 {
        busy.rekey()?;
    }
    Ok(())
}

/// What was lost is known to the event, and nothing else is.
fn gap_is_told(busy: &mut Busy<'_>) -> Result<()> {
    life::settle("handshakes go on", || busy.handshake_of_a().map(|()| true))?;
    life::settle("the gap is told, and is one", || {
        let (kept, told, lost) = (busy::kept(&busy.pair.a)?, busy.told(), lost(busy)?);
        let missing: Vec<u64> =
            told.keys().filter(|number| !kept.contains_key(number)).map(|(_, number)| *number).collect();
        ensure!(!missing.is_empty() && missing == lost, "lost {missing:?}, told {lost:?}");
        let first = told.keys().next().context("nothing was told")?.1;
        let complete = (first..=told.len() as u64)
            .all(|number| missing.contains(&number) || kept.keys().any(|(_, n)| *n == number));
        ensure!(complete, "what was kept has another gap");
        Ok(true)
    })?;
    let log = busy.pair.a.log();
    let begun = log.matches("events cannot be taken down").count();
    let ended = log.matches("are in no history and go to no webhook").count();
    ensure!(begun == ended, "told {begun} times that a gap begins, and {ended} times what is missing");
    Ok(())
}

/// The numbers that the events of gaps name.
fn lost(busy: &Busy<'_>) -> Result<Vec<u64>> {
    let output = busy.pair.a.cygnet(&["events", "--json", "--event", "events.gap"])?;
    let mut all = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let record: serde_json::Value = serde_json::from_str(line)?;
        let number = |key: &str| record.get(key).and_then(serde_json::Value::as_u64).context("no number");
        all.extend(number("first")?..=number("last")?);
    }
    Ok(all)
}
