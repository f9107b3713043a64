//! Forgetting: what is older than so many days, and what is beyond so many rows. Only what has ended, and only what this gateway wrote.

use sqlx::Row as _;

use super::{Engine, Store};
use crate::sql::{Sql, Value};

/// Rows forgotten in one transaction, so that nobody waits for long.
const CHUNK: u32 = 1000;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days; 0 = for ever.
    pub days: u32,
    /// Rows of each table; 0 = any number.
    pub rows: u64,
}

/// A table, what identifies a row, the time that counts, and what may not be forgotten yet.
struct Table {
    name: &'static str,
    key: &'static str,
    time: &'static str,
    ended: &'static str,
}

const TABLES: [Table; 4] = [
    // An event stays as long as it is to be delivered.
    Table {
        name: "event",
        key: "ulid",
        time: "time_us",
        ended: "NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.ulid = event.ulid AND delivery.state = 'waiting')",
    },
    Table { name: "child_sa", key: "boot_id, unique_id", time: "removed_us", ended: "removed_us IS NOT NULL" },
    Table { name: "ike_sa", key: "boot_id, unique_id", time: "closed_us", ended: "closed_us IS NOT NULL" },
    Table {
        name: "delivery",
        key: "ulid, endpoint",
        time: "due_us",
        ended: "state <> 'waiting' AND NOT EXISTS (SELECT 1 FROM event WHERE event.ulid = delivery.ulid)",
    },
];

const DAY_US: u64 = 86_400_000_000;

impl Store {
    /// Forgets what is beyond `retention`; tells how many rows that were.
    pub(crate) async fn forget(&self, retention: Retention, now_ms: u64) -> Result<u64, sqlx::Error> {
        let now = now_ms.saturating_mul(1000);
        let mut forgotten = 0;
        for table in &TABLES {
            let by_days = (retention.days > 0).then(|| now.saturating_sub(u64::from(retention.days) * DAY_US));
            let before = by_days.max(self.beyond(table, retention.rows).await?);
            // Deliveries go with their events.
            let before = if table.name == "delivery" { Some(u64::MAX) } else { before };
            if let Some(before) = before {
                forgotten += self.forget_before(table, before).await?;
            }
        }
        if forgotten > 0 && self.engine == Engine::Sqlite {
            Sql::new("PRAGMA incremental_vacuum").fetch(&self.writer).await?;
        }
        Ok(forgotten)
    }

    /// The time before which there are more than `rows` rows.
    async fn beyond(&self, table: &Table, rows: u64) -> Result<Option<u64>, sqlx::Error> {
        if rows == 0 || table.name == "delivery" {
            return Ok(None);
        }
        let mut sql = Sql::new("SELECT ");
        sql.push(table.time).push(" FROM ").push(table.name).push(" WHERE gateway = ").value(&*self.gateway);
        sql.push(" AND ")
            .push(table.time)
            .push(" IS NOT NULL ORDER BY ")
            .push(table.time)
            .push(" DESC LIMIT 1 OFFSET ");
        sql.value(rows - 1);
        let found = sql.fetch(&self.readers).await?;
        let oldest: Option<i64> = found.first().map(|row| row.try_get(0)).transpose()?;
        Ok(oldest.and_then(|oldest| u64::try_from(oldest).ok()))
    }

    async fn forget_before(&self, table: &Table, before: u64) -> Result<u64, sqlx::Error> {
        let mut forgotten = 0;
        loop {
            let mut sql = Sql::new("DELETE FROM ");
            sql.push(table.name).push(" WHERE (").push(table.key).push(") IN (SELECT ").push(table.key).push(" FROM ");
            sql.push(table.name).push(" WHERE gateway = ").value(&*self.gateway).push(" AND ").push(table.ended);
            sql.push(" AND ").push(table.time).push(" < ").value(Value::from(before));
            sql.push(" LIMIT ").value(CHUNK).push(")");
            let gone = sql.execute(&self.writer).await?;
            forgotten += gone;
            if gone < u64::from(CHUNK) {
                return Ok(forgotten);
            }
        }
    }
}
