//! State of SAs at one moment, as list commands and events show it.

use std::net::SocketAddr;
use std::sync::Arc;

use ipsec::{ModeInUse, Reqid, SaMode, Spi, TrafficSelector};
use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::config::Updown;
use crate::identity::Identity;
use crate::proposal::{EspAlgorithms, IkeAlgorithms};
use crate::tags::DrawnTags;

/// State of an IKE SA; names as strongSwan prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum IkeSaState {
    /// Made, nothing sent.
    Created,
    /// Not yet authenticated.
    Connecting,
    /// Up.
    Established,
    /// A rekey exchange is on its way.
    Rekeying,
    /// A successor has taken over.
    Rekeyed,
    /// A delete is on its way.
    Deleting,
}

/// State of a CHILD SA; names as strongSwan prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChildSaState {
    /// Made, nothing installed.
    Created,
    /// Being installed.
    Installing,
    /// Up.
    Installed,
    /// A rekey exchange is on its way.
    Rekeying,
    /// A successor has taken over; the delete is to come.
    Rekeyed,
    /// A delete is on its way.
    Deleting,
    /// Deleted; the inbound SA lingers for stragglers.
    Deleted,
}

/// An IKE SA at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IkeSaSnapshot {
    /// Connection.
    pub connection: Arc<str>,
    /// Number shown to users; grows by one for each IKE SA, also over rekeys.
    pub unique_id: u32,
    /// State.
    pub state: IkeSaState,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Our identity.
    pub local_id: Identity,
    /// The peer's identity; `Any` before it is known.
    pub remote_id: Identity,
    /// We are the original initiator.
    pub initiator: bool,
    /// Initiator's SPI.
    pub initiator_spi: u64,
    /// Responder's SPI; 0 before it is known.
    pub responder_spi: u64,
    /// We are behind NAT.
    pub nat_local: bool,
    /// The peer is behind NAT.
    pub nat_remote: bool,
    /// Encapsulation is forced by us.
    pub nat_fake: bool,
    /// Negotiated algorithms, once known.
    pub algorithms: Option<IkeAlgorithms>,
    /// Seconds since it was established.
    pub established_seconds: Option<u64>,
    /// Seconds until rekeying; negative when overdue.
    pub rekey_seconds: Option<i64>,
    /// Seconds until reauthentication; negative when overdue.
    pub reauth_seconds: Option<i64>,
    /// Seconds since the peer was last heard, authentically; before that since it was begun.
    pub heard_seconds: u64,
    /// Repetitions of our request that waits for its response.
    pub repeats: u32,
    /// Seconds since that request was first sent, while one waits.
    pub waiting_seconds: Option<u64>,
    /// Exchanges waiting to start, as task names.
    pub tasks_queued: Vec<&'static str>,
    /// Exchanges under way that we started.
    pub tasks_active: Vec<&'static str>,
    /// Rekeys of this IKE SA so far.
    pub generation: u32,
    /// Interface id of the inbound side; 0 = none.
    pub if_id_in: u32,
    /// Interface id of the outbound side; 0 = none.
    pub if_id_out: u32,
    /// Its CHILD SAs.
    pub children: Vec<ChildSaSnapshot>,
}

impl IkeSaSnapshot {
    /// One that we have established with the peer, each end with its address and identity, and of which there is nothing else to tell. Doubles of
    /// the daemon begin with it and say what is different.
    #[must_use]
    pub fn plain(
        connection: &str,
        unique_id: u32,
        local: (SocketAddr, Identity),
        remote: (SocketAddr, Identity),
    ) -> Self {
        Self {
            connection: connection.into(),
            unique_id,
            state: IkeSaState::Established,
            local: local.0,
            remote: remote.0,
            local_id: local.1,
            remote_id: remote.1,
            initiator: true,
            initiator_spi: 1,
            responder_spi: 2,
            nat_local: false,
            nat_remote: false,
            nat_fake: false,
            algorithms: None,
            established_seconds: None,
            rekey_seconds: None,
            reauth_seconds: None,
            heard_seconds: 0,
            repeats: 0,
            waiting_seconds: None,
            tasks_queued: Vec::new(),
            tasks_active: Vec::new(),
            generation: 0,
            if_id_in: 0,
            if_id_out: 0,
            children: Vec::new(),
        }
    }
}

/// A CHILD SA at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChildSaSnapshot {
    /// Child.
    pub name: Arc<str>,
    /// Number shown to users; grows by one for each CHILD SA, also over rekeys.
    pub unique_id: u32,
    /// Group of its SAs.
    pub reqid: Reqid,
    /// State.
    pub state: ChildSaState,
    /// Tunnel or transport.
    pub mode: SaMode,
    /// ESP goes in UDP.
    pub encap: bool,
    /// Our SPI.
    pub spi_in: Option<Spi>,
    /// The peer's SPI.
    pub spi_out: Option<Spi>,
    /// Negotiated algorithms, once known.
    pub algorithms: Option<EspAlgorithms>,
    /// Handle of the inbound SA, to ask the backend for counters.
    #[serde(skip)]
    pub sa_in: Option<ipsec::SaHandle>,
    /// Handle of the outbound SA, to ask the backend for counters.
    #[serde(skip)]
    pub sa_out: Option<ipsec::SaHandle>,
    /// Inbound counters.
    pub traffic_in: Traffic,
    /// Outbound counters.
    pub traffic_out: Traffic,
    /// What this generation of the child and those before it have received, under this IKE SA and its predecessors.
    pub total_in: Carried,
    /// What they have sent.
    pub total_out: Carried,
    /// Soft and hard limits in force, the bounds of cipher and sequence numbers included.
    pub limits: ipsec::Limits,
    /// Seconds until rekeying; negative when overdue.
    pub rekey_seconds: Option<i64>,
    /// Seconds until the hard limit; negative when overdue.
    pub life_seconds: Option<i64>,
    /// Seconds since it was installed.
    pub installed_seconds: Option<u64>,
    /// Local selectors.
    pub local_ts: Vec<TrafficSelector>,
    /// Remote selectors.
    pub remote_ts: Vec<TrafficSelector>,
    /// `userspace` or `kernel`; filled in by the daemon.
    pub backend: &'static str,
    /// Rekeys of this child so far.
    pub generation: u32,
    /// Offload really in use.
    pub offload: ModeInUse,
    /// Marks and interface ids.
    pub tags: DrawnTags,
    /// The script that is told of its beginning and end.
    #[serde(skip)]
    pub updown: Option<Arc<Updown>>,
}

impl ChildSaSnapshot {
    /// One in tunnel mode that is installed in software, and of which there is nothing else to tell; see [`IkeSaSnapshot::plain`].
    #[must_use]
    pub fn plain(name: &str, unique_id: u32) -> Self {
        Self {
            name: name.into(),
            unique_id,
            reqid: Reqid(1),
            state: ChildSaState::Installed,
            mode: SaMode::Tunnel,
            encap: false,
            spi_in: None,
            spi_out: None,
            algorithms: None,
            sa_in: None,
            sa_out: None,
            traffic_in: Traffic::default(),
            traffic_out: Traffic::default(),
            total_in: Carried::default(),
            total_out: Carried::default(),
            limits: ipsec::Limits::default(),
            rekey_seconds: None,
            life_seconds: None,
            installed_seconds: None,
            local_ts: Vec::new(),
            remote_ts: Vec::new(),
            backend: "userspace",
            generation: 0,
            offload: ModeInUse::SOFTWARE,
            tags: DrawnTags::default(),
            updown: None,
        }
    }
}

/// Counters of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Octets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Seconds since the last packet; `None` = never used.
    pub idle_seconds: Option<u64>,
}

/// Sums over several SAs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Octets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// An SA that the backend holds, and the CHILD SA that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendSaSnapshot {
    /// The core's name for it.
    pub sa: ipsec::SaHandle,
    /// SPI, of ours when inbound, of the peer's when outbound.
    pub spi: Spi,
    /// Counters.
    pub traffic: Traffic,
    /// Highest sequence number sent or accepted.
    pub sequence: u64,
    /// Whose it is; nothing for an SA that no CHILD SA knows of.
    pub owner: Option<BackendSaOwner>,
}

/// The CHILD SA that an SA of the backend belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendSaOwner {
    /// Connection.
    pub connection: Arc<str>,
    /// Child.
    pub child: Arc<str>,
    /// Number of the CHILD SA.
    pub unique_id: u32,
    /// State of the CHILD SA.
    pub state: ChildSaState,
    /// It is the inbound one.
    pub inbound: bool,
}

/// What `cygnet status` shows: one for each configured child, whether it is up or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredChildStatus {
    /// Connection.
    pub connection: String,
    /// Child.
    pub child: String,
    /// What it is doing.
    pub state: ConfiguredState,
    /// Offload really in use, when up.
    pub offload: Option<ModeInUse>,
    /// Attempts that failed since it was last up.
    pub failures: u32,
    /// Why it last ended or failed, with the wall-clock time in seconds since the epoch.
    pub last_cause: Option<(u64, Cause)>,
}

/// What a configured child is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfiguredState {
    /// A CHILD SA is installed.
    Up,
    /// Being established.
    Connecting,
    /// Waits for traffic.
    Trapped,
    /// A pass or drop shunt is installed.
    Shunt,
    /// The next attempt comes in so many seconds.
    RetryIn(u64),
    /// Neither up nor asked to be.
    Down,
    /// Not usable as configured.
    Refused(String),
}

/// A trap or shunt at one moment, as list-policies shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicySnapshot {
    /// Tells it from others of its shard, and grows with each that comes.
    #[serde(skip)]
    pub number: u32,
    /// Connection.
    pub connection: Arc<str>,
    /// Child.
    pub child: Arc<str>,
    /// `Tunnel` or `Transport` for a trap, `Pass` or `Drop` for a shunt.
    pub mode: crate::config::ChildMode,
    /// Local selectors.
    pub local_ts: Vec<TrafficSelector>,
    /// Remote selectors.
    pub remote_ts: Vec<TrafficSelector>,
}
