//! `/api/events/live`: events as they come, as server-sent events.
//!
//! The id of each is its ULID. A browser that was interrupted names the last one it had, and gets what it missed: from memory where that reaches
//! back far enough, else from the history.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use ike_model::Ulid;
use ike_model::history::Wanted;
use serde::Deserialize;

use super::Asked;
use crate::feed::{Next, Subscription};
use crate::guard::Problem;
use crate::site::Site;

/// Events of the past that are sent to a browser that comes back.
const RESUMED: u32 = 1_000;
/// A connection on which nothing passes is taken for dead by what lies between.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where to go on.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct After {
    /// As `Last-Event-ID`, for those who cannot send a header.
    after: Option<String>,
}

pub(super) async fn live(
    Shared(site): Shared<Site>,
    headers: HeaderMap,
    Asked(asked): Asked<After>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let named = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned).or(asked.after);
    // An id that is none of ours, of another gateway behind the same name for example, is no place to go on from.
    let after = named.and_then(|id| id.parse::<Ulid>().ok());
    let (subscription, recent) = site.feed.subscribe_after(after).ok_or_else(too_many)?;
    let mut stream = Live { subscription, last: after.map(|ulid| ulid.to_string()), waiting: VecDeque::new() };
    if let Some(after) = after.filter(|_| !recent.complete) {
        stream.resume(&site, after).await;
    }
    for news in recent.news {
        stream.push(&news.ulid, &news.record);
    }
    // Tells browsers how soon to come back, and that the stream has begun.
    stream.waiting.push_front(Event::default().retry(Duration::from_secs(2)).comment("events follow"));
    let events = unfold(stream, |mut stream| async move { stream.next().await.map(|event| (Ok(event), stream)) });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

fn too_many() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", "too many follow the events already")
}

/// One browser's stream.
struct Live {
    subscription: Subscription,
    /// ULID of the last event that was sent: none is sent twice.
    last: Option<String>,
    waiting: VecDeque<Event>,
}

impl Live {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            match self.subscription.next().await? {
                Next::News(news) => self.push(&news.ulid, &news.record),
                Next::Lost(events) => self.waiting.push_back(lost(Some(events))),
            }
        }
    }

    fn push(&mut self, ulid: &str, record: &str) {
        if self.last.as_deref().is_none_or(|last| last < ulid) {
            self.waiting.push_back(Event::default().id(ulid).data(record));
            self.last = Some(ulid.to_owned());
        }
    }

    /// What the history has since then. What it has not is lost, and nobody knows how much that is.
    async fn resume(&mut self, site: &Site, after: Ulid) {
        let Some(history) = site.daemon.timeline() else { return self.waiting.push_back(lost(None)) };
        // What has just happened may be on its way there, and is in no memory of ours either.
        let is_complete = history.complete().await.unwrap_or(false);
        let wanted = Wanted { since_ms: Some(after.time_ms()), limit: RESUMED + 1, ..Wanted::default() };
        let Ok(mut events) = history.events(&wanted).await else { return self.waiting.push_back(lost(None)) };
        events.sort_by(|a, b| a.ulid.cmp(&b.ulid));
        let after = after.to_string();
        let too_many = events.len() > RESUMED as usize && events.first().is_some_and(|oldest| oldest.ulid > after);
        if too_many || !is_complete {
            self.waiting.push_back(lost(None));
        }
        for event in &events {
            self.push(&event.ulid, &event.record);
        }
    }
}

fn lost(events: Option<u64>) -> Event {
    Event::default().event("lost").data(events.map_or_else(|| "null".into(), |events| events.to_string()))
}
