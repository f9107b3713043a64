//! Connections as configured, after defaults and units: swanctl.conf's `connections` section in typed form.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipsec::sa::HeaderCopy;
use ipsec::{LifetimeConfig, OffloadMode, TrafficSelector};
use serde::{Deserialize, Serialize};

use crate::KeyExport;
use crate::by_name::ByName;
use crate::identity::Identity;
use crate::proposal::{EspProposal, IkeProposal};
use crate::secret::SharedSecret;
use crate::tags::{InterfaceIds, TagConfig};

/// Everything the core may look up, at one moment. Replaced as a whole on reload.
#[derive(Clone, Debug, Default)]
pub struct ConfigSnapshot {
    /// Connections by name.
    pub connections: ByName<Arc<Connection>>,
    /// Pre-shared keys in load order.
    pub secrets: Vec<Arc<SharedSecret>>,
    /// Settings that hold for all connections.
    pub settings: IkeSettings,
}

/// Settings that hold for all connections; names and defaults are strongSwan's.
#[derive(Clone, Debug, PartialEq)]
pub struct IkeSettings {
    /// UDP port of IKE.
    pub port: u16,
    /// UDP port of IKE and ESP behind NAT.
    pub nat_port: u16,
    /// First retransmission after this long.
    pub retransmit_timeout: Duration,
    /// Each further wait is this factor longer.
    pub retransmit_base: f64,
    /// Retransmissions before the peer counts as unreachable.
    pub retransmit_tries: u32,
    /// Each wait is shortened by a random share up to this many percent.
    pub retransmit_jitter: u32,
    /// A responder forgets an IKE SA that is not established after this long.
    pub half_open_timeout: Duration,
    /// Half-open IKE SAs from which on COOKIEs are asked for; 0 = never.
    pub cookie_threshold: u32,
    /// NAT keepalive interval; zero = off.
    pub keep_alive: Duration,
    /// A rekeyed inbound SA stays this long after its last packet.
    pub delete_rekeyed_delay: Duration,
    /// Anti-replay window where a child configures none, in packets.
    pub replay_window: u32,
    /// Half-open IKE SAs above which IKE_SA_INIT is dropped; 0 = no limit but the core's own.
    pub half_open_limit: u32,
    /// Half-open IKE SAs of one peer address from which on it is asked for COOKIEs; 0 = never. An IPv6 peer is its /64 network.
    pub cookie_threshold_ip: u32,
    /// Half-open IKE SAs of one peer address from which on its IKE_SA_INIT is dropped; 0 = never.
    pub block_threshold: u32,
    /// IKE SAs, established ones, from which on IKE_SA_INIT is dropped; 0 = no limit.
    pub ikesa_limit: u32,
    /// Jobs (key exchanges, lookups) outstanding in a shard from which on it takes no IKE_SA_INIT.
    pub job_limit: u32,
    /// IKE SAs that one peer address may begin per second, over time; 0 = no limit. Five seconds' worth may come at once.
    pub init_rate_ip: u32,
    /// Error notifications per second to whoever names no IKE SA or speaks another version; 0 = none are sent.
    pub error_rate: u32,
    /// Requests per second that one established peer may make over time; 0 = no limit.
    pub peer_request_rate: u32,
    /// Requests that one established peer may make at once.
    pub peer_request_burst: u32,
    /// CREATE_CHILD_SA requests per second that one established peer may make over time; 0 = no limit.
    pub peer_create_rate: u32,
    /// CREATE_CHILD_SA requests that one established peer may make at once.
    pub peer_create_burst: u32,
    /// When the guard stands.
    pub fail_closed: FailClosed,
    /// Octets of the IP datagram of an IKE fragment at most; 0 = what every path carries: 576 over IPv4, 1280 over IPv6.
    pub fragment_size: u16,
    /// Authenticating afresh makes the new IKE SA before the old one goes, not after.
    pub make_before_break: bool,
    /// IKE SAs that are begun per second and shard because children are to be up; 0 = no limit. What an operator or a packet asks for is
    /// not held back.
    pub attempts_per_second: u32,
    /// How often what the devices hold is compared with what they should; zero = only when there is a reason to. Less often where there is much
    /// to compare.
    pub check_interval: Duration,
    /// Leave to keep keys and give them out.
    pub key_export: Option<KeyExport>,
}

impl Default for IkeSettings {
    fn default() -> Self {
        Self {
            port: 500,
            nat_port: 4500,
            retransmit_timeout: Duration::from_secs(4),
            retransmit_base: 1.8,
            retransmit_tries: 5,
            retransmit_jitter: 0,
            half_open_timeout: Duration::from_secs(30),
            cookie_threshold: 30,
            keep_alive: Duration::from_secs(20),
            delete_rekeyed_delay: Duration::from_secs(5),
            replay_window: 32,
            half_open_limit: 0,
            cookie_threshold_ip: 3,
            block_threshold: 5,
            ikesa_limit: 0,
            job_limit: 256,
            init_rate_ip: 20,
            error_rate: 10,
            // Of a full IKE SA every CHILD SA may be rekeyed and deleted in one storm, and then again.
            peer_request_rate: 200,
            peer_request_burst: 4_096,
            peer_create_rate: 50,
            peer_create_burst: 2_048,
            fail_closed: FailClosed::OnceUp,
            fragment_size: 1280,
            make_before_break: true,
            attempts_per_second: 50,
            check_interval: Duration::from_secs(1),
            key_export: None,
        }
    }
}

/// From when on traffic of a child is blocked unless protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailClosed {
    /// As soon as the child is loaded.
    Always,
    /// From a `start` or `trap` action or the first install, until unload.
    #[default]
    OnceUp,
    /// Never.
    Off,
}

/// One connection (`connections.<name>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Local addresses; the initiator uses the first concrete one, or the route's source.
    pub local_addrs: Vec<HostSpec>,
    /// Peer addresses.
    pub remote_addrs: Vec<HostSpec>,
    /// Local port; 500 floats to 4500 where needed.
    pub local_port: u16,
    /// Peer's port.
    pub remote_port: u16,
    /// IKE proposals in order of preference.
    pub proposals: Vec<IkeProposal>,
    /// How we authenticate ourselves; the first round is used.
    pub local: Vec<AuthRound>,
    /// How the peer must authenticate.
    pub remote: Vec<AuthRound>,
    /// DSCP of IKE packets (0..=63).
    pub dscp: u8,
    /// Force UDP encapsulation of ESP.
    pub encap: bool,
    /// Announce MOBIKE.
    pub mobike: bool,
    /// IKE fragmentation.
    pub fragmentation: Fragmentation,
    /// Liveness check after silence of this long; zero = off.
    pub dpd_delay: Duration,
    /// Retransmission sequences of an initial connect; 0 = endless.
    pub keyingtries: u32,
    /// What happens to another IKE SA of the same peer identity.
    pub unique: Unique,
    /// IKE SAs without a first CHILD SA (RFC 6023).
    pub childless: Childless,
    /// Lifetime until full reauthentication; zero = none.
    pub reauth_time: Duration,
    /// Soft lifetime of the IKE SA; zero = no rekeying.
    pub rekey_time: Duration,
    /// Hard lifetime = soft lifetime after jitter + this.
    pub over_time: Duration,
    /// Upper bound of what is subtracted from the soft lifetime.
    pub rand_time: Duration,
    /// Interface ids of children that have none of their own.
    pub interface: InterfaceIds,
    /// Children in file order.
    pub children: Vec<Arc<Child>>,
}

/// An address specification of `local_addrs` and `remote_addrs`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostSpec {
    /// `%any` (both families), `0.0.0.0/0`-like specs are networks.
    Any,
    /// One address.
    Address(IpAddr),
    /// A range or network.
    Range(ipsec::AddressRange),
    /// A DNS name, resolved at each attempt.
    Name(String),
}

/// One authentication round (`local*` or `remote*` section).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRound {
    /// Method.
    pub method: AuthMethod,
    /// Identity to send, or the pattern the peer's must fit. `Any` locally = our address.
    pub id: Identity,
}

/// Authentication method of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthMethod {
    /// Pre-shared key.
    Psk,
    /// Whatever method is supported: a remote round that names none.
    Any,
}

/// Uniqueness policy (`unique`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unique {
    /// Neither check nor send INITIAL_CONTACT.
    Never,
    /// Replace only on INITIAL_CONTACT.
    #[default]
    No,
    /// Keep the existing IKE SA, refuse the new one.
    Keep,
    /// Close the existing IKE SA.
    Replace,
}

/// IKE fragmentation (`fragmentation`, RFC 7383). Fragments are sent and taken only when both ends have announced that they can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragmentation {
    /// Announce it, and send messages that are too long in fragments.
    #[default]
    Yes,
    /// Announce it and take fragments, but send none.
    Accept,
    /// Do not announce it.
    No,
    /// The same as `Yes`; the difference is one of IKEv1.
    Force,
}

impl Fragmentation {
    /// Whether it is announced.
    pub fn is_announced(self) -> bool {
        match self {
            Self::Yes | Self::Accept | Self::Force => true,
            Self::No => false,
        }
    }

    /// Whether messages that are too long are sent in fragments.
    pub fn sends(self) -> bool {
        match self {
            Self::Yes | Self::Force => true,
            Self::Accept | Self::No => false,
        }
    }
}

/// IKE SAs without a first CHILD SA (`childless`, RFC 6023).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Childless {
    /// Accepted from peers; we begin with a child.
    #[default]
    Allow,
    /// We begin without a child where the peer supports it; children follow.
    Prefer,
    /// Both ends must begin without a child.
    Force,
    /// Neither announced nor accepted.
    Never,
}

/// Combination of actions (`start_action`, `close_action`, `dpd_action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Install a trap.
    pub trap: bool,
    /// Initiate.
    pub start: bool,
}

/// What a child does with traffic (`mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChildMode {
    /// ESP in tunnel mode.
    #[default]
    Tunnel,
    /// ESP in transport mode.
    Transport,
    /// A bypass shunt.
    Pass,
    /// A discard shunt.
    Drop,
}

/// A selector as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfiguredSelector {
    /// `dynamic[proto/port]`: the outer address of that side; carries protocol and ports.
    Dynamic {
        /// IP protocol; 0 = any.
        protocol: u8,
        /// Ports.
        ports: ipsec::PortRange,
    },
    /// Addresses given.
    Fixed(TrafficSelector),
}

impl ConfiguredSelector {
    /// The selector once the outer address of its side is known.
    pub fn resolve(self, outer: IpAddr) -> TrafficSelector {
        match self {
            Self::Dynamic { protocol, ports } => {
                TrafficSelector { addresses: ipsec::AddressRange::host(outer), protocol, ports }
            }
            Self::Fixed(selector) => selector,
        }
    }
}

/// One child (`connections.<conn>.children.<name>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// ESP proposals in order of preference.
    pub esp_proposals: Vec<EspProposal>,
    /// Local selectors.
    pub local_ts: Vec<ConfiguredSelector>,
    /// Remote selectors.
    pub remote_ts: Vec<ConfiguredSelector>,
    /// Lifetimes.
    pub lifetime: LifetimeConfig,
    /// What the child does.
    pub mode: ChildMode,
    /// At load.
    pub start_action: Actions,
    /// When the peer closes the CHILD SA.
    pub close_action: Actions,
    /// When the peer is found dead.
    pub dpd_action: Actions,
    /// Offload asked for.
    pub hw_offload: OffloadMode,
    /// Anti-replay window in packets; `None` = the setting for all.
    pub replay_window: Option<u32>,
    /// Fixed reqid; `None` = allocated.
    pub reqid: Option<u32>,
    /// Fixed priority; `None` = computed from the selectors.
    pub priority: Option<u32>,
    /// Header field rules.
    pub copy: HeaderCopy,
    /// Install policies beside the SAs.
    pub policies: bool,
    /// Close after this long without traffic; zero = never.
    pub inactivity: Duration,
    /// Marks and interface ids.
    pub tags: TagConfig,
    /// What is run when the CHILD SA comes up and when it goes.
    pub updown: Option<Arc<Updown>>,
}

/// A script that is told of a CHILD SA's beginning and end (`updown`, `hostaccess`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Updown {
    /// A line for `/bin/sh -c`.
    pub script: String,
    /// Told to the script, which is to let traffic of the gateway itself through.
    pub host_access: bool,
}

impl Connection {
    /// The child called `name`.
    pub fn child(&self, name: &str) -> Option<&Arc<Child>> {
        self.children.iter().find(|child| child.name == name)
    }
}

impl Actions {
    /// Nothing is done.
    pub const NONE: Self = Self { trap: false, start: false };
}
