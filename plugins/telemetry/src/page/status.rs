//! `/api/status`: the gateway, and a page of its tunnels.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::{Extension, Json};
use ike_model::Cause;
use ike_model::history::Disabled;
use ike_model::snapshot::{Carried, ConfiguredState};
use serde::{Deserialize, Serialize};

use super::limits::{Limit, Nearest, limits, nearest};
use super::lines::{Both, Line, Lines, State};
use super::samples::{Sample, Samples};
use super::{Asked, Page};
use crate::guard::Problem;
use crate::site::Site;
use crate::view::{Condition, Standing, View};

/// Tunnels in an answer where nobody says how many.
const LIMIT: usize = 100;
const LIMIT_MOST: usize = 10_000;

/// Which tunnels.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    /// Part of a name, identity, address or selector, in any case.
    search: Option<String>,
    state: Option<String>,
    connection: Option<String>,
    child: Option<String>,
    sort: Sort,
    offset: usize,
    limit: Option<usize>,
    /// With samples taken after this moment.
    samples: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sort {
    #[default]
    Name,
    /// What is refused, retried or down first.
    Trouble,
    /// The busiest first.
    Traffic,
}

#[derive(Serialize)]
pub(super) struct Status {
    v: u32,
    time_ms: u64,
    gateway: String,
    boot_id: String,
    version: &'static str,
    started_ms: u64,
    backend: &'static str,
    complete: bool,
    ready: bool,
    conditions: Vec<Condition>,
    actions: Actions,
    webhooks: Vec<Webhook>,
    counts: Counts,
    rates: Both<u64>,
    matching: usize,
    offset: usize,
    tunnels: Vec<Tunnel>,
}

/// Whether anything can be changed here.
#[derive(Serialize)]
struct Actions {
    allowed: bool,
    reason: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct Webhook {
    name: String,
    /// `untried`, `up`, `down` or `disabled`; empty where it is configured no more.
    state: &'static str,
    /// Unknown while the history's database is away.
    waiting: Option<u64>,
    dead: Option<u64>,
    disabled: Option<Disabled>,
}

#[derive(Default, Serialize)]
struct Counts {
    total: usize,
    up: usize,
    connecting: usize,
    retry: usize,
    trapped: usize,
    shunt: usize,
    down: usize,
    refused: usize,
}

impl Counts {
    fn of(lines: &[Line]) -> Self {
        let mut counts = Self { total: lines.len(), ..Self::default() };
        for line in lines {
            *match line.state {
                State::Up => &mut counts.up,
                State::Connecting => &mut counts.connecting,
                State::Retry => &mut counts.retry,
                State::Trapped => &mut counts.trapped,
                State::Shunt => &mut counts.shunt,
                State::Down => &mut counts.down,
                State::Refused => &mut counts.refused,
            } += 1;
        }
        counts
    }
}

/// One tunnel. What speaks of a CHILD SA is of the newest one; counters and rates are sums where there are several.
#[derive(Serialize)]
struct Tunnel {
    connection: String,
    child: String,
    state: State,
    /// CHILD SAs in use, of different IKE SAs.
    sas: usize,
    failures: u32,
    reason: Option<String>,
    retry_at_ms: Option<u64>,
    cause: Option<LastCause>,
    mode: Option<Mode>,
    local: Option<String>,
    remote: Option<String>,
    local_id: Option<String>,
    remote_id: Option<String>,
    local_ts: Vec<String>,
    remote_ts: Vec<String>,
    esp_mode: Option<&'static str>,
    encap: bool,
    algorithms: Option<String>,
    ike_algorithms: Option<String>,
    spi_in: Option<String>,
    spi_out: Option<String>,
    unique_id: Option<u32>,
    ike_unique_id: Option<u32>,
    generation: Option<u32>,
    installed_ms: Option<u64>,
    ike_established_ms: Option<u64>,
    heard_seconds: Option<u64>,
    rates: Option<Both<u64>>,
    carried: Option<Both<Carried>>,
    total: Option<Both<Carried>>,
    limits: Vec<Limit>,
    nearest: Option<Nearest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<Vec<Sample>>,
}

#[derive(Serialize)]
struct LastCause {
    time_ms: u64,
    #[serde(flatten)]
    cause: Cause,
}

#[derive(Serialize)]
struct Mode {
    offload: ike_model::device::OffloadMode,
    device: Option<Arc<str>>,
    simulated: bool,
    backend: &'static str,
}

pub(super) async fn status(
    Shared(site): Shared<Site>,
    Extension(page): Extension<Arc<Page>>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Status>, Problem> {
    let filter = Filter::of(&wanted)?;
    let limit = wanted.limit.unwrap_or(LIMIT).min(LIMIT_MOST);
    page.looked();
    let lines = page.lines(&site).await;
    let conditions = site.daemon.readiness().await;
    let webhooks = webhooks(&site, &lines.view).await;
    let samples = page.samples();
    let mut found: Vec<&Line> = lines.lines.iter().filter(|line| filter.fits(&lines, line)).collect();
    sort(&mut found, wanted.sort, &samples);
    let rates = lines.lines.iter().filter_map(|line| samples.rates(&line.key)).fold(Both::default(), sum);
    let tunnels = found.iter().skip(wanted.offset).take(limit);
    let view = &lines.view;
    Ok(Json(Status {
        v: 1,
        time_ms: view.taken_ms,
        gateway: view.gateway.clone(),
        boot_id: view.boot_id.clone(),
        version: view.version,
        started_ms: view.started_ms,
        backend: view.backend,
        complete: view.complete,
        ready: conditions.iter().all(|condition| condition.state != Standing::Unmet),
        conditions,
        actions: actions(&site),
        webhooks,
        counts: Counts::of(&lines.lines),
        rates,
        matching: found.len(),
        offset: wanted.offset,
        tunnels: tunnels.map(|line| tunnel(&lines, line, &samples, wanted.samples)).collect(),
    }))
}

fn actions(site: &Site) -> Actions {
    let allowed = site.options.token.is_some();
    let reason = "nothing can be changed over HTTP: set http.token or http.token_file";
    Actions { allowed, reason: (!allowed).then_some(reason) }
}

/// Webhooks, those included that are configured no more and still have something to deliver.
pub(super) async fn webhooks(site: &Site, view: &View) -> Vec<Webhook> {
    let outbox = site.daemon.outbox();
    let mut webhooks = Vec::new();
    for one in &view.webhooks {
        let disabled = match &outbox {
            Some(outbox) if one.state == "disabled" => outbox.disabled(&one.name).await.unwrap_or_default(),
            Some(_) | None => None,
        };
        let (waiting, dead) = one.backlog.unzip();
        webhooks.push(Webhook { name: one.name.clone(), state: one.state, waiting, dead, disabled });
    }
    webhooks
}

/// What a line must be like.
struct Filter<'a> {
    search: Option<String>,
    state: Option<State>,
    connection: Option<&'a str>,
    child: Option<&'a str>,
}

impl<'a> Filter<'a> {
    fn of(wanted: &'a Wanted) -> Result<Self, Problem> {
        let known = || format!("a state is one of {}", State::ALL.map(State::name).join(", "));
        let state = wanted.state.as_deref();
        let state = state.map(|name| State::from_name(name).ok_or_else(|| Problem::invalid(known()))).transpose()?;
        let search = wanted.search.as_deref().map(str::to_lowercase).filter(|text| !text.is_empty());
        Ok(Self { search, state, connection: wanted.connection.as_deref(), child: wanted.child.as_deref() })
    }

    fn fits(&self, lines: &Lines, line: &Line) -> bool {
        let (connection, child) = &line.key;
        self.connection.is_none_or(|wanted| wanted == connection)
            && self.child.is_none_or(|wanted| wanted == child)
            && self.state.is_none_or(|wanted| wanted == line.state)
            && self.search.as_deref().is_none_or(|text| found(lines, line, text))
    }
}

fn found(lines: &Lines, line: &Line, text: &str) -> bool {
    let (connection, child) = &line.key;
    let mut words = format!("{connection}/{child}");
    for (ike, sa) in lines.sas(line) {
        words.push_str(&format!("\n{}\n{}\n{}\n{}", ike.local_id, ike.remote_id, ike.local, ike.remote));
        for selector in sa.local_ts.iter().chain(&sa.remote_ts) {
            words.push_str(&format!("\n{selector}"));
        }
    }
    words.to_lowercase().contains(text)
}

/// Lines are in the order of names already, and stay so among equals.
fn sort(found: &mut [&Line], by: Sort, samples: &Samples) {
    let traffic =
        |line: &Line| samples.rates(&line.key).map_or(0, |rates| rates.inbound.saturating_add(rates.outbound));
    match by {
        Sort::Name => {}
        Sort::Trouble => found.sort_by_key(|line| line.state),
        Sort::Traffic => found.sort_by_key(|line| std::cmp::Reverse(traffic(line))),
    }
}

fn sum(sum: Both<u64>, one: Both<u64>) -> Both<u64> {
    Both { inbound: sum.inbound.saturating_add(one.inbound), outbound: sum.outbound.saturating_add(one.outbound) }
}

fn tunnel(lines: &Lines, line: &Line, samples: &Samples, samples_after: Option<u64>) -> Tunnel {
    let taken_ms = lines.view.taken_ms;
    let before = |seconds: u64| taken_ms.saturating_sub(seconds.saturating_mul(1000));
    let status = lines.status(line);
    let (reason, retry_at_ms) = match status.map(|status| &status.state) {
        Some(ConfiguredState::Refused(reason)) => (Some(reason.clone()), None),
        Some(ConfiguredState::RetryIn(seconds)) => (None, Some(taken_ms.saturating_add(seconds.saturating_mul(1000)))),
        Some(
            ConfiguredState::Up
            | ConfiguredState::Connecting
            | ConfiguredState::Trapped
            | ConfiguredState::Shunt
            | ConfiguredState::Down,
        )
        | None => (None, None),
    };
    let cause = status.and_then(|status| status.last_cause.clone());
    let (ike, sa) = lines.newest(line).unzip();
    let policy =
        lines.view.policies.iter().find(|policy| (&*policy.connection, &*policy.child) == (&*line.key.0, &*line.key.1));
    let selectors = |of_sa: Option<&Vec<_>>, of_policy: Option<&Vec<_>>| -> Vec<String> {
        of_sa.or(of_policy).into_iter().flatten().map(ike_model::history::TrafficSelector::to_string).collect()
    };
    let limits = sa.map(limits).unwrap_or_default();
    let carried = |traffic: ike_model::snapshot::Traffic| Carried { bytes: traffic.bytes, packets: traffic.packets };
    Tunnel {
        connection: line.key.0.clone(),
        child: line.key.1.clone(),
        state: line.state,
        sas: lines.sas(line).count(),
        failures: status.map_or(0, |status| status.failures),
        reason,
        retry_at_ms,
        cause: cause.map(|(seconds, cause)| LastCause { time_ms: seconds.saturating_mul(1000), cause }),
        mode: sa.map(|sa| Mode {
            offload: sa.offload.mode,
            device: sa.offload.device.clone(),
            simulated: sa.offload.simulated,
            backend: lines.view.backend,
        }),
        local: ike.map(|ike| ike.local.to_string()),
        remote: ike.map(|ike| ike.remote.to_string()),
        local_id: ike.map(|ike| ike.local_id.to_string()),
        remote_id: ike.map(|ike| ike.remote_id.to_string()),
        local_ts: selectors(sa.map(|sa| &sa.local_ts), policy.map(|policy| &policy.local_ts)),
        remote_ts: selectors(sa.map(|sa| &sa.remote_ts), policy.map(|policy| &policy.remote_ts)),
        esp_mode: sa.map(|sa| super::mode_name(sa.mode)),
        encap: sa.is_some_and(|sa| sa.encap),
        algorithms: sa.and_then(|sa| sa.algorithms).map(|chosen| chosen.to_string()),
        ike_algorithms: ike.and_then(|ike| ike.algorithms).map(|chosen| chosen.to_string()),
        spi_in: sa.and_then(|sa| sa.spi_in).map(|spi| spi.to_string()),
        spi_out: sa.and_then(|sa| sa.spi_out).map(|spi| spi.to_string()),
        unique_id: sa.map(|sa| sa.unique_id),
        ike_unique_id: ike.map(|ike| ike.unique_id),
        generation: sa.map(|sa| sa.generation),
        installed_ms: sa.and_then(|sa| sa.installed_seconds).map(before),
        ike_established_ms: ike.and_then(|ike| ike.established_seconds).map(before),
        heard_seconds: ike.map(|ike| ike.heard_seconds),
        rates: samples.rates(&line.key),
        carried: sa.map(|sa| Both { inbound: carried(sa.traffic_in), outbound: carried(sa.traffic_out) }),
        total: lines.total(line),
        nearest: nearest(&limits),
        limits,
        samples: samples_after.map(|ms| samples.after(&line.key, ms)),
    }
}
