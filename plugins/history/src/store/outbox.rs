//! Deliveries: claimed for a while, settled, redelivered; endpoints that nothing is sent to.

use ike_model::history::{Backlog, Delivery, DeliveryState, Disabled, HistoryError, Redelivery, Verdict};
use sqlx::{AnyConnection, Connection as _, Row as _};

use super::{Engine, Store, failed};
use crate::sql::{Sql, Value};

/// Deliveries changed by one statement.
const TOGETHER: usize = 100;
/// The same where it finds them itself.
const PART: u32 = if cfg!(test) { 100 } else { 1_000 };

impl Store {
    /// Claims deliveries by moving the time at which they are due behind the lease: a claimer that dies gives them back by that alone.
    pub(crate) async fn claim(
        &self,
        endpoint: &str,
        now_ms: u64,
        lease_ms: u64,
        limit: u32,
    ) -> Result<Vec<Delivery>, HistoryError> {
        self.try_claim(endpoint, micros(now_ms), micros(lease_ms), limit).await.map_err(failed)
    }

    async fn try_claim(&self, endpoint: &str, now: u64, lease: u64, limit: u32) -> Result<Vec<Delivery>, sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin().await?;
        let sql = self.due_sql(endpoint, now, limit);
        let mut claimed = Vec::new();
        for row in sql.fetch(&mut *transaction).await? {
            let delivery = Delivery {
                ulid: row.try_get(0)?,
                endpoint: endpoint.into(),
                event: row.try_get(2)?,
                time_ms: u64::try_from(row.try_get::<i64, _>(3)?).unwrap_or(0) / 1000,
                record: row.try_get(4)?,
                attempts: u32::try_from(row.try_get::<i64, _>(1)?).unwrap_or(u32::MAX),
                failing_ms: row.try_get::<Option<i64>, _>(5)?.map(millis),
            };
            claimed.push(delivery);
        }
        for part in claimed.chunks(TOGETHER) {
            let mut sql = Sql::new("UPDATE delivery SET claimed_us = due_us, due_us = ");
            sql.value(now.saturating_add(lease));
            of(&mut sql, endpoint, part.iter());
            sql.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(claimed)
    }

    pub(super) fn due_sql(&self, endpoint: &str, now: u64, limit: u32) -> Sql {
        let mut sql = Sql::new(
            "SELECT delivery.ulid, delivery.attempts, event.type, event.time_us, event.data, delivery.failing_us FROM delivery JOIN event ON \
             event.ulid = delivery.ulid WHERE delivery.state = 'waiting' AND delivery.gateway = ",
        );
        sql.value(&*self.gateway).push(" AND delivery.endpoint = ").value(endpoint);
        sql.push(" AND delivery.due_us <= ").value(now);
        self.unless_disabled(&mut sql, endpoint);
        sql.push(" ORDER BY delivery.due_us, delivery.ulid LIMIT ").value(limit);
        if self.engine == Engine::Postgres {
            sql.push(" FOR UPDATE OF delivery SKIP LOCKED");
        }
        sql
    }

    /// Settles deliveries, all or none.
    pub(crate) async fn settle(&self, settled: &[(Delivery, Verdict)], now_ms: u64) -> Result<(), HistoryError> {
        self.try_settle(settled, now_ms).await.map_err(failed)
    }

    async fn try_settle(&self, settled: &[(Delivery, Verdict)], now_ms: u64) -> Result<(), sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin().await?;
        let alike = |(a, verdict): &(Delivery, Verdict), (b, other): &(Delivery, Verdict)| {
            a.endpoint == b.endpoint && verdict == other
        };
        for part in settled.chunk_by(alike).flat_map(|part| part.chunks(TOGETHER)) {
            settle_alike(&mut transaction, part, now_ms).await?;
        }
        transaction.commit().await
    }

    pub(crate) async fn redeliver(&self, which: &Redelivery, now_ms: u64) -> Result<u64, HistoryError> {
        let again = || {
            let mut sql = Sql::new(
                "UPDATE delivery SET state = 'waiting', attempts = 0, delivered_us = NULL, claimed_us = NULL, \
                 failing_us = NULL, due_us = ",
            );
            sql.value(micros(now_ms));
            sql
        };
        let Some(ulid) = &which.ulid else {
            return self.change_all(again, DeliveryState::Dead, which.endpoint.as_deref()).await;
        };
        let mut sql = again();
        sql.push(" WHERE gateway = ").value(&*self.gateway).push(" AND ulid = ").value(&**ulid);
        if let Some(endpoint) = &which.endpoint {
            sql.push(" AND endpoint = ").value(&**endpoint);
        }
        sql.execute(&self.writer).await.map_err(failed)
    }

    pub(crate) async fn give_up(&self, endpoint: &str, reason: &str) -> Result<u64, HistoryError> {
        let dead = || {
            let mut sql = Sql::new("UPDATE delivery SET state = 'dead', claimed_us = NULL, last_error = ");
            sql.value(reason);
            sql
        };
        self.change_all(dead, DeliveryState::Waiting, Some(endpoint)).await
    }

    /// Takes all deliveries out of a state by `change`, of one endpoint or all. There may be very many: whoever writes waits for a part of them at
    /// most.
    async fn change_all(
        &self,
        change: impl Fn() -> Sql,
        from: DeliveryState,
        endpoint: Option<&str>,
    ) -> Result<u64, HistoryError> {
        let mut sql = Sql::new("SELECT COUNT(*)").planned_anew();
        self.in_state(&mut sql, from, endpoint);
        let found = sql.fetch(&self.readers).await.map_err(failed)?;
        let all: i64 = found.first().map_or(Ok(0), |row| row.try_get(0)).map_err(failed)?;
        let (all, mut changed) = (u64::try_from(all).unwrap_or(0), 0);
        // What somebody puts back into that state meanwhile is left there.
        while changed < all {
            let mut sql = change().planned_anew();
            sql.push(" WHERE state = '").push(from.name()).push("' AND (ulid, endpoint) IN (SELECT ulid, endpoint");
            self.in_state(&mut sql, from, endpoint);
            sql.push(" LIMIT ").value(PART).push(")");
            let more = sql.execute(&self.writer).await.map_err(failed)?;
            changed += more;
            if more < u64::from(PART) {
                break;
            }
        }
        Ok(changed)
    }

    /// Its name is no parameter: that lets the indices of states find it.
    fn in_state(&self, sql: &mut Sql, state: DeliveryState, endpoint: Option<&str>) {
        sql.push(" FROM delivery WHERE state = '").push(state.name()).push("' AND gateway = ").value(&*self.gateway);
        if let Some(endpoint) = endpoint {
            sql.push(" AND endpoint = ").value(endpoint);
        }
    }

    pub(crate) async fn next_due(&self, endpoint: &str) -> Result<Option<u64>, HistoryError> {
        let mut sql = Sql::new("SELECT due_us FROM delivery WHERE state = 'waiting' AND gateway = ");
        sql.value(&*self.gateway).push(" AND endpoint = ").value(endpoint);
        self.unless_disabled(&mut sql, endpoint);
        sql.push(" ORDER BY due_us LIMIT 1");
        let found = sql.fetch(&self.readers).await.map_err(failed)?;
        let due: Option<i64> = found.first().map(|row| row.try_get(0)).transpose().map_err(failed)?;
        Ok(due.map(millis))
    }

    pub(crate) async fn disable(&self, endpoint: &str, reason: &str, now_ms: u64) -> Result<(), HistoryError> {
        let mut sql = Sql::new("INSERT INTO endpoint (gateway, endpoint, disabled_us, reason) VALUES (");
        sql.list([(&*self.gateway).into(), endpoint.into(), micros(now_ms).into(), reason.into()]);
        // The first reason stays: what comes after it follows from it.
        sql.push(") ON CONFLICT (gateway, endpoint) DO UPDATE SET disabled_us = excluded.disabled_us, ");
        sql.push("reason = excluded.reason WHERE endpoint.disabled_us IS NULL");
        sql.execute(&self.writer).await.map(drop).map_err(failed)
    }

    /// Sends to an endpoint again. Its messages have waited for us, and not it for them.
    pub(crate) async fn enable(&self, endpoint: &str) -> Result<bool, HistoryError> {
        let mut sql = Sql::new("UPDATE endpoint SET disabled_us = NULL, reason = NULL WHERE gateway = ");
        sql.value(&*self.gateway).push(" AND endpoint = ").value(endpoint).push(" AND disabled_us IS NOT NULL");
        let was_disabled = sql.execute(&self.writer).await.map_err(failed)? > 0;
        if was_disabled {
            let mut sql = Sql::new("UPDATE delivery SET failing_us = NULL WHERE state = 'waiting' AND gateway = ");
            sql.value(&*self.gateway).push(" AND endpoint = ").value(endpoint).push(" AND failing_us IS NOT NULL");
            sql.execute(&self.writer).await.map_err(failed)?;
        }
        Ok(was_disabled)
    }

    pub(crate) async fn disabled(&self, endpoint: &str) -> Result<Option<Disabled>, HistoryError> {
        let mut sql = Sql::new("SELECT disabled_us, reason FROM endpoint WHERE disabled_us IS NOT NULL AND gateway = ");
        sql.value(&*self.gateway).push(" AND endpoint = ").value(endpoint);
        let found = sql.fetch(&self.readers).await.map_err(failed)?;
        let Some(row) = found.first() else { return Ok(None) };
        let since_ms = millis(row.try_get(0).map_err(failed)?);
        let reason: Option<String> = row.try_get(1).map_err(failed)?;
        Ok(Some(Disabled { since_ms, reason: reason.unwrap_or_default() }))
    }

    pub(crate) async fn backlog(&self) -> Result<Vec<Backlog>, HistoryError> {
        self.try_backlog().await.map_err(failed)
    }

    async fn try_backlog(&self) -> Result<Vec<Backlog>, sqlx::Error> {
        let mut all: Vec<Backlog> = Vec::new();
        for row in self.backlog_sql().planned_anew().fetch(&self.readers).await? {
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

    /// Each of the two states has an index of its own; what was delivered, nearly all of a long past, is in neither.
    pub(super) fn backlog_sql(&self) -> Sql {
        let mut sql = Sql::default();
        for (at, state) in [DeliveryState::Waiting, DeliveryState::Dead].into_iter().enumerate() {
            sql.push(if at > 0 { " UNION ALL " } else { "" });
            sql.push("SELECT endpoint, '").push(state.name()).push("' AS state, COUNT(*)");
            self.in_state(&mut sql, state, None);
            sql.push(" GROUP BY endpoint");
        }
        sql.push(" ORDER BY endpoint");
        sql
    }

    /// Takes down the names of endpoints that are new.
    pub(crate) async fn name_endpoints(&self) -> Result<(), HistoryError> {
        self.note_endpoints().await.map_err(failed)
    }

    /// Keeps a list of this gateway's endpoints, so that deliveries can be listed by them.
    pub(super) async fn note_endpoints(&self) -> Result<(), sqlx::Error> {
        for subscription in &*self.subscriptions.now() {
            let mut sql = Sql::new("INSERT INTO endpoint (gateway, endpoint) VALUES (");
            sql.list([(&*self.gateway).into(), (&*subscription.endpoint).into()]);
            sql.push(") ON CONFLICT (gateway, endpoint) DO NOTHING");
            sql.execute(&self.writer).await?;
        }
        Ok(())
    }

    /// Gives back what an earlier run of this gateway's daemon had claimed and never settled: it is due when it was.
    pub(crate) async fn release_claims(&self) -> Result<u64, sqlx::Error> {
        let mut sql = Sql::new(
            "UPDATE delivery SET due_us = claimed_us, claimed_us = NULL WHERE state = 'waiting' AND gateway = ",
        );
        sql.value(&*self.gateway).push(" AND claimed_us IS NOT NULL");
        sql.execute(&self.writer).await
    }

    fn unless_disabled(&self, sql: &mut Sql, endpoint: &str) {
        sql.push(
            " AND NOT EXISTS (SELECT 1 FROM endpoint WHERE endpoint.disabled_us IS NOT NULL AND endpoint.gateway = ",
        );
        sql.value(&*self.gateway).push(" AND endpoint.endpoint = ").value(endpoint).push(")");
    }
}

/// Settles deliveries to one endpoint of which the same has become.
async fn settle_alike(
    connection: &mut AnyConnection,
    settled: &[(Delivery, Verdict)],
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    let Some((Delivery { endpoint, .. }, verdict)) = settled.first() else { return Ok(()) };
    let counts = match verdict {
        Verdict::Delivered | Verdict::Retry { .. } | Verdict::Dead { .. } => "attempts = attempts + 1, ",
        Verdict::Held { .. } | Verdict::Returned { .. } => "",
    };
    let mut sql = Sql::new("UPDATE delivery SET claimed_us = NULL, ");
    sql.push(counts);
    match verdict {
        Verdict::Delivered => {
            sql.push("state = 'delivered', last_error = NULL, delivered_us = ").value(micros(now_ms));
        }
        Verdict::Retry { at_ms, error } | Verdict::Held { at_ms, error } => {
            sql.push("due_us = ").value(micros(*at_ms)).push(", last_error = ").value(&**error);
            sql.push(", failing_us = COALESCE(failing_us, ").value(micros(now_ms)).push(")");
        }
        Verdict::Returned { at_ms } => {
            sql.push("due_us = ").value(micros(*at_ms));
        }
        Verdict::Dead { error } => {
            sql.push("state = 'dead', last_error = ").value(&**error);
        }
    }
    of(&mut sql, endpoint, settled.iter().map(|(delivery, _)| delivery));
    // Whoever was slower than its lease does not undo what somebody else has achieved.
    sql.push(" AND state = 'waiting'");
    sql.execute(connection).await?;
    Ok(())
}

fn of<'a>(sql: &mut Sql, endpoint: &str, deliveries: impl Iterator<Item = &'a Delivery>) {
    sql.push(" WHERE endpoint = ").value(endpoint).push(" AND ulid IN (");
    sql.list(deliveries.map(|delivery| Value::from(&*delivery.ulid))).push(")");
}

fn micros(ms: u64) -> u64 {
    ms.saturating_mul(1000)
}

fn millis(us: i64) -> u64 {
    u64::try_from(us).unwrap_or(0) / 1000
}
