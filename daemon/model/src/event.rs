//! What happened: bodies made by the core, and the record the daemon wraps each in.

use std::sync::Arc;

use ipsec::{DeviceId, LimitUnit, PacketSelectors, Path};
use serde::{Serialize, Serializer};

use crate::cause::Cause;
use crate::snapshot::{ChildSaSnapshot, IkeSaSnapshot};
use crate::time::Rfc3339;
use crate::ulid::Ulid;

/// What happened. Names are frozen, fields are only added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
pub enum EventBody {
    /// An IKE SA is up.
    #[serde(rename = "ike-sa.established")]
    IkeSaEstablished {
        /// The IKE SA, without its children.
        ike: Box<IkeSaSnapshot>,
    },
    /// An IKE SA was replaced by its successor.
    #[serde(rename = "ike-sa.rekeyed")]
    IkeSaRekeyed {
        /// Before.
        old: Box<IkeSaSnapshot>,
        /// After.
        new: Box<IkeSaSnapshot>,
    },
    /// An IKE SA ended.
    #[serde(rename = "ike-sa.closed")]
    IkeSaClosed {
        /// Its last state.
        ike: Box<IkeSaSnapshot>,
        /// Why.
        cause: Cause,
    },
    /// Authentication failed.
    #[serde(rename = "ike-sa.auth-failed")]
    IkeSaAuthFailed {
        /// The IKE SA that did not come up.
        ike: Box<IkeSaSnapshot>,
        /// Why.
        cause: Cause,
        /// The peer has refused us, rather than we it.
        refused_by_peer: bool,
    },
    /// An attempt to establish an IKE SA failed.
    #[serde(rename = "ike-sa.failed")]
    IkeSaFailed {
        /// The IKE SA that did not come up.
        ike: Box<IkeSaSnapshot>,
        /// Why.
        cause: Cause,
    },
    /// The peer's or our address changed.
    #[serde(rename = "ike-sa.updated")]
    IkeSaUpdated {
        /// The IKE SA before.
        ike: Box<IkeSaSnapshot>,
        /// The new way.
        path: Path,
    },
    /// Rekeying an IKE SA failed; it goes on.
    #[serde(rename = "ike-sa.rekey-failed")]
    IkeSaRekeyFailed {
        /// The IKE SA.
        ike: Box<IkeSaSnapshot>,
        /// Why.
        cause: Cause,
    },
    /// A peer that has an IKE SA makes another one, and `unique = replace`: the older one goes soon. A peer that authenticates afresh does so too.
    #[serde(rename = "ike-sa.duplicate")]
    IkeSaDuplicate {
        /// The new IKE SA.
        ike: Box<IkeSaSnapshot>,
        /// Number of the older one.
        replaces: u32,
    },
    /// A CHILD SA is up.
    #[serde(rename = "child-sa.installed")]
    ChildSaInstalled {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// The CHILD SA.
        child: Box<ChildSaSnapshot>,
    },
    /// The peer rekeys a CHILD SA: the successor is installed, and the answer may leave. It is switched to, which `child-sa.rekeyed` tells, when the
    /// peer uses it or deletes the old one.
    #[serde(rename = "child-sa.prepared")]
    ChildSaPrepared {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// The successor.
        child: Box<ChildSaSnapshot>,
        /// Number of the CHILD SA that it is to replace.
        replaces: u32,
    },
    /// What was prepared goes again and was never switched to.
    #[serde(rename = "child-sa.withdrawn")]
    ChildSaWithdrawn {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// Its last state.
        child: Box<ChildSaSnapshot>,
        /// Why.
        cause: Cause,
    },
    /// A CHILD SA was replaced by its successor.
    #[serde(rename = "child-sa.rekeyed")]
    ChildSaRekeyed {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// Before.
        old: Box<ChildSaSnapshot>,
        /// After.
        new: Box<ChildSaSnapshot>,
    },
    /// A CHILD SA ended without a successor.
    #[serde(rename = "child-sa.closed")]
    ChildSaClosed {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// Its last state.
        child: Box<ChildSaSnapshot>,
        /// Why.
        cause: Cause,
    },
    /// The data path has let go of a CHILD SA that was up, or of one that was replaced once no straggler was waited for any more. What it has
    /// carried is told here for the last time, to the last packet.
    #[serde(rename = "child-sa.removed")]
    ChildSaRemoved {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// The CHILD SA, with its last counters.
        child: Box<ChildSaSnapshot>,
        /// Number of the CHILD SA that replaced it.
        successor: Option<u32>,
    },
    /// Rekeying a CHILD SA failed; it goes on.
    #[serde(rename = "child-sa.rekey-failed")]
    ChildSaRekeyFailed {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// The CHILD SA.
        child: Box<ChildSaSnapshot>,
        /// Why.
        cause: Cause,
    },
    /// The backend refused a CHILD SA.
    #[serde(rename = "child-sa.install-failed")]
    ChildSaInstallFailed {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// Connection's child.
        child: String,
        /// Why.
        cause: Cause,
    },
    /// Nothing came of negotiating a CHILD SA, whoever asked for it; its IKE SA goes on.
    #[serde(rename = "child-sa.failed")]
    ChildSaFailed {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// Connection's child, where it is known which one was meant.
        child: Option<String>,
        /// Why.
        cause: Cause,
    },
    /// A soft limit was reached.
    #[serde(rename = "child-sa.soft-expired")]
    ChildSaSoftExpired {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// The CHILD SA.
        child: Box<ChildSaSnapshot>,
        /// The limit.
        unit: LimitUnit,
    },
    /// A hard limit was reached.
    #[serde(rename = "child-sa.hard-expired")]
    ChildSaHardExpired {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// The CHILD SA.
        child: Box<ChildSaSnapshot>,
        /// The limit.
        unit: LimitUnit,
    },
    /// Traffic asks for a child.
    #[serde(rename = "policy.acquire")]
    PolicyAcquire {
        /// Connection.
        connection: String,
        /// Child.
        child: String,
        /// The packet.
        packet: PacketSelectors,
    },
    /// A device stopped carrying traffic.
    #[serde(rename = "offload.device-down")]
    DeviceDown {
        /// The device.
        device: DeviceId,
        /// Its name.
        name: Arc<str>,
        /// It was removed.
        gone: bool,
    },
    /// A device carries traffic again.
    #[serde(rename = "offload.device-up")]
    DeviceUp {
        /// The device.
        device: DeviceId,
        /// Its name.
        name: Arc<str>,
    },
    /// A CHILD SA with `hw_offload = auto` runs on a lower rung than the best of its device.
    #[serde(rename = "offload.degraded")]
    Degraded {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// The CHILD SA, with the mode really in use.
        child: Box<ChildSaSnapshot>,
        /// What the better rung could not carry.
        cause: Cause,
    },
    /// What a device had lost, or somebody else had changed, stands again.
    #[serde(rename = "offload.repaired")]
    Repaired {
        /// Connection.
        connection: String,
        /// Child.
        child: String,
        /// What it was.
        cause: Cause,
    },
    /// An installed SA was lost.
    #[serde(rename = "offload.state-lost")]
    StateLost {
        /// Its IKE SA, without children.
        ike: Box<IkeSaSnapshot>,
        /// The CHILD SA.
        child: Box<ChildSaSnapshot>,
    },
    /// A peer stopped answering.
    #[serde(rename = "peer.unreachable")]
    PeerUnreachable {
        /// The IKE SA.
        ike: Box<IkeSaSnapshot>,
        /// What was tried.
        cause: Cause,
    },
    /// A peer answers again.
    #[serde(rename = "peer.reachable")]
    PeerReachable {
        /// The IKE SA.
        ike: Box<IkeSaSnapshot>,
    },
    /// A script of `updown` did not do its work. The CHILD SA is what it was.
    #[serde(rename = "updown.failed")]
    UpdownFailed {
        /// Connection.
        connection: String,
        /// Child.
        child: String,
        /// Number of the CHILD SA.
        unique_id: u32,
        /// What the script was told: `up-client`, `down-host-v6` and the like.
        verb: String,
        /// Its exit status, where it ended by itself.
        status: Option<i32>,
        /// What became of it.
        cause: Cause,
    },
    /// A configuration was loaded.
    #[serde(rename = "config.loaded")]
    ConfigLoaded {
        /// Connection.
        connection: String,
    },
    /// A configuration was refused; what ran goes on.
    #[serde(rename = "config.rejected")]
    ConfigRejected {
        /// Connection, where known.
        connection: String,
        /// Why.
        cause: Cause,
    },
    /// Keys were given out.
    #[serde(rename = "keys.exported")]
    KeysExported {
        /// Connection.
        connection: String,
        /// User of the process that has them, as the system says.
        uid: u32,
        /// The process, where the system says so.
        pid: Option<i32>,
        /// Whose keys.
        sas: Vec<ExportedSa>,
    },
    /// Events could not be taken down: history and webhooks will never have them.
    #[serde(rename = "events.gap")]
    EventsGap {
        /// Number of the first one.
        first: u64,
        /// Number of the last one.
        last: u64,
        /// What kept them from being written.
        cause: Cause,
    },
}

impl EventBody {
    /// The names of all events.
    pub const NAMES: [&'static str; 32] = [
        "ike-sa.established",
        "ike-sa.rekeyed",
        "ike-sa.closed",
        "ike-sa.auth-failed",
        "ike-sa.failed",
        "ike-sa.updated",
        "ike-sa.rekey-failed",
        "ike-sa.duplicate",
        "child-sa.installed",
        "child-sa.prepared",
        "child-sa.withdrawn",
        "child-sa.rekeyed",
        "child-sa.closed",
        "child-sa.removed",
        "child-sa.rekey-failed",
        "child-sa.install-failed",
        "child-sa.failed",
        "child-sa.soft-expired",
        "child-sa.hard-expired",
        "policy.acquire",
        "offload.device-down",
        "offload.device-up",
        "offload.degraded",
        "offload.repaired",
        "offload.state-lost",
        "peer.unreachable",
        "peer.reachable",
        "updown.failed",
        "config.loaded",
        "config.rejected",
        "keys.exported",
        "events.gap",
    ];

    /// Its frozen name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::IkeSaEstablished { .. } => "ike-sa.established",
            Self::IkeSaRekeyed { .. } => "ike-sa.rekeyed",
            Self::IkeSaClosed { .. } => "ike-sa.closed",
            Self::IkeSaAuthFailed { .. } => "ike-sa.auth-failed",
            Self::IkeSaFailed { .. } => "ike-sa.failed",
            Self::IkeSaUpdated { .. } => "ike-sa.updated",
            Self::IkeSaRekeyFailed { .. } => "ike-sa.rekey-failed",
            Self::IkeSaDuplicate { .. } => "ike-sa.duplicate",
            Self::ChildSaInstalled { .. } => "child-sa.installed",
            Self::ChildSaPrepared { .. } => "child-sa.prepared",
            Self::ChildSaWithdrawn { .. } => "child-sa.withdrawn",
            Self::ChildSaRekeyed { .. } => "child-sa.rekeyed",
            Self::ChildSaClosed { .. } => "child-sa.closed",
            Self::ChildSaRemoved { .. } => "child-sa.removed",
            Self::ChildSaRekeyFailed { .. } => "child-sa.rekey-failed",
            Self::ChildSaInstallFailed { .. } => "child-sa.install-failed",
            Self::ChildSaFailed { .. } => "child-sa.failed",
            Self::ChildSaSoftExpired { .. } => "child-sa.soft-expired",
            Self::ChildSaHardExpired { .. } => "child-sa.hard-expired",
            Self::PolicyAcquire { .. } => "policy.acquire",
            Self::DeviceDown { .. } => "offload.device-down",
            Self::DeviceUp { .. } => "offload.device-up",
            Self::Degraded { .. } => "offload.degraded",
            Self::Repaired { .. } => "offload.repaired",
            Self::StateLost { .. } => "offload.state-lost",
            Self::PeerUnreachable { .. } => "peer.unreachable",
            Self::PeerReachable { .. } => "peer.reachable",
            Self::UpdownFailed { .. } => "updown.failed",
            Self::ConfigLoaded { .. } => "config.loaded",
            Self::ConfigRejected { .. } => "config.rejected",
            Self::KeysExported { .. } => "keys.exported",
            Self::EventsGap { .. } => "events.gap",
        }
    }
}

/// An SA whose keys were given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportedSa {
    /// `ike` or `esp`.
    pub protocol: &'static str,
    /// Child, of ESP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// Its SPI, of ESP; both, `INITIATOR_i RESPONDER_r`, of IKE.
    pub spi: String,
}

/// An event as every sink gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventRecord {
    /// Version of this form: 1.
    pub v: u32,
    /// Identifies it everywhere; sorts by time, and within one run of the daemon by number.
    pub ulid: Ulid,
    /// Wall-clock time.
    #[serde(serialize_with = "as_text")]
    pub time: Rfc3339,
    /// Gateway name.
    pub gateway: String,
    /// Changes at every start of the daemon.
    pub boot_id: String,
    /// Counts up from 1 without a gap.
    pub seq: u64,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

fn as_text<S: Serializer>(time: &Rfc3339, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ulid::Ulids;

    #[test]
    fn the_list_of_names_is_complete() {
        let code = include_str!("event.rs").split("#[cfg(test)]").next().unwrap();
        let renamed = code.split("#[serde(rename = \"").skip(1).filter_map(|rest| rest.split('"').next());
        assert_eq!(renamed.collect::<Vec<_>>(), EventBody::NAMES);
    }

    #[test]
    fn a_record_has_its_frozen_form() {
        let record = EventRecord {
            v: 1,
            ulid: Ulids::default().next(1, || [0; 10]),
            time: Rfc3339(1),
            gateway: "gw".into(),
            boot_id: "b".into(),
            seq: 7,
            body: EventBody::ConfigLoaded { connection: "a".into() },
        };
        let fields = [
            r#"{"v":1,"ulid":"00000000010000000000000000","time":"1970-01-01T00:00:00.001Z","gateway":"gw","#,
            r#""boot_id":"b","seq":7,"type":"config.loaded","connection":"a"}"#,
        ];
        assert_eq!(serde_json::to_string(&record).unwrap(), fields.concat());
    }
}
