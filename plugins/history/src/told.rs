//! Records as they lie in the spool, as far as the tables need them.
//!
//! Read leniently: a record of an older or newer release may lack fields or have others.

use ike_model::Identity;
use ike_model::history::{Limits, TrafficSelector};
use ike_model::proposal::{EspAlgorithms, IkeAlgorithms};
use ike_model::snapshot::Carried;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The beginning of a run.
#[derive(Debug, Deserialize)]
pub(crate) struct Boot {
    pub(crate) gateway: String,
    pub(crate) boot_id: String,
    pub(crate) time_ms: u64,
}

/// One event.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) ulid: String,
    pub(crate) time: String,
    pub(crate) gateway: String,
    pub(crate) boot_id: String,
    pub(crate) seq: u64,
    #[serde(rename = "type")]
    pub(crate) event: String,
    #[serde(default)]
    connection: Option<String>,
    #[serde(default)]
    ike: Option<Value>,
    /// A name or a CHILD SA.
    #[serde(default)]
    child: Option<Value>,
    /// IKE SAs or CHILD SAs.
    #[serde(default)]
    old: Option<Value>,
    #[serde(default)]
    new: Option<Value>,
    /// The CHILD SA that came after one that is removed.
    #[serde(default)]
    pub(crate) successor: Option<u32>,
    /// Number of the CHILD SA that this one is to replace.
    #[serde(default)]
    pub(crate) replaces: Option<u32>,
    #[serde(default)]
    pub(crate) cause: Option<Cause>,
    #[serde(default)]
    pub(crate) path: Option<Path>,
}

impl Record {
    pub(crate) fn ike(&self) -> Option<IkeSa> {
        parse(self.ike.as_ref())
    }

    pub(crate) fn child(&self) -> Option<ChildSa> {
        parse(self.child.as_ref())
    }

    /// What was replaced and by what, of IKE SAs or CHILD SAs as the event has it.
    pub(crate) fn rekeyed<T: DeserializeOwned>(&self) -> Option<(T, T)> {
        parse(self.old.as_ref()).zip(parse(self.new.as_ref()))
    }

    /// The connection it is about.
    pub(crate) fn connection(&self) -> Option<&str> {
        let mut sas = [&self.ike, &self.new].into_iter().flatten();
        self.connection.as_deref().or_else(|| sas.find_map(|sa| sa.get("connection")?.as_str()))
    }

    /// The child it is about.
    pub(crate) fn child_name(&self) -> Option<&str> {
        let sa = self.child.as_ref().or(self.new.as_ref())?;
        sa.as_str().or_else(|| sa.get("name")?.as_str())
    }
}

fn parse<T: DeserializeOwned>(value: Option<&Value>) -> Option<T> {
    T::deserialize(value?).ok()
}

#[derive(Debug, Deserialize)]
pub(crate) struct Cause {
    pub(crate) kind: String,
    pub(crate) text: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Path {
    pub(crate) local: String,
    pub(crate) remote: String,
}

/// An IKE SA.
#[derive(Debug, Deserialize)]
pub(crate) struct IkeSa {
    pub(crate) connection: String,
    pub(crate) unique_id: u32,
    pub(crate) local: String,
    pub(crate) remote: String,
    pub(crate) local_id: Identity,
    pub(crate) remote_id: Identity,
    pub(crate) initiator: bool,
    pub(crate) initiator_spi: u64,
    pub(crate) responder_spi: u64,
    #[serde(default)]
    pub(crate) nat_local: bool,
    #[serde(default)]
    pub(crate) nat_remote: bool,
    #[serde(default)]
    pub(crate) algorithms: Option<IkeAlgorithms>,
    #[serde(default)]
    pub(crate) generation: u32,
}

/// A CHILD SA.
#[derive(Debug, Deserialize)]
pub(crate) struct ChildSa {
    pub(crate) name: String,
    pub(crate) unique_id: u32,
    pub(crate) reqid: u32,
    pub(crate) mode: String,
    #[serde(default)]
    pub(crate) encap: bool,
    #[serde(default)]
    pub(crate) spi_in: Option<u32>,
    #[serde(default)]
    pub(crate) spi_out: Option<u32>,
    #[serde(default)]
    pub(crate) algorithms: Option<EspAlgorithms>,
    #[serde(default)]
    pub(crate) traffic_in: Carried,
    #[serde(default)]
    pub(crate) traffic_out: Carried,
    #[serde(default)]
    pub(crate) total_in: Carried,
    #[serde(default)]
    pub(crate) total_out: Carried,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) local_ts: Vec<TrafficSelector>,
    #[serde(default)]
    pub(crate) remote_ts: Vec<TrafficSelector>,
    #[serde(default)]
    pub(crate) backend: String,
    #[serde(default)]
    pub(crate) generation: u32,
    pub(crate) offload: Offload,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Offload {
    pub(crate) mode: String,
    #[serde(default)]
    pub(crate) device: Option<String>,
    #[serde(default)]
    pub(crate) simulated: bool,
}
