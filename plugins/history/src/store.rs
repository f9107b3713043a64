//! The database: SQLite or PostgreSQL, one set of statements for both.

mod batch;
mod damage;
mod deliveries;
mod migrate;
mod outbox;
mod query;
mod retain;
mod rival;
mod rows;
mod subscriptions;
mod write;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, Once};
use std::time::Duration;

use ike_model::history::HistoryError;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

pub(crate) use damage::is_damage;
pub use retain::Retention;
pub(crate) use rival::{Life, Rival};
pub(crate) use subscriptions::Subscriptions;
pub(crate) use write::Applied;

/// How long to wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections for questions, besides the one that writes.
const READERS: u32 = 3;

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// Where the history is kept.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Location {
    engine: Engine,
    url: String,
    /// The file, of SQLite.
    file: Option<PathBuf>,
}

impl std::fmt::Debug for Location {
    /// A URL may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Location").field("engine", &self.engine).field("file", &self.file).finish_non_exhaustive()
    }
}

impl Engine {
    /// Its name, as the scheme of its URL has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

impl Location {
    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// Understands `sqlite:///PATH` and `postgres://...`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            if !path.starts_with('/') || path.contains(['?', '#']) {
                return Err(format!("must be `sqlite://` and an absolute path, not `{url}`"));
            }
            let file = Some(PathBuf::from(path));
            return Ok(Self { engine: Engine::Sqlite, url: format!("{url}?mode=rwc"), file });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            install_drivers();
            // The reason may repeat the URL, and with it the password.
            AnyConnectOptions::from_str(url).map_err(|_| "is no URL of a PostgreSQL database".to_owned())?;
            return Ok(Self { engine: Engine::Postgres, url: url.into(), file: None });
        }
        Err("must begin with `sqlite://` or `postgres://`".into())
    }
}

fn install_drivers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(sqlx::any::install_default_drivers);
}

/// An open database whose schema is ours.
#[derive(Debug)]
pub(crate) struct Store {
    engine: Engine,
    /// One connection: SQLite has one writer anyway, and the events of one gateway come from one spool.
    writer: AnyPool,
    readers: AnyPool,
    /// Of PostgreSQL: the connection that finds and deletes what is forgotten, made when it is first needed. What it does may be lost and is done
    /// again.
    sweeper: AnyPool,
    gateway: String,
    subscriptions: Subscriptions,
    /// SQLite's.
    file: Option<PathBuf>,
    /// Held beside it, for this gateway.
    lock: Mutex<Option<File>>,
    /// Nobody else writes for this gateway.
    alone: AtomicBool,
}

impl Store {
    /// Opens the database and brings its schema up to date.
    pub(crate) async fn open(
        location: &Location,
        gateway: &str,
        subscriptions: impl Into<Subscriptions>,
    ) -> Result<Self, OpenError> {
        install_drivers();
        if let Some(file) = &location.file {
            make_private(file).map_err(sqlx::Error::Io)?;
        }
        reach(location).await?;
        let writer = lasting(location).await?;
        migrate::run(location, &writer, migrate::STEPS).await?;
        let readers = readers(location).await?;
        let store = Self {
            engine: location.engine,
            writer,
            readers,
            sweeper: sweeper(location)?,
            gateway: gateway.into(),
            subscriptions: subscriptions.into(),
            file: location.file.clone(),
            lock: Mutex::default(),
            alone: AtomicBool::new(true),
        };
        store.note_endpoints().await?;
        Ok(store)
    }

    /// Carries out a statement of a test.
    #[cfg(test)]
    pub(crate) async fn do_it(&self, statement: &'static str) {
        self.writer.execute(statement).await.unwrap();
    }

    /// It answers.
    pub(crate) async fn check(&self) -> Result<(), sqlx::Error> {
        self.writer.execute("SELECT 1").await.map(drop)
    }

    /// Waits for statements under way and closes all connections.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.sweeper.close().await;
        self.writer.close().await;
    }
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It may be there later.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// A newer release has changed it in a way that this one does not understand.
    #[error("its schema is {found}, which asks for a release that knows {needed} or later; this one knows {known}")]
    TooNew { found: i64, needed: i64, known: i64 },
}

/// How to connect. What a failure means is told by us, once; how long statements take, by nobody.
fn connect_options(location: &Location) -> Result<AnyConnectOptions, sqlx::Error> {
    Ok(AnyConnectOptions::from_str(&location.url)?.disable_statement_logging())
}

/// Tries one connection, with its settings, which is where SQLite first looks into its file: a pool would say no more than that it waited in vain.
async fn reach(location: &Location) -> Result<(), sqlx::Error> {
    let options = connect_options(location)?;
    let engine = location.engine;
    let attempt = async move {
        let mut connection: AnyConnection = options.connect().await?;
        prepare(engine, &mut connection).await?;
        connection.close().await
    };
    in_time(ACQUIRE_TIMEOUT, attempt).await
}

/// Gives up waiting after `limit`.
pub(crate) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(sqlx::Error::Io(late())))
}

/// Makes a file and its directory, unless they are there, so that only we and our group can read what is kept: SQLite would let everybody.
fn make_private(file: &Path) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
    }
    std::fs::OpenOptions::new().append(true).create(true).mode(0o640).open(file).map(drop)
}

async fn readers(location: &Location) -> Result<AnyPool, sqlx::Error> {
    let engine = location.engine;
    let options = pool_options(location, READERS);
    let options = options.after_connect(move |connection, _| Box::pin(prepare_reader(engine, connection)));
    options.connect_with(connect_options(location)?).await
}

/// A question that nobody waits for any more does not keep others from being answered.
async fn prepare_reader(engine: Engine, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    prepare(engine, connection).await?;
    match engine {
        Engine::Sqlite => Ok(()),
        Engine::Postgres => {
            let limit = format!("SET statement_timeout = {}", crate::keeper::ANSWER_TIME.as_millis());
            connection.execute(AssertSqlSafe(limit)).await.map(drop)
        }
    }
}

/// One connection that is kept as long as it holds, and with it the lock that is its own.
async fn lasting(location: &Location) -> Result<AnyPool, sqlx::Error> {
    let options = pool_options(location, 1).idle_timeout(None).max_lifetime(None);
    options.connect_with(connect_options(location)?).await
}

/// Nobody waits for the disk to have what was deleted: a crash would bring it back, and it would be deleted again.
fn sweeper(location: &Location) -> Result<AnyPool, sqlx::Error> {
    let options = AnyPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
    let options = options.after_connect(|connection, _| Box::pin(prepare_sweeper(connection)));
    Ok(options.connect_lazy_with(connect_options(location)?))
}

async fn prepare_sweeper(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    prepare(Engine::Postgres, connection).await?;
    connection.execute("SET synchronous_commit = off").await.map(drop)
}

fn pool_options(location: &Location, connections: u32) -> AnyPoolOptions {
    let engine = location.engine;
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .acquire_slow_threshold(ACQUIRE_TIMEOUT * 2)
        .after_connect(move |connection, _| Box::pin(prepare(engine, connection)))
}

/// Settings of each connection.
async fn prepare(engine: Engine, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let settings: &[&'static str] = match engine {
        // What is deleted gives its pages back; that can only be asked for before the first table.
        Engine::Sqlite => &[
            "PRAGMA busy_timeout = 5000",
            "PRAGMA auto_vacuum = INCREMENTAL",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
        ],
        // A machine that has vanished is noticed within two minutes.
        Engine::Postgres => &[
            "SET application_name = 'cygnetd'",
            "SET tcp_keepalives_idle = 60",
            "SET tcp_keepalives_interval = 15",
            "SET tcp_keepalives_count = 4",
        ],
    };
    for setting in settings {
        connection.execute(*setting).await?;
    }
    Ok(())
}

/// The database is away or out of room, as opposed to something being wrong with what it was told.
pub(crate) fn may_pass(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        // Classes 22 and 23 of SQLSTATE; constraint, type and size of SQLite's primary result codes.
        Some(database) => !database.code().is_some_and(|code| {
            let sqlite = code.parse::<u32>().ok().map(|code| code & 0xFF).filter(|_| code.len() < 5);
            code.len() == 5 && (code.starts_with("22") || code.starts_with("23")) || matches!(sqlite, Some(18..=20))
        }),
        None => !matches!(error, sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)),
    }
}

fn failed(error: sqlx::Error) -> HistoryError {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls};
    if matches!(error, Io(_) | PoolTimedOut | PoolClosed | Tls(_)) {
        HistoryError::Unreachable(error.to_string())
    } else {
        HistoryError::Failed(error.to_string())
    }
}
