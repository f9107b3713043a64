//! Forgetting: what is older than so many days, and what is beyond so many rows. Only what has ended, and only what this gateway wrote.
//!
//! It goes along time in small steps, each a transaction of its own and followed by a rest. In SQLite, which has one writer, whoever writes meanwhile
//! waits for one of them at most; in PostgreSQL they have a connection of their own, and nobody waits at all but for the disk. What may not be
//! forgotten yet is passed by once.

use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyPool, Connection as _, Row as _};
use tokio::time::{Instant, sleep};

use super::{Engine, Store};
use crate::sql::{Sql, Value};

/// Rows of the first step, and of the smallest and the largest.
const ROWS: (u32, u32, u32) = (200, 100, 500);
/// How long a step may take.
const STEP: Duration = Duration::from_millis(30);
/// The longest rest after one.
const REST: Duration = Duration::from_millis(50);
/// Pages that SQLite gives back to the file system in one step.
const PAGES: u32 = 250;
/// Free pages that a file may keep: they are soon written again.
const SPARE_PAGES: i64 = 1000;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days; 0 = for ever.
    pub days: u32,
    /// Rows of each table; 0 = any number.
    pub rows: u64,
}

/// A table, what identifies a row, and the time that counts; of one that is up, there is none.
struct Table {
    name: &'static str,
    key: &'static str,
    time: &'static str,
    /// Keeps totals of its rows, by these columns.
    totals: Option<(&'static str, &'static str)>,
}

const EVENT: Table = Table { name: "event", key: "ulid", time: "time_us", totals: None };

/// An event that no delivery of waits.
const NONE_WAITS: &str =
    "NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.ulid = event.ulid AND delivery.state = 'waiting')";

const TABLES: [Table; 3] = [
    EVENT,
    Table {
        name: "child_sa",
        key: "boot_id, unique_id",
        time: "removed_us",
        totals: Some(("child_total", "gateway, connection, child")),
    },
    Table {
        name: "ike_sa",
        key: "boot_id, unique_id",
        time: "closed_us",
        totals: Some(("connection_total", "gateway, connection")),
    },
];

const DAY_US: u64 = 86_400_000_000;

/// How much a step does: as much as takes no longer than a step may.
#[derive(Debug)]
struct Pace {
    rows: u32,
    began: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { rows: ROWS.0, began: Instant::now() }
    }

    fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// Learns from the step that is done, and rests for as long as it took.
    async fn rest(&mut self) {
        let took = self.began.elapsed();
        self.learn(took);
        sleep(took.min(REST)).await;
    }

    fn learn(&mut self, took: Duration) {
        let (_, least, most) = ROWS;
        if took > STEP {
            self.rows = (self.rows / 2).max(least);
        } else if took < STEP / 2 {
            self.rows = (self.rows * 2).min(most);
        }
    }
}

impl Store {
    /// Forgets what is beyond `retention`; tells how many rows that were.
    pub(crate) async fn forget(&self, retention: Retention, now_ms: u64) -> Result<u64, sqlx::Error> {
        let now = now_ms.saturating_mul(1000);
        let mut forgotten = 0;
        for table in &TABLES {
            let by_days = (retention.days > 0).then(|| now.saturating_sub(u64::from(retention.days) * DAY_US));
            let before = by_days.max(self.beyond(table, retention.rows).await?);
            let gone = match before {
                Some(before) => self.forget_before(table, before).await?,
                None => 0,
            };
            if let Some((totals, columns)) = table.totals.filter(|_| gone > 0) {
                self.forget_totals(table, totals, columns).await?;
            }
            forgotten += gone;
        }
        if forgotten > 0 && self.engine == Engine::Sqlite {
            self.shrink().await?;
        }
        Ok(forgotten)
    }

    /// The time before which there are more than `rows` rows.
    async fn beyond(&self, table: &Table, rows: u64) -> Result<Option<u64>, sqlx::Error> {
        if rows == 0 {
            return Ok(None);
        }
        let mut sql = self.times(table);
        sql.push(" ORDER BY ").push(table.time).push(" DESC LIMIT 1 OFFSET ").value(rows - 1);
        let oldest = number(&sql.fetch(self.seeker()).await?)?;
        Ok(oldest.and_then(|oldest| u64::try_from(oldest).ok()))
    }

    async fn forget_before(&self, table: &Table, before: u64) -> Result<u64, sqlx::Error> {
        let (mut forgotten, mut from) = (0, 0);
        let mut pace = Pace::new();
        loop {
            let rows = pace.rows;
            let end = self.step_end(table, from, before, rows).await?;
            let until = end.unwrap_or(before);
            loop {
                pace.begin();
                let gone = self.forget_between(table, from, until, rows).await?;
                forgotten += gone;
                pace.rest().await;
                if gone < u64::from(rows) {
                    break;
                }
            }
            if end.is_none() {
                return Ok(forgotten);
            }
            from = until;
        }
    }

    /// Where a step of so many rows ends that begins at `from`; `None` when it reaches to the end.
    async fn step_end(&self, table: &Table, from: u64, before: u64, rows: u32) -> Result<Option<u64>, sqlx::Error> {
        let mut sql = self.times(table);
        sql.push(" AND ").push(table.time).push(" >= ").value(Value::from(from));
        sql.push(" AND ").push(table.time).push(" < ").value(Value::from(before));
        sql.push(" ORDER BY ").push(table.time).push(" LIMIT 1 OFFSET ").value(rows);
        let end = number(&sql.fetch(self.seeker()).await?)?.and_then(|end| u64::try_from(end).ok());
        // Very many of the same moment are one step, which is gone through in several.
        Ok(end.map(|end| end.max(from.saturating_add(1))).filter(|end| *end < before))
    }

    /// Where rows are deleted. PostgreSQL lets whoever writes go on meanwhile, unless both were to share one connection.
    fn sweeper(&self) -> &AnyPool {
        match self.engine {
            Engine::Sqlite => &self.writer,
            Engine::Postgres => &self.sweeper,
        }
    }

    /// Where rows are found that go. That may take longer than anybody waits for an answer.
    pub(super) fn seeker(&self) -> &AnyPool {
        match self.engine {
            Engine::Sqlite => &self.readers,
            Engine::Postgres => &self.sweeper,
        }
    }

    fn times(&self, table: &Table) -> Sql {
        let mut sql = Sql::new("SELECT ");
        sql.push(table.time).push(" FROM ").push(table.name).push(" WHERE gateway = ").value(&*self.gateway);
        sql.push(" AND ").push(table.time).push(" IS NOT NULL");
        sql
    }

    /// Forgets so many rows of a step; tells how many there were.
    async fn forget_between(&self, table: &Table, from: u64, until: u64, rows: u32) -> Result<u64, sqlx::Error> {
        if table.name == EVENT.name {
            return self.forget_events(from, until, rows).await;
        }
        let mut sql = Sql::new("DELETE FROM ");
        sql.push(table.name).push(" WHERE (").push(table.key).push(") IN (SELECT ").push(table.key).push(" FROM ");
        sql.push(table.name);
        self.between(&mut sql, table, from, until);
        sql.push(" LIMIT ").value(rows).push(")");
        sql.execute(self.sweeper()).await
    }

    /// Events go with their deliveries, and stay as long as one of these waits.
    async fn forget_events(&self, from: u64, until: u64, rows: u32) -> Result<u64, sqlx::Error> {
        let mut connection = self.sweeper().acquire().await?;
        let mut transaction = connection.begin().await?;
        let mut sql = Sql::new("SELECT ulid FROM event");
        self.between(&mut sql, &EVENT, from, until);
        sql.push(" AND ").push(NONE_WAITS).push(" LIMIT ").value(rows);
        let found = sql.fetch(&mut *transaction).await?;
        let ulids: Vec<String> = found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        if ulids.is_empty() {
            return Ok(0);
        }
        // Somebody may have one delivered again meanwhile.
        for (table, unless) in [("delivery", " AND state <> 'waiting'"), ("event", " AND ")] {
            let mut sql = Sql::long("DELETE FROM ", self.engine);
            sql.push(table).push(" WHERE ulid IN (").list(ulids.iter().map(|ulid| Value::from(&**ulid))).push(")");
            sql.push(unless);
            if table == EVENT.name {
                sql.push(NONE_WAITS);
            }
            sql.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(ulids.len() as u64)
    }

    fn between(&self, sql: &mut Sql, table: &Table, from: u64, until: u64) {
        sql.push(" WHERE gateway = ").value(&*self.gateway);
        sql.push(" AND ").push(table.time).push(" >= ").value(Value::from(from));
        sql.push(" AND ").push(table.time).push(" < ").value(Value::from(until));
    }

    /// What has no row left has no totals either. To find that out may take long, among many rows that have just gone; it is asked again where a new
    /// row cannot come between.
    async fn forget_totals(&self, table: &Table, totals: &str, columns: &str) -> Result<(), sqlx::Error> {
        let found = self.idle_totals(table, totals, columns).fetch(self.seeker()).await?;
        for row in &found {
            let mut sql = Sql::new("DELETE FROM ");
            sql.push(totals).push(" WHERE ");
            for (at, column) in columns.split(", ").enumerate() {
                let value: String = row.try_get(at)?;
                sql.push(if at > 0 { " AND " } else { "" }).push(column).push(" = ").value(&*value);
            }
            sql.push(" AND NOT EXISTS (");
            rows_of(&mut sql, table, totals, columns);
            sql.push(")");
            sql.execute(&self.writer).await?;
        }
        Ok(())
    }

    /// Totals without a row.
    fn idle_totals(&self, table: &Table, totals: &str, columns: &str) -> Sql {
        let mut sql = Sql::new("SELECT ").planned_anew();
        sql.push(columns).push(" FROM ").push(totals).push(" WHERE gateway = ").value(&*self.gateway);
        sql.push(" AND NOT EXISTS (");
        rows_of(&mut sql, table, totals, columns);
        sql.push(")");
        sql
    }

    /// Gives what SQLite's file has no use for back to the file system.
    async fn shrink(&self) -> Result<(), sqlx::Error> {
        let mut before = i64::MAX;
        loop {
            let free = number(&Sql::new("PRAGMA freelist_count").fetch(&self.writer).await?)?.unwrap_or(0);
            // A file that some other program made may not be able to shrink.
            if free <= SPARE_PAGES || free >= before {
                return Ok(());
            }
            before = free;
            let mut pace = Pace::new();
            Sql::new(&format!("PRAGMA incremental_vacuum({PAGES})")).fetch(&self.writer).await?;
            pace.rest().await;
        }
    }
}

/// Rows that totals are of.
fn rows_of(sql: &mut Sql, table: &Table, totals: &str, columns: &str) {
    sql.push("SELECT 1 FROM ").push(table.name).push(" AS kept WHERE ");
    for (at, column) in columns.split(", ").enumerate() {
        sql.push(if at > 0 { " AND kept." } else { "kept." }).push(column).push(" = ");
        sql.push(totals).push(".").push(column);
    }
}

/// The number in the first row, if there is one.
fn number(rows: &[AnyRow]) -> Result<Option<i64>, sqlx::Error> {
    rows.first().map(|row| row.try_get(0)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_get_smaller_where_they_take_long() {
        let mut pace = Pace::new();
        let learn = |pace: &mut Pace, times: &[u64]| {
            times.iter().for_each(|ms| pace.learn(Duration::from_millis(*ms)));
            pace.rows
        };
        assert_eq!(learn(&mut pace, &[20, 20]), 200);
        assert_eq!(learn(&mut pace, &[1, 1, 1]), 500);
        assert_eq!(learn(&mut pace, &[31]), 250);
        assert_eq!(learn(&mut pace, &[900; 9]), 100);
    }
}
