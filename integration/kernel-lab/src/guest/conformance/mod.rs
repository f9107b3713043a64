//! The rules every backend keeps, on the kernel backend: in software, with crypto offload and with packet offload.
//!
//! Each behaviour is a test of its own on each rung, `conformance::packet::counters_are_exact`. What the kernel does otherwise is in
//! [`differences`], with the reason; a line there that does not hold any more fails like everything else. `plugins/kernel/BEHAVIOURS.md` shows both.

mod bed;
mod bed_test;
mod differences;
#[cfg(test)]
mod document;
mod frames;
mod knobs;
mod subject;
mod wire;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ipsec::OffloadMode;
use ipsec::conformance::{BEHAVIOURS, Behaviour, Verdict};
use libtest_mimic::Trial;

use crate::bench::{ip, trial, trial_within};
use bed::{Bed, Link};
use subject::InKernel;

/// Some behaviours wait for minutes, on the guest's clock.
const LONGEST: Duration = Duration::from_secs(3_000);

/// The rungs by the name of their tests, and what carries the outer link there.
const RUNGS: [(&str, OffloadMode, Link); 3] = [
    ("software", OffloadMode::No, Link::Plain),
    ("crypto", OffloadMode::Crypto, Link::Crypto),
    ("packet", OffloadMode::Packet, Link::Packet),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut all = vec![trial("conformance::the_bed_shows_both_sides", bed_test::the_bed_shows_both_sides)];
    for (rung, mode, link) in RUNGS {
        all.extend(BEHAVIOURS.iter().map(|behaviour| {
            let name = format!("conformance::{rung}::{}", behaviour.name);
            trial_within(LONGEST, &name, move || check(behaviour, mode, link))
        }));
    }
    all.push(trial("conformance::a_nic_that_leaks_is_found_out", a_nic_that_leaks_is_found_out));
    all
}

/// The bed of the last test: the next one mostly wants the same.
static BED: Mutex<Option<Bed>> = Mutex::new(None);

/// Does something on a bed: that of the last test, if it has this link.
fn on_bed<T>(link: Link, work: impl FnOnce(&Bed) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut slot = BED.lock().unwrap_or_else(PoisonError::into_inner);
    if slot.as_ref().is_none_or(|bed| bed.link != link) {
        *slot = None;
        *slot = Some(Bed::new(link)?);
    }
    work(slot.as_ref().context("the bed was just made")?)
}

/// How a behaviour ended; with a verdict, what kernel and device say at that moment.
type Ended = Result<(), (Verdict, String)>;

fn run(bed: &Bed, behaviour: &Behaviour, mode: OffloadMode) -> anyhow::Result<Ended> {
    let mut subject = InKernel::start(bed)?;
    let before = subject.refusals()?;
    let ended = behaviour.check(&mut subject, mode);
    Ok(ended.map_err(|verdict| (verdict, seen(bed, &before, &subject.refusals().unwrap_or_default()))))
}

/// What kernel and device say at the end: for whoever looks for the reason of a verdict.
fn seen(bed: &Bed, before: &str, after: &str) -> String {
    let new = after.lines().filter(|line| before.lines().all(|other| other != *line));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = format!("refused by the kernel: {}\n", new.map(words).collect::<Vec<_>>().join(", "));
    for what in ["-d xfrm state", "-d xfrm policy"] {
        text += &ip(&bed.gateway, what).unwrap_or_else(|error| error.to_string());
    }
    text + &knobs::shown(bed)
}

/// Runs a behaviour and holds how it ends against what is written of it.
fn check(behaviour: &Behaviour, mode: OffloadMode, link: Link) -> anyhow::Result<()> {
    let ended = on_bed(link, |bed| run(bed, behaviour, mode))?;
    let expected = differences::of(behaviour.name, mode);
    match (ended, expected) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(known)) => bail!("is kept; written is {:?}: {}", known.seen, known.reason),
        (Err((verdict, moved)), None) => bail!("{verdict}\n{moved}"),
        (Err((verdict, _)), Some(known)) => {
            ensure!(known.is(&verdict), "{verdict}; written is {:?}: {}", known.seen, known.reason);
            Ok(())
        }
    }
}

/// Most behaviours need a packet to leave protected: a device that leaks has to show.
fn a_nic_that_leaks_is_found_out() -> anyhow::Result<()> {
    on_bed(Link::Packet, |bed| {
        let carries = BEHAVIOURS.iter().find(|behaviour| behaviour.name == "counters_stand_still_for_refused_packets");
        let carries = carries.context("the behaviour has another name")?;
        knobs::leak(true)?;
        let ended = run(bed, carries, OffloadMode::Packet);
        knobs::leak(false)?;
        match ended? {
            Err((Verdict::Broken(said), _)) => ensure!(said.contains("in clear"), "it leaks, and seen was: {said}"),
            other => bail!("it leaks, and seen was: {other:?}"),
        }
        let ended = run(bed, carries, OffloadMode::Packet)?;
        ensure!(ended.is_ok(), "it leaks no more, and seen was: {ended:?}");
        Ok(())
    })
}
