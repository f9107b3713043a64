//! Events: what happened, under VICI's names.

use ike_model::{CauseKind, ChildSaSnapshot, ChildSaState, EventBody, IkeSaSnapshot, IkeSaState};

use super::sas;
use crate::vici::Message;

/// The VICI events for what happened, in order: none where VICI knows nothing of the kind. `EVENTS.md` has the whole table.
#[must_use]
pub fn events(body: &EventBody) -> Vec<(&'static str, Message)> {
    let alerts = alerts(body).into_iter().map(|(kind, ike)| ("alert", alert(kind, ike)));
    change(body).into_iter().chain(alerts).collect()
}

/// The event for what has come up, has changed or has ended.
fn change(body: &EventBody) -> Option<(&'static str, Message)> {
    match body {
        EventBody::IkeSaEstablished { ike } => Some(("ike-updown", up(true, ike))),
        EventBody::IkeSaClosed { ike, .. } => Some(("ike-updown", up(false, ike))),
        EventBody::IkeSaRekeyed { old, new } => Some(("ike-rekey", ike_rekey(old, new))),
        EventBody::IkeSaUpdated { ike, path } => Some(("ike-update", ike_update(ike, path))),
        EventBody::ChildSaInstalled { ike, child } => Some(("child-updown", child_updown(true, ike, child))),
        EventBody::ChildSaClosed { ike, child, .. } => Some(("child-updown", child_updown(false, ike, child))),
        EventBody::ChildSaRekeyed { ike, old, new } => {
            let mut both = Message::new();
            // The exchange that replaced it is over when this is told.
            both.section("old", sas::child_sa(&ChildSaSnapshot { state: ChildSaState::Rekeyed, ..(**old).clone() }));
            both.section("new", sas::child_sa(new));
            Some(("child-rekey", with_child(false, ike, &new.name, both)))
        }
        // That it is out of the data path follows on a `child-updown` or `child-rekey`.
        EventBody::ChildSaRemoved { .. }
        | EventBody::IkeSaAuthFailed { .. }
        | EventBody::IkeSaFailed { .. }
        | EventBody::IkeSaRekeyFailed { .. }
        | EventBody::IkeSaDuplicate { .. }
        | EventBody::ChildSaPrepared { .. }
        | EventBody::ChildSaWithdrawn { .. }
        | EventBody::ChildSaRekeyFailed { .. }
        | EventBody::ChildSaInstallFailed { .. }
        | EventBody::ChildSaFailed { .. }
        | EventBody::ChildSaSoftExpired { .. }
        | EventBody::ChildSaHardExpired { .. }
        | EventBody::PolicyAcquire { .. }
        | EventBody::DeviceDown { .. }
        | EventBody::DeviceUp { .. }
        | EventBody::StateLost { .. }
        | EventBody::Degraded { .. }
        | EventBody::Repaired { .. }
        | EventBody::PeerUnreachable { .. }
        | EventBody::PeerReachable { .. }
        | EventBody::ConfigLoaded { .. }
        | EventBody::ConfigRejected { .. }
        | EventBody::UpdownFailed { .. }
        | EventBody::KeysExported { .. }
        | EventBody::EventsGap { .. } => None,
    }
}

/// The types of alert that it is, each with its IKE SA.
fn alerts(body: &EventBody) -> Vec<(&'static str, &IkeSaSnapshot)> {
    let (kinds, ike): (&[&'static str], _) = match body {
        EventBody::IkeSaAuthFailed { ike, cause, refused_by_peer } => {
            (of_authentication(cause.kind, *refused_by_peer), ike)
        }
        EventBody::IkeSaFailed { ike, cause } => (of_attempt(cause.kind, ike.initiator), ike),
        EventBody::IkeSaClosed { ike, cause } => (types_in(&END, cause.kind), ike),
        EventBody::IkeSaRekeyFailed { ike, cause } => (types_in(&IKE_REKEY, cause.kind), ike),
        EventBody::ChildSaFailed { ike, cause, .. } | EventBody::ChildSaRekeyFailed { ike, cause, .. } => {
            (types_in(&CHILD, cause.kind), ike)
        }
        EventBody::ChildSaInstallFailed { ike, .. } => (&["install-child-sa-failed"], ike),
        EventBody::IkeSaDuplicate { ike, .. } => (&["unique-replace"], ike),
        EventBody::PeerUnreachable { ike, .. } => (&["retransmit-send-timeout"], ike),
        EventBody::IkeSaEstablished { .. }
        | EventBody::IkeSaRekeyed { .. }
        | EventBody::IkeSaUpdated { .. }
        | EventBody::ChildSaInstalled { .. }
        | EventBody::ChildSaPrepared { .. }
        | EventBody::ChildSaWithdrawn { .. }
        | EventBody::ChildSaRekeyed { .. }
        | EventBody::ChildSaClosed { .. }
        | EventBody::ChildSaRemoved { .. }
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
        | EventBody::EventsGap { .. } => return Vec::new(),
    };
    kinds.iter().map(|kind| (*kind, &**ike)).collect()
}

/// Authentication failed: our own, or the peer's.
fn of_authentication(kind: CauseKind, refused_by_peer: bool) -> &'static [&'static str] {
    if refused_by_peer || kind == CauseKind::NoSecret { &["local-auth-failed"] } else { &["peer-auth-failed"] }
}

/// An IKE SA did not come up. Of one that a peer began we hear no more, or it is ours that is not answered.
fn of_attempt(kind: CauseKind, initiator: bool) -> &'static [&'static str] {
    if kind == CauseKind::PeerUnreachable && !initiator { &["half-open-timeout"] } else { types_in(&ATTEMPT, kind) }
}

/// The types of alert that a table has for a kind of cause.
fn types_in(table: &'static [(CauseKind, &'static [&'static str])], kind: CauseKind) -> &'static [&'static str] {
    table.iter().find(|(known, _)| *known == kind).map_or(&[], |(_, types)| types)
}

/// Alerts of IKE SAs that did not come up. Only `unique = keep` refuses one for another.
const ATTEMPT: [(CauseKind, &[&str]); 9] = [
    (CauseKind::PeerUnreachable, &["retransmit-send-timeout", "peer-init-unreachable"]),
    (CauseKind::NoAddress, &["peer-addr-failed"]),
    (CauseKind::AuthenticationFailed, &["peer-auth-failed"]),
    (CauseKind::NoSecret, &["local-auth-failed"]),
    (CauseKind::ProtocolViolation, &["parse-error-body"]),
    (CauseKind::Replaced, &["unique-keep"]),
    (CauseKind::OffloadFailed, &["install-child-sa-failed"]),
    (CauseKind::NoProposal, &["proposal-mismatch-ike"]),
    (CauseKind::SelectorsUnacceptable, &["ts-mismatch"]),
];

/// Alerts of IKE SAs that were up and have ended.
const END: [(CauseKind, &[&str]); 3] = [
    (CauseKind::HardLimit, &["ike-sa-expired"]),
    (CauseKind::ProtocolViolation, &["parse-error-body"]),
    (CauseKind::AuthenticationFailed, &["local-auth-failed"]),
];

/// Alerts of IKE SAs that could not be rekeyed.
const IKE_REKEY: [(CauseKind, &[&str]); 1] = [(CauseKind::NoProposal, &["proposal-mismatch-ike"])];

/// Alerts of CHILD SAs that could not be made or rekeyed.
const CHILD: [(CauseKind, &[&str]); 2] =
    [(CauseKind::NoProposal, &["proposal-mismatch-child"]), (CauseKind::SelectorsUnacceptable, &["ts-mismatch"])];

fn child_updown(is_up: bool, ike: &IkeSaSnapshot, child: &ChildSaSnapshot) -> Message {
    with_child(is_up, ike, &format!("{}-{}", child.name, child.unique_id), sas::child_sa(child))
}

/// The `alert` that the daemon was told to stop.
#[must_use]
pub fn shutdown_alert() -> Message {
    Message::new().with("type", "shutdown-signal")
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
