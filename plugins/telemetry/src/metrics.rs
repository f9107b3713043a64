//! `/metrics`: what Prometheus and its kin read.
//!
//! Everything is put together when it is asked for. Series are bounded: one set for each *configured* connection and child, whatever peers do, and
//! at most [`CHILDREN`] of them.

mod family;
mod process;
mod queues;
mod text;
mod tunnels;

#[cfg(test)]
mod tests;

use std::time::Instant;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::site::Site;
use crate::view::{Condition, Standing, View};
use family::{
    BUILD_INFO, CONDITION_MET, GATEWAY_INFO, HTTP_LOST, HTTP_READERS, SCRAPE_COMPLETE, SCRAPE_SECONDS, START_TIME,
};
use text::{Format, Page};

/// Configured children that are told one by one.
const CHILDREN: usize = 10_000;

/// `/metrics`
pub(crate) async fn metrics(State(site): State<Site>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    let format = Format::accepted(&accept);
    let begun = Instant::now();
    let (view, conditions) = tokio::join!(site.view(), site.daemon.readiness());
    let took = begun.elapsed().as_secs_f64();
    let text = page(&site, &view, &conditions, took, format);
    ([(CONTENT_TYPE, format.content_type())], text).into_response()
}

fn page(site: &Site, view: &View, conditions: &[Condition], took: f64, format: Format) -> String {
    let mut page = Page::new(format);
    page.family(&BUILD_INFO).add(&[view.version, view.backend], true);
    page.family(&GATEWAY_INFO).add(&[&view.gateway, &view.boot_id], true);
    let started = seconds(view.started_ms);
    page.single(&START_TIME, started);
    page.single(&SCRAPE_COMPLETE, view.complete);
    page.single(&SCRAPE_SECONDS, took);
    let mut met = page.family(&CONDITION_MET);
    for condition in conditions {
        met.add(&[condition.name], condition.state == Standing::Met);
    }
    tunnels::tell(&mut page, view, site.feed.ledger(), CHILDREN);
    queues::tell(&mut page, view, site.feed.ledger());
    let (readers, lost) = site.feed.readers();
    page.single(&HTTP_READERS, readers);
    page.single(&HTTP_LOST, lost);
    process::tell(&mut page, started);
    page.finish()
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}
