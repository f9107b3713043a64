//! The status page and its API.
//!
//! The page is files that are built into the program; what it shows comes from `/api/`, which scripts may use as well: PAGE.md beside this crate's
//! manifest has the requests. Fields are only added. Moments are milliseconds since the epoch.
//!
//! What changes something needs the token, in a header that no page of another site can send without being asked for permission first, which is never
//! given; what comes from another origin is refused all the same.

mod assets;
mod deliveries;
mod devices;
mod limits;
mod lines;
mod live;
mod past;
mod samples;
mod status;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::routing::{get, post};
use axum::{Extension, Router};
use ike_model::device::SaMode;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::guard::Problem;
use crate::site::Site;
use lines::Lines;
use samples::{ALWAYS, APART_MS, Samples};

/// How long after a question somebody is taken to be looking still.
const LOOKING: Duration = Duration::from_secs(60);

/// What the page keeps between requests.
#[derive(Debug, Default)]
pub struct Page {
    last: Mutex<Option<Arc<Lines>>>,
    samples: Mutex<Samples>,
    looked: Mutex<Option<Instant>>,
}

/// Everything under `/` and `/api/`; the host a request names has been checked.
pub fn routes(page: Arc<Page>) -> Router<Site> {
    Router::new()
        .merge(assets::routes())
        .route("/api/status", get(status::status))
        .route("/api/timeline", get(past::timeline))
        .route("/api/events", get(past::events))
        .route("/api/events/live", get(live::live))
        .route("/api/devices", get(devices::devices))
        .route("/api/deliveries", get(deliveries::deliveries))
        .route("/api/deliveries/redeliver", post(deliveries::redeliver))
        .route("/api/webhooks/{name}/enable", post(deliveries::enable))
        .layer(Extension(page))
}

/// Takes samples for the curves until the runtime ends: at all times on a gateway of a size where that costs nothing, so that they are there when
/// somebody looks; on a greater one while somebody does.
pub async fn sample(page: Arc<Page>, site: Site) {
    let mut ticks = tokio::time::interval(Duration::from_millis(APART_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if page.is_large() && !page.is_looked_at() {
            page.samples().forget();
        } else {
            page.lines(&site).await;
        }
    }
}

impl Page {
    /// The tunnels now, with their counters read into the samples.
    async fn lines(&self, site: &Site) -> Arc<Lines> {
        let view = site.view().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = last.as_ref().filter(|lines| Arc::ptr_eq(&lines.view, &view)) {
            return Arc::clone(lines);
        }
        let lines = Arc::new(Lines::of(view));
        self.samples().read(&lines);
        *last = Some(Arc::clone(&lines));
        lines
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looked(&self) {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_looked_at(&self) -> bool {
        let looked = *self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.is_some_and(|at| at.elapsed() < LOOKING)
    }

    fn is_large(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|lines| lines.lines.len() > ALWAYS)
    }
}

/// The parameters of a request; what is unknown or of the wrong kind is told, not ignored.
struct Asked<T>(T);

impl<T: DeserializeOwned> FromRequestParts<Site> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Site) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(wanted)) => Ok(Self(wanted)),
            Err(error) => Err(Problem::invalid(error.body_text())),
        }
    }
}

fn mode_name(mode: SaMode) -> &'static str {
    match mode {
        SaMode::Tunnel => "tunnel",
        SaMode::Transport => "transport",
    }
}

/// Milliseconds since the epoch, for ages of what the history tells.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
