//! What the daemon as a whole does: messages, data path, devices, history, webhooks, clients.

use std::collections::BTreeMap;

use ike_model::Counter;
use ike_model::device::{DeviceState, OffloadMode};
use ike_model::history::{Database, KeepingFigures};

use super::family::*;
use super::seconds;
use super::text::Page;
use crate::ledger::Ledger;
use crate::view::{View, Webhook};

pub(super) fn tell(page: &mut Page, view: &View, ledger: &Ledger) {
    let mut series = page.family(&EVENTS);
    for (event, times) in ledger.events() {
        series.add(&[event], times);
    }
    messages(page, view);
    devices(page, view);
    if let Some(figures) = &view.history {
        history(page, figures, view.taken_ms);
    }
    webhooks(page, &view.webhooks);
    let (clients, lost) = view.vici;
    page.single(&VICI_CLIENTS, clients);
    page.single(&VICI_LOST, lost);
}

fn messages(page: &mut Page, view: &View) {
    let messages = &view.messages;
    page.single(&MESSAGES, messages.received);
    let mut series = page.family(&EXCHANGE_MESSAGES);
    for (counter, labels) in EXCHANGES {
        series.add(&labels, messages.counters.so_far(counter));
    }
    let mut series = page.family(&RETRANSMITS);
    series.add(&["request"], messages.requests_repeated);
    series.add(&["response"], messages.responses_repeated);
    page.single(&COOKIES, messages.cookies);
    let mut series = page.family(&DROPPED);
    for (reason, times) in &messages.dropped {
        series.add(&[reason], *times);
    }
    let mut series = page.family(&SHARD_QUEUE);
    for (shard, (control, datagrams)) in view.queues.iter().enumerate() {
        let shard = shard.to_string();
        series.add(&[&shard, "control"], *control);
        series.add(&[&shard, "datagrams"], *datagrams);
    }
    let mut series = page.family(&WORKERS);
    let (busy, idle) = view.workers;
    series.add(&["busy"], busy);
    series.add(&["idle"], idle);
}

/// Exchange, direction and message of each counter that is about messages which could be read.
pub(super) const EXCHANGES: [(Counter, [&str; 3]); 16] = [
    (Counter::IkeInitInReq, ["ike_sa_init", "in", "request"]),
    (Counter::IkeInitInResp, ["ike_sa_init", "in", "response"]),
    (Counter::IkeInitOutReq, ["ike_sa_init", "out", "request"]),
    (Counter::IkeInitOutResp, ["ike_sa_init", "out", "response"]),
    (Counter::IkeAuthInReq, ["ike_auth", "in", "request"]),
    (Counter::IkeAuthInResp, ["ike_auth", "in", "response"]),
    (Counter::IkeAuthOutReq, ["ike_auth", "out", "request"]),
    (Counter::IkeAuthOutResp, ["ike_auth", "out", "response"]),
    (Counter::CreateChildInReq, ["create_child_sa", "in", "request"]),
    (Counter::CreateChildInResp, ["create_child_sa", "in", "response"]),
    (Counter::CreateChildOutReq, ["create_child_sa", "out", "request"]),
    (Counter::CreateChildOutResp, ["create_child_sa", "out", "response"]),
    (Counter::InfoInReq, ["informational", "in", "request"]),
    (Counter::InfoInResp, ["informational", "in", "response"]),
    (Counter::InfoOutReq, ["informational", "out", "request"]),
    (Counter::InfoOutResp, ["informational", "out", "response"]),
];

fn devices(page: &mut Page, view: &View) {
    let mut series = page.family(&DATAPATH_DROPS);
    for (reason, packets) in &view.drops {
        series.add(&[reason], *packets);
    }
    let devices = &view.devices.devices;
    let mut series = page.family(&DEVICE_UP);
    for device in devices {
        series.add(&[&device.name], device.state == DeviceState::Up);
    }
    let mut on_device: BTreeMap<(&str, OffloadMode), u64> = BTreeMap::new();
    for child in view.ike_sas.iter().flat_map(|ike| &ike.children) {
        if let Some(device) = &child.offload.device {
            let sas = [child.sa_in, child.sa_out].iter().flatten().count() as u64;
            *on_device.entry((device, child.offload.mode)).or_default() += sas;
        }
    }
    let rungs = || devices.iter().flat_map(|device| device.rungs.iter().map(move |rung| (device, rung)));
    let mut series = page.family(&DEVICE_SAS);
    for (device, rung) in rungs() {
        let sas = on_device.get(&(&*device.name, rung.mode.mode)).copied().unwrap_or(0);
        series.add(&[&device.name, mode_name(rung.mode.mode)], sas);
    }
    let mut series = page.family(&DEVICE_SA_TABLE);
    for (device, rung) in rungs() {
        if let Some(size) = rung.capabilities.sa_table {
            series.add(&[&device.name, mode_name(rung.mode.mode)], u64::from(size));
        }
    }
}

/// The name of an offload mode, as in the configuration.
pub(super) fn mode_name(mode: OffloadMode) -> &'static str {
    match mode {
        OffloadMode::No => "no",
        OffloadMode::Crypto => "crypto",
        OffloadMode::Packet => "packet",
        OffloadMode::Auto => "auto",
    }
}

fn history(page: &mut Page, figures: &KeepingFigures, now_ms: u64) {
    let up = match figures.database {
        Database::Open => true,
        Database::Opening | Database::Away { .. } | Database::TooNew { .. } => false,
    };
    page.family(&HISTORY_UP).add(&[figures.engine], up);
    page.single(&HISTORY_SPOOL, figures.spool_used);
    page.single(&HISTORY_SPOOL_SIZE, figures.spool_size);
    page.single(&HISTORY_ROOM, figures.has_room);
    page.single(&HISTORY_WAITING, figures.waiting);
    page.single(&HISTORY_OLDEST, figures.oldest_ms.map_or(0.0, |oldest| seconds(now_ms.saturating_sub(oldest))));
    page.single(&HISTORY_TAKEN, figures.taken_over);
    page.single(&HISTORY_LEFT_OUT, figures.left_out);
    page.single(&HISTORY_FORGOTTEN, figures.forgotten);
}

fn webhooks(page: &mut Page, webhooks: &[Webhook]) {
    let mut series = page.family(&WEBHOOK_WAITING);
    for (webhook, (waiting, _)) in webhooks.iter().filter_map(|webhook| Some((webhook, webhook.backlog?))) {
        series.add(&[&webhook.name], waiting);
    }
    let mut series = page.family(&WEBHOOK_DEAD);
    for (webhook, (_, dead)) in webhooks.iter().filter_map(|webhook| Some((webhook, webhook.backlog?))) {
        series.add(&[&webhook.name], dead);
    }
    let mut series = page.family(&WEBHOOK_STATE);
    for webhook in webhooks.iter().filter(|webhook| !webhook.state.is_empty()) {
        series.add(&[&webhook.name, webhook.state], true);
    }
    let mut series = page.family(&WEBHOOK_ATTEMPTS);
    for webhook in webhooks {
        series.add(&[&webhook.name], webhook.attempts);
    }
    let mut series = page.family(&WEBHOOK_DELIVERED);
    for webhook in webhooks {
        series.add(&[&webhook.name], webhook.delivered);
    }
    let mut series = page.family(&WEBHOOK_FAILURES);
    for webhook in webhooks {
        for (reason, times) in &webhook.failures {
            series.add(&[&webhook.name, reason], *times);
        }
    }
    let mut series = page.family(&WEBHOOK_SECONDS);
    for webhook in webhooks {
        series.add(&[&webhook.name], webhook.seconds);
    }
    let mut series = page.family(&WEBHOOK_LAST_SUCCESS);
    for webhook in webhooks {
        if let Some(last) = webhook.last_success_ms {
            series.add(&[&webhook.name], seconds(last));
        }
    }
}
