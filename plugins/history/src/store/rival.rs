//! Another daemon that keeps its history under our gateway's name in the same database: a mistake, and one to be told.
//!
//! Whoever writes for a gateway holds a lock for as long as it lives: an advisory one of its connection in PostgreSQL, one of the file system beside
//! SQLite's file. Who does not get it writes all the same, for events are not lost over a name; but it closes nothing and gives nothing back that
//! the other one may have open. The lock of a process that has died is free at once; that of a machine that has vanished only when PostgreSQL
//! notices, so that a lock alone does not prove a rival: one that lives speaks to the database now and then.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use ike_model::Rfc3339;
use rustix::fs::FlockOperation;
use sqlx::Row as _;

use super::Store;
use crate::sql::Sql;

/// With the gateway's name, tells its lock from others: "cygnet" in ASCII.
const SEED: i64 = 0x6379_676e_6574;
/// How a daemon names its connection, before its run.
const APPLICATION: &str = "cygnetd ";
/// Octets of a lock's file that are read: it holds the name of a run.
const RUN_MAX: u64 = 256;
/// Octets of a gateway's name in the name of a file.
const NAME_MAX: usize = 150;

/// Who holds the lock of our gateway's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rival {
    /// Its run.
    pub(crate) boot_id: String,
    /// Its machine and process, where the database knows.
    pub(crate) process: Option<(String, u32)>,
    /// Where it connects from.
    pub(crate) address: Option<String>,
    /// When it was started.
    pub(crate) since_ms: Option<u64>,
    /// Whether it lives.
    pub(crate) life: Life,
}

/// What shows that a rival lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its lock alone does.
    Certain,
    /// It spoke to the database then, in microseconds; a later time shows that it lives.
    Spoke(u64),
    /// Nothing that we may see.
    #[default]
    Unknown,
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((host, pid)) => write!(f, "process {pid} on {host}")?,
            None if self.boot_id.is_empty() => f.write_str("somebody")?,
            None => write!(f, "run {}", self.boot_id)?,
        }
        if let Some(address) = &self.address {
            write!(f, ", connected from {address}")?;
        }
        match self.since_ms {
            Some(since) => write!(f, ", since {}", Rfc3339(since)),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Takes the place of the one who writes for this gateway, or tells who has it.
    pub(crate) async fn rival(&self, boot_id: &str) -> Result<Option<Rival>, sqlx::Error> {
        let holder = match &self.file {
            Some(file) => self.lock_file(file, boot_id).map_err(sqlx::Error::Io)?,
            None => self.lock_name(boot_id).await?,
        };
        // Our own, of a connection of before.
        let rival = holder.filter(|rival| rival.boot_id != boot_id);
        self.alone.store(rival.is_none(), Ordering::Relaxed);
        match rival {
            Some(rival) => Ok(Some(self.describe(rival).await?)),
            None => Ok(None),
        }
    }

    /// Nobody else writes for this gateway, as far as was found out last.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    /// The advisory lock of PostgreSQL. Asking is what shows others that we live.
    async fn lock_name(&self, boot_id: &str) -> Result<Option<Rival>, sqlx::Error> {
        let mut writer = self.writer.acquire().await?;
        let mut sql = Sql::new("SELECT set_config('application_name', ");
        sql.value(&*format!("{APPLICATION}{boot_id}")).push(", false)");
        sql.execute(&mut *writer).await?;
        let mut sql = Sql::new("SELECT CASE WHEN EXISTS (SELECT 1 FROM pg_locks WHERE pid = pg_backend_pid() AND ");
        self.of_lock(&mut sql);
        // Held already, it would be held twice.
        sql.push(") THEN 1 WHEN pg_try_advisory_lock(hashtextextended(");
        sql.value(&*self.gateway).push(", ").value(SEED).push(")) THEN 1 ELSE 0 END");
        let taken: i32 = sql.fetch(&mut *writer).await?.first().map_or(Ok(0), |row| row.try_get(0))?;
        if taken == 1 {
            return Ok(None);
        }
        let mut sql = Sql::new(
            "SELECT CAST(COALESCE(application_name, '') AS TEXT), CAST(host(client_addr) AS TEXT), \
             CAST(EXTRACT(EPOCH FROM GREATEST(query_start, state_change)) * 1000000 AS BIGINT) \
             FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE ",
        );
        self.of_lock(&mut sql);
        sql.push(" LIMIT 1");
        let rows = sql.fetch(&mut *writer).await?;
        // Gone between the two questions: the next look will show.
        let Some(row) = rows.first() else { return Ok(Some(Rival::default())) };
        let name: String = row.try_get(0)?;
        let spoke: Option<i64> = row.try_get(2)?;
        let spoke = spoke.and_then(|spoke| u64::try_from(spoke).ok());
        Ok(Some(Rival {
            boot_id: name.strip_prefix(APPLICATION).unwrap_or(&name).to_owned(),
            address: row.try_get(1)?,
            life: spoke.map_or(Life::Unknown, Life::Spoke),
            ..Rival::default()
        }))
    }

    /// The lock of our gateway's name in `pg_locks`, which shows those of all databases.
    fn of_lock(&self, sql: &mut Sql) {
        sql.push(
            "locktype = 'advisory' AND granted AND objsubid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND ((classid::bigint << 32) | objid::bigint) = hashtextextended(",
        );
        sql.value(&*self.gateway).push(", ").value(SEED).push(")");
    }

    /// The lock of a file beside SQLite's, which holds the name of the run that has it.
    fn lock_file(&self, file: &Path, boot_id: &str) -> io::Result<Option<Rival>> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Ok(None);
        }
        let mut options = OpenOptions::new();
        let path = lock_path(file, &self.gateway);
        let mut lock = options.read(true).write(true).create(true).truncate(false).mode(0o640).open(path)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                lock.set_len(0)?;
                lock.rewind()?;
                lock.write_all(boot_id.as_bytes())?;
                *held = Some(lock);
                Ok(None)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Ok(Some(Rival { boot_id: named(&mut lock)?, life: Life::Certain, ..Rival::default() }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Adds what the database knows of its run.
    async fn describe(&self, mut rival: Rival) -> Result<Rival, sqlx::Error> {
        let mut sql = Sql::new("SELECT host, pid, started_us FROM boot WHERE boot_id = ");
        sql.value(&*rival.boot_id);
        if let Some(row) = sql.fetch(&self.readers).await?.first() {
            let (host, pid): (Option<String>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
            rival.process = host.zip(pid.and_then(|pid| u32::try_from(pid).ok()));
            rival.since_ms = u64::try_from(row.try_get::<i64, _>(2)?).ok().map(|us| us / 1000);
        }
        Ok(rival)
    }
}

/// The run that is named in a lock's file.
fn named(lock: &mut File) -> io::Result<String> {
    let mut octets = Vec::new();
    lock.take(RUN_MAX).read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).trim().to_owned())
}

/// Where the lock of a gateway's name is: a file may be shared by several.
fn lock_path(file: &Path, gateway: &str) -> PathBuf {
    let mut name = String::new();
    for octet in gateway.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(octet.into()),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    name.truncate(NAME_MAX);
    let mut path = file.as_os_str().to_owned();
    path.push(format!(".{name}.lock"));
    path.into()
}
