//! A PostgreSQL that is away while gateways are busy: in which ways, and what must hold meanwhile and afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::busy::{Busy, Done};
use crate::life;
use crate::postgres::Postgres;

/// What the daemon says once when the database takes nothing, and once when it does again.
pub const TOLD: [&str; 2] =
    ["the history database takes no events: they wait in the spool", "the history database takes events again"];
/// How long it may take until the database is used again.
const BACK: Duration = Duration::from_secs(60);

/// The name of the database.
pub const DATABASE: &str = "history";
/// The password that the gateway has in its URL.
pub const PASSWORD: &str = "pass-of-the-lab";

/// A way in which a database is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The server has ended, and connections are refused.
    Stopped,
    /// Nothing answers, and nothing is refused.
    Frozen,
    /// The server ends the connections, in the middle of a transaction as it comes.
    Terminated,
    /// It takes nothing, but answers.
    ReadOnly,
    /// It does not know the password any more.
    Password,
    /// The database was dropped, and comes back empty.
    Dropped,
}

/// What an outage came to.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// What went on meanwhile.
    pub done: Done,
    /// Octets by which the spool has grown.
    pub grown: u64,
    /// How long it took until the database was used again.
    pub back: Duration,
}

impl Way {
    /// Begins and ends it, keeps the gateways busy in between, and looks after what must hold.
    ///
    /// # Errors
    /// Something of that does not hold.
    pub fn go(self, postgres: &mut Postgres<'_>, busy: &mut Busy<'_>, time: Duration) -> Result<Outage> {
        let [away_before, back_before] = told(busy);
        let spool_before = spool(busy)?;
        self.begin(postgres)?;
        let began = Instant::now();
        let mut done = self.work(postgres, busy, time / 2)?;
        self.answer_meanwhile(busy)?;
        done = done + self.work(postgres, busy, time.saturating_sub(began.elapsed()))?;
        let grown = spool(busy)?.saturating_sub(spool_before);
        ensure!(self == Way::Terminated || grown > 1_000, "the spool has grown by {grown} octets");
        self.end(postgres).context("the database comes back")?;
        let ended = Instant::now();
        let lines = || {
            let [away, back] = told(busy);
            [away - away_before, back - back_before]
        };
        life::settle_within(BACK, "it is told once that the database is away, and once that it is back", || {
            let lines = lines();
            // A connection that nobody uses is replaced in silence; each transaction that is cut off is an outage of its own.
            let fits = if self == Way::Terminated { lines[0] == lines[1] } else { lines == [1, 1] };
            ensure!(fits, "told {lines:?} times");
            Ok(true)
        })?;
        Ok(Outage { done, grown, back: ended.elapsed() })
    }

    /// Keeps the gateways busy; connections are ended again and again, so that it happens in the middle of a transaction.
    fn work(self, postgres: &mut Postgres<'_>, busy: &mut Busy<'_>, time: Duration) -> Result<Done> {
        if self != Way::Terminated {
            return busy.work(time);
        }
        let (began, mut done) = (Instant::now(), Done::default());
        while began.elapsed() < time || done.rekeys < 3 {
            done = done + busy.round()?;
            self.begin(postgres)?;
        }
        Ok(done)
    }

    fn begin(self, postgres: &mut Postgres<'_>) -> Result<()> {
        match self {
            Way::Stopped => postgres.stop(),
            Way::Frozen => postgres.freeze(),
            Way::Terminated => terminate(postgres),
            Way::ReadOnly => {
                postgres
                    .sql("postgres", &format!("ALTER DATABASE {DATABASE} SET default_transaction_read_only = on"))?;
                terminate(postgres)
            }
            Way::Password => {
                postgres.sql("postgres", "ALTER USER cygnet PASSWORD 'another'")?;
                terminate(postgres)
            }
            Way::Dropped => postgres.sql("postgres", &format!("DROP DATABASE {DATABASE} WITH (FORCE)")).map(drop),
        }
    }

    fn end(self, postgres: &mut Postgres<'_>) -> Result<()> {
        match self {
            Way::Stopped => postgres.resume(),
            Way::Frozen => postgres.thaw(),
            Way::Terminated => Ok(()),
            Way::ReadOnly => postgres
                .sql("postgres", &format!("ALTER DATABASE {DATABASE} RESET default_transaction_read_only"))
                .map(drop),
            Way::Password => postgres.sql("postgres", &format!("ALTER USER cygnet PASSWORD '{PASSWORD}'")).map(drop),
            Way::Dropped => postgres.sql("postgres", &format!("CREATE DATABASE {DATABASE}")).map(drop),
        }
    }

    /// Who asks gets an answer soon: the past as far as it is known, or the reason and what becomes of the events.
    fn answer_meanwhile(self, busy: &Busy<'_>) -> Result<()> {
        let began = Instant::now();
        let output = busy.pair.a.cygnet(&["history"])?;
        let took = began.elapsed();
        ensure!(took < Duration::from_secs(30), "`cygnet history` takes {took:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let reason = match self {
            Way::Terminated | Way::ReadOnly => {
                ensure!(output.status.success(), "{said}");
                return Ok(());
            }
            Way::Stopped => "onnection refused",
            Way::Frozen => "no answer within",
            Way::Password => "password authentication failed",
            Way::Dropped => "does not exist",
        };
        ensure!(output.status.code() == Some(2) && said.contains(reason), "{} {said}", output.status);
        ensure!(!said.contains(PASSWORD), "{said}");
        Ok(())
    }
}

/// Ends the gateway's connections to the database.
fn terminate(postgres: &Postgres<'_>) -> Result<()> {
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = ";
    postgres.sql("postgres", &format!("{others}'{DATABASE}'")).map(drop)
}

/// How often the gateway has said each of [`TOLD`].
#[must_use]
pub fn told(busy: &Busy<'_>) -> [usize; 2] {
    let log = busy.pair.a.log();
    TOLD.map(|line| log.matches(line).count())
}

/// Octets in the gateway's spool.
///
/// # Errors
/// It cannot be read.
fn spool(busy: &Busy<'_>) -> Result<u64> {
    let mut octets = 0;
    for entry in std::fs::read_dir(busy.pair.a.directory().join("spool"))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "spool") {
            octets += entry.metadata()?.len();
        }
    }
    Ok(octets)
}

/// Settings of a gateway with its history in `url`.
///
/// # Errors
/// It does not come up.
pub fn settings(directory: &std::path::Path, url: &str) -> String {
    format!("[history]\nurl = \"{url}\"\nspool = \"{}\"\n", directory.join("spool").display())
}
