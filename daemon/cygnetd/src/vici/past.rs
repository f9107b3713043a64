//! Commands that ask about the past.

use ike_model::history::{HistoryError, Wanted};
use swanctl_compat::render;
use swanctl_compat::vici::Message;

use super::commands::stream_all;
use crate::core::Core;
use crate::subscribers::Client;

/// What `cygnet-history` asks for.
pub(super) struct Asked<'a> {
    pub(super) wanted: &'a Wanted,
    /// IKE SAs rather than CHILD SAs.
    pub(super) ike_sas: bool,
    /// Without totals.
    pub(super) rows_only: bool,
}

pub(super) async fn history(core: &Core, client: &Client, asked: &Asked<'_>) -> Message {
    answer(rows(core, client, asked).await)
}

pub(super) async fn events(core: &Core, client: &Client, wanted: &Wanted) -> Message {
    answer(past_events(core, client, wanted).await)
}

fn answer(outcome: Result<Message, HistoryError>) -> Message {
    outcome.unwrap_or_else(|error| render::failed(&error.to_string()))
}

/// The answer tells whether all that happened before is in it, and why there are no totals, where there are none.
async fn rows(core: &Core, client: &Client, asked: &Asked<'_>) -> Result<Message, HistoryError> {
    let mut answer = render::complete(core.timeline()?.complete().await?);
    if asked.ike_sas {
        let found = core.timeline()?.ike_sas(asked.wanted).await?;
        stream_all(client, "cygnet-past-ike", found.iter().map(render::cygnet_past_ike).collect::<Vec<_>>()).await;
        return Ok(answer);
    }
    if !asked.rows_only {
        match core.totals(asked.wanted).await {
            Ok(totals) => {
                let messages: Vec<_> = totals.iter().map(render::cygnet_total).collect();
                stream_all(client, "cygnet-total", messages).await;
            }
            Err(HistoryError::TooMuch(why)) => answer.set("no-totals", why),
            Err(error @ (HistoryError::Unreachable(_) | HistoryError::Failed(_))) => return Err(error),
        }
    }
    let generations = core.generations(asked.wanted).await?;
    let messages: Vec<_> = generations.iter().map(render::cygnet_generation).collect();
    stream_all(client, "cygnet-generation", messages).await;
    Ok(answer)
}

async fn past_events(core: &Core, client: &Client, wanted: &Wanted) -> Result<Message, HistoryError> {
    let timeline = core.timeline()?;
    let complete = timeline.complete().await?;
    let found = timeline.events(wanted).await?;
    // They come newest first.
    let messages = found.iter().rev().map(|event| render::cygnet_event(&event.ulid, &event.record));
    stream_all(client, "cygnet-past-event", messages.collect::<Vec<_>>()).await;
    Ok(render::complete(complete))
}
