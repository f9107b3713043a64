//! One run with one engine: start, kill, start again, and so on, until everything has been delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::peer::Daemon;
use lab::peer::charon::OpenCharon;
use lab::peer::cygnet::Cygnet;
use lab::random::Random;
use lab::topology::{Lab, Side};

use super::judge::{Evidence, Life};
use super::kept::Database;
use super::keys::Keyring;
use super::moment::{Cue, Moment, Trap, Watch};
use super::receiver::{Mood, Receiver, URL};
use super::storm::{self, Storm};
use super::truth::Truth;
use super::wire::{Wire, now};
use super::witness::Witness;
use super::{Options, Reception, Sabotage};

/// charon gives up soon on a peer that is dead.
const CHARON: OpenCharon = OpenCharon { settings: "retransmit_timeout = 0.4\n  retransmit_tries = 2" };
/// A run that is killed at any moment is at most so old, milliseconds.
const OLDEST: u64 = 2_200;
/// Before something in particular is waited for, milliseconds.
const GROWN: u64 = 900;
/// How long for.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// So early a start is cut off, milliseconds: from when the program may just have begun.
const EARLY: (u64, u64) = (25, 200);
/// So many bytes are cut off a spool: more than none, less than a record.
const TORN: u64 = 20;
/// How long the receiver goes on to fail after the last kill, at least and at most, while there is anything to deliver.
const ILL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));
/// Once it is well, everything has to be delivered within this time.
const DRAIN: Duration = Duration::from_secs(240);
/// A webhook is tried again so often: half of the attempts fail, and none may be given up.
const ATTEMPTS: usize = 60;
/// The last run with tunnels, which ends by itself.
const LAST: Duration = Duration::from_millis(1_500);

/// A run.
pub(super) struct Run<'lab> {
    options: &'lab Options,
    lab: &'lab Lab,
    a: Daemon<'lab>,
    b: Daemon<'lab>,
    database: Arc<Database>,
    receiver: Option<Receiver<'lab>>,
    trap: Arc<Trap>,
    wire: Option<Wire<'lab>>,
    witness: Option<Witness>,
    lives: Vec<Life>,
    random: Random,
    spool: PathBuf,
    /// Of moments, commands and failures.
    pub(super) seed: u64,
    /// How often it was killed when.
    pub(super) moments: BTreeMap<Moment, u32>,
    /// Frames that were not captured.
    pub(super) missed: u64,
    /// How long it took until everything was delivered, and how much of that the receiver was well.
    pub(super) drained: (Duration, Duration),
}

impl<'lab> Run<'lab> {
    /// Starts both daemons.
    pub(super) fn begin(lab: &'lab Lab, options: &'lab Options, url: &str, seed: u64) -> Result<Self> {
        storm::prepare(lab)?;
        let trap = Arc::new(Trap::default());
        let receiver = (!options.no_webhook).then(|| Receiver::new(&lab.a.gateway, seed ^ 0x5eed, &trap));
        let wire = Wire::tap(&lab.a, &trap)?;
        let start = |peer: &dyn lab::peer::Peer, side: Side| {
            let directory = lab.directory().join(side.letter());
            Daemon::start(peer, &lab.site(side).gateway, &directory, &storm::tunnels(lab, side))
        };
        let b = start(&CHARON, Side::B)?;
        let spool = lab.directory().join("a/history/spool");
        std::fs::create_dir_all(&spool)?;
        let begin = now();
        let a = start(&Cygnet { extra: settings(url, &spool, receiver.is_some()), log: String::new() }, Side::A)?;
        Ok(Self {
            options,
            lab,
            a,
            b,
            database: Arc::new(Database::new(url)?),
            receiver,
            trap,
            wire: Some(wire),
            witness: Some(Witness::new()),
            lives: vec![Life { begin, end: None, killed: false }],
            random: Random::new(seed),
            spool,
            seed,
            moments: BTreeMap::new(),
            missed: 0,
            drained: (Duration::ZERO, Duration::ZERO),
        })
    }

    /// All of it; gives what is known in the end.
    pub(super) fn all(&mut self) -> Result<Evidence> {
        if let Some(receiver) = self.receiver.as_mut() {
            if self.options.sabotage == Some(Sabotage::Receiver) {
                receiver.sabotage();
            }
            if self.options.receiver == Reception::Failing {
                receiver.open()?;
            }
        }
        let sockets = [self.a.socket().to_owned(), self.b.socket().to_owned()];
        let on_disk = self.a.directory().join("history");
        let watch = Watch::start(&self.spool, Some(&on_disk), &self.trap)?;
        let storm = Storm::begin(self.lab, sockets, self.seed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = thread::scope(|scope| {
            let server = self.watch_server(scope, &stop);
            let rounds = self.rounds();
            stop.store(true, Ordering::Relaxed);
            server.map_or(Ok(()), |server| {
                server.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the watch panicked")))
            })?;
            rounds
        });
        drop((storm, watch));
        rounds?;
        self.drain()?;
        self.evidence()
    }

    /// Transactions of a server cannot be seen in files.
    fn watch_server<'scope>(
        &self,
        scope: &'scope thread::Scope<'scope, '_>,
        stop: &Arc<AtomicBool>,
    ) -> Option<thread::ScopedJoinHandle<'scope, Result<()>>>
    where
        'lab: 'scope,
    {
        if !self.database.is_server() {
            return None;
        }
        let (database, trap, stop) = (Arc::clone(&self.database), Arc::clone(&self.trap), Arc::clone(stop));
        let namespace = &self.lab.a.gateway;
        Some(scope.spawn(move || {
            let watch = || {
                let stopped = || stop.load(Ordering::Relaxed);
                database.watch_transactions(stopped, || trap.wants_storing(), || trap.notice(Cue::Storing))
            };
            namespace.run(watch)?
        }))
    }

    fn rounds(&mut self) -> Result<()> {
        for number in 0..self.options.kills {
            let moment = match self.options.sabotage {
                Some(Sabotage::Spool) => Moment::After(Cue::RekeyAnswered),
                Some(Sabotage::Receiver) | None => Moment::draw(&mut self.random, self.receiver.is_some()),
            };
            let in_time =
                self.round(number == 0, moment).with_context(|| format!("kill {number}, {}", moment.name()))?;
            *self.moments.entry(if in_time { moment } else { Moment::Any }).or_default() += 1;
            if number % 20 == 19 {
                println!("  {} kills", number + 1);
            }
        }
        self.start()?;
        thread::sleep(LAST);
        self.a.process().terminate().context("ending gateway A's daemon")?;
        self.ended(false)
    }

    /// One life and its end; false when the moment did not come.
    fn round(&mut self, first: bool, moment: Moment) -> Result<bool> {
        let mut in_time = true;
        if let (Moment::Start | Moment::After(Cue::AuthSent), false) = (moment, first) {
            return self.early(moment);
        }
        match first {
            true => self.attend()?,
            false => self.start()?,
        }
        let process = self.a.process().pid().context("process id")?;
        match moment {
            Moment::Any | Moment::Start => thread::sleep(Duration::from_millis(self.random.below(OLDEST))),
            Moment::After(cue) => {
                thread::sleep(Duration::from_millis(self.random.below(GROWN)));
                in_time = self.trap.kill_at(process, cue, self.random.below(3), PATIENCE);
            }
        }
        self.a.process().kill()?;
        self.ended(true)?;
        if self.options.sabotage == Some(Sabotage::Spool) {
            tear(&self.spool)?;
        }
        Ok(in_time)
    }

    /// A life that ends before or right after the daemon is ready.
    fn early(&mut self, moment: Moment) -> Result<bool> {
        self.lives.push(Life { begin: now(), end: None, killed: false });
        self.a.restart_at_once()?;
        let process = self.a.process().pid().context("process id")?;
        let in_time = match moment {
            Moment::After(cue) => self.trap.kill_at(process, cue, self.random.below(3), PATIENCE),
            Moment::Any | Moment::Start => {
                thread::sleep(Duration::from_millis(EARLY.0 + self.random.below(EARLY.1 - EARLY.0)));
                true
            }
        };
        self.a.process().kill()?;
        self.ended(true)?;
        Ok(in_time)
    }

    fn start(&mut self) -> Result<()> {
        self.lives.push(Life { begin: now(), end: None, killed: false });
        self.a.restart()?;
        self.attend()
    }

    /// What is to be done as soon as the daemon is there.
    fn attend(&mut self) -> Result<()> {
        if let Some(witness) = &mut self.witness {
            witness.listen(&self.a);
        }
        storm::begin_from_charon(self.b.socket())
    }

    fn ended(&mut self, killed: bool) -> Result<()> {
        let life = self.lives.last_mut().context("no life")?;
        (life.end, life.killed) = (Some(now()), killed);
        Ok(())
    }

    /// A last run without tunnels, until nothing waits any more.
    fn drain(&mut self) -> Result<()> {
        self.a.write_tunnels(&[])?;
        match (&mut self.receiver, self.options.receiver) {
            (Some(receiver), Reception::Down) => receiver.open()?,
            (Some(_), Reception::Failing) | (None, _) => {}
        }
        self.lives.push(Life { begin: now(), end: None, killed: false });
        self.a.restart()?;
        let started = Instant::now();
        let ill = ILL.0.max(Duration::from_secs(2) * self.options.kills).min(ILL.1);
        let (mut before, mut well_since) = (None, None);
        loop {
            if well_since.is_none() && started.elapsed() > ill {
                well_since = Some(Instant::now());
                self.receiver.iter().for_each(Receiver::recover);
            }
            thread::sleep(Duration::from_millis(500));
            let waiting =
                self.ask(|database| database.count("SELECT COUNT(*) FROM delivery WHERE state = 'waiting'"))?;
            let events = self.ask(|database| database.count("SELECT COUNT(*) FROM event"))?;
            let boots = self.ask(|database| database.count("SELECT COUNT(*) FROM boot"))?;
            if waiting == 0 && before.replace((events, boots)) == Some((events, boots)) {
                break;
            }
            let limit = ill + DRAIN;
            ensure!(started.elapsed() < limit, "{waiting} webhooks wait still after {} s", limit.as_secs());
        }
        self.drained = (started.elapsed(), well_since.map_or(Duration::ZERO, |since: Instant| since.elapsed()));
        Ok(())
    }

    fn ask<T: Send>(&self, question: impl FnOnce(&Database) -> Result<T> + Send) -> Result<T> {
        let database = &self.database;
        self.lab.a.gateway.run(|| question(database))?
    }

    fn evidence(&mut self) -> Result<Evidence> {
        let kept = self.ask(Database::read)?;
        // Only now: witnesses of this run would wait for its end.
        self.a.process().terminate()?;
        let records = self.witness.take().context("no witness")?.finish();
        let seen = self.wire.take().context("no capture")?.finish()?;
        self.missed = seen.missed;
        let log = self.b.log();
        let truth = Truth::read(&seen, &mut Keyring::read(&log)?);
        let accounts = self.receiver.as_ref().map(Receiver::accounts);
        Ok(Evidence { truth, charon: told_by_charon(&log), lives: self.lives.clone(), records, accounts, kept })
    }

    /// What the receiver did how often.
    pub(super) fn moods(&self) -> BTreeMap<Mood, u64> {
        self.receiver.as_ref().map(Receiver::moods).unwrap_or_default()
    }

    /// The ends of both logs.
    pub(super) fn show_logs(&self) {
        eprintln!("log of A:\n{}\n", self.a.log_tail(60));
        let theirs = self.b.log();
        // The dumps of level 4 are not worth a look.
        let words: Vec<&str> = theirs.lines().filter(|line| !line.contains("[IKE]   ")).collect();
        eprintln!("log of B:\n{}", words.get(words.len().saturating_sub(60)..).unwrap_or_default().join("\n"));
    }
}

/// The daemon's settings besides those of every lab.
fn settings(url: &str, spool: &Path, webhooks: bool) -> String {
    let mut text = format!(
        "[history]\nurl = \"{url}\"\nretain_days = 0\nspool = \"{}\"\n[gateway]\nname = \"gw-a\"\n",
        spool.display()
    );
    if webhooks {
        let retry = [r#""500ms""#; ATTEMPTS].join(", ");
        text += &format!(
            "[[webhook]]\nname = \"ops\"\nurl = \"{URL}\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\ntimeout = 1\n\
             concurrency = 4\nlongest_pause = \"1s\"\ngive_up = 0\nretry = [{retry}]\n"
        );
    }
    text
}

/// Cuts off the end of the last record, as if it had never been written.
fn tear(spool: &Path) -> Result<()> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(spool)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
    files.sort();
    if let Some(last) = files.last() {
        let file = std::fs::File::options().write(true).open(last)?;
        file.set_len(file.metadata()?.len().saturating_sub(TORN))?;
    }
    Ok(())
}

/// Every pair of SPIs that charon has logged, from our side. Of a rekey, charon logs both directions apart and then together.
fn told_by_charon(log: &str) -> BTreeSet<(u32, u32)> {
    let pair = |line: &str| {
        let (_, rest) = line.split_once("established with SPIs ")?;
        let mut words = rest.split(' ');
        let spi = |word: Option<&str>, end: &str| u32::from_str_radix(word?.strip_suffix(end)?, 16).ok();
        let inbound = spi(words.next(), "_i")?;
        Some((spi(words.next(), "_o")?, inbound))
    };
    log.lines().filter_map(pair).collect()
}
