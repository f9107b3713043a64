//! `cygnet-status`: every configured child, whether it is up or not; `cygnet-backend-sas`: every SA that the data path holds.

use ike_model::ConfiguredChildStatus;
use ike_model::snapshot::{BackendSaSnapshot, ConfiguredState};

use super::sas;
use crate::vici::Message;

/// The `cygnet-child` event: `CONNECTION/CHILD { ... }`.
///
/// Fields: `connection`, `child`, `state` (`up connecting trapped shunt retry down refused`), `retry-in` (seconds), `retry-at` (the same as seconds since the
/// epoch, of which `now` is the present one), `failures` (attempts since it was last up), `reason` (why refused),
/// `hw-offload`, `offload-dev`, `simulated`, and `last-cause { kind, text, time }` with the time in seconds since the epoch.
#[must_use]
pub fn cygnet_child(status: &ConfiguredChildStatus, now: u64) -> Message {
    let mut m = Message::new();
    m.set("connection", status.connection.as_str());
    m.set("child", status.child.as_str());
    match &status.state {
        ConfiguredState::Up => m.set("state", "up"),
        ConfiguredState::Connecting => m.set("state", "connecting"),
        ConfiguredState::Trapped => m.set("state", "trapped"),
        ConfiguredState::Shunt => m.set("state", "shunt"),
        ConfiguredState::RetryIn(seconds) => {
            m.set("state", "retry");
            m.set_display("retry-in", seconds);
            m.set_display("retry-at", now.saturating_add(*seconds));
        }
        ConfiguredState::Down => m.set("state", "down"),
        ConfiguredState::Refused(reason) => {
            m.set("state", "refused");
            m.set("reason", reason.as_str());
        }
    }
    if let Some(offload) = &status.offload {
        m.set("hw-offload", sas::offload_mode(offload.mode));
        if let Some(device) = &offload.device {
            m.set("offload-dev", &**device);
        }
        m.set_if("simulated", offload.simulated);
    }
    if status.failures > 0 {
        m.set_display("failures", status.failures);
    }
    if let Some((time, cause)) = &status.last_cause {
        let mut last = Message::new();
        last.set("kind", cause_kind(cause.kind));
        last.set("text", cause.text.as_str());
        last.set_display("time", time);
        m.section("last-cause", last);
    }
    let mut message = Message::new();
    message.section(format!("{}/{}", status.connection, status.child), m);
    message
}

/// The `cygnet-backend-sa` event: `SPI-HANDLE { ... }`, since inbound and outbound SPIs are chosen by different ends and may be equal.
///
/// Fields: `spi`, `handle` (hexadecimal both), `bytes`, `packets`, `use` (seconds since the last packet), `sequence`; when a CHILD SA owns it also
/// `connection`, `child`, `uniqueid` and `state` of that CHILD SA and `direction` (`in` or `out`), else `orphan=yes`.
#[must_use]
pub fn cygnet_backend_sa(sa: &BackendSaSnapshot) -> Message {
    let mut m = Message::new();
    m.set("spi", sa.spi.to_string());
    m.set("handle", format!("{:x}", sa.sa.raw()));
    m.set_display("bytes", sa.traffic.bytes);
    m.set_display("packets", sa.traffic.packets);
    if let Some(idle) = sa.traffic.idle_seconds {
        m.set_display("use", idle);
    }
    m.set_display("sequence", sa.sequence);
    match &sa.owner {
        Some(owner) => {
            m.set("connection", &*owner.connection);
            m.set("child", &*owner.child);
            m.set_display("uniqueid", owner.unique_id);
            m.set("state", sas::child_state(owner.state));
            m.set("direction", if owner.inbound { "in" } else { "out" });
        }
        None => m.set("orphan", "yes"),
    }
    let mut message = Message::new();
    message.section(format!("{}-{:x}", sa.spi, sa.sa.raw()), m);
    message
}

/// The kind's stable name, the one that every other output uses.
fn cause_kind(kind: ike_model::CauseKind) -> String {
    serde_json::to_value(kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
