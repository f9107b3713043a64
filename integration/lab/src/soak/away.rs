//! A PostgreSQL that is away under load for as long as one likes: traffic, rekeys and new IKE SAs go on, and the history misses nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::away::{self, DATABASE, Way};
use lab::busy::Busy;
use lab::postgres::Postgres;
use lab::topology::{Lab, Middle};

/// Options of the soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long the database is away each time
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Runs the soak; true when it passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let lab = Lab::new(&Middle::Direct)?;
    let mut postgres = Postgres::start(&lab.a.gateway, &lab.directory().join("postgres"))?;
    let url = postgres.database(DATABASE)?;
    let mut busy = Busy::start(&lab, &away::settings(&lab.directory().join("a"), &url))?;
    let outcome = soak(options, &mut postgres, &mut busy);
    if outcome.is_err() {
        eprintln!("log of gateway A:\n{}", busy.pair.a.log_tail(120));
    }
    outcome.map(|()| true)
}

fn soak(options: &Options, postgres: &mut Postgres<'_>, busy: &mut Busy<'_>) -> Result<()> {
    let mut events = 0;
    for way in [Way::Stopped, Way::Frozen] {
        let outage =
            way.go(postgres, busy, Duration::from_secs(options.seconds)).with_context(|| format!("{way:?}"))?;
        events = busy.nothing_is_missing().with_context(|| format!("after {way:?}"))?;
        let done = outage.done;
        println!(
            "{way:?} for {} s: {} rekeys and {} IKE SAs meanwhile, none slower than {:.0} ms; the spool grew by {} octets; used again after {:.1} s",
            options.seconds,
            done.rekeys,
            done.handshakes,
            done.slowest.as_secs_f64() * 1e3,
            outage.grown,
            outage.back.as_secs_f64(),
        );
    }
    let packets = busy.end_traffic()?;
    println!("history away: {packets} packets, lost 0; {events} events, lost 0, duplicated 0");
    Ok(())
}
