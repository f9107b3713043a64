//! The list of deliveries, the newest event first.

use ike_model::history::{DeliveryState, HistoryError, PastDelivery, WantedDeliveries};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::query::{Columns, LIMIT_MAX, damaged};
use super::{Store, failed};
use crate::sql::Sql;

const DELIVERY: &str = "SELECT delivery.ulid AS ulid, delivery.endpoint AS endpoint, event.type AS type, event.connection AS connection, \
     event.time_us AS time_us, delivery.state AS state, delivery.attempts AS attempts, delivery.due_us AS due_us, \
     delivery.last_error AS last_error, delivery.delivered_us AS delivered_us FROM ";

impl Store {
    pub(crate) async fn deliveries(&self, wanted: &WantedDeliveries) -> Result<Vec<PastDelivery>, HistoryError> {
        let rows = match &wanted.connection {
            Some(connection) => self.deliveries_of_sql(connection, wanted).planned_anew().fetch(&self.readers).await,
            None => self.merged(wanted).await,
        };
        let mut all: Vec<_> =
            rows.and_then(|rows| rows.iter().map(delivery).collect::<Result<_, _>>()).map_err(failed)?;
        if wanted.connection.is_none() {
            all.sort_by(|a, b| (&b.ulid, &b.endpoint).cmp(&(&a.ulid, &a.endpoint)));
            all.truncate(limit(wanted) as usize);
        }
        Ok(all)
    }

    /// The newest of each endpoint and state: one index serves every choice of the two, and there are few of both.
    async fn merged(&self, wanted: &WantedDeliveries) -> Result<Vec<AnyRow>, sqlx::Error> {
        let endpoints = match &wanted.endpoint {
            Some(endpoint) => vec![endpoint.clone()],
            None => self.endpoints().await?,
        };
        let states = wanted.state.map_or(DeliveryState::ALL.to_vec(), |state| vec![state]);
        let mut rows = Vec::new();
        for endpoint in &endpoints {
            for state in &states {
                rows.extend(self.deliveries_sql(endpoint, *state, wanted).planned_anew().fetch(&self.readers).await?);
            }
        }
        Ok(rows)
    }

    async fn endpoints(&self) -> Result<Vec<String>, sqlx::Error> {
        let mut sql = Sql::new("SELECT endpoint FROM endpoint WHERE gateway = ");
        sql.value(&*self.gateway);
        sql.fetch(&self.readers).await?.iter().map(|row| row.try_get(0)).collect()
    }

    pub(super) fn deliveries_sql(&self, endpoint: &str, state: DeliveryState, wanted: &WantedDeliveries) -> Sql {
        let mut sql = Sql::new(DELIVERY);
        sql.push("delivery JOIN event ON event.ulid = delivery.ulid WHERE delivery.gateway = ").value(&*self.gateway);
        sql.push(" AND delivery.endpoint = ").value(endpoint).push(" AND delivery.state = ").value(state.name());
        if let Some(ulid) = &wanted.ulid {
            sql.push(" AND delivery.ulid = ").value(&**ulid);
        }
        if let Some(before) = &wanted.before {
            let order = if endpoint < &*before.endpoint { " <= " } else { " < " };
            sql.push(" AND delivery.ulid").push(order).value(&*before.ulid);
        }
        sql.push(" ORDER BY delivery.ulid DESC LIMIT ").value(limit(wanted));
        sql
    }

    /// Those of one connection, found by its events.
    pub(super) fn deliveries_of_sql(&self, connection: &str, wanted: &WantedDeliveries) -> Sql {
        let mut sql = Sql::new(DELIVERY);
        sql.push("event JOIN delivery ON delivery.ulid = event.ulid WHERE event.gateway = ").value(&*self.gateway);
        sql.push(" AND event.connection = ").value(connection);
        for (column, value) in [
            ("endpoint", wanted.endpoint.as_deref()),
            ("state", wanted.state.map(DeliveryState::name)),
            ("ulid", wanted.ulid.as_deref()),
        ] {
            if let Some(value) = value {
                sql.push(" AND delivery.").push(column).push(" = ").value(value);
            }
        }
        if let Some(before) = &wanted.before {
            // The first part is for the index, the second for events of the same time.
            let time = "(SELECT time_us FROM event WHERE ulid = ";
            sql.push(" AND event.time_us <= ").push(time).value(&*before.ulid);
            sql.push(") AND (event.time_us, event.ulid, delivery.endpoint) < (").push(time).value(&*before.ulid);
            sql.push("), ").list([(&*before.ulid).into(), (&*before.endpoint).into()]).push(")");
        }
        sql.push(" ORDER BY event.time_us DESC, event.ulid DESC, delivery.endpoint DESC LIMIT ").value(limit(wanted));
        sql
    }
}

fn limit(wanted: &WantedDeliveries) -> u32 {
    if wanted.limit == 0 { LIMIT_MAX } else { wanted.limit.min(LIMIT_MAX) }
}

fn delivery(row: &AnyRow) -> Result<PastDelivery, sqlx::Error> {
    let row = Columns(row);
    Ok(PastDelivery {
        ulid: row.text("ulid")?,
        endpoint: row.text("endpoint")?,
        event: row.text("type")?,
        connection: row.maybe_text("connection")?,
        time_ms: row.ms("time_us")?,
        state: DeliveryState::from_name(&row.text("state")?).ok_or_else(|| damaged("state"))?,
        attempts: row.number("attempts")?,
        due_ms: row.ms("due_us")?,
        last_error: row.maybe_text("last_error")?,
        delivered_ms: row.maybe_ms("delivered_us")?,
    })
}
