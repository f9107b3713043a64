//! From the spool into the tables: one transaction per batch, everything in it at most once.

use std::collections::BTreeMap;

use ike_model::Rfc3339;
use sqlx::{AnyConnection, Connection as _, Row as _};

use super::{Engine, Store};
use crate::spool::{Entry, Kind};
use crate::sql::{Sql, Value};
use crate::told::{Boot, ChildSa, IkeSa, Record};

/// Rows in one statement.
const ROWS: usize = 100;

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

/// Events and deliveries of a batch, with the last number of each run.
#[derive(Default)]
struct Rows {
    events: Vec<Vec<Value>>,
    deliveries: Vec<Vec<Value>>,
    last: BTreeMap<String, u64>,
}

impl Store {
    /// Takes over one batch, all or nothing.
    pub(crate) async fn apply(&self, entries: &[Entry]) -> Result<Applied, sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        let mut transaction = connection.begin().await?;
        let mut applied = Applied::default();
        let mut rows = Rows::default();
        for entry in entries {
            match entry.kind {
                Kind::Boot => match serde_json::from_slice::<Boot>(&entry.payload) {
                    Ok(boot) => begin_run(&mut transaction, &boot).await?,
                    Err(_) => applied.unreadable += 1,
                },
                Kind::Record => match serde_json::from_slice::<Record>(&entry.payload) {
                    Ok(record) => {
                        self.record(&mut transaction, &record, &entry.payload, &mut rows, &mut applied).await?
                    }
                    Err(_) => applied.unreadable += 1,
                },
            }
        }
        const EVENT: &str =
            "INSERT INTO event (ulid, boot_id, seq, gateway, time_us, type, connection, child, data) VALUES ";
        insert(&mut transaction, EVENT, rows.events).await?;
        const DELIVERY: &str = "INSERT INTO delivery (ulid, endpoint, gateway, state, due_us) VALUES ";
        insert(&mut transaction, DELIVERY, rows.deliveries).await?;
        for (boot_id, seq) in rows.last {
            let mut sql = Sql::new("UPDATE boot SET last_seq = ");
            sql.value(seq).push(" WHERE boot_id = ").value(&*boot_id);
            sql.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(applied)
    }

    async fn record(
        &self,
        connection: &mut AnyConnection,
        record: &Record,
        json: &[u8],
        rows: &mut Rows,
        applied: &mut Applied,
    ) -> Result<(), sqlx::Error> {
        let Some(Rfc3339(time_ms)) = Rfc3339::parse(&record.time) else {
            applied.unreadable += 1;
            return Ok(());
        };
        let at = time_ms.saturating_mul(1000);
        let last = match rows.last.get(&record.boot_id) {
            Some(last) => *last,
            None => last_number(connection, record, at).await?,
        };
        if record.seq <= last {
            applied.known += 1;
            return Ok(());
        }
        applied.events += 1;
        rows.last.insert(record.boot_id.clone(), record.seq);
        let (ulid, boot_id, gateway) = (&*record.ulid, &*record.boot_id, &*record.gateway);
        let json = String::from_utf8_lossy(json);
        rows.events.push(vec![
            ulid.into(),
            boot_id.into(),
            record.seq.into(),
            gateway.into(),
            at.into(),
            (&*record.event).into(),
            record.connection().into(),
            record.child_name().into(),
            (&*json).into(),
        ]);
        for wanted in self.subscriptions.iter().filter(|wanted| wanted.takes(&record.event, record.connection())) {
            let endpoint = &*wanted.endpoint;
            applied.deliveries += 1;
            rows.deliveries.push(vec![ulid.into(), endpoint.into(), gateway.into(), "waiting".into(), at.into()]);
        }
        Change { connection, record, at, engine: self.engine }.carry_out().await
    }
}

/// Several rows in each statement.
async fn insert(connection: &mut AnyConnection, into: &str, rows: Vec<Vec<Value>>) -> Result<(), sqlx::Error> {
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut sql = Sql::new(into);
        for (at, row) in rows.by_ref().take(ROWS).enumerate() {
            sql.push(if at > 0 { ", (" } else { "(" }).list(row).push(")");
        }
        sql.execute(&mut *connection).await?;
    }
    Ok(())
}

/// A run begins: what earlier ones of this gateway left open was ended by their death. Told again, it changes nothing.
async fn begin_run(connection: &mut AnyConnection, boot: &Boot) -> Result<(), sqlx::Error> {
    let at = boot.time_ms.saturating_mul(1000);
    if note_run(connection, &boot.boot_id, &boot.gateway, at).await? == 0 {
        return Ok(());
    }
    for (table, end) in [("ike_sa", "closed_us"), ("child_sa", "removed_us")] {
        let mut sql = Sql::new("UPDATE ");
        sql.push(table).push(" SET ").push(end).push(" = ").value(at).push(", cause = 'daemon-died', cause_text = ");
        sql.value("the daemon ended without closing it; found at its next start");
        sql.push(" WHERE gateway = ").value(&*boot.gateway).push(" AND boot_id <> ").value(&*boot.boot_id);
        sql.push(" AND ").push(end).push(" IS NULL");
        sql.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn note_run(connection: &mut AnyConnection, boot_id: &str, gateway: &str, at: u64) -> Result<u64, sqlx::Error> {
    let mut sql = Sql::new("INSERT INTO boot (boot_id, gateway, started_us) VALUES (");
    sql.list([boot_id.into(), gateway.into(), at.into()]).push(") ON CONFLICT (boot_id) DO NOTHING");
    sql.execute(connection).await
}

/// Number of the last event of this run that was taken over.
async fn last_number(connection: &mut AnyConnection, record: &Record, at: u64) -> Result<u64, sqlx::Error> {
    note_run(connection, &record.boot_id, &record.gateway, at).await?;
    let mut sql = Sql::new("SELECT last_seq FROM boot WHERE boot_id = ");
    sql.value(&*record.boot_id);
    let last: i64 = sql.fetch(connection).await?.first().map_or(Ok(0), |row| row.try_get(0))?;
    Ok(u64::try_from(last).unwrap_or(0))
}

/// What is told of a CHILD SA; kind and words of a cause.
#[derive(Clone, Copy)]
enum Told<'a> {
    /// It is up.
    Present,
    /// It has ended.
    Ended((&'a str, &'a str)),
    /// It is out of the data path; the cause is for one whose end was never told.
    Last((&'a str, &'a str)),
}

/// The function that gives the larger of two.
fn larger(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "MAX",
        Engine::Postgres => "GREATEST",
    }
}

/// What one event changes about SAs.
struct Change<'a> {
    connection: &'a mut AnyConnection,
    record: &'a Record,
    /// When, in microseconds.
    at: u64,
    engine: Engine,
}

impl Change<'_> {
    async fn carry_out(&mut self) -> Result<(), sqlx::Error> {
        let told = self.record.cause.as_ref().map(|cause| (&*cause.kind, &*cause.text));
        let cause = told.unwrap_or(("internal", "no cause was told"));
        match &*self.record.event {
            "ike-sa.established" => {
                if let Some(ike) = self.record.ike() {
                    self.ike_up(&ike, None).await?;
                }
            }
            "ike-sa.rekeyed" => {
                if let Some((old, new)) = self.record.rekeyed::<IkeSa>() {
                    let text = format!("replaced by [{}]", new.unique_id);
                    self.ike_down(&old, ("rekeyed", &text)).await?;
                    self.ike_up(&new, Some(old.unique_id)).await?;
                }
            }
            "ike-sa.closed" => {
                if let Some(ike) = self.record.ike() {
                    self.ike_down(&ike, cause).await?;
                }
            }
            "ike-sa.updated" => self.ike_moved().await?,
            "child-sa.installed" => {
                if let Some((ike, child)) = self.record.ike().zip(self.record.child()) {
                    self.child_up(&ike, &child, None).await?;
                }
            }
            "child-sa.rekeyed" => {
                if let Some((ike, (old, new))) = self.record.ike().zip(self.record.rekeyed::<ChildSa>()) {
                    let text = format!("replaced by {{{}}}", new.unique_id);
                    self.child_told(&old, Told::Ended(("rekeyed", &text))).await?;
                    self.child_up(&ike, &new, Some(old.unique_id)).await?;
                }
            }
            "child-sa.closed" => {
                if let Some(child) = self.record.child() {
                    self.child_told(&child, Told::Ended(cause)).await?;
                }
            }
            "child-sa.removed" => {
                if let Some(child) = self.record.child() {
                    self.child_removed(&child).await?;
                }
            }
            // What other events tell of a CHILD SA is its counters and its mode.
            _ => {
                if let Some(child) = self.record.child() {
                    self.child_told(&child, Told::Present).await?;
                }
            }
        }
        Ok(())
    }

    async fn ike_up(&mut self, ike: &IkeSa, previous: Option<u32>) -> Result<(), sqlx::Error> {
        let algorithms = ike.algorithms;
        let mut sql = Sql::new(
            "INSERT INTO ike_sa (boot_id, unique_id, gateway, connection, generation, previous, initiator, initiator_spi, \
             responder_spi, local_address, remote_address, local_id, remote_id, nat_local, nat_remote, encryption, key_bits, \
             integrity, prf, key_exchange, established_us) VALUES (",
        );
        sql.list([
            (&*self.record.boot_id).into(),
            ike.unique_id.into(),
            (&*self.record.gateway).into(),
            (&*ike.connection).into(),
            ike.generation.into(),
            previous.into(),
            ike.initiator.into(),
            (&*format!("{:016x}", ike.initiator_spi)).into(),
            (&*format!("{:016x}", ike.responder_spi)).into(),
            (&*ike.local).into(),
            (&*ike.remote).into(),
            (&*ike.local_id.to_string()).into(),
            (&*ike.remote_id.to_string()).into(),
            ike.nat_local.into(),
            ike.nat_remote.into(),
            algorithms.map(|chosen| chosen.encryption).into(),
            algorithms.and_then(|chosen| chosen.key_bits).into(),
            algorithms.and_then(|chosen| chosen.integrity).into(),
            algorithms.map(|chosen| chosen.prf).into(),
            algorithms.map(|chosen| chosen.key_exchange).into(),
            self.at.into(),
        ]);
        sql.push(") ON CONFLICT (boot_id, unique_id) DO NOTHING");
        sql.execute(&mut *self.connection).await?;
        Ok(())
    }

    async fn ike_down(&mut self, ike: &IkeSa, (kind, text): (&str, &str)) -> Result<(), sqlx::Error> {
        let mut sql = Sql::new("UPDATE ike_sa SET closed_us = ");
        sql.value(self.at).push(", cause = ").value(kind).push(", cause_text = ").value(text);
        self.of(&mut sql, ike.unique_id);
        sql.push(" AND closed_us IS NULL");
        sql.execute(&mut *self.connection).await?;
        Ok(())
    }

    async fn ike_moved(&mut self) -> Result<(), sqlx::Error> {
        let Some((ike, path)) = self.record.ike().zip(self.record.path.as_ref()) else { return Ok(()) };
        let mut sql = Sql::new("UPDATE ike_sa SET local_address = ");
        sql.value(&*path.local).push(", remote_address = ").value(&*path.remote);
        self.of(&mut sql, ike.unique_id);
        sql.execute(&mut *self.connection).await?;
        Ok(())
    }

    async fn child_up(&mut self, ike: &IkeSa, child: &ChildSa, previous: Option<u32>) -> Result<(), sqlx::Error> {
        let lineage = match previous {
            Some(previous) => self.lineage(previous).await?,
            None => child.unique_id.into(),
        };
        let mut sql = Sql::new(
            "INSERT INTO child_sa (boot_id, unique_id, gateway, connection, child, ike_unique_id, lineage, generation, reqid, mode, \
             encap, spi_in, spi_out, encryption, key_bits, integrity, key_exchange, esn, backend, offload, device, simulated, \
             local_ts, remote_ts, soft_seconds, soft_bytes, soft_packets, hard_seconds, hard_bytes, hard_packets, bytes_in, \
             packets_in, bytes_out, packets_out, total_bytes_in, total_packets_in, total_bytes_out, total_packets_out, \
             installed_us) VALUES (",
        );
        sql.list([
            (&*self.record.boot_id).into(),
            child.unique_id.into(),
            (&*self.record.gateway).into(),
            (&*ike.connection).into(),
            (&*child.name).into(),
            ike.unique_id.into(),
            lineage.into(),
            child.generation.into(),
            child.reqid.into(),
            (&*child.mode).into(),
            child.encap.into(),
            child.spi_in.into(),
            child.spi_out.into(),
        ]);
        sql.push(", ").list(negotiated(child)).push(", ").list(place(child)).push(", ").list(limits(child));
        sql.push(", ").list(counters(child)).push(", ").value(self.at);
        sql.push(") ON CONFLICT (boot_id, unique_id) DO NOTHING");
        sql.execute(&mut *self.connection).await?;
        Ok(())
    }

    /// The last counters of a CHILD SA. What came late for one that was replaced was carried before its successor's totals.
    async fn child_removed(&mut self, child: &ChildSa) -> Result<(), sqlx::Error> {
        let Some(successor) = self.record.successor else {
            return self.child_told(child, Told::Last(("internal", "its end was not told"))).await;
        };
        self.child_told(child, Told::Last(("rekeyed", &format!("replaced by {{{successor}}}")))).await?;
        let own: [&str; 4] = ["bytes_in", "packets_in", "bytes_out", "packets_out"];
        let before = [child.total_in, child.total_out].map(|total| [total.bytes, total.packets]);
        let mut sql = Sql::new("UPDATE child_sa SET ");
        for (at, (column, before)) in own.iter().zip(before.as_flattened()).enumerate() {
            sql.push(if at > 0 { ", total_" } else { "total_" }).push(column).push(" = ").push(larger(self.engine));
            sql.push("(total_").push(column).push(", ").push(column).push(" + ").value(*before).push(")");
        }
        self.of(&mut sql, successor);
        sql.execute(&mut *self.connection).await?;
        Ok(())
    }

    /// Counters and mode of a CHILD SA, and its end if this is one. Counters never go back: what comes late was counted early.
    async fn child_told(&mut self, child: &ChildSa, told: Told<'_>) -> Result<(), sqlx::Error> {
        const COLUMNS: [&str; 8] = [
            "bytes_in",
            "packets_in",
            "bytes_out",
            "packets_out",
            "total_bytes_in",
            "total_packets_in",
            "total_bytes_out",
            "total_packets_out",
        ];
        let mut sql = Sql::new("UPDATE child_sa SET offload = ");
        sql.value(&*child.offload.mode).push(", device = ").value(child.offload.device.as_deref());
        for (column, value) in COLUMNS.iter().zip(counters(child)) {
            sql.push(", ")
                .push(column)
                .push(" = ")
                .push(larger(self.engine))
                .push("(")
                .push(column)
                .push(", ")
                .value(value)
                .push(")");
        }
        match told {
            Told::Present => {}
            Told::Ended((kind, text)) => {
                sql.push(", removed_us = ").value(self.at).push(", cause = ").value(kind);
                sql.push(", cause_text = ").value(text);
            }
            Told::Last((kind, text)) => {
                sql.push(", removed_us = COALESCE(removed_us, ").value(self.at);
                sql.push("), cause = COALESCE(cause, ").value(kind);
                sql.push("), cause_text = COALESCE(cause_text, ").value(text).push(")");
            }
        }
        self.of(&mut sql, child.unique_id);
        if !matches!(told, Told::Last(_)) {
            sql.push(" AND removed_us IS NULL");
        }
        sql.execute(&mut *self.connection).await?;
        Ok(())
    }

    async fn lineage(&mut self, previous: u32) -> Result<i64, sqlx::Error> {
        let mut sql = Sql::new("SELECT lineage FROM child_sa");
        self.of(&mut sql, previous);
        sql.fetch(&mut *self.connection).await?.first().map_or(Ok(previous.into()), |row| row.try_get(0))
    }

    fn of(&self, sql: &mut Sql, unique_id: u32) {
        sql.push(" WHERE boot_id = ").value(&*self.record.boot_id).push(" AND unique_id = ").value(unique_id);
    }
}

fn negotiated(child: &ChildSa) -> [Value; 5] {
    let algorithms = child.algorithms;
    [
        algorithms.map(|chosen| chosen.encryption).into(),
        algorithms.and_then(|chosen| chosen.key_bits).into(),
        algorithms.and_then(|chosen| chosen.integrity).into(),
        algorithms.and_then(|chosen| chosen.key_exchange).into(),
        algorithms.map(|chosen| chosen.esn).into(),
    ]
}

fn place(child: &ChildSa) -> [Value; 6] {
    let text = |selectors: &[ike_model::history::TrafficSelector]| {
        selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    [
        (&*child.backend).into(),
        (&*child.offload.mode).into(),
        child.offload.device.as_deref().into(),
        child.offload.simulated.into(),
        (&*text(&child.local_ts)).into(),
        (&*text(&child.remote_ts)).into(),
    ]
}

fn limits(child: &ChildSa) -> [Value; 6] {
    let (soft, hard) = (child.limits.soft, child.limits.hard);
    [
        soft.time.map(|time| time.as_secs()).into(),
        soft.bytes.into(),
        soft.packets.into(),
        hard.time.map(|time| time.as_secs()).into(),
        hard.bytes.into(),
        hard.packets.into(),
    ]
}

fn counters(child: &ChildSa) -> [Value; 8] {
    [
        child.traffic_in.bytes.into(),
        child.traffic_in.packets.into(),
        child.traffic_out.bytes.into(),
        child.traffic_out.packets.into(),
        child.total_in.bytes.into(),
        child.total_in.packets.into(),
        child.total_out.bytes.into(),
        child.total_out.packets.into(),
    ]
}
