//! What is kept of the past: who takes events down, who hands them on, who can be asked.
//!
//! Four traits, implemented by the history plugin. The daemon records through [`Recorder`]; webhooks see only [`Outbox`]; the status page and the
//! command line ask [`Timeline`]; metrics look at [`Keeping`]. Times are milliseconds since the epoch throughout.

mod keeping;
mod outbox;

pub use keeping::{Database, Keeping, KeepingFigures};
pub use outbox::{
    Backlog, Delivery, DeliveryCursor, DeliveryState, Disabled, NoCursor, Outbox, PastDelivery, Redelivery,
    Subscription, Verdict, WantedDeliveries,
};

use std::future::Future;
use std::pin::Pin;

pub use ipsec::{Limits, TrafficSelector};
use serde::Serialize;

use crate::event::EventRecord;
use crate::proposal::{EspAlgorithms, IkeAlgorithms};
use crate::snapshot::Carried;

/// Takes events down before what they describe is released.
pub trait Recorder: Send + Sync {
    /// Writes `records`, all or none. Returns when they would survive the end of this process.
    ///
    /// # Errors
    /// They could not be written and are not kept.
    fn record(&self, records: &[EventRecord]) -> Result<(), NotRecorded>;

    /// There is room for the events of new IKE SAs. While there is not, no new handshake is begun; those of standing SAs still find room.
    fn has_room(&self) -> bool;
}

/// Why events were not taken down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// What was recorded and not yet taken over fills the space that is allowed.
    #[error("the spool is full")]
    Full,
    /// The file system refused.
    #[error("{0}")]
    Io(String),
}

/// The answer of a store.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, HistoryError>> + Send + 'a>>;

/// Why a store did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// It cannot be reached now.
    #[error("the history database cannot be reached: {0}")]
    Unreachable(String),
    /// It refuses, or holds what this program does not understand.
    #[error("the history database failed: {0}")]
    Failed(String),
    /// The answer would take too long: what to ask instead.
    #[error("{0}")]
    TooMuch(String),
}

/// What can be asked about the past.
pub trait Timeline: Send + Sync {
    /// Generations of CHILD SAs, the newest first.
    fn generations<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<Generation>>;

    /// What each child has carried, over all its generations: those of earlier runs included and, of the whole past, those that were forgotten.
    /// `limit` is about rows, and not about these. Of a part of the past with very many generations there are none: [`HistoryError::TooMuch`].
    fn totals<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<ChildTotal>>;

    /// IKE SAs, the newest first.
    fn ike_sas<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<PastIkeSa>>;

    /// Events, the newest first.
    fn events<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<PastEvent>>;

    /// Waits a short while until all that has happened before the question can be found; tells whether it can.
    fn complete(&self) -> Answer<'_, bool> {
        Box::pin(async { Ok(true) })
    }
}

/// Which part of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Gateway; `None` = this one, `*` = all.
    pub gateway: Option<String>,
    /// Connection; `None` = all.
    pub connection: Option<String>,
    /// Child; `None` = all.
    pub child: Option<String>,
    /// Names of events with commas between, `*` at the end of one standing for any rest; `None` = all.
    pub event: Option<String>,
    /// Kind of the cause of an end or a failure; `None` = any and none.
    pub cause: Option<String>,
    /// What was up or happened at this time or later.
    pub since_ms: Option<u64>,
    /// What was up or happened before this time.
    pub until_ms: Option<u64>,
    /// Only what is up.
    pub up: bool,
    /// At most so many; 0 = as many as are given at once.
    pub limit: u32,
}

/// One generation of a CHILD SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// Gateway.
    pub gateway: String,
    /// Run of its daemon.
    pub boot_id: String,
    /// Connection.
    pub connection: String,
    /// Child.
    pub child: String,
    /// Number of the CHILD SA, unique within a run.
    pub unique_id: u32,
    /// Number of its IKE SA.
    pub ike_unique_id: u32,
    /// Number of the first generation of the same line of rekeys.
    pub lineage: u32,
    /// Rekeys before it.
    pub generation: u32,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// ESP goes in UDP.
    pub encap: bool,
    /// Group of its SAs.
    pub reqid: u32,
    /// Our SPI.
    pub spi_in: Option<u32>,
    /// The peer's SPI.
    pub spi_out: Option<u32>,
    /// Negotiated algorithms.
    pub algorithms: Option<EspAlgorithms>,
    /// `userspace` or `kernel`.
    pub backend: String,
    /// Offload really in use: `no`, `crypto` or `packet`.
    pub offload: String,
    /// Device, where there is one.
    pub device: Option<String>,
    /// The device is a simulation.
    pub simulated: bool,
    /// Local selectors.
    pub local_ts: String,
    /// Remote selectors.
    pub remote_ts: String,
    /// Soft and hard limits.
    pub limits: Limits,
    /// What it received, as last told.
    pub carried_in: Carried,
    /// What it sent, as last told.
    pub carried_out: Carried,
    /// What all generations of its line of rekeys up to this one received, as last told.
    pub total_in: Carried,
    /// What they sent.
    pub total_out: Carried,
    /// When it was up.
    pub installed_ms: u64,
    /// When it was replaced or ended.
    pub removed_ms: Option<u64>,
    /// Kind of the cause of its end; `daemon-died` when the daemon ended without closing it.
    pub cause: Option<String>,
    /// The cause in words.
    pub cause_text: Option<String>,
}

/// What a child has carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChildTotal {
    /// Gateway.
    pub gateway: String,
    /// Connection.
    pub connection: String,
    /// Child.
    pub child: String,
    /// How many generations.
    pub generations: u64,
    /// What they received.
    pub carried_in: Carried,
    /// What they sent.
    pub carried_out: Carried,
    /// When the first was up.
    pub first_ms: u64,
    /// One of them is up.
    pub up: bool,
}

/// One IKE SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastIkeSa {
    /// Gateway.
    pub gateway: String,
    /// Run of its daemon.
    pub boot_id: String,
    /// Connection.
    pub connection: String,
    /// Number of the IKE SA, unique within a run.
    pub unique_id: u32,
    /// Rekeys before it.
    pub generation: u32,
    /// We are the original initiator.
    pub initiator: bool,
    /// Initiator's SPI, 16 hexadecimal digits.
    pub initiator_spi: String,
    /// Responder's SPI.
    pub responder_spi: String,
    /// Our address and port.
    pub local: String,
    /// The peer's address and port.
    pub remote: String,
    /// Our identity.
    pub local_id: String,
    /// The peer's identity.
    pub remote_id: String,
    /// Negotiated algorithms.
    pub algorithms: Option<IkeAlgorithms>,
    /// When it was established.
    pub established_ms: u64,
    /// When it was replaced or ended.
    pub closed_ms: Option<u64>,
    /// Kind of the cause of its end; `daemon-died` when the daemon ended without closing it.
    pub cause: Option<String>,
    /// The cause in words.
    pub cause_text: Option<String>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastEvent {
    /// Its ULID.
    pub ulid: String,
    /// When it happened.
    pub time_ms: u64,
    /// Name of the event.
    pub event: String,
    /// The record, JSON.
    pub record: String,
}
