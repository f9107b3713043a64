//! Which SAs and policies a listing shows.

use ike_model::{ChildSaSnapshot, HostSpec, Identity, IkeSaSnapshot};

use super::{RequestError, sa_number, selected, text};
use crate::render::{PolicyKind, PolicyListing};
use crate::vici::Message;

/// Filter of `list-sas`; every field given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaFilter {
    /// Connection.
    pub ike: Option<String>,
    /// Unique id of the IKE SA.
    pub ike_id: Option<u32>,
    /// Child.
    pub child: Option<String>,
    /// Unique id of the CHILD SA.
    pub child_id: Option<u32>,
}

impl SaFilter {
    pub(super) fn parse(message: &Message) -> Result<Self, RequestError> {
        Ok(Self {
            ike: selected(message, "ike"),
            ike_id: sa_number(message, "ike-id")?,
            child: selected(message, "child"),
            child_id: sa_number(message, "child-id")?,
        })
    }

    /// Whether it asks for particular CHILD SAs.
    #[must_use]
    pub fn names_child(&self) -> bool {
        self.child.is_some() || self.child_id.is_some()
    }

    /// Whether an IKE SA passes.
    #[must_use]
    pub fn accepts_ike(&self, ike: &IkeSaSnapshot) -> bool {
        self.ike.as_deref().is_none_or(|name| name == &*ike.connection)
            && self.ike_id.is_none_or(|id| id == ike.unique_id)
    }

    /// Whether a CHILD SA of an accepted IKE SA passes.
    #[must_use]
    pub fn accepts_child(&self, child: &ChildSaSnapshot) -> bool {
        self.child.as_deref().is_none_or(|name| name == &*child.name)
            && self.child_id.is_none_or(|id| id == child.unique_id)
    }
}

/// Which peers `redirect` means; every field given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerFilter {
    /// Where the peer is: an address, a network or a range.
    pub ip: Option<HostSpec>,
    /// Who the peer is, wildcards included.
    pub id: Option<Identity>,
}

impl PeerFilter {
    pub(super) fn parse(message: &Message) -> Result<Self, RequestError> {
        let ip = text(message, "peer-ip").map(|text| match crate::address::host(&text) {
            Ok(HostSpec::Name(_)) | Err(_) => Err(super::refuse("parsing peer-ip failed")),
            Ok(spec) => Ok(spec),
        });
        let id = text(message, "peer-id").map(|text| {
            crate::identity::parse(&text).map_err(|error| super::refuse(&format!("parsing peer-id failed: {error}")))
        });
        Ok(Self { ip: ip.transpose()?, id: id.transpose()? })
    }

    /// Whether an IKE SA passes.
    #[must_use]
    pub fn accepts(&self, ike: &IkeSaSnapshot) -> bool {
        let at = match &self.ip {
            None | Some(HostSpec::Any) => true,
            Some(HostSpec::Address(address)) => *address == ike.remote.ip(),
            Some(HostSpec::Range(range)) => range.contains(ike.remote.ip()),
            Some(HostSpec::Name(_)) => false,
        };
        at && self.id.as_ref().is_none_or(|id| id.matches(&ike.remote_id))
    }
}

/// Filter of `list-policies`. Only the kinds that are asked for pass; a client that names none gets nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyFilter {
    /// Show traps.
    pub trap: bool,
    /// Show pass shunts.
    pub pass: bool,
    /// Show drop shunts.
    pub drop: bool,
    /// Child.
    pub child: Option<String>,
    /// Connection.
    pub ike: Option<String>,
}

impl PolicyFilter {
    /// The presence of a kind's key counts, whatever its value.
    pub(super) fn parse(message: &Message) -> Self {
        let given = |key: &str| message.get(key).is_some();
        Self {
            trap: given("trap"),
            pass: given("pass"),
            drop: given("drop"),
            child: selected(message, "child"),
            ike: selected(message, "ike"),
        }
    }

    /// Whether a policy passes.
    #[must_use]
    pub fn accepts(&self, policy: &PolicyListing<'_>) -> bool {
        let kind = match policy.kind {
            PolicyKind::Trap => self.trap,
            PolicyKind::Pass => self.pass,
            PolicyKind::Drop => self.drop,
        };
        kind && self.child.as_deref().is_none_or(|name| name == policy.child.name)
            && self.ike.as_deref().is_none_or(|name| name == policy.connection)
    }
}
