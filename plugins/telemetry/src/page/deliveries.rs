//! `/api/deliveries` and what may be done about them.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, Path, State as Shared};
use axum::http::StatusCode;
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use ike_model::Outbox;
use ike_model::history::{DeliveryState, PastDelivery, Redelivery, WantedDeliveries};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::past::away;
use super::status::{Webhook, webhooks};
use super::{Asked, now_ms};
use crate::guard::{Authorized, Problem};
use crate::site::Site;

/// Which deliveries.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    endpoint: Option<String>,
    state: Option<String>,
    connection: Option<String>,
    ulid: Option<String>,
    before: Option<String>,
    limit: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Deliveries {
    v: u32,
    time_ms: u64,
    deliveries: Vec<PastDelivery>,
    /// What to give as `before` for older ones.
    next: Option<String>,
    webhooks: Vec<Webhook>,
}

pub(super) async fn deliveries(
    Shared(site): Shared<Site>,
    Asked(asked): Asked<Wanted>,
) -> Result<Json<Deliveries>, Problem> {
    let outbox = outbox(&site)?;
    let limit = asked.limit.unwrap_or(100).clamp(1, 1_000);
    let state = asked.state.as_deref().map(state).transpose()?;
    let before = asked.before.as_deref().map(str::parse).transpose();
    let wanted = WantedDeliveries {
        endpoint: asked.endpoint,
        state,
        ulid: asked.ulid,
        connection: asked.connection,
        before: before.map_err(|error| Problem::invalid(format!("before: {error}")))?,
        limit: limit + 1,
    };
    let mut deliveries = outbox.deliveries(&wanted).await.map_err(away)?;
    let more = deliveries.len() > limit as usize;
    deliveries.truncate(limit as usize);
    let next = deliveries.last().filter(|_| more).map(|last| last.cursor().to_string());
    let view = site.view().await;
    Ok(Json(Deliveries { v: 1, time_ms: now_ms(), deliveries, next, webhooks: webhooks(&site, &view).await }))
}

fn state(name: &str) -> Result<DeliveryState, Problem> {
    let known = || format!("state: it is one of {}", DeliveryState::ALL.map(DeliveryState::name).join(", "));
    DeliveryState::from_name(name).ok_or_else(|| Problem::invalid(known()))
}

/// What is to be sent again.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Again {
    endpoint: Option<String>,
    ulid: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Redelivered {
    redelivered: u64,
}

pub(super) async fn redeliver(
    _: Authorized,
    _: SameOrigin,
    Shared(site): Shared<Site>,
    body: Result<Json<Map<String, Value>>, JsonRejection>,
) -> Result<Json<Redelivered>, Problem> {
    // An object, and no list of fields in their order: nobody shall redeliver everything by mistake.
    let Json(body) = body.map_err(|error| Problem::invalid(error.body_text()))?;
    let again = serde_json::from_value(Value::Object(body));
    let Again { endpoint, ulid } = again.map_err(|error| Problem::invalid(error.to_string()))?;
    let which = Redelivery { endpoint, ulid };
    let redelivered = outbox(&site)?.redeliver(&which).await.map_err(away)?;
    tracing::info!(
        endpoint = which.endpoint,
        ulid = which.ulid,
        redelivered,
        "deliveries are due again, asked for over HTTP"
    );
    Ok(Json(Redelivered { redelivered }))
}

#[derive(Serialize)]
pub(super) struct Enabled {
    enabled: bool,
}

pub(super) async fn enable(
    _: Authorized,
    _: SameOrigin,
    Shared(site): Shared<Site>,
    Path(name): Path<String>,
) -> Result<Json<Enabled>, Problem> {
    let outbox = outbox(&site)?;
    let known = site.view().await.webhooks.iter().any(|webhook| webhook.name == name);
    let enabled = outbox.enable(&name).await.map_err(away)?;
    if !known && !enabled {
        return Err(Problem::not_found("there is no webhook of that name"));
    }
    tracing::info!(endpoint = name, enabled, "a webhook is enabled, asked for over HTTP");
    Ok(Json(Enabled { enabled }))
}

/// The request does not come from a page of another site.
pub(super) struct SameOrigin;

impl FromRequestParts<Site> for SameOrigin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Site) -> Result<Self, Problem> {
        let Some(origin) = parts.headers.get(ORIGIN) else { return Ok(Self) };
        let host = parts.headers.get(HOST).map(|host| host.as_bytes());
        let is_ours = |origin: &[u8]| {
            // A proxy may speak TLS for us.
            let named = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
            named.is_some() && named == host
        };
        if is_ours(origin.as_bytes()) {
            return Ok(Self);
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "other-origin", "this is not for pages of other sites"))
    }
}

fn outbox(site: &Site) -> Result<Arc<dyn Outbox>, Problem> {
    let none = || {
        Problem::unavailable(
            "no deliveries are kept: webhooks need a history, and history.url is empty, or see the log",
        )
    };
    site.daemon.outbox().ok_or_else(none)
}
