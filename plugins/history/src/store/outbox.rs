//! Deliveries: claimed for a while, settled, redelivered.

use ike_model::history::{Backlog, Delivery, HistoryError, Verdict};
use sqlx::{Connection as _, Row as _};

use super::{Engine, Store, failed};
use crate::sql::Sql;

impl Store {
    /// Claims deliveries by moving the time at which they are due behind the lease: a claimer that dies gives them back by that alone.
    pub(crate) async fn claim(
        &self,
        endpoint: &str,
        now_ms: u64,
        lease_ms: u64,
        limit: u32,
    ) -> Result<Vec<Delivery>, HistoryError> {
        self.try_claim(endpoint, now_ms.saturating_mul(1000), lease_ms.saturating_mul(1000), limit)
            .await
            .map_err(failed)
    }

    async fn try_claim(&self, endpoint: &str, now: u64, lease: u64, limit: u32) -> Result<Vec<Delivery>, sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin().await?;
        let mut sql = Sql::new(
            "SELECT delivery.ulid, delivery.attempts, event.type, event.time_us, event.data FROM delivery JOIN event ON \
             event.ulid = delivery.ulid WHERE delivery.state = 'waiting' AND delivery.gateway = ",
        );
        sql.value(&*self.gateway).push(" AND delivery.endpoint = ").value(endpoint);
        sql.push(" AND delivery.due_us <= ").value(now);
        sql.push(" ORDER BY delivery.due_us, delivery.ulid LIMIT ").value(limit);
        if self.engine == Engine::Postgres {
            sql.push(" FOR UPDATE OF delivery SKIP LOCKED");
        }
        let mut claimed = Vec::new();
        for row in sql.fetch(&mut *transaction).await? {
            let delivery = Delivery {
                ulid: row.try_get(0)?,
                endpoint: endpoint.into(),
                event: row.try_get(2)?,
                time_ms: u64::try_from(row.try_get::<i64, _>(3)?).unwrap_or(0) / 1000,
                record: row.try_get(4)?,
                attempts: u32::try_from(row.try_get::<i64, _>(1)?).unwrap_or(u32::MAX),
            };
            let mut sql = Sql::new("UPDATE delivery SET due_us = ");
            sql.value(now.saturating_add(lease));
            of(&mut sql, &delivery);
            sql.execute(&mut *transaction).await?;
            claimed.push(delivery);
        }
        transaction.commit().await?;
        Ok(claimed)
    }

    pub(crate) async fn settle(&self, delivery: &Delivery, now_ms: u64, verdict: &Verdict) -> Result<(), HistoryError> {
        let mut sql = Sql::new("UPDATE delivery SET attempts = attempts + 1, ");
        match verdict {
            Verdict::Delivered => {
                sql.push("state = 'delivered', last_error = NULL, delivered_us = ").value(now_ms.saturating_mul(1000));
            }
            Verdict::Retry { at_ms, error } => {
                sql.push("due_us = ").value(at_ms.saturating_mul(1000)).push(", last_error = ").value(&**error);
            }
            Verdict::Dead { error } => {
                sql.push("state = 'dead', last_error = ").value(&**error);
            }
        }
        of(&mut sql, delivery);
        // Whoever was slower than its lease does not undo what somebody else has achieved.
        sql.push(" AND state = 'waiting'");
        sql.execute(&self.writer).await.map_err(failed)?;
        Ok(())
    }

    pub(crate) async fn redeliver(&self, endpoint: Option<&str>, now_ms: u64) -> Result<u64, HistoryError> {
        let mut sql = Sql::new("UPDATE delivery SET state = 'waiting', attempts = 0, due_us = ");
        sql.value(now_ms.saturating_mul(1000)).push(" WHERE state = 'dead' AND gateway = ").value(&*self.gateway);
        if let Some(endpoint) = endpoint {
            sql.push(" AND endpoint = ").value(endpoint);
        }
        sql.execute(&self.writer).await.map_err(failed)
    }

    pub(crate) async fn backlog(&self) -> Result<Vec<Backlog>, HistoryError> {
        self.try_backlog().await.map_err(failed)
    }

    async fn try_backlog(&self) -> Result<Vec<Backlog>, sqlx::Error> {
        let mut sql = Sql::new("SELECT endpoint, state, COUNT(*) FROM delivery WHERE gateway = ");
        sql.value(&*self.gateway).push(" AND state IN ('waiting', 'dead') GROUP BY endpoint, state ORDER BY endpoint");
        let mut all: Vec<Backlog> = Vec::new();
        for row in sql.fetch(&self.readers).await? {
            let (endpoint, state): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let count = u64::try_from(row.try_get::<i64, _>(2)?).unwrap_or(0);
            if all.last().is_none_or(|last| last.endpoint != endpoint) {
                all.push(Backlog { endpoint, waiting: 0, dead: 0 });
            }
            if let Some(last) = all.last_mut() {
                *if state == "dead" { &mut last.dead } else { &mut last.waiting } = count;
            }
        }
        Ok(all)
    }
}

fn of(sql: &mut Sql, delivery: &Delivery) {
    sql.push(" WHERE ulid = ").value(&*delivery.ulid).push(" AND endpoint = ").value(&*delivery.endpoint);
}
