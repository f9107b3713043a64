//! Words of the trace.

use ike_model::EventBody;
use ipsec::{Direction, Op};

use crate::Who;

/// A gateway in the trace.
pub(super) fn letter(who: Who) -> char {
    char::from(b'A' + u8::try_from(who).unwrap_or(25))
}

/// What an event is about.
pub(super) fn subject(body: &EventBody) -> String {
    match body {
        EventBody::ChildSaInstalled { child, .. }
        | EventBody::ChildSaPrepared { child, .. }
        | EventBody::ChildSaWithdrawn { child, .. }
        | EventBody::ChildSaClosed { child, .. }
        | EventBody::ChildSaRemoved { child, .. } => {
            format!(" {}{{{}}} {:?}/{:?}", child.name, child.unique_id, child.spi_in, child.spi_out)
        }
        EventBody::ChildSaRekeyed { old, new, .. } => {
            format!(" {}{{{}}} -> {{{}}} {:?}/{:?}", new.name, old.unique_id, new.unique_id, new.spi_in, new.spi_out)
        }
        EventBody::IkeSaEstablished { ike }
        | EventBody::IkeSaClosed { ike, .. }
        | EventBody::IkeSaFailed { ike, .. }
        | EventBody::IkeSaAuthFailed { ike, .. } => format!(" {}[{}]", ike.connection, ike.unique_id),
        EventBody::IkeSaRekeyed { old, new } => {
            format!(" {}[{}] -> [{}]", new.connection, old.unique_id, new.unique_id)
        }
        EventBody::IkeSaUpdated { .. }
        | EventBody::IkeSaRekeyFailed { .. }
        | EventBody::IkeSaDuplicate { .. }
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
        | EventBody::UpdownFailed { .. }
        | EventBody::ConfigLoaded { .. }
        | EventBody::ConfigRejected { .. }
        | EventBody::KeysExported { .. }
        | EventBody::EventsGap { .. } => String::new(),
    }
}

/// An operation in short.
pub(super) fn describe(op: &Op) -> String {
    match op {
        Op::InstallSa(sa) => format!("+{} {}", arrow(sa.direction), sa.spi),
        Op::UpdateSa { sa, .. } => format!("move {:x}", sa.raw()),
        Op::RemoveSa(sa) => format!("-sa {:x}", sa.raw()),
        Op::InstallPolicy(policy) => format!("+policy {} {:x}", arrow(policy.direction), policy.handle.raw()),
        Op::UpdatePolicy(policy) => format!("policy {} {:x}", arrow(policy.direction), policy.handle.raw()),
        Op::RemovePolicy(policy) => format!("-policy {:x}", policy.raw()),
        Op::Activate { policy, sa } => format!("policy {:x} => sa {:x}", policy.raw(), sa.raw()),
        Op::InstallGuard(_) => "+guard".into(),
        Op::RemoveGuard(_) => "-guard".into(),
        Op::Flush => "flush".into(),
    }
}

fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
        Direction::Forward => "fwd",
    }
}
