//! `/api/timeline` and `/api/events`: what the history knows.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use ike_model::history::{ChildTotal, Generation, HistoryError, Limits, PastEvent, Wanted};
use ike_model::snapshot::Carried;
use ike_model::{Timeline, Ulid};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Asked;
use crate::guard::Problem;
use crate::site::Site;
use crate::view::View;

/// Events that may bear the same moment as the last one of a page: so many more are asked for.
const SAME_MOMENT: u32 = 200;
/// Nothing is asked for more at once.
const MOST: u32 = 10_000;

/// Which generations.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WantedGenerations {
    connection: Option<String>,
    child: Option<String>,
    since: Option<u64>,
    until: Option<u64>,
    limit: Option<u32>,
    /// Also what each child has carried in all; for a part of the past that may be much to add up.
    totals: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct Generations {
    v: u32,
    time_ms: u64,
    generations: Vec<Row>,
    /// Older ones were left out.
    more: bool,
    totals: Vec<ChildTotal>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_totals: Option<String>,
}

/// One generation, as a row of a table.
#[derive(Serialize)]
struct Row {
    boot_id: String,
    connection: String,
    child: String,
    unique_id: u32,
    ike_unique_id: u32,
    lineage: u32,
    generation: u32,
    mode: String,
    encap: bool,
    reqid: u32,
    spi_in: Option<String>,
    spi_out: Option<String>,
    algorithms: Option<String>,
    backend: String,
    offload: String,
    device: Option<String>,
    simulated: bool,
    local_ts: String,
    remote_ts: String,
    limits: Limits,
    carried_in: Carried,
    carried_out: Carried,
    total_in: Carried,
    total_out: Carried,
    installed_ms: u64,
    removed_ms: Option<u64>,
    cause: Option<String>,
    cause_text: Option<String>,
}

pub(super) async fn timeline(
    Shared(site): Shared<Site>,
    Asked(wanted): Asked<WantedGenerations>,
) -> Result<Json<Generations>, Problem> {
    let history = history(&site)?;
    let limit = wanted.limit.unwrap_or(500).clamp(1, 5_000);
    let with_totals = wanted.totals.unwrap_or(true);
    let wanted = Wanted {
        connection: wanted.connection,
        child: wanted.child,
        since_ms: wanted.since,
        until_ms: wanted.until,
        // One more, to know whether there are more.
        limit: limit + 1,
        ..Wanted::default()
    };
    let mut generations = history.generations(&wanted).await.map_err(away)?;
    let (totals, no_totals) = match with_totals {
        true => totals(&*history, &wanted).await?,
        false => (Vec::new(), None),
    };
    let more = generations.len() > limit as usize;
    generations.truncate(limit as usize);
    let view = site.view().await;
    let present = present(&view);
    let generations = generations.into_iter().map(|one| row(one, &view, &present)).collect();
    Ok(Json(Generations { v: 1, time_ms: super::now_ms(), generations, more, totals, no_totals }))
}

/// What each child has carried, or why that is not added up.
async fn totals(history: &dyn Timeline, wanted: &Wanted) -> Result<(Vec<ChildTotal>, Option<String>), Problem> {
    match history.totals(wanted).await {
        Ok(totals) => Ok((totals, None)),
        Err(HistoryError::TooMuch(why)) => Ok((Vec::new(), Some(why))),
        Err(error @ (HistoryError::Unreachable(_) | HistoryError::Failed(_))) => Err(away(error)),
    }
}

/// Counters of the CHILD SAs that are up: the history learns them at their end.
fn present(view: &View) -> HashMap<u32, [Carried; 4]> {
    let carried = |traffic: ike_model::snapshot::Traffic| Carried { bytes: traffic.bytes, packets: traffic.packets };
    let children = view.ike_sas.iter().flat_map(|ike| &ike.children);
    children
        .map(|sa| (sa.unique_id, [carried(sa.traffic_in), carried(sa.traffic_out), sa.total_in, sa.total_out]))
        .collect()
}

fn row(one: Generation, view: &View, present: &HashMap<u32, [Carried; 4]>) -> Row {
    let is_up = one.removed_ms.is_none() && one.boot_id == view.boot_id;
    let told = [one.carried_in, one.carried_out, one.total_in, one.total_out];
    let now = present.get(&one.unique_id).filter(|_| is_up).copied().unwrap_or(told);
    let [carried_in, carried_out, total_in, total_out] = now;
    let hex = |spi: Option<u32>| spi.map(|spi| format!("{spi:08x}"));
    Row {
        boot_id: one.boot_id,
        connection: one.connection,
        child: one.child,
        unique_id: one.unique_id,
        ike_unique_id: one.ike_unique_id,
        lineage: one.lineage,
        generation: one.generation,
        mode: one.mode,
        encap: one.encap,
        reqid: one.reqid,
        spi_in: hex(one.spi_in),
        spi_out: hex(one.spi_out),
        algorithms: one.algorithms.map(|chosen| chosen.to_string()),
        backend: one.backend,
        offload: one.offload,
        device: one.device,
        simulated: one.simulated,
        local_ts: one.local_ts,
        remote_ts: one.remote_ts,
        limits: one.limits,
        carried_in,
        carried_out,
        total_in,
        total_out,
        installed_ms: one.installed_ms,
        removed_ms: one.removed_ms,
        cause: one.cause,
        cause_text: one.cause_text,
    }
}

/// Which events.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WantedEvents {
    connection: Option<String>,
    child: Option<String>,
    event: Option<String>,
    since: Option<u64>,
    until: Option<u64>,
    /// ULID of the last event of the page before.
    before: Option<String>,
    limit: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Events {
    v: u32,
    events: Vec<Box<RawValue>>,
    /// What to give as `before` for older ones.
    next: Option<String>,
}

pub(super) async fn events(
    Shared(site): Shared<Site>,
    Asked(wanted): Asked<WantedEvents>,
) -> Result<Json<Events>, Problem> {
    let history = history(&site)?;
    let limit = wanted.limit.unwrap_or(100).clamp(1, 1_000);
    let before = wanted.before.as_deref().map(place).transpose()?;
    // Times alone do not tell events of one moment apart; their ULIDs do.
    let until = before.map(|ulid| ulid.time_ms() + 1).into_iter().chain(wanted.until).min();
    let mut asked = Wanted {
        connection: wanted.connection,
        child: wanted.child,
        event: wanted.event,
        since_ms: wanted.since,
        until_ms: until,
        limit: limit + SAME_MOMENT,
        ..Wanted::default()
    };
    let mut found = older(&*history, &asked, before).await?;
    if found.events.len() < limit as usize && found.were_full {
        asked.limit = MOST;
        found = older(&*history, &asked, before).await?;
    }
    let more = found.were_full || found.events.len() > limit as usize;
    found.events.truncate(limit as usize);
    let next = found.events.last().filter(|_| more).map(|last| last.ulid.clone());
    let records = found.events.into_iter().map(|event| RawValue::from_string(event.record)).collect::<Result<_, _>>();
    let events =
        records.map_err(|error| Problem::unavailable(format!("a record of the history is damaged: {error}")))?;
    Ok(Json(Events { v: 1, events, next }))
}

struct Found {
    events: Vec<PastEvent>,
    /// The history gave as many as it was asked for.
    were_full: bool,
}

async fn older(history: &dyn Timeline, wanted: &Wanted, before: Option<Ulid>) -> Result<Found, Problem> {
    let mut events = history.events(wanted).await.map_err(away)?;
    let were_full = events.len() >= wanted.limit as usize;
    if let Some(before) = before.map(|ulid| ulid.to_string()) {
        events.retain(|event| event.ulid < before);
    }
    Ok(Found { events, were_full })
}

fn place(text: &str) -> Result<Ulid, Problem> {
    text.parse().map_err(|_| Problem::invalid("before: it is the `next` of the answer before"))
}

/// The history, where one is kept.
pub(super) fn history(site: &Site) -> Result<Arc<dyn Timeline>, Problem> {
    let none = || Problem::unavailable("no history is kept: history.url is empty, or see the log");
    site.daemon.timeline().ok_or_else(none)
}

pub(super) fn away(error: HistoryError) -> Problem {
    Problem::unavailable(error.to_string())
}
