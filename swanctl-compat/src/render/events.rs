//! Events: what happened, under VICI's names.

use ike_model::{CauseKind, ChildSaSnapshot, ChildSaState, EventBody, IkeSaSnapshot, IkeSaState};

use super::sas;
use crate::vici::Message;

/// The VICI event for what happened, or nothing where VICI has no such event.
///
/// `ike-sa.*` and `child-sa.*` become `ike-updown`, `ike-rekey`, `ike-update`, `child-updown`, `child-rekey`; failures become `alert`.
#[must_use]
pub fn event(body: &EventBody) -> Option<(&'static str, Message)> {
    match body {
        EventBody::IkeSaEstablished { ike } => Some(("ike-updown", up(true, ike))),
        EventBody::IkeSaClosed { ike, .. } => Some(("ike-updown", up(false, ike))),
        EventBody::IkeSaRekeyed { old, new } => Some(("ike-rekey", ike_rekey(old, new))),
        EventBody::IkeSaUpdated { ike, path } => Some(("ike-update", ike_update(ike, path))),
        EventBody::ChildSaInstalled { ike, child } => {
            let name = format!("{}-{}", child.name, child.unique_id);
            Some(("child-updown", with_child(true, ike, &name, sas::child_sa(child))))
        }
        EventBody::ChildSaClosed { ike, child, .. } => {
            let name = format!("{}-{}", child.name, child.unique_id);
            Some(("child-updown", with_child(false, ike, &name, sas::child_sa(child))))
        }
        EventBody::ChildSaRekeyed { ike, old, new } => {
            let mut both = Message::new();
            // The exchange that replaced it is over when this is told.
            both.section("old", sas::child_sa(&ChildSaSnapshot { state: ChildSaState::Rekeyed, ..(**old).clone() }));
            both.section("new", sas::child_sa(new));
            Some(("child-rekey", with_child(false, ike, &new.name, both)))
        }
        EventBody::IkeSaAuthFailed { ike, cause } => {
            let kind = if cause.kind == CauseKind::NoSecret { "local-auth-failed" } else { "peer-auth-failed" };
            Some(("alert", alert(kind, ike)))
        }
        EventBody::IkeSaFailed { ike, cause } => failure_alert(cause.kind).map(|kind| ("alert", alert(kind, ike))),
        EventBody::PeerUnreachable { ike, .. } => Some(("alert", alert("retransmit-send-timeout", ike))),
        EventBody::ChildSaInstallFailed { ike, .. } => Some(("alert", alert("install-child-sa-failed", ike))),
        // Its end is known from a `child-updown` or `child-rekey` already.
        EventBody::ChildSaRemoved { .. }
        | EventBody::IkeSaRekeyFailed { .. }
        | EventBody::ChildSaPrepared { .. }
        | EventBody::ChildSaWithdrawn { .. }
        | EventBody::ChildSaRekeyFailed { .. }
        | EventBody::ChildSaSoftExpired { .. }
        | EventBody::ChildSaHardExpired { .. }
        | EventBody::PolicyAcquire { .. }
        | EventBody::DeviceDown { .. }
        | EventBody::DeviceUp { .. }
        | EventBody::StateLost { .. }
        | EventBody::Degraded { .. }
        | EventBody::Repaired { .. }
        | EventBody::PeerReachable { .. }
        | EventBody::UpdownFailed { .. }
        | EventBody::ConfigLoaded { .. }
        | EventBody::ConfigRejected { .. }
        | EventBody::KeysExported { .. }
        | EventBody::EventsGap { .. } => None,
    }
}

fn failure_alert(kind: CauseKind) -> Option<&'static str> {
    match kind {
        CauseKind::NoProposal => Some("proposal-mismatch-ike"),
        CauseKind::SelectorsUnacceptable => Some("ts-mismatch"),
        CauseKind::PeerUnreachable => Some("peer-init-unreachable"),
        CauseKind::NoAddress => Some("peer-addr-failed"),
        CauseKind::AuthenticationFailed => Some("peer-auth-failed"),
        CauseKind::NoSecret => Some("local-auth-failed"),
        CauseKind::Operator
        | CauseKind::Reload
        | CauseKind::PeerDeleted
        | CauseKind::Rekeyed
        | CauseKind::CollisionLost
        | CauseKind::Replaced
        | CauseKind::HardLimit
        | CauseKind::Inactive
        | CauseKind::NoConfiguration
        | CauseKind::PeerError
        | CauseKind::ProtocolViolation
        | CauseKind::OffloadFailed
        | CauseKind::DeviceLost
        | CauseKind::HistoryFull
        | CauseKind::ScriptFailed
        | CauseKind::Shutdown
        | CauseKind::Internal => None,
    }
}

fn up(is_up: bool, ike: &IkeSaSnapshot) -> Message {
    let mut message = Message::new();
    message.set_if("up", is_up);
    message.section(&*ike.connection, sas::ike_sa(ike));
    message
}

fn with_child(is_up: bool, ike: &IkeSaSnapshot, name: &str, child: Message) -> Message {
    let mut children = Message::new();
    children.section(name, child);
    let mut body = sas::ike_sa(ike);
    body.section("child-sas", children);
    let mut message = Message::new();
    message.set_if("up", is_up);
    message.section(&*ike.connection, body);
    message
}

fn ike_rekey(old: &IkeSaSnapshot, new: &IkeSaSnapshot) -> Message {
    let mut both = Message::new();
    // As clients know it: the old one is in the middle of it.
    both.section("old", sas::ike_sa(&IkeSaSnapshot { state: IkeSaState::Rekeying, ..old.clone() }));
    both.section("new", sas::ike_sa(new));
    let mut message = Message::new();
    message.section(&*new.connection, both);
    message
}

fn ike_update(ike: &IkeSaSnapshot, path: &ipsec::Path) -> Message {
    let mut message = Message::new();
    message.set_display("local-host", path.local.ip());
    message.set_display("local-port", path.local.port());
    message.set_display("remote-host", path.remote.ip());
    message.set_display("remote-port", path.remote.port());
    message.section(&*ike.connection, sas::ike_sa(ike));
    message
}

fn alert(kind: &str, ike: &IkeSaSnapshot) -> Message {
    let mut sa = Message::new();
    sa.section(&*ike.connection, sas::ike_sa(ike));
    let mut message = Message::new().with("type", kind);
    message.section("ike-sa", sa);
    message
}

/// One line of the log, as `log` and `control-log` carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// Three letters: `IKE`, `CHD`, `CFG`, `NET`, `ENC`, `KNL`, `DMN`.
    pub group: &'a str,
    /// 0 (most important) to 4.
    pub level: u8,
    /// Number of the thread or shard.
    pub thread: u32,
    /// Connection and unique id, if it is about an IKE SA.
    pub ike_sa: Option<(&'a str, u32)>,
    /// The text.
    pub text: &'a str,
}

/// The `log` event.
#[must_use]
pub fn log(line: &LogLine<'_>) -> Message {
    let mut message = Message::new().with("group", line.group);
    message.set_display("level", line.level);
    message.set_display("thread", line.thread);
    finish_log(message, line)
}

/// The `control-log` event of `initiate` and `terminate`.
#[must_use]
pub fn control_log(line: &LogLine<'_>) -> Message {
    let mut message = Message::new().with("group", line.group);
    message.set_display("level", line.level);
    finish_log(message, line)
}

fn finish_log(mut message: Message, line: &LogLine<'_>) -> Message {
    if let Some((name, unique_id)) = line.ike_sa {
        message.set("ikesa-name", name);
        message.set_display("ikesa-uniqueid", unique_id);
    }
    message.set("msg", line.text);
    message
}
