//! Questions about the past.

use std::time::Duration;

use ike_model::history::{ChildTotal, Generation, HistoryError, Limits, PastEvent, PastIkeSa, Wanted};
use ike_model::proposal::{EspAlgorithms, IkeAlgorithms};
use ike_model::snapshot::Carried;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Engine, Store, failed};
use crate::sql::Sql;

/// Nothing gives more rows than this at once.
pub(super) const LIMIT_MAX: u32 = 10_000;

const GENERATION: &str = "SELECT gateway, boot_id, connection, child, unique_id, ike_unique_id, lineage, generation, mode, encap, reqid, \
     spi_in, spi_out, encryption, key_bits, integrity, key_exchange, esn, backend, offload, device, simulated, local_ts, remote_ts, \
     soft_seconds, soft_bytes, soft_packets, hard_seconds, hard_bytes, hard_packets, bytes_in, packets_in, bytes_out, packets_out, \
     total_bytes_in, total_packets_in, total_bytes_out, total_packets_out, installed_us, removed_us, cause, cause_text FROM child_sa";

/// What was carried in a part of the past.
const TOTAL_BETWEEN: &str = "SELECT gateway, connection, child, COUNT(*) AS generations, CAST(SUM(bytes_in) AS BIGINT) AS bytes_in, \
     CAST(SUM(packets_in) AS BIGINT) AS packets_in, CAST(SUM(bytes_out) AS BIGINT) AS bytes_out, \
     CAST(SUM(packets_out) AS BIGINT) AS packets_out, MIN(installed_us) AS first_us, \
     CAST(SUM(CASE WHEN removed_us IS NULL THEN 1 ELSE 0 END) AS BIGINT) AS open, CAST(SUM(COUNT(*)) OVER () AS BIGINT) AS summed FROM (";

/// Generations whose sums a part of the past may be asked for: what takes longer to read than anybody waits is not begun.
pub(super) const SUMMED: u32 = if cfg!(test) { 200 } else { 250_000 };

const UP_SQLITE: &str = "EXISTS (SELECT 1 FROM child_sa INDEXED BY child_sa_open WHERE child_sa.removed_us IS NULL \
     AND child_sa.gateway = child_total.gateway AND child_sa.connection = child_total.connection AND child_sa.child = child_total.child)";

const UP: &str = "EXISTS (SELECT 1 FROM child_sa WHERE child_sa.removed_us IS NULL AND child_sa.gateway = child_total.gateway \
     AND child_sa.connection = child_total.connection AND child_sa.child = child_total.child)";

/// The cause of so many ends that they are found along time.
const COMMON: &str = "rekeyed";

/// A table whose rows were up from one time to another.
struct Lives {
    select: &'static str,
    begin: &'static str,
    end: &'static str,
    /// Knows the longest of them.
    totals: &'static str,
    /// Finds what is up.
    open: &'static str,
    /// Finds what ended for a cause that is not common.
    caused: &'static str,
}

const CHILD_SAS: Lives = Lives {
    select: GENERATION,
    begin: "installed_us",
    end: "removed_us",
    totals: "child_total",
    open: "child_sa_open",
    caused: "child_sa_cause",
};
const IKE_SAS: Lives = Lives {
    select: "SELECT * FROM ike_sa",
    begin: "established_us",
    end: "closed_us",
    totals: "connection_total",
    open: "ike_sa_open",
    caused: "ike_sa_cause",
};
const CARRIED: Lives = Lives {
    select: "SELECT gateway, connection, child, bytes_in, packets_in, bytes_out, packets_out, installed_us, removed_us FROM child_sa",
    ..CHILD_SAS
};

impl Store {
    pub(crate) async fn generations(&self, wanted: &Wanted) -> Result<Vec<Generation>, HistoryError> {
        let rows = self.generations_sql(wanted).planned_anew().fetch(&self.readers).await.map_err(failed)?;
        rows.iter().map(generation).collect::<Result<_, _>>().map_err(failed)
    }

    pub(super) fn generations_sql(&self, wanted: &Wanted) -> Sql {
        self.newest_sql(&CHILD_SAS, wanted)
    }

    pub(crate) async fn totals(&self, wanted: &Wanted) -> Result<Vec<ChildTotal>, HistoryError> {
        let rows = self.totals_sql(wanted).planned_anew().fetch(&self.readers).await.map_err(failed)?;
        if is_added_up(wanted)
            && let Some(row) = rows.first()
            && Columns(row).number::<u32>("summed").map_err(failed)? > SUMMED
        {
            return Err(HistoryError::TooMuch(format!(
                "totals of more than {SUMMED} generations are not added up: ask for a shorter time, or for one connection or child"
            )));
        }
        rows.iter().map(total).collect::<Result<_, _>>().map_err(failed)
    }

    /// Of the whole past, that is kept; of a part, it is added up.
    pub(super) fn totals_sql(&self, wanted: &Wanted) -> Sql {
        let up = match self.engine {
            Engine::Sqlite => UP_SQLITE,
            Engine::Postgres => UP,
        };
        let mut sql;
        if !is_added_up(wanted) {
            sql = Sql::new(
                "SELECT gateway, connection, child, generations, bytes_in, packets_in, bytes_out, packets_out, first_us, ",
            );
            sql.push("CAST(CASE WHEN ").push(up).push(" THEN 1 ELSE 0 END AS BIGINT) AS open FROM child_total");
            self.narrow(&mut sql, wanted);
            if wanted.up {
                sql.push(" AND ").push(up);
            }
        } else {
            sql = Sql::new(TOTAL_BETWEEN);
            for (at, part) in Part::of(wanted).iter().enumerate() {
                sql.push(if at > 0 { " UNION ALL SELECT * FROM (" } else { "SELECT * FROM (" });
                self.part(&mut sql, &CARRIED, wanted, *part);
                sql.push(" LIMIT ").value(SUMMED + 1).push(if at > 0 { ") AS other" } else { ") AS one" });
            }
            sql.push(") AS part GROUP BY gateway, connection, child");
        }
        sql.push(" ORDER BY connection, child LIMIT ").value(LIMIT_MAX);
        sql
    }

    pub(crate) async fn ike_sas(&self, wanted: &Wanted) -> Result<Vec<PastIkeSa>, HistoryError> {
        let rows = self.ike_sas_sql(wanted).planned_anew().fetch(&self.readers).await.map_err(failed)?;
        rows.iter().map(ike_sa).collect::<Result<_, _>>().map_err(failed)
    }

    pub(super) fn ike_sas_sql(&self, wanted: &Wanted) -> Sql {
        // An IKE SA is of no one child.
        self.newest_sql(&IKE_SAS, &Wanted { child: None, ..wanted.clone() })
    }

    pub(crate) async fn events(&self, wanted: &Wanted) -> Result<Vec<PastEvent>, HistoryError> {
        let rows = self.events_sql(wanted).planned_anew().fetch(&self.readers).await.map_err(failed)?;
        rows.iter().map(event).collect::<Result<_, _>>().map_err(failed)
    }

    pub(super) fn events_sql(&self, wanted: &Wanted) -> Sql {
        let mut sql = Sql::new("SELECT ulid, time_us, type, data FROM event");
        self.narrow(&mut sql, wanted);
        if let Some(names) = &wanted.event {
            named(&mut sql, names);
        }
        if let Some(cause) = &wanted.cause {
            // As the index has it.
            let kind = match self.engine {
                Engine::Sqlite => r#"instr(data, '"cause":{"kind":"') > 0 AND json_extract(data, '$.cause.kind')"#,
                Engine::Postgres => {
                    r#"strpos(data, '"cause":{"kind":"') > 0 AND split_part(split_part(data, '"cause":{"kind":"', 2), '"', 1)"#
                }
            };
            sql.push(" AND ").push(kind).push(" = ").value(&**cause);
        }
        for (order, bound) in [(" >= ", wanted.since_ms), (" < ", wanted.until_ms)] {
            if let Some(bound) = bound {
                sql.push(" AND time_us").push(order).value(bound.saturating_mul(1000));
            }
        }
        sql.push(" ORDER BY time_us DESC, ulid DESC LIMIT ").value(limit(wanted));
        sql
    }

    /// The newest of each part, and of those the newest.
    fn newest_sql(&self, lives: &Lives, wanted: &Wanted) -> Sql {
        let mut sql = Sql::new("SELECT * FROM (");
        for (at, part) in Part::of(wanted).iter().enumerate() {
            sql.push(if at > 0 { " UNION ALL SELECT * FROM (" } else { "SELECT * FROM (" });
            self.part(&mut sql, lives, wanted, *part);
            // What is up is little, wherever it lies in time: not to be searched for along an index of time, which the sign rules out.
            newest(&mut sql, if matches!(part, Part::Up) { "+" } else { "" }, lives, wanted);
            sql.push(if at > 0 { ") AS other" } else { ") AS one" });
        }
        sql.push(") AS part");
        newest(&mut sql, "", lives, wanted);
        sql
    }

    /// Rows that were up between two moments. What has ended by the first of them cannot have begun earlier than the longest of all lasted, which
    /// is what lets an index find it.
    fn part(&self, sql: &mut Sql, lives: &Lives, wanted: &Wanted, part: Part) {
        let Lives { select, begin, end, totals, open, caused } = *lives;
        sql.push(select);
        let seldom = wanted.cause.as_deref().is_some_and(|cause| cause != COMMON);
        // SQLite does not see by itself how little is up, and how little of a time has ended for a cause.
        let index = match part {
            Part::Up => Some(open),
            Part::Ended | Part::All if seldom && wanted.connection.is_none() && wanted.child.is_none() => Some(caused),
            Part::None | Part::Ended | Part::All => None,
        };
        if let Some(index) = index.filter(|_| self.engine == Engine::Sqlite) {
            sql.push(" INDEXED BY ").push(index);
        }
        self.narrow(sql, wanted);
        if let Some(cause) = &wanted.cause {
            sql.push(" AND cause = ").value(&**cause);
            if seldom {
                // What lets the index of causes find it.
                sql.push(" AND cause <> 'rekeyed'");
            }
        }
        if let Some(until) = wanted.until_ms {
            sql.push(" AND ").push(begin).push(" < ").value(until.saturating_mul(1000));
        }
        match (part, wanted.since_ms) {
            (Part::None, _) => {
                sql.push(" AND FALSE");
            }
            (Part::Up, _) => {
                sql.push(" AND ").push(end).push(" IS NULL");
            }
            (Part::Ended, Some(since)) => {
                let since = since.saturating_mul(1000);
                sql.push(" AND ").push(end).push(" >= ").value(since).push(" AND ").push(begin).push(" >= ");
                sql.value(since).push(" - (SELECT COALESCE(MAX(longest_us), 0) FROM ").push(totals);
                self.narrow(sql, wanted);
                sql.push(")");
            }
            (Part::Ended | Part::All, _) => {}
        }
    }

    /// Gateway, connection and child.
    fn narrow(&self, sql: &mut Sql, wanted: &Wanted) {
        match wanted.gateway.as_deref().unwrap_or(&self.gateway) {
            "*" => sql.push(" WHERE TRUE"),
            gateway => sql.push(" WHERE gateway = ").value(gateway),
        };
        for (column, value) in [("connection", &wanted.connection), ("child", &wanted.child)] {
            if let Some(value) = value {
                sql.push(" AND ").push(column).push(" = ").value(&**value);
            }
        }
    }
}

/// Events of one of these names.
fn named(sql: &mut Sql, names: &str) {
    for (at, name) in names.split(',').enumerate() {
        sql.push(if at == 0 { " AND (" } else { " OR " });
        match name.strip_suffix('*') {
            Some(prefix) => {
                let literal: String = prefix
                    .chars()
                    .flat_map(|c| matches!(c, '!' | '%' | '_').then_some('!').into_iter().chain([c]))
                    .collect();
                sql.push("type LIKE ").value(&*format!("{literal}%")).push(" ESCAPE '!'")
            }
            None => sql.push("type = ").value(name),
        };
    }
    sql.push(")");
}

/// Which rows of a table an index finds at once.
#[derive(Clone, Copy)]
enum Part {
    None,
    Up,
    Ended,
    All,
}

impl Part {
    /// Those that make up what is wanted. Nothing that is up has a cause.
    fn of(wanted: &Wanted) -> &'static [Self] {
        match (wanted.up, wanted.since_ms, &wanted.cause) {
            (true, _, Some(_)) => &[Self::None],
            (true, _, None) => &[Self::Up],
            (false, Some(_), Some(_)) => &[Self::Ended],
            (false, Some(_), None) => &[Self::Up, Self::Ended],
            (false, None, _) => &[Self::All],
        }
    }
}

/// Totals of this are not kept, but of the whole past only.
fn is_added_up(wanted: &Wanted) -> bool {
    wanted.since_ms.is_some() || wanted.until_ms.is_some() || wanted.cause.is_some()
}

fn newest(sql: &mut Sql, sign: &str, Lives { begin, .. }: &Lives, wanted: &Wanted) {
    sql.push(" ORDER BY ").push(sign).push(begin).push(" DESC, unique_id DESC LIMIT ").value(limit(wanted));
}

fn limit(wanted: &Wanted) -> u32 {
    if wanted.limit == 0 { LIMIT_MAX } else { wanted.limit.min(LIMIT_MAX) }
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
