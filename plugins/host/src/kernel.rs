//! The host around IPsec in the kernel: guard, exemptions beside policies that protect, IKE through devices, routes that choose the source.
//!
//! ```text
//!   LAN, this host ─► main table, or table 220 for the source address ─► policies: device ─► software ─► link
//!                                                                            │ (policy gone)
//!                                                                            └► block policy: dropped
//! ```
//!
//! [`KernelHost`] is what the kernel backend calls. [`KernelHost::guard`] comes before the first [`KernelHost::protect`] of a selector, and that
//! before the policy itself: then its exemptions stand, and where a device is to hold it the device lets IKE pass. A device that goes down loses
//! what it holds, and the kernel says nothing of it: [`KernelHost::device_lost`] at that moment, [`KernelHost::device_back`] before anything is
//! put into it again. Once a second or so: [`KernelHost::follow`].
//!
//! What remains when the process dies: everything. Block policies hold what no policy protects any more; exemptions and routes that nobody has
//! claimed a minute after the next start go then.

mod entries;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipsec::{GuardSpec, OnStop, OuterAddresses, SelectorPair};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::error::HostError;
use super::guard::Guard;
use super::links::{Changes, Heard, Interfaces};
use super::netlink::Netlink;
use super::policy::{Item, Surroundings};
use super::prefix::Family;
use super::routes::Routing;
use super::rules::{self, Numbers};
use super::xfrm::Verdict;
use super::{Followed, check, sysctl};

/// By then whatever is configured has been claimed, and orphaned SAs have been replaced.
const CLAIMED_AFTER: Duration = Duration::from_secs(60);

/// The part of `[backend.kernel]` that concerns the host, and what is known of IKE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelHostConfig {
    /// Our routing table.
    pub table: u32,
    /// Priority of the rule that leads there; the ones before and after it are ours too.
    pub rule_priority: u32,
    /// Mark on IKE's sockets, which keeps them out of our table.
    pub mark: u32,
    /// Whether to install routes and rules at all.
    pub install_routes: bool,
    /// UDP ports of IKE; 0 is none.
    pub ike_ports: [u16; 2],
    /// The only addresses that IKE uses; empty = all.
    pub listen: Vec<IpAddr>,
}

impl Default for KernelHostConfig {
    fn default() -> Self {
        Self {
            table: 220,
            rule_priority: 220,
            mark: 0x4347,
            install_routes: true,
            ike_ports: [500, 4500],
            listen: Vec::new(),
        }
    }
}

/// A policy of the kernel that takes traffic: it protects, asks for protection, or discards. Outbound ones stand for their inbound halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taking {
    /// Local and remote side.
    pub pair: SelectorPair,
    /// As the kernel has it.
    pub priority: u32,
    /// Interface index of the device that holds it.
    pub device: Option<u32>,
    /// How its traffic is routed.
    pub routed: Routed,
}

/// How the traffic of a policy is routed, so that its source is inside the local selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Routed {
    /// As it would be without us: in transport mode, and what is discarded.
    Plain,
    /// As the peer of a tunnel is reached: its outer addresses, ours first.
    ByPeer(IpAddr, IpAddr),
    /// As it would be without us, but for the source: of a tunnel whose peer is not known yet.
    ByDestination,
}

impl Routed {
    /// Of a tunnel between these addresses.
    #[must_use]
    pub fn through(outer: OuterAddresses) -> Self {
        if outer.remote.is_unspecified() { Self::ByDestination } else { Self::ByPeer(outer.local, outer.remote) }
    }
}

/// Policies, routes and rules of this process around those that protect.
///
/// Dropping it leaves everything in place, like a crash; [`KernelHost::stop`] tidies up.
#[derive(Debug)]
pub struct KernelHost {
    config: KernelHostConfig,
    route: Netlink,
    changes: Changes,
    stale: Heard,
    interfaces: Interfaces,
    routing: Option<Routing>,
    guard: Guard,
    entries: BTreeMap<Taking, Entry>,
    devices: BTreeMap<u32, Held>,
    /// What stands beside policies is not yet for the addresses as they are.
    outdated: bool,
    /// When to let go of what an earlier run left, until that was done.
    settles: Option<Instant>,
}

/// What stands beside a policy.
#[derive(Debug)]
struct Entry {
    count: usize,
    items: Vec<Item>,
}

/// A device that holds policies, or is to.
#[derive(Debug, Default)]
struct Held {
    /// Opened by name.
    open: bool,
    /// Policies in it.
    entries: usize,
    /// It has lost what it held.
    lost: bool,
    /// What it cannot hold has been told.
    told: bool,
    /// IKE through it.
    ike: Vec<Item>,
}

impl KernelHost {
    /// Adopts what an earlier run left, and checks that the routing table is ours alone.
    ///
    /// # Errors
    /// [`HostError::Absent`] where the kernel has no XFRM.
    pub fn open(config: KernelHostConfig) -> Result<Self, HostError> {
        check(config.table, config.rule_priority, config.mark)?;
        let guard = Guard::open(true)?.ok_or(HostError::Absent {
            what: "IPsec policies (XFRM)",
            remedy: "load the module xfrm_user, or build the kernel with CONFIG_XFRM_USER",
        })?;
        let families = Family::ALL.into_iter().filter(|family| *family == Family::V4 || sysctl::has_ipv6()).collect();
        let KernelHostConfig { table, rule_priority: priority, mark, ike_ports, .. } = config.clone();
        let numbers = Numbers { table, priority, mark, ike_ports };
        let routing = if config.install_routes { Some(Routing::open_by_peer(numbers, families)?) } else { None };
        let mut host = Self {
            route: Netlink::open("route", NETLINK_ROUTE)?,
            changes: Changes::open(true, true)?,
            stale: Heard::default(),
            interfaces: Interfaces::default(),
            config,
            routing,
            guard,
            entries: BTreeMap::new(),
            devices: BTreeMap::new(),
            outdated: false,
            settles: Instant::now().checked_add(CLAIMED_AFTER),
        };
        host.refresh()?;
        Ok(host)
    }

    /// The configuration this was opened with.
    pub fn config(&self) -> &KernelHostConfig {
        &self.config
    }

    /// Puts up the fail-closed guard: until [`Self::unguard`] this traffic leaves or enters protected only. Counted by name.
    ///
    /// # Errors
    /// The kernel's refusal; nothing stands then.
    pub fn guard(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        self.guard.guard(spec)?;
        // A run with a tunnel device may have left blocks in another form.
        self.guard.drop_links_of(&spec.selectors)?;
        self.routing.as_mut().map_or(Ok(()), |routing| routing.unblock_adopted(&spec.selectors))
    }

    /// Takes the guard of one connection down.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn unguard(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        self.guard.unguard(spec)
    }

    /// Whether a guard of this process stands for these selectors.
    pub fn is_guarded(&self, pair: &SelectorPair) -> bool {
        self.guard.is_guarded(pair)
    }

    /// Leads the traffic of a pass shunt around our routes. Counted. What no route or rule can say stays with our routes: it differs in source
    /// address and next hop only.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn pass(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        match self.routing.as_mut().map_or(Ok(()), |routing| routing.pass(pair)) {
            Err(HostError::NotExpressible { selector, reason }) => {
                tracing::debug!(selector, reason, "a pass shunt takes the routes of protected traffic");
                Ok(())
            }
            answer => answer,
        }
    }

    /// Takes back one [`Self::pass`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn unpass(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        match self.routing.as_mut().map_or(Ok(()), |routing| routing.unpass(pair)) {
            Err(HostError::NotExpressible { .. }) => Ok(()),
            answer => answer,
        }
    }

    /// Follows addresses, subnets and routes of the host.
    ///
    /// # Errors
    /// The kernel's refusal; the next call tries again.
    pub fn refresh(&mut self) -> Result<usize, HostError> {
        let interfaces =
            Interfaces::read(&mut self.route).map_err(|refusal| refusal.on("list", "addresses and routes"))?;
        self.outdated |= interfaces != self.interfaces;
        self.interfaces = interfaces;
        let surroundings = self.surroundings();
        // Exemptions first: what a route leads somewhere must be allowed to go there.
        self.guard.surround(surroundings)?;
        if self.outdated {
            self.adapt(None)?;
            self.outdated = false;
        }
        self.routing.as_mut().map_or(Ok(0), |routing| routing.restore_routes(&self.interfaces))
    }

    /// As [`Self::refresh`], if the kernel has told of a change since the last call. Says what somebody else had taken away and stands again:
    /// routes, rules, policies.
    ///
    /// # Errors
    /// What could not be followed or put back; it is tried again at the next call.
    pub fn follow(&mut self) -> Result<Followed, HostError> {
        self.stale |= self.changes.heard(rules::OURS);
        let changed = self.stale.surroundings || self.stale.ways;
        let mut restored = Vec::new();
        let mut note = |count: usize, what: &str| {
            if count > 0 {
                restored.push(format!("{count} {what} had been removed by somebody else"));
            }
        };
        if self.stale.policies {
            note(self.guard.restore()?, "policies of the guard");
        }
        self.stale.policies = false;
        if let Some(routing) = self.routing.as_mut().filter(|_| self.stale.rules) {
            note(routing.restore_rules()?, "routing rules");
        }
        self.stale.rules = false;
        // Where many routes come and go they are not all read for that: only the ways to peers are asked for.
        if self.stale.surroundings {
            note(self.refresh()?, "routes");
        } else if let Some(routing) = self.routing.as_mut().filter(|_| self.stale.ways) {
            routing.follow_ways()?;
        }
        (self.stale.surroundings, self.stale.ways) = (false, false);
        if self.settles.is_some_and(|at| at <= Instant::now()) {
            self.settle()?;
        }
        Ok(Followed { changed, restored })
    }

    /// Lets go of exemptions and routes that an earlier run left and nobody has claimed. Its blocks stay: see [`Self::unclaimed`].
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn settle(&mut self) -> Result<(), HostError> {
        self.guard.ledger().drop_unclaimed(|_, there| there.verdict == Verdict::Allow)?;
        self.routing.as_mut().map_or(Ok(()), Routing::settle)?;
        self.settles = None;
        Ok(())
    }

    /// What an earlier run left in force and nobody has claimed since: traffic that stays blocked.
    pub fn unclaimed(&self) -> Vec<String> {
        self.guard.unclaimed().into_iter().chain(self.routing.iter().flat_map(Routing::unclaimed)).collect()
    }

    /// Removes what an earlier run left and nobody has claimed since; never by itself.
    ///
    /// # Errors
    /// The kernel's refusal; some of it may be gone.
    pub fn drop_unclaimed(&mut self) -> Result<(), HostError> {
        self.guard.drop_unclaimed()?;
        self.routing.as_mut().map_or(Ok(()), Routing::drop_unclaimed)
    }

    /// The first local address inside the local selector.
    pub fn address_inside(&self, pair: &SelectorPair) -> Option<IpAddr> {
        self.interfaces.source_inside(pair.local.addresses)
    }

    /// Removes routes, rules and exemptions; the guard stays or goes as `on_stop` says.
    ///
    /// # Errors
    /// The kernel's refusal; the rest is removed all the same.
    pub fn stop(mut self, on_stop: OnStop) -> Result<(), HostError> {
        let beside = self.clear();
        let guard = match on_stop {
            OnStop::Block => Ok(()),
            OnStop::Open => self.guard.remove_all(),
        };
        beside.and(guard).and(self.routing.as_mut().map_or(Ok(()), |routing| routing.stop(false)))
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings { interfaces: self.interfaces.clone(), tun: None, mark: None, routed: false }
    }
}
