//! From the spool into the tables: one transaction per batch, everything in it at most once.

use ike_model::Rfc3339;
use ike_model::history::Subscription;
use sqlx::{AnyConnection, Connection as _, Row as _};

use super::Store;
use super::batch::Batch;
use crate::spool::{Entry, Kind};
use crate::sql::Sql;
use crate::told::{Boot, Record};

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Events that are new.
    pub(crate) events: u64,
    /// Deliveries that were made for them.
    pub(crate) deliveries: u64,
    /// Events that had been taken over before.
    pub(crate) known: u64,
    /// What could not be understood.
    pub(crate) unreadable: u64,
    /// What the database refused.
    pub(crate) refused: u64,
}

impl std::ops::AddAssign for Applied {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.deliveries += more.deliveries;
        self.known += more.known;
        self.unreadable += more.unreadable;
        self.refused += more.refused;
    }
}

impl Store {
    /// Takes over one batch, all or nothing.
    pub(crate) async fn apply(&self, entries: &[Entry]) -> Result<Applied, sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin().await?;
        let mut applied = Applied::default();
        let subscriptions = self.subscriptions.now();
        let mut batch = Batch::default();
        for entry in entries {
            match entry.kind {
                Kind::Boot => match serde_json::from_slice::<Boot>(&entry.payload) {
                    Ok(boot) => {
                        std::mem::take(&mut batch).write(&mut transaction, self.engine).await?;
                        self.begin_run(&mut transaction, &boot).await?;
                    }
                    Err(_) => applied.unreadable += 1,
                },
                Kind::Record => match serde_json::from_slice::<Record<'_>>(&entry.payload) {
                    Ok(record) => {
                        applied += take(&mut transaction, &mut batch, &subscriptions, &record, &entry.payload).await?;
                    }
                    Err(_) => applied.unreadable += 1,
                },
            }
        }
        batch.write(&mut transaction, self.engine).await?;
        transaction.commit().await?;
        Ok(applied)
    }

    /// A run begins: what earlier ones left open is closed, unless somebody else is writing under our name. Told again, it changes nothing.
    async fn begin_run(&self, connection: &mut AnyConnection, boot: &Boot) -> Result<(), sqlx::Error> {
        let at = boot.time_ms.saturating_mul(1000);
        let new = note_run(connection, boot, at).await? > 0;
        if new && self.is_alone() {
            bury(connection, &boot.gateway, &boot.boot_id, at).await?;
        }
        Ok(())
    }

    /// Whoever wrote under our name does not any more: what other runs left open is closed now.
    pub(crate) async fn bury_others(&self, boot_id: &str, now_ms: u64) -> Result<(), sqlx::Error> {
        let mut writer = self.writer.acquire().await?;
        bury(&mut writer, &self.gateway, boot_id, now_ms.saturating_mul(1000)).await
    }
}

/// Takes one record into the batch, unless it is known.
async fn take(
    connection: &mut AnyConnection,
    batch: &mut Batch,
    subscriptions: &[Subscription],
    record: &Record<'_>,
    json: &[u8],
) -> Result<Applied, sqlx::Error> {
    let Some(Rfc3339(time_ms)) = Rfc3339::parse(&record.time) else {
        return Ok(Applied { unreadable: 1, ..Applied::default() });
    };
    let at = time_ms.saturating_mul(1000);
    let last = match batch.last(&record.boot_id) {
        Some(last) => last,
        None => last_number(connection, record, at).await?,
    };
    if record.seq <= last {
        return Ok(Applied { known: 1, ..Applied::default() });
    }
    let deliveries = batch.take(record, at, json, subscriptions);
    Ok(Applied { events: 1, deliveries, ..Applied::default() })
}

/// What earlier runs of this gateway left open was ended by their death.
async fn bury(connection: &mut AnyConnection, gateway: &str, boot_id: &str, at: u64) -> Result<(), sqlx::Error> {
    for (table, end) in [("ike_sa", "closed_us"), ("child_sa", "removed_us")] {
        let mut sql = Sql::new("UPDATE ");
        sql.push(table).push(" SET ").push(end).push(" = ").value(at).push(", cause = 'daemon-died', cause_text = ");
        sql.value("the daemon ended without closing it; found at its next start");
        sql.push(" WHERE gateway = ").value(gateway).push(" AND boot_id <> ").value(boot_id);
        sql.push(" AND ").push(end).push(" IS NULL");
        sql.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn note_run(connection: &mut AnyConnection, boot: &Boot, at: u64) -> Result<u64, sqlx::Error> {
    let mut sql = Sql::new("INSERT INTO boot (boot_id, gateway, started_us, host, pid) VALUES (");
    sql.list([
        (&*boot.boot_id).into(),
        (&*boot.gateway).into(),
        at.into(),
        boot.host.as_deref().into(),
        boot.pid.into(),
    ]);
    sql.push(") ON CONFLICT (boot_id) DO NOTHING");
    sql.execute(connection).await
}

/// Number of the last event of this run that was taken over.
async fn last_number(connection: &mut AnyConnection, record: &Record<'_>, at: u64) -> Result<u64, sqlx::Error> {
    note_run(connection, &Boot::of(record), at).await?;
    let mut sql = Sql::new("SELECT last_seq FROM boot WHERE boot_id = ");
    sql.value(&*record.boot_id);
    let last: i64 = sql.fetch(connection).await?.first().map_or(Ok(0), |row| row.try_get(0))?;
    Ok(u64::try_from(last).unwrap_or(0))
}
