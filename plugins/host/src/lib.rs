//! Everything that touches the host kernel around a data path, whichever backend it belongs to: TUN device, routes, rules, the fail-closed guard, socket options.
//!
//! ```text
//!   LAN ──► route: not fwmark M ─► table 220 ─► cygnet0 ─► datapath ─► socket with mark M and bypass ─► outer link
//!                                      │ (device gone)
//!                                      └► main table ─► default route ─► block policy: dropped
//! ```
//!
//! [`Host`] is what the datapath calls. The order at start: [`Tun::open`] (the device name is the lock between two daemons), [`Host::open`]
//! (adopts leftovers), [`Host::renew_device`]; then [`Host::guard`] before the first [`Host::protect`] of a selector. When the device was
//! lost: [`Tun::open`] and [`Host::renew_device`] again. Once a second or so: [`Host::follow`], one system call while nothing changes.
//!
//! What remains when the process dies: block policies with their exemptions, `unreachable` routes for IPv6, and beside those the rules and
//! `throw` routes. The TUN device and the routes into it are gone, so packets take the default route and meet the block.
//!
//! [`KernelHost`] is the same for IPsec in the kernel, where there is no TUN device.
//!
//! [`devices`] says which device an SA belongs to and what becomes of it; it is for every thread.
//!
//! Everything else blocks and is meant for one control thread. The pure parts for the packet path are in [`icmp`] and [`sockets`].

pub mod devices;
pub mod head;
pub mod icmp;
pub mod probe;
pub mod sockets;

mod error;
mod guard;
mod input_mark;
mod kernel;
mod ledger;
mod links;
pub mod netlink;
mod policy;
pub mod prefix;
mod routes;
mod rules;
mod sysctl;
mod tun;
mod watch;
pub mod xfrm;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipsec::{GuardSpec, OnStop, SelectorPair};

pub use self::error::{HostError, KernelError};
pub use self::kernel::{KernelHost, KernelHostConfig, Routed, Taking};
pub use self::policy::keys as policy_keys;
pub use self::prefix::Family;
pub use self::sockets::{esp_in_udp, set_mark, set_receive_buffer, socket_bypass};
pub use self::tun::{Offloads, Tun, TunConfig};
pub use self::watch::Watch;

use self::guard::Guard;
use self::links::{Changes, Heard, Interfaces};
use self::netlink::Netlink;
use self::policy::Surroundings;
use self::routes::Routing;
use self::rules::Numbers;

/// The part of `[backend.userspace]` that concerns the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// TUN device name.
    pub device: String,
    /// MTU of the TUN device; 0 = derived by the datapath.
    pub mtu: u32,
    /// Our routing table.
    pub table: u32,
    /// Priority of the rule that leads there; the ones before and after it are ours too.
    pub rule_priority: u32,
    /// Mark on outer sockets, and on what the tunnel brings for this host.
    pub mark: u32,
    /// Whether to install routes and rules at all.
    pub install_routes: bool,
    /// UDP ports of IKE; 0 is none.
    pub ike_ports: [u16; 2],
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            device: "cygnet0".to_owned(),
            mtu: 0,
            table: 220,
            rule_priority: 220,
            mark: 0x4347,
            install_routes: true,
            ike_ports: [500, 4500],
        }
    }
}

/// Routes, rules and policies of this process in the host kernel.
///
/// Dropping it leaves everything in place, like a crash; [`Host::stop`] tidies up.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    route: Netlink,
    changes: Changes,
    stale: Heard,
    interfaces: Interfaces,
    tun: Option<u32>,
    marked: bool,
    routing: Option<Routing>,
    guard: Option<Guard>,
    /// Guards that `unreachable` routes are a part of.
    unreachable: BTreeSet<GuardSpec>,
}

/// What [`Host::follow`] has followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Addresses, links or routes have changed.
    pub changed: bool,
    /// What somebody else had taken away and stands again, in words.
    pub restored: Vec<String>,
}

impl Host {
    /// Adopts what an earlier run left, and checks that the routing table is ours alone.
    pub fn open(config: HostConfig) -> Result<Self, HostError> {
        Self::open_with(config, Guard::open(false)?)
    }

    /// As [`Self::open`] on a kernel without XFRM, whatever this kernel has.
    #[doc(hidden)]
    pub fn open_without_xfrm(config: HostConfig) -> Result<Self, HostError> {
        Self::open_with(config, None)
    }

    fn open_with(config: HostConfig, guard: Option<Guard>) -> Result<Self, HostError> {
        check(config.table, config.rule_priority, config.mark)?;
        let families = Family::ALL.into_iter().filter(|family| *family == Family::V4 || sysctl::has_ipv6()).collect();
        let HostConfig { table, rule_priority: priority, mark, ike_ports, .. } = config.clone();
        let numbers = Numbers { table, priority, mark, ike_ports };
        let routing = if config.install_routes { Some(Routing::open(numbers, families)?) } else { None };
        if guard.is_none() {
            tracing::warn!(
                "this kernel has no XFRM: the guard is made of unreachable routes and does not cover forged packets"
            );
        }
        let mut host = Self {
            route: Netlink::open("route", netlink_sys::protocols::NETLINK_ROUTE)?,
            changes: Changes::open(guard.is_some(), false)?,
            stale: Heard::default(),
            interfaces: Interfaces::default(),
            tun: None,
            marked: false,
            unreachable: BTreeSet::new(),
            config,
            routing,
            guard,
        };
        host.read_interfaces()?;
        let surroundings = host.surroundings();
        if let Some(guard) = &mut host.guard {
            guard.surround(surroundings)?;
        }
        if let Some(routing) = &mut host.routing {
            routing.surround_without_device(&host.interfaces);
        }
        Ok(host)
    }

    /// The configuration this was opened with.
    pub fn config(&self) -> &HostConfig {
        &self.config
    }

    /// Whether the guard also stops forged packets from outside: `false` where the kernel has no XFRM.
    pub fn guards_inbound(&self) -> bool {
        self.guard.is_some()
    }

    /// Puts up the fail-closed guard: until [`Self::unguard`] this traffic leaves or enters through the TUN device only. Counted by name.
    pub fn guard(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        if self.needs_unreachable(spec) {
            self.block(spec)?;
        }
        let outcome = self.guard.as_mut().map_or(Ok(()), |guard| guard.guard(spec));
        if outcome.is_err() {
            let _ = self.unblock(spec); // the first error is the one to tell
        }
        outcome
    }

    /// Takes the guard of one connection down.
    pub fn unguard(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        let outcome = self.guard.as_mut().map_or(Ok(()), |guard| guard.unguard(spec));
        outcome.and(self.unblock(spec))
    }

    /// Whether a guard of this process stands for these selectors.
    pub fn is_guarded(&self, pair: &SelectorPair) -> bool {
        let by_policy = self.guard.as_ref().is_some_and(|guard| guard.is_guarded(pair));
        by_policy || self.unreachable.iter().any(|spec| spec.selectors == *pair)
    }

    /// Routes the remote side of a protecting (or trap) policy into the TUN device. Counted.
    pub fn protect(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        self.routing.as_mut().map_or(Ok(()), |routing| routing.protect(pair))
    }

    /// The same for transport mode between two hosts, with a word about what keeps them apart on one link.
    pub fn protect_hosts(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        let peer = pair.remote.addresses.start();
        let near = self.interfaces.connected(self.tun).into_iter().any(|near| near.subnet.range().contains(peer));
        if let Some(filter) = sysctl::strict_filter(&self.config.device).filter(|_| near && peer.is_ipv4()) {
            tracing::warn!(%peer, "the peer is on a link of ours and {filter} is 1: the kernel will not answer its ARP; set it to 2");
        }
        self.routing.as_mut().map_or(Ok(()), |routing| routing.protect(pair))
    }

    /// Takes back one [`Self::protect`]; the guard stays.
    pub fn unprotect(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        self.routing.as_mut().map_or(Ok(()), |routing| routing.unprotect(pair))
    }

    /// Leads the traffic of a pass shunt around the TUN device and through less specific guards. Counted.
    ///
    /// Fails with [`HostError::NotExpressible`] for what neither a route nor a rule can say; nothing is changed then.
    pub fn pass(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        if let Some(routing) = &mut self.routing {
            routing.pass(pair)?;
        }
        let outcome = self.guard.as_mut().map_or(Ok(()), |guard| guard.pass(pair));
        if let (Err(_), Some(routing)) = (&outcome, &mut self.routing) {
            let _ = routing.unpass(pair); // the first error is the one to tell
        }
        outcome
    }

    /// Takes back one [`Self::pass`].
    pub fn unpass(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        let guard = self.guard.as_mut().map_or(Ok(()), |guard| guard.unpass(pair));
        self.routing.as_mut().map_or(Ok(()), |routing| routing.unpass(pair)).and(guard)
    }

    /// Tells of the outer addresses of an SA, which matter where a protected prefix covers the peer's. Counted.
    pub fn outer(&mut self, local: IpAddr, remote: IpAddr) -> Result<(), HostError> {
        self.routing.as_mut().map_or(Ok(()), |routing| routing.outer(local, remote))
    }

    /// Takes back one [`Self::outer`].
    pub fn forget_outer(&mut self, local: IpAddr, remote: IpAddr) -> Result<(), HostError> {
        self.routing.as_mut().map_or(Ok(()), |routing| routing.forget_outer(local, remote))
    }

    /// Points routes and exemptions at the TUN device, or at none. Also re-reads addresses and puts back what vanished.
    ///
    /// The same index again is harmless.
    pub fn renew_device(&mut self, ifindex: Option<u32>) -> Result<(), HostError> {
        self.tun = ifindex;
        if ifindex.is_some() {
            self.prepare_device()?;
        }
        self.refresh()
    }

    /// Follows changes of the host's addresses, subnets and default routes.
    pub fn refresh(&mut self) -> Result<(), HostError> {
        self.read_interfaces()?;
        let surroundings = self.surroundings();
        // Exemptions first: what a route sends into the device must be allowed to leave through it.
        if let Some(guard) = &mut self.guard {
            guard.surround(surroundings)?;
        }
        self.routing.as_mut().map_or(Ok(()), |routing| routing.surround(self.tun, &self.interfaces))
    }

    /// As [`Self::refresh`], if the kernel has told of a change since the last call. Says what somebody else had taken away and stands again:
    /// routes, rules, policies.
    ///
    /// # Errors
    /// What could not be followed or put back; it is tried again at the next call.
    pub fn follow(&mut self) -> Result<Followed, HostError> {
        self.stale |= self.changes.heard(rules::OURS);
        let changed = self.stale.surroundings;
        let mut restored = Vec::new();
        let mut note = |count: usize, what: &str| {
            if count > 0 {
                restored.push(format!("{count} {what} had been removed by somebody else"));
            }
        };
        // The guard comes first: what is led nowhere meets it.
        if let Some(guard) = self.guard.as_mut().filter(|_| self.stale.policies) {
            note(guard.restore()?, "policies of the guard");
        }
        self.stale.policies = false;
        if let Some(routing) = self.routing.as_mut().filter(|_| self.stale.rules) {
            note(routing.restore_rules()?, "routing rules");
        }
        self.stale.rules = false;
        if self.stale.surroundings {
            note(self.refresh_counting()?, "routes");
        }
        self.stale.surroundings = false;
        Ok(Followed { changed, restored })
    }

    fn refresh_counting(&mut self) -> Result<usize, HostError> {
        self.read_interfaces()?;
        let surroundings = self.surroundings();
        // Exemptions first: what a route sends into the device must be allowed to leave through it.
        if let Some(guard) = &mut self.guard {
            guard.surround(surroundings)?;
        }
        self.routing.as_mut().map_or(Ok(0), |routing| routing.restore_routes(&self.interfaces))
    }

    /// What an earlier run left in force and nobody has claimed since: traffic that stays blocked.
    pub fn unclaimed(&self) -> Vec<String> {
        let policies = self.guard.as_ref().map(Guard::unclaimed).unwrap_or_default();
        policies.into_iter().chain(self.routing.iter().flat_map(Routing::unclaimed)).collect()
    }

    /// Removes what an earlier run left and nobody has claimed since.
    ///
    /// Never by itself: a connection that is missing or refused now may be one with a slip in its file, and its traffic stays blocked until
    /// somebody says that it may flow.
    pub fn drop_unclaimed(&mut self) -> Result<(), HostError> {
        if let Some(guard) = &mut self.guard {
            guard.drop_unclaimed()?;
        }
        self.routing.as_mut().map_or(Ok(()), Routing::drop_unclaimed)
    }

    /// A gateway address inside the local selector, for ICMP errors to LAN hosts.
    pub fn gateway_address(&self, pair: &SelectorPair) -> Option<IpAddr> {
        self.interfaces.source_inside(pair.local.addresses)
    }

    /// Removes routes and rules; the guard stays or goes as `on_stop` says.
    pub fn stop(mut self, on_stop: OnStop) -> Result<(), HostError> {
        let keep = match on_stop {
            OnStop::Block => true,
            OnStop::Open => false,
        };
        let guard = self
            .guard
            .as_mut()
            .map_or(Ok(()), |guard| if keep { guard.remove_device_policies() } else { guard.remove_all() });
        let routing = self.routing.as_mut().map_or(Ok(()), |routing| routing.stop(keep));
        let mark = if self.marked { input_mark::remove(&self.config.device) } else { Ok(()) };
        guard.and(routing).and(mark)
    }

    /// Without XFRM there is nothing else; and policies do not see the egress of the gateway's own IPv6 packets.
    fn needs_unreachable(&self, spec: &GuardSpec) -> bool {
        self.guard.is_none() || (self.routing.is_some() && !spec.selectors.remote.addresses.is_ipv4())
    }

    fn block(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        if self.unreachable.contains(spec) {
            return Ok(());
        }
        let Some(routing) = &mut self.routing else {
            return Err(HostError::Setting {
                setting: "install_routes",
                value: false.to_string(),
                reason: "this kernel has no XFRM, so the guard needs routes (or set fail_closed = \"off\")",
            });
        };
        routing.block(&spec.selectors)?;
        self.unreachable.insert(spec.clone());
        Ok(())
    }

    fn unblock(&mut self, spec: &GuardSpec) -> Result<(), HostError> {
        if !self.unreachable.remove(spec) {
            return Ok(());
        }
        self.routing.as_mut().map_or(Ok(()), |routing| routing.unblock(&spec.selectors))
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            interfaces: self.interfaces.clone(),
            tun: self.tun,
            mark: self.marked.then_some(self.config.mark),
            routed: self.routing.is_some(),
        }
    }

    fn read_interfaces(&mut self) -> Result<(), HostError> {
        self.interfaces =
            Interfaces::read(&mut self.route).map_err(|refusal| refusal.on("list", "addresses and routes"))?;
        Ok(())
    }

    /// What comes out of the device was decapsulated and checked by us: the kernel's policies must not look at it again.
    fn prepare_device(&mut self) -> Result<(), HostError> {
        if self.guard.is_none() {
            return Ok(());
        }
        let device = &self.config.device;
        sysctl::write(&sysctl::ipv4(device, "disable_policy"), "1")?;
        sysctl::write(&sysctl::ipv4(device, "disable_xfrm"), "1")?;
        if sysctl::has_ipv6() {
            sysctl::write(&sysctl::ipv6(device, "disable_policy"), "1")?;
            if let Err(error) = input_mark::set(device, self.config.mark) {
                self.marked = false;
                tracing::warn!(%error, device, "guarded IPv6 traffic through the tunnel cannot reach addresses of this host itself");
            } else {
                self.marked = true;
            }
        }
        Ok(())
    }
}

fn check(table: u32, rule_priority: u32, mark: u32) -> Result<(), HostError> {
    let refuse = |setting, value: u32, reason| Err(HostError::Setting { setting, value: value.to_string(), reason });
    if matches!(table, 0 | 253..=255) {
        return refuse("table", table, "this table is the system's own");
    }
    if !(2..=32_764).contains(&rule_priority) {
        return refuse("rule_priority", rule_priority, "must be from 2 to 32764, before the rule of the main table");
    }
    if mark == 0 {
        return refuse("mark", mark, "a mark of 0 tells nothing apart");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_harm_the_system_are_refused() {
        let refused = |table, rule, mark| check(table, rule, mark).unwrap_err().to_string();
        let HostConfig { table, rule_priority, mark, .. } = HostConfig::default();
        assert!(check(table, rule_priority, mark).is_ok());
        assert!(refused(254, rule_priority, mark).contains("table = 254"));
        assert!(refused(table, 1, mark).contains("rule_priority = 1"));
        assert!(refused(table, 32_765, mark).contains("rule_priority"));
        assert!(refused(table, rule_priority, 0).contains("mark = 0"));
    }
}
