//! Questions about the past.

use std::time::Duration;

use ike_model::history::{ChildTotal, Generation, HistoryError, Limits, PastEvent, PastIkeSa, Wanted};
use ike_model::proposal::{EspAlgorithms, IkeAlgorithms};
use ike_model::snapshot::Carried;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Store, failed};
use crate::sql::Sql;

/// Nothing gives more rows than this at once.
pub(super) const LIMIT_MAX: u32 = 10_000;

const GENERATION: &str = "SELECT gateway, boot_id, connection, child, unique_id, ike_unique_id, lineage, generation, mode, encap, reqid, \
     spi_in, spi_out, encryption, key_bits, integrity, key_exchange, esn, backend, offload, device, simulated, local_ts, remote_ts, \
     soft_seconds, soft_bytes, soft_packets, hard_seconds, hard_bytes, hard_packets, bytes_in, packets_in, bytes_out, packets_out, \
     total_bytes_in, total_packets_in, total_bytes_out, total_packets_out, installed_us, removed_us, cause, cause_text FROM child_sa";

/// A line of rekeys has carried what its newest generation was told to have, or what its generations were, whichever is more.
const TOTAL: &str = "SELECT gateway, connection, child, CAST(SUM(generations) AS BIGINT) AS generations, \
     CAST(SUM(bytes_in) AS BIGINT) AS bytes_in, CAST(SUM(packets_in) AS BIGINT) AS packets_in, \
     CAST(SUM(bytes_out) AS BIGINT) AS bytes_out, CAST(SUM(packets_out) AS BIGINT) AS packets_out, \
     MIN(first_us) AS first_us, CAST(SUM(open) AS BIGINT) AS open FROM ( \
     SELECT gateway, connection, child, COUNT(*) AS generations, MAX(total_bytes_in) AS bytes_in, MAX(total_packets_in) AS packets_in, \
     MAX(total_bytes_out) AS bytes_out, MAX(total_packets_out) AS packets_out, MIN(installed_us) AS first_us, \
     SUM(CASE WHEN removed_us IS NULL THEN 1 ELSE 0 END) AS open FROM child_sa";

impl Store {
    pub(crate) async fn generations(&self, wanted: &Wanted) -> Result<Vec<Generation>, HistoryError> {
        let rows = self.generations_sql(wanted).fetch(&self.readers).await.map_err(failed)?;
        rows.iter().map(generation).collect::<Result<_, _>>().map_err(failed)
    }

    pub(super) fn generations_sql(&self, wanted: &Wanted) -> Sql {
        let mut sql = Sql::new(GENERATION);
        self.narrow(&mut sql, wanted, ("installed_us", Some("removed_us")));
        if let Some(child) = &wanted.child {
            sql.push(" AND child = ").value(&**child);
        }
        newest(&mut sql, wanted, "installed_us DESC, unique_id DESC");
        sql
    }

    pub(crate) async fn totals(&self, wanted: &Wanted) -> Result<Vec<ChildTotal>, HistoryError> {
        let rows = self.totals_sql(wanted).fetch(&self.readers).await.map_err(failed)?;
        rows.iter().map(total).collect::<Result<_, _>>().map_err(failed)
    }

    pub(super) fn totals_sql(&self, wanted: &Wanted) -> Sql {
        let mut sql = Sql::new(TOTAL);
        self.narrow(&mut sql, wanted, ("installed_us", Some("removed_us")));
        if let Some(child) = &wanted.child {
            sql.push(" AND child = ").value(&**child);
        }
        sql.push(" GROUP BY gateway, connection, child, boot_id, lineage) AS line GROUP BY gateway, connection, child");
        newest(&mut sql, wanted, "connection, child");
        sql
    }

    pub(crate) async fn ike_sas(&self, wanted: &Wanted) -> Result<Vec<PastIkeSa>, HistoryError> {
        let rows = self.ike_sas_sql(wanted).fetch(&self.readers).await.map_err(failed)?;
        rows.iter().map(ike_sa).collect::<Result<_, _>>().map_err(failed)
    }

    pub(super) fn ike_sas_sql(&self, wanted: &Wanted) -> Sql {
        let mut sql = Sql::new("SELECT * FROM ike_sa");
        self.narrow(&mut sql, wanted, ("established_us", Some("closed_us")));
        newest(&mut sql, wanted, "established_us DESC, unique_id DESC");
        sql
    }

    pub(crate) async fn events(&self, wanted: &Wanted) -> Result<Vec<PastEvent>, HistoryError> {
        let rows = self.events_sql(wanted).fetch(&self.readers).await.map_err(failed)?;
        rows.iter().map(event).collect::<Result<_, _>>().map_err(failed)
    }

    pub(super) fn events_sql(&self, wanted: &Wanted) -> Sql {
        let mut sql = Sql::new("SELECT ulid, time_us, type, data FROM event");
        self.narrow(&mut sql, wanted, ("time_us", None));
        for (column, value) in [("child", &wanted.child), ("type", &wanted.event)] {
            if let Some(value) = value {
                sql.push(" AND ").push(column).push(" = ").value(&**value);
            }
        }
        newest(&mut sql, wanted, "time_us DESC, ulid DESC");
        sql
    }

    /// Gateway, connection and time: what was there between two moments, from its beginning to its end where it has one.
    fn narrow(&self, sql: &mut Sql, wanted: &Wanted, (begin, end): (&str, Option<&str>)) {
        sql.push(" WHERE gateway = ").value(wanted.gateway.as_deref().unwrap_or(&self.gateway));
        if let Some(connection) = &wanted.connection {
            sql.push(" AND connection = ").value(&**connection);
        }
        if let Some(until) = wanted.until_ms {
            sql.push(" AND ").push(begin).push(" < ").value(until.saturating_mul(1000));
        }
        if let Some(end) = end.filter(|_| wanted.up) {
            sql.push(" AND ").push(end).push(" IS NULL");
        }
        match (wanted.since_ms, end) {
            (Some(since), Some(end)) => {
                let since = since.saturating_mul(1000);
                sql.push(" AND (").push(end).push(" >= ").value(since).push(" OR ").push(end).push(" IS NULL)");
            }
            (Some(since), None) => {
                sql.push(" AND ").push(begin).push(" >= ").value(since.saturating_mul(1000));
            }
            (None, _) => {}
        }
    }
}

fn newest(sql: &mut Sql, wanted: &Wanted, order: &str) {
    let limit = if wanted.limit == 0 { LIMIT_MAX } else { wanted.limit.min(LIMIT_MAX) };
    sql.push(" ORDER BY ").push(order).push(" LIMIT ").value(limit);
}

/// Reading columns by name, as the types the values have.
pub(super) struct Columns<'a>(pub(super) &'a AnyRow);

impl Columns<'_> {
    pub(super) fn text(&self, column: &str) -> Result<String, sqlx::Error> {
        self.0.try_get(column)
    }

    pub(super) fn maybe_text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.0.try_get(column)
    }

    /// A number that was written as one of the same type: anything else is damage.
    pub(super) fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T, sqlx::Error> {
        self.maybe(column)?.ok_or_else(|| damaged(column))
    }

    pub(super) fn maybe<T: TryFrom<i64>>(&self, column: &str) -> Result<Option<T>, sqlx::Error> {
        let value: Option<i64> = self.0.try_get(column)?;
        value.map(|value| T::try_from(value).map_err(|_| damaged(column))).transpose()
    }

    pub(super) fn truth(&self, column: &str) -> Result<bool, sqlx::Error> {
        Ok(self.number::<i64>(column)? != 0)
    }

    pub(super) fn ms(&self, column: &str) -> Result<u64, sqlx::Error> {
        Ok(self.number::<u64>(column)? / 1000)
    }

    pub(super) fn maybe_ms(&self, column: &str) -> Result<Option<u64>, sqlx::Error> {
        Ok(self.maybe::<u64>(column)?.map(|us| us / 1000))
    }

    pub(super) fn carried(&self, prefix: &str, direction: &str) -> Result<Carried, sqlx::Error> {
        let (bytes, packets) = (format!("{prefix}bytes_{direction}"), format!("{prefix}packets_{direction}"));
        Ok(Carried { bytes: self.number(&bytes)?, packets: self.number(&packets)? })
    }
}

pub(super) fn damaged(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("column {column} holds no such value").into())
}

fn generation(row: &AnyRow) -> Result<Generation, sqlx::Error> {
    let row = Columns(row);
    let mut limits = Limits::default();
    for (which, limit) in [("soft", &mut limits.soft), ("hard", &mut limits.hard)] {
        limit.time = row.maybe(&format!("{which}_seconds"))?.map(Duration::from_secs);
        limit.bytes = row.maybe(&format!("{which}_bytes"))?;
        limit.packets = row.maybe(&format!("{which}_packets"))?;
    }
    let algorithms = match row.maybe("encryption")? {
        Some(encryption) => Some(EspAlgorithms {
            encryption,
            key_bits: row.maybe("key_bits")?,
            integrity: row.maybe("integrity")?,
            key_exchange: row.maybe("key_exchange")?,
            esn: row.truth("esn")?,
        }),
        None => None,
    };
    Ok(Generation {
        gateway: row.text("gateway")?,
        boot_id: row.text("boot_id")?,
        connection: row.text("connection")?,
        child: row.text("child")?,
        unique_id: row.number("unique_id")?,
        ike_unique_id: row.number("ike_unique_id")?,
        lineage: row.number("lineage")?,
        generation: row.number("generation")?,
        mode: row.text("mode")?,
        encap: row.truth("encap")?,
        reqid: row.number("reqid")?,
        spi_in: row.maybe("spi_in")?,
        spi_out: row.maybe("spi_out")?,
        algorithms,
        backend: row.text("backend")?,
        offload: row.text("offload")?,
        device: row.maybe_text("device")?,
        simulated: row.truth("simulated")?,
        local_ts: row.text("local_ts")?,
        remote_ts: row.text("remote_ts")?,
        limits,
        carried_in: row.carried("", "in")?,
        carried_out: row.carried("", "out")?,
        total_in: row.carried("total_", "in")?,
        total_out: row.carried("total_", "out")?,
        installed_ms: row.ms("installed_us")?,
        removed_ms: row.maybe_ms("removed_us")?,
        cause: row.maybe_text("cause")?,
        cause_text: row.maybe_text("cause_text")?,
    })
}

fn total(row: &AnyRow) -> Result<ChildTotal, sqlx::Error> {
    let row = Columns(row);
    Ok(ChildTotal {
        gateway: row.text("gateway")?,
        connection: row.text("connection")?,
        child: row.text("child")?,
        generations: row.number("generations")?,
        carried_in: row.carried("", "in")?,
        carried_out: row.carried("", "out")?,
        first_ms: row.ms("first_us")?,
        up: row.truth("open")?,
    })
}

fn ike_sa(row: &AnyRow) -> Result<PastIkeSa, sqlx::Error> {
    let row = Columns(row);
    let algorithms = match (row.maybe("encryption")?, row.maybe("prf")?, row.maybe("key_exchange")?) {
        (Some(encryption), Some(prf), Some(key_exchange)) => Some(IkeAlgorithms {
            encryption,
            key_bits: row.maybe("key_bits")?,
            integrity: row.maybe("integrity")?,
            prf,
            key_exchange,
        }),
        _ => None,
    };
    Ok(PastIkeSa {
        gateway: row.text("gateway")?,
        boot_id: row.text("boot_id")?,
        connection: row.text("connection")?,
        unique_id: row.number("unique_id")?,
        generation: row.number("generation")?,
        initiator: row.truth("initiator")?,
        initiator_spi: row.text("initiator_spi")?,
        responder_spi: row.text("responder_spi")?,
        local: row.text("local_address")?,
        remote: row.text("remote_address")?,
        local_id: row.text("local_id")?,
        remote_id: row.text("remote_id")?,
        algorithms,
        established_ms: row.ms("established_us")?,
        closed_ms: row.maybe_ms("closed_us")?,
        cause: row.maybe_text("cause")?,
        cause_text: row.maybe_text("cause_text")?,
    })
}

fn event(row: &AnyRow) -> Result<PastEvent, sqlx::Error> {
    let row = Columns(row);
    Ok(PastEvent {
        ulid: row.text("ulid")?,
        time_ms: row.ms("time_us")?,
        event: row.text("type")?,
        record: row.text("data")?,
    })
}
