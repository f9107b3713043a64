//! Another daemon that keeps its history under our gateway's name in the same PostgreSQL: a mistake, and one to be told.
//!
//! Whoever writes for a gateway holds an advisory lock as long as its connection lives. Who does not get it writes all the same, for events are not
//! lost over a name; but it closes nothing that the other one may have left open.

use std::sync::atomic::Ordering;

use sqlx::Row as _;

use super::{Engine, Store};
use crate::sql::Sql;

/// With the gateway's name, tells its lock from others: "cygnet" in ASCII.
const SEED: i64 = 0x6379_676e_6574;

impl Store {
    /// Takes the place of the one who writes for this gateway, or tells who has it: run and address.
    pub(crate) async fn rival(&self, boot_id: &str) -> Result<Option<String>, sqlx::Error> {
        if self.engine == Engine::Sqlite {
            // There, the spool beside the file has one owner.
            return Ok(None);
        }
        let mut writer = self.writer.acquire().await?;
        let mut sql = Sql::new("SELECT set_config('application_name', ");
        sql.value(&*format!("cygnetd {boot_id}")).push(", false)");
        sql.execute(&mut *writer).await?;
        let mut sql = Sql::new("SELECT CASE WHEN pg_try_advisory_lock(hashtextextended(");
        sql.value(&*self.gateway).push(", ").value(SEED).push(")) THEN 1 ELSE 0 END");
        let taken: i32 = sql.fetch(&mut *writer).await?.first().map_or(Ok(0), |row| row.try_get(0))?;
        if taken == 1 {
            self.alone.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        let mut sql = Sql::new(
            "SELECT CAST(COALESCE(application_name, 'somebody') || COALESCE(' from ' || host(client_addr), '') AS TEXT), COALESCE(application_name = ",
        );
        sql.value(&*format!("cygnetd {boot_id}"));
        sql.push(
            ", FALSE) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND objsubid = 1 AND \
             ((classid::bigint << 32) | objid::bigint) = hashtextextended(",
        );
        sql.value(&*self.gateway).push(", ").value(SEED).push(") LIMIT 1");
        let rows = sql.fetch(&mut *writer).await?;
        // Gone between the two questions: the next look will show.
        let Some(row) = rows.first() else { return Ok(None) };
        let ours: bool = row.try_get(1)?;
        self.alone.store(ours, Ordering::Relaxed);
        Ok(if ours { None } else { Some(row.try_get(0)?) })
    }
}
