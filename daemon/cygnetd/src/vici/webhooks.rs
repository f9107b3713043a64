//! The `cygnet-webhook` commands.

use ike_model::history::{HistoryError, Redelivery, WantedDeliveries};
use swanctl_compat::render;
use swanctl_compat::vici::Message;

use super::commands::stream_all;
use crate::core::Core;
use crate::subscribers::Client;

pub(super) async fn list(core: &Core, client: &Client) -> Message {
    let messages: Vec<_> = core.webhooks.snapshot().await.iter().map(render::cygnet_webhook).collect();
    stream_all(client, "cygnet-webhook", messages).await
}

pub(super) async fn test(core: &Core, name: &str) -> Message {
    match core.webhooks.test(name).await {
        Some(tried) => render::cygnet_webhook_tried(&tried),
        None => render::failed(&unknown(name)),
    }
}

pub(super) async fn deliveries(core: &Core, client: &Client, wanted: &WantedDeliveries) -> Message {
    let found = match core.webhooks.outbox() {
        Ok(outbox) => outbox.deliveries(wanted).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(deliveries) => {
            let messages: Vec<_> = deliveries.iter().map(render::cygnet_delivery).collect();
            stream_all(client, "cygnet-delivery", messages).await
        }
        Err(error) => render::failed(&error.to_string()),
    }
}

pub(super) async fn redeliver(core: &Core, which: &Redelivery) -> Message {
    if let Some(unknown) = which.endpoint.as_deref().filter(|name| !core.webhooks.has(name)).map(unknown) {
        return render::failed(&unknown);
    }
    counted(core.webhooks.redeliver(which).await)
}

pub(super) async fn enable(core: &Core, name: &str, enable: bool) -> Message {
    if !core.webhooks.has(name) {
        return render::failed(&unknown(name));
    }
    counted(core.webhooks.enable(name, enable).await.map(u64::from))
}

pub(super) async fn drop_waiting(core: &Core, name: &str) -> Message {
    counted(core.webhooks.drop_waiting(name).await)
}

fn unknown(name: &str) -> String {
    format!("no webhook '{name}' is configured")
}

fn counted(outcome: Result<u64, HistoryError>) -> Message {
    match outcome {
        Ok(count) => render::matched(u32::try_from(count).unwrap_or(u32::MAX), None),
        Err(error) => render::matched(0, Some(&error.to_string())),
    }
}
