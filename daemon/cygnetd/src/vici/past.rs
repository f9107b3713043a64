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

fn answer(outcome: Result<bool, HistoryError>) -> Message {
    match outcome {
        Ok(complete) => render::complete(complete),
        Err(error) => render::failed(&error.to_string()),
    }
}

/// Tells whether all that happened before is in it.
async fn rows(core: &Core, client: &Client, asked: &Asked<'_>) -> Result<bool, HistoryError> {
    let complete = core.timeline()?.complete().await?;
    if asked.ike_sas {
        let found = core.timeline()?.ike_sas(asked.wanted).await?;
        stream_all(client, "cygnet-past-ike", found.iter().map(render::cygnet_past_ike).collect::<Vec<_>>()).await;
        return Ok(complete);
    }
    let generations = if asked.rows_only {
        core.generations(asked.wanted).await?
    } else {
        let totals = core.totals(asked.wanted).await?;
        stream_all(client, "cygnet-total", totals.iter().map(render::cygnet_total).collect::<Vec<_>>()).await;
        core.generations(asked.wanted).await?
    };
    let messages: Vec<_> = generations.iter().map(render::cygnet_generation).collect();
    stream_all(client, "cygnet-generation", messages).await;
    Ok(complete)
}

async fn past_events(core: &Core, client: &Client, wanted: &Wanted) -> Result<bool, HistoryError> {
    let timeline = core.timeline()?;
    let complete = timeline.complete().await?;
    let found = timeline.events(wanted).await?;
    // They come newest first.
    let messages = found.iter().rev().map(|event| render::cygnet_event(&event.ulid, &event.record));
    stream_all(client, "cygnet-past-event", messages.collect::<Vec<_>>()).await;
    Ok(complete)
}
