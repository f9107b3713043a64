//! A batch becomes rows: many in each statement, and each statement in few lengths, so that it is prepared once.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AnyConnection, Row as _};

use super::Engine;
use super::batch::{Batch, ChildChange, ChildUp, End, IkeChange, IkeUp, Key};
use crate::sql::{Sql, Value};
use crate::told::ChildSa;

/// How many rows a statement has.
const LENGTHS: [usize; 5] = [128, 32, 8, 2, 1];
/// How many rows are looked up at once.
const LOOKUP: usize = 500;

const EVENT: &str = "INSERT INTO event (ulid, boot_id, seq, gateway, time_us, type, connection, child, data) VALUES ";

const DELIVERY: &str = "INSERT INTO delivery (ulid, endpoint, gateway, state, due_us) VALUES ";

const IKE_UP: &str = "INSERT INTO ike_sa (boot_id, unique_id, gateway, connection, generation, previous, initiator, initiator_spi, responder_spi, \
     local_address, remote_address, local_id, remote_id, nat_local, nat_remote, encryption, key_bits, integrity, prf, key_exchange, \
     established_us, closed_us, cause, cause_text) VALUES ";

const IKE_TOLD: &str =
    "WITH told (boot_id, unique_id, local_address, remote_address, closed_us, cause, cause_text) AS (VALUES ";

const IKE_CHANGES: &str = ") UPDATE ike_sa SET local_address = COALESCE(told.local_address, ike_sa.local_address), \
     remote_address = COALESCE(told.remote_address, ike_sa.remote_address), \
     cause = CASE WHEN ike_sa.closed_us IS NULL THEN told.cause ELSE ike_sa.cause END, \
     cause_text = CASE WHEN ike_sa.closed_us IS NULL THEN told.cause_text ELSE ike_sa.cause_text END, \
     closed_us = COALESCE(ike_sa.closed_us, told.closed_us) \
     FROM told WHERE ike_sa.boot_id = told.boot_id AND ike_sa.unique_id = told.unique_id";

const CHILD_UP: &str = "INSERT INTO child_sa (boot_id, unique_id, gateway, connection, child, ike_unique_id, lineage, generation, reqid, mode, \
     encap, spi_in, spi_out, encryption, key_bits, integrity, key_exchange, esn, backend, offload, device, simulated, \
     local_ts, remote_ts, soft_seconds, soft_bytes, soft_packets, hard_seconds, hard_bytes, hard_packets, bytes_in, \
     packets_in, bytes_out, packets_out, total_bytes_in, total_packets_in, total_bytes_out, total_packets_out, \
     installed_us, removed_us, cause, cause_text) VALUES ";

const CHILD_TOLD: &str = "WITH told (boot_id, unique_id, offload, device, bytes_in, packets_in, bytes_out, packets_out, total_bytes_in, \
     total_packets_in, total_bytes_out, total_packets_out, before_bytes_in, before_packets_in, before_bytes_out, before_packets_out, removed_us, cause, cause_text) AS (VALUES ";

const COUNTERS: [&str; 4] = ["bytes_in", "packets_in", "bytes_out", "packets_out"];

impl Batch {
    /// Writes all of it.
    pub(super) async fn write(self, connection: &mut AnyConnection, engine: Engine) -> Result<(), sqlx::Error> {
        write_rows(connection, engine, EVENT, self.events, "").await?;
        write_rows(connection, engine, DELIVERY, self.deliveries, "").await?;
        write_ike_sas(connection, self.ike_sas, engine).await?;
        write_child_sas(connection, self.child_sas, engine).await?;
        for (boot_id, seq) in self.last {
            let mut sql = Sql::new("UPDATE boot SET last_seq = ");
            sql.value(seq).push(" WHERE boot_id = ").value(&*boot_id);
            sql.execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// Statements of many rows between `before` and `after`.
async fn write_rows(
    connection: &mut AnyConnection,
    engine: Engine,
    before: &str,
    rows: Vec<Vec<Value>>,
    after: &str,
) -> Result<(), sqlx::Error> {
    let mut left = rows.len();
    let mut rows = rows.into_iter();
    for length in LENGTHS {
        while left >= length {
            left -= length;
            let mut sql = Sql::long(before, engine);
            for (at, row) in rows.by_ref().take(length).enumerate() {
                sql.push(if at > 0 { ", (" } else { "(" }).list(row).push(")");
            }
            sql.push(after);
            // What only adds rows has but one plan.
            let sql = if after.is_empty() || engine == Engine::Sqlite { sql } else { sql.planned_anew() };
            sql.execute(&mut *connection).await?;
        }
    }
    Ok(())
}

async fn write_ike_sas(
    connection: &mut AnyConnection,
    changes: BTreeMap<Key, IkeChange>,
    engine: Engine,
) -> Result<(), sqlx::Error> {
    let begun = changes.iter().filter(|(_, change)| change.up.is_some()).map(|(key, _)| key);
    let known = look_up(connection, engine, "ike_sa", "unique_id", begun.cloned().collect()).await?;
    let (mut new, mut told) = (Vec::new(), Vec::new());
    for (key, change) in changes {
        match &change.up {
            Some(up) if !known.contains_key(&key) => new.push(ike_row(&key, up, &change)),
            Some(_) | None => {
                let (local, remote) = change.path.as_ref().map(|(local, remote)| (&**local, &**remote)).unzip();
                let mut row: Vec<Value> = vec![(&*key.0).into(), key.1.into()];
                row.extend([local.into(), remote.into()]);
                row.extend(end(change.end.as_ref()));
                told.push(row);
            }
        }
    }
    write_rows(connection, engine, IKE_UP, new, "").await?;
    write_rows(connection, engine, IKE_TOLD, told, IKE_CHANGES).await
}

async fn write_child_sas(
    connection: &mut AnyConnection,
    changes: BTreeMap<Key, ChildChange>,
    engine: Engine,
) -> Result<(), sqlx::Error> {
    let mut wanted = BTreeSet::new();
    for (key, up) in changes.iter().filter_map(|(key, change)| Some((key, change.up.as_ref()?))) {
        wanted.insert(key.clone());
        wanted.extend(up.previous.map(|previous| (key.0.clone(), previous)));
    }
    let known = look_up(connection, engine, "child_sa", "lineage", wanted).await?;
    let lineages: Vec<i64> = changes.keys().map(|key| lineage(key, &changes, &known)).collect();
    let (mut new, mut told) = (Vec::new(), Vec::new());
    for ((key, change), lineage) in changes.into_iter().zip(lineages) {
        match &change.up {
            Some(up) if !known.contains_key(&key) => new.push(child_row(&key, up, lineage, &change)),
            Some(_) | None => {
                let mut row: Vec<Value> = vec![(&*key.0).into(), key.1.into()];
                row.extend([change.told.offload.as_deref().into(), change.told.device.as_deref().into()]);
                row.extend(
                    [change.told.own, change.told.line, change.told.before]
                        .as_flattened()
                        .iter()
                        .copied()
                        .map(Value::from),
                );
                row.extend(end(change.end.as_ref()));
                told.push(row);
            }
        }
    }
    write_rows(connection, engine, CHILD_UP, new, "").await?;
    write_rows(connection, engine, CHILD_TOLD, told, &child_changes(engine)).await
}

/// What is told of a row changes it: counters never go back, the first end stays, and what has ended keeps its mode.
fn child_changes(engine: Engine) -> String {
    let larger = match engine {
        Engine::Sqlite => "MAX",
        Engine::Postgres => "GREATEST",
    };
    let mut sql = String::from(") UPDATE child_sa SET removed_us = COALESCE(child_sa.removed_us, told.removed_us)");
    for (column, told) in
        [("offload", "offload"), ("device", "offload"), ("cause", "removed_us"), ("cause_text", "removed_us")]
    {
        sql += &format!(
            ", {column} = CASE WHEN child_sa.removed_us IS NULL AND told.{told} IS NOT NULL THEN told.{column} ELSE child_sa.{column} END"
        );
    }
    for column in COUNTERS {
        let own = format!("{larger}(child_sa.{column}, told.{column})");
        sql += &format!(
            ", {column} = {own}, total_{column} = {larger}(child_sa.total_{column}, told.total_{column}, {own} + told.before_{column})"
        );
    }
    sql + " FROM told WHERE child_sa.boot_id = told.boot_id AND child_sa.unique_id = told.unique_id"
}

/// Which of these rows there are, and a number from each.
async fn look_up(
    connection: &mut AnyConnection,
    engine: Engine,
    table: &str,
    column: &str,
    keys: BTreeSet<Key>,
) -> Result<BTreeMap<Key, i64>, sqlx::Error> {
    let mut by_run: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (boot_id, unique_id) in keys {
        by_run.entry(boot_id).or_default().push(unique_id);
    }
    let mut found = BTreeMap::new();
    for (boot_id, numbers) in by_run {
        for numbers in numbers.chunks(LOOKUP) {
            let mut sql = Sql::long("SELECT unique_id, ", engine);
            sql.push(column).push(" FROM ").push(table).push(" WHERE boot_id = ").value(&*boot_id);
            sql.push(" AND unique_id IN (").list(numbers.iter().map(|number| Value::from(*number))).push(")");
            for row in sql.planned_anew().fetch(&mut *connection).await? {
                if let Ok(unique_id) = u32::try_from(row.try_get::<i64, _>(0)?) {
                    found.insert((boot_id.clone(), unique_id), row.try_get(1)?);
                }
            }
        }
    }
    Ok(found)
}

/// Number of the first of a line of rekeys, as far back as it is known.
fn lineage(key: &Key, changes: &BTreeMap<Key, ChildChange>, known: &BTreeMap<Key, i64>) -> i64 {
    let mut at = key.clone();
    // No line has more links than there are changes: one that bites its tail ends here as well.
    for _ in 0..changes.len() {
        let up = changes.get(&at).and_then(|change| change.up.as_ref());
        match up.and_then(|up| up.previous).filter(|_| !known.contains_key(&at)) {
            Some(previous) => at.1 = previous,
            None => break,
        }
    }
    known.get(&at).copied().unwrap_or(at.1.into())
}

fn end(end: Option<&End>) -> [Value; 3] {
    [end.map(|end| end.at).into(), end.map(|end| &*end.cause).into(), end.map(|end| &*end.text).into()]
}

fn ike_row((boot_id, unique_id): &Key, up: &IkeUp, change: &IkeChange) -> Vec<Value> {
    let ike = &up.ike;
    let (local, remote) = change.path.as_ref().map_or((&*ike.local, &*ike.remote), |(local, remote)| (local, remote));
    let mut row = vec![
        (&**boot_id).into(),
        (*unique_id).into(),
        (&*up.gateway).into(),
        (&*ike.connection).into(),
        ike.generation.into(),
        up.previous.into(),
        ike.initiator.into(),
        (&*format!("{:016x}", ike.initiator_spi)).into(),
        (&*format!("{:016x}", ike.responder_spi)).into(),
        local.into(),
        remote.into(),
        (&*ike.local_id.to_string()).into(),
        (&*ike.remote_id.to_string()).into(),
        ike.nat_local.into(),
        ike.nat_remote.into(),
        ike.algorithms.map(|chosen| chosen.encryption).into(),
        ike.algorithms.and_then(|chosen| chosen.key_bits).into(),
        ike.algorithms.and_then(|chosen| chosen.integrity).into(),
        ike.algorithms.map(|chosen| chosen.prf).into(),
        ike.algorithms.map(|chosen| chosen.key_exchange).into(),
        up.at.into(),
    ];
    row.extend(end(change.end.as_ref()));
    row
}

fn child_row((boot_id, unique_id): &Key, up: &ChildUp, lineage: i64, change: &ChildChange) -> Vec<Value> {
    let child = &up.child;
    let mut row: Vec<Value> = vec![
        (&**boot_id).into(),
        (*unique_id).into(),
        (&*up.gateway).into(),
        (&*up.connection).into(),
        (&*child.name).into(),
        up.ike_unique_id.into(),
        lineage.into(),
        child.generation.into(),
        child.reqid.into(),
        (&*child.mode).into(),
        child.encap.into(),
        child.spi_in.into(),
        child.spi_out.into(),
    ];
    row.extend(negotiated(child));
    row.push((&*child.backend).into());
    row.extend([change.told.offload.as_deref().into(), change.told.device.as_deref().into()]);
    row.push(child.offload.simulated.into());
    row.extend([selectors(&child.local_ts), selectors(&child.remote_ts)]);
    row.extend(limits(child));
    row.extend(change.told.own.map(Value::from));
    row.extend(change.told.whole_line().map(Value::from));
    row.push(up.at.into());
    row.extend(end(change.end.as_ref()));
    row
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

fn selectors(selectors: &[ike_model::history::TrafficSelector]) -> Value {
    let text = selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    Value::from(&*text)
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
