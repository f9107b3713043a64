//! `cygnet-log`: which lines the log has, beyond what the settings say.

use std::sync::Arc;

use swanctl_compat::render;
use swanctl_compat::request::{LogOrder, Part};
use swanctl_compat::settings::did_you_mean;
use swanctl_compat::vici::Message;

use super::commands::stream_all;
use crate::clock;
use crate::core::Core;
use crate::log::Raised;
use crate::subscribers::Client;

pub(super) async fn log(core: &Core, client: &Client, order: LogOrder) -> Message {
    match order {
        LogOrder::List => {}
        LogOrder::Raise { part, detail, time } => {
            if let Some(error) = unknown(core, &part) {
                return render::failed(&error);
            }
            let (conn, group) = (part.connection.as_deref(), part.group);
            tracing::info!(conn, group, "the log has level {detail} for {}s, by command", time.as_secs());
            let until = clock::now() + time;
            core.levels.raise(Raised { part, detail, until });
            let levels = Arc::clone(&core.levels);
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                levels.forget(clock::now());
            });
        }
        LogOrder::Drop(part) if core.levels.lower(&part) => {}
        LogOrder::Drop(part) => {
            let error = unknown(core, &part);
            return render::failed(&error.unwrap_or_else(|| "nothing of that is raised".into()));
        }
    }
    let now = clock::wall().as_secs();
    let raised = core.levels.list(clock::now());
    let raised = raised.iter().map(|(raised, left)| render::cygnet_raised(&raised.part, raised.detail, *left, now));
    stream_all(client, "cygnet-raised", raised.collect::<Vec<_>>()).await;
    render::ok()
}

/// What is wrong with the name of a connection, if anything.
fn unknown(core: &Core, part: &Part) -> Option<String> {
    let name = part.connection.as_deref()?;
    let names = core.store.names();
    if names.iter().any(|known| known == name) {
        return None;
    }
    let close = did_you_mean(name, names.iter().map(String::as_str));
    let hint = close.map(|close| format!(", did you mean '{close}'?")).unwrap_or_default();
    Some(format!("connection '{name}' is not loaded{hint}"))
}
