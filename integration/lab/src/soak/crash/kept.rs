//! The history's tables, read with statements of our own: none of the code that writes or reads them is used.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::AnyConnection;
use sqlx::any::{AnyRow, install_default_drivers};
use sqlx::{Connection as _, Row as _};
use tokio::runtime::Runtime;

use super::keys::IkeSpis;

/// A row of `ike_sa`.
#[derive(Clone, Debug)]
pub(super) struct IkeRow {
    pub(super) boot: String,
    pub(super) spis: IkeSpis,
    pub(super) initiator: bool,
    pub(super) generation: u32,
    pub(super) from: Duration,
    pub(super) until: Option<Duration>,
    pub(super) cause: Option<String>,
}

/// A row of `child_sa`.
#[derive(Clone, Debug)]
pub(super) struct ChildRow {
    pub(super) boot: String,
    pub(super) spi_in: u32,
    pub(super) spi_out: u32,
    pub(super) generation: u32,
    pub(super) local: String,
    pub(super) from: Duration,
    pub(super) until: Option<Duration>,
    pub(super) cause: Option<String>,
}

/// A row of `event`.
#[derive(Clone, Debug)]
pub(super) struct EventRow {
    pub(super) ulid: String,
    pub(super) boot: String,
    pub(super) seq: u64,
    pub(super) data: String,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) boots: BTreeMap<String, (Duration, u64)>,
    pub(super) ikes: Vec<IkeRow>,
    pub(super) children: Vec<ChildRow>,
    pub(super) events: Vec<EventRow>,
    /// State of the delivery of each event.
    pub(super) deliveries: BTreeMap<String, String>,
}

/// A database that is looked at.
pub(super) struct Database {
    url: String,
    runtime: Runtime,
}

impl Database {
    /// One that may not be there yet. Its server has to be on the loopback of the thread's own network namespace.
    pub(super) fn new(url: &str) -> Result<Self> {
        install_default_drivers();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { url: url.to_owned(), runtime })
    }

    /// It is a server, not a file.
    pub(super) fn is_server(&self) -> bool {
        self.url.starts_with("postgres://")
    }

    /// Reads everything.
    pub(super) fn read(&self) -> Result<Kept> {
        self.runtime.block_on(async {
            let mut connection = AnyConnection::connect(&self.url).await.context("opening the database")?;
            // All tables as of one moment.
            let mut transaction = connection.begin().await?;
            let kept = everything(&mut transaction).await;
            transaction.rollback().await?;
            connection.close().await?;
            kept
        })
    }

    /// Number of a kind of rows.
    pub(super) fn count(&self, of: &'static str) -> Result<u64> {
        self.runtime.block_on(async {
            let mut connection = AnyConnection::connect(&self.url).await?;
            let row = sqlx::query(of).fetch_one(&mut connection).await?;
            connection.close().await?;
            number(&row, 0)
        })
    }

    /// Looks at the server again and again until `stop`, and tells when one of its clients is within a transaction.
    pub(super) fn watch_transactions(
        &self,
        stop: impl Fn() -> bool,
        wanted: impl Fn() -> bool,
        told: impl Fn(),
    ) -> Result<()> {
        const BUSY: &str =
            "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'cygnetd' AND state <> 'idle'";
        self.runtime.block_on(async {
            let mut connection = AnyConnection::connect(&self.url).await?;
            while !stop() {
                if !wanted() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                if number(&sqlx::query(BUSY).fetch_one(&mut connection).await?, 0)? > 0 {
                    told();
                }
            }
            Ok(())
        })
    }
}

async fn everything(connection: &mut AnyConnection) -> Result<Kept> {
    let mut kept = Kept::default();
    for row in rows(connection, "SELECT boot_id, started_us, last_seq FROM boot").await? {
        kept.boots.insert(row.try_get(0)?, (micros(&row, 1)?, number(&row, 2)?));
    }
    const IKE: &str = "SELECT boot_id, initiator_spi, responder_spi, initiator, generation, established_us, closed_us, cause \
                       FROM ike_sa ORDER BY established_us";
    for row in rows(connection, IKE).await? {
        let spi = |at| -> Result<u64> { Ok(u64::from_str_radix(&row.try_get::<String, _>(at)?, 16)?) };
        kept.ikes.push(IkeRow {
            boot: row.try_get(0)?,
            spis: (spi(1)?, spi(2)?),
            initiator: number(&row, 3)? == 1,
            generation: number(&row, 4)?.try_into()?,
            from: micros(&row, 5)?,
            until: may_be(&row, 6)?,
            cause: row.try_get(7)?,
        });
    }
    const CHILD: &str = "SELECT boot_id, spi_in, spi_out, generation, local_ts, installed_us, removed_us, cause \
                         FROM child_sa ORDER BY installed_us";
    for row in rows(connection, CHILD).await? {
        kept.children.push(ChildRow {
            boot: row.try_get(0)?,
            spi_in: number(&row, 1)?.try_into()?,
            spi_out: number(&row, 2)?.try_into()?,
            generation: number(&row, 3)?.try_into()?,
            local: row.try_get(4)?,
            from: micros(&row, 5)?,
            until: may_be(&row, 6)?,
            cause: row.try_get(7)?,
        });
    }
    for row in rows(connection, "SELECT ulid, boot_id, seq, data FROM event ORDER BY boot_id, seq").await? {
        kept.events.push(EventRow {
            ulid: row.try_get(0)?,
            boot: row.try_get(1)?,
            seq: number(&row, 2)?,
            data: row.try_get(3)?,
        });
    }
    for row in rows(connection, "SELECT ulid, state FROM delivery").await? {
        kept.deliveries.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(kept)
}

async fn rows(connection: &mut AnyConnection, sql: &'static str) -> Result<Vec<AnyRow>> {
    sqlx::query(sql).fetch_all(connection).await.with_context(|| format!("asking {sql}"))
}

fn number(row: &AnyRow, at: usize) -> Result<u64> {
    Ok(u64::try_from(row.try_get::<i64, _>(at)?)?)
}

fn micros(row: &AnyRow, at: usize) -> Result<Duration> {
    Ok(Duration::from_micros(number(row, at)?))
}

fn may_be(row: &AnyRow, at: usize) -> Result<Option<Duration>> {
    let micros = row.try_get::<Option<i64>, _>(at)?;
    Ok(micros.map(u64::try_from).transpose()?.map(Duration::from_micros))
}
