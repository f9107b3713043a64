//! Whether the process lives, and whether it is ready for traffic.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::guard::Problem;
use crate::site::Site;
use crate::view::{Condition, Standing};

/// How long the daemon's threads may take to show that they turn.
const ALIVE: Duration = Duration::from_secs(5);

/// `/healthz`: restart the process when this fails.
pub(crate) async fn healthz(State(site): State<Site>) -> Response {
    let alive = tokio::time::timeout(ALIVE, site.daemon.alive()).await;
    match alive.unwrap_or_else(|_| Err(format!("no sign of life within {} s", ALIVE.as_secs()))) {
        Ok(()) => "ok\n".into_response(),
        Err(who) => Problem::unavailable(who).into_response(),
    }
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    conditions: Vec<Condition>,
}

/// `/readyz`: send traffic elsewhere while this fails.
pub(crate) async fn readyz(State(site): State<Site>) -> Response {
    let conditions = site.daemon.readiness().await;
    let ready = conditions.iter().all(|condition| condition.state != Standing::Unmet);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, conditions })).into_response()
}
