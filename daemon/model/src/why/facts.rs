//! What is known about a packet's way, as others have collected it.

use std::net::IpAddr;
use std::sync::Arc;

use ipsec::{DeviceTable, PacketSelectors, SaStatus, SelectorPair};

use crate::snapshot::{ConfiguredChildStatus, IkeSaSnapshot};
use crate::specs::ChildSpecs;
use crate::{Child, Connection};

/// Everything.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The packet.
    pub packet: PacketSelectors,
    /// Its length in octets with its IP header, if that is asked about.
    pub size: Option<u32>,
    /// The host.
    pub host: HostFacts,
    /// All configured children.
    pub children: Vec<ChildFacts>,
    /// What CHILD SAs, traps and shunts have installed.
    pub specs: Vec<ChildSpecs>,
    /// All IKE SAs.
    pub ike_sas: Vec<IkeSaSnapshot>,
    /// The data path's devices.
    pub devices: DeviceTable,
    /// Its SAs.
    pub before: Vec<SaStatus>,
    /// The same a moment later.
    pub after: Vec<SaStatus>,
    /// Between the two, in milliseconds.
    pub sampled_ms: u64,
    /// The ways to the peers outside the tunnel.
    pub outer: Vec<Outer>,
    /// Packets that the data path has dropped.
    pub drops: Vec<Drops>,
}

/// A configured child.
#[derive(Clone, Debug)]
pub struct ChildFacts {
    /// Connection.
    pub connection: Arc<Connection>,
    /// Child.
    pub child: Arc<Child>,
    /// The configured selectors, as far as they are known before the outer addresses are.
    pub pairs: Vec<SelectorPair>,
    /// What it is doing.
    pub status: ConfiguredChildStatus,
}

impl ChildFacts {
    /// `connection/child`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.connection.name, self.child.name)
    }

    /// Whether something is of this child.
    pub(super) fn is(&self, connection: &str, child: &str) -> bool {
        self.connection.name == connection && self.child.name == child
    }
}

/// What the host kernel says.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// The tunnel device; nothing where the kernel is the data path.
    pub tunnel: Option<Tunnel>,
    /// The packet's source.
    pub source: Place,
    /// The packet's destination.
    pub destination: Place,
    /// The way of the packet itself: arriving where the source is behind, else as one of this host.
    pub way: Way,
    /// A policy in the kernel's SPD that is not ours and takes the packet.
    pub foreign_policy: Option<String>,
    /// Where the kernel is the data path, the entry of its SPD that the packet meets first.
    pub met: Option<Met>,
}

/// What a packet meets first in the kernel's SPD, where the kernel is the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    /// An entry of the backend's, in words, and the device that holds it.
    Entry(String, Option<String>),
    /// A block of the guard, in words.
    Guard(String),
    /// An exemption beside guard or entries, in words: it passes in clear.
    Exemption(String),
    /// Nothing of ours.
    Nothing,
}

/// The tunnel device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its name.
    pub name: String,
    /// As the kernel shows it; nothing when it is not there.
    pub link: Option<Link>,
}

/// An end of the packet, as this host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// An address of this host.
    pub local: bool,
    /// The link that its subnet is on, if it is next to this host.
    pub near: Option<Link>,
    /// The way of an unmarked packet to it.
    pub way: Way,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Set up.
    pub up: bool,
    /// It has a carrier.
    pub carrier: bool,
    /// Largest packet.
    pub mtu: u32,
    /// Packets of the packet's family that arrive on it are forwarded.
    pub forwarding: bool,
    /// Reverse path filter: 0 = none, 1 = strict, 2 = loose; 0 for IPv6.
    pub reverse_path: u8,
    /// The links that it stands on, or through which it is a bond's port, if it does not carry packets itself.
    pub below: Vec<String>,
}

impl Link {
    /// Whether it carries packets.
    pub(super) fn carries(&self) -> bool {
        self.up && self.carrier
    }

    /// Why it carries none.
    pub(super) fn trouble(&self) -> String {
        let what = if self.up { "has no carrier" } else { "is down" };
        match self.below.as_slice() {
            [] => format!("{} {what}", self.name),
            below => format!("{} (on {}) {what}", self.name, below.join(", ")),
        }
    }
}

/// A packet's way by the host's routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is for this host.
    Local,
    /// It leaves through a link.
    Out {
        /// The link.
        link: Link,
        /// The next router.
        gateway: Option<IpAddr>,
        /// The table that said so; 0 = unknown.
        table: u32,
        /// Largest packet, where the route or what was learnt of the path says so.
        mtu: Option<u32>,
    },
    /// It goes nowhere.
    Nowhere(NoWay),
}

/// Why there is no way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoWay {
    /// No route.
    NoRoute,
    /// A route says `unreachable`; for a packet that arrives also: forwarding is off.
    Unreachable,
    /// A route says `blackhole`, or no packet may have these addresses.
    Blackhole,
    /// A route says `prohibit`.
    Prohibited,
    /// The reverse path filter.
    ReversePath,
    /// Another refusal, in the kernel's words.
    Other(String),
}

impl Way {
    /// In words: `wan0 via 192.0.2.254`.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Local => "this host".to_owned(),
            Self::Out { link, gateway: Some(gateway), .. } => format!("{} via {gateway}", link.name),
            Self::Out { link, gateway: None, .. } => link.name.clone(),
            Self::Nowhere(reason) => reason.words(),
        }
    }

    /// The link that it leads out of.
    pub(super) fn link(&self) -> Option<&Link> {
        match self {
            Self::Out { link, .. } => Some(link),
            Self::Local | Self::Nowhere(_) => None,
        }
    }
}

impl NoWay {
    fn words(&self) -> String {
        match self {
            Self::NoRoute => "nowhere, there is no route".to_owned(),
            Self::Unreachable => "nowhere, a route says unreachable".to_owned(),
            Self::Blackhole => {
                "nowhere, a route says blackhole or the addresses are none that a packet may have".to_owned()
            }
            Self::Prohibited => "nowhere, a route says prohibit".to_owned(),
            Self::ReversePath => "nowhere, the reverse path filter refuses the source".to_owned(),
            Self::Other(words) => format!("nowhere: {words}"),
        }
    }
}

/// The way to a peer outside the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The connection.
    pub connection: String,
    /// Our address, if one is fixed or in use.
    pub local: Option<IpAddr>,
    /// It is an address of this host.
    pub local_is_ours: bool,
    /// The link that has this address; where there is none, the one that the peer's subnet is on.
    pub link: Option<Link>,
    /// The peer's address, if one is known.
    pub remote: Option<IpAddr>,
    /// The way of our own packets to it.
    pub way: Option<Way>,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops {
    /// The reason's stable name.
    pub reason: String,
    /// So far.
    pub before: u64,
    /// A moment later.
    pub after: u64,
}

impl Drops {
    /// Dropped between the two looks.
    pub(super) fn moved(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }
}
