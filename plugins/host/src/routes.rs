//! Protected routes, and the `throw` routes that give back what they must not take.
//!
//! Our table holds `remote dev TUN src A`, with A the first local address inside the local selector. Two children with the same remote
//! prefix share the route. A `throw` route sends the lookup on to the next rule: for connected subnets and link-scope addresses inside a
//! wider protected prefix, and for pass shunts. Where shunt and protecting policy differ in their local side only, or name ports, a rule does it.
//!
//! A protected prefix that holds the way to the outside, above all the default route, would take everybody's traffic, also of sources no
//! protecting policy knows. Own addresses and connected subnets outside every local selector go around it by rules.
//!
//! Where the kernel does IPsec there is no TUN: the route is the one to the peer, with the same source, and none where no local address is inside
//! the local selector, for then there is nothing that it would say (see [`hops`]).
//!
//! The table is ours alone: opening fails when it holds a route that does not carry our protocol number. It also holds a part of the guard:
//! `unreachable` routes of the worst metric, which take over when the TUN device goes and its routes with it. They are all there is where
//! the kernel has no XFRM, and what holds back IPv6 packets of the gateway itself, of which the kernel's policies do not see the egress.

mod detours;
mod hops;
mod message;
mod shunt;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipsec::{AddressRange, SelectorPair};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::error::HostError;
use super::links::{self, Interfaces};
use super::netlink::Netlink;
use super::prefix::{Family, Prefix, prefixes};
use super::rules::{self, Numbers, OURS, Rule};
use hops::Hops;
use message::{describe, destination, remove};
use shunt::{around, is_whole, overlap};

/// Metric of the routes that block.
const WORST: u32 = u32::MAX;

/// Our routes and rules.
#[derive(Debug)]
pub(super) struct Routing {
    route: Netlink,
    numbers: Numbers,
    families: Vec<Family>,
    lead: Lead,
    interfaces: Interfaces,
    protects: BTreeMap<Prefix, BTreeMap<SelectorPair, usize>>,
    passes: BTreeMap<SelectorPair, Pass>,
    outer: BTreeMap<(IpAddr, IpAddr), usize>,
    locals: BTreeMap<AddressRange, usize>,
    blocks: BTreeMap<Prefix, usize>,
    routes: BTreeMap<Prefix, Target>,
    blocking: BTreeSet<Prefix>,
    /// Blocking routes of an earlier run that nobody has claimed yet.
    unclaimed: BTreeSet<Prefix>,
    rules: BTreeSet<Rule>,
    sources: BTreeSet<Rule>,
}

/// Where protected traffic is led.
#[derive(Debug)]
enum Lead {
    /// Into the TUN device, while there is one.
    Device(Option<u32>),
    /// The way of the peer.
    Peer(Hops),
}

/// Where a route of ours leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Out { link: u32, gateway: Option<IpAddr>, source: Option<IpAddr> },
    Throw,
}

#[derive(Debug)]
struct Pass {
    count: usize,
    /// Protecting policies whose traffic a route for the whole remote prefix would also let go.
    conflicts: usize,
}

impl Routing {
    /// Opens our table: refuses when somebody else uses it, and adopts what a crashed run left.
    pub(super) fn open(numbers: Numbers, families: Vec<Family>) -> Result<Self, HostError> {
        Self::open_with(numbers, families, Lead::Device(None))
    }

    /// As [`Self::open`] where protected traffic takes the way of the peer.
    pub(super) fn open_by_peer(numbers: Numbers, families: Vec<Family>) -> Result<Self, HostError> {
        Self::open_with(numbers, families, Lead::Peer(Hops::open(numbers.mark)?))
    }

    fn open_with(numbers: Numbers, families: Vec<Family>, lead: Lead) -> Result<Self, HostError> {
        let mut routing = Self {
            route: Netlink::open("route", NETLINK_ROUTE)?,
            numbers,
            families,
            lead,
            interfaces: Interfaces::default(),
            protects: BTreeMap::new(),
            passes: BTreeMap::new(),
            outer: BTreeMap::new(),
            locals: BTreeMap::new(),
            blocks: BTreeMap::new(),
            routes: BTreeMap::new(),
            blocking: BTreeSet::new(),
            unclaimed: BTreeSet::new(),
            rules: BTreeSet::new(),
            sources: BTreeSet::new(),
        };
        routing.read_table(None)?;
        routing.unclaimed = routing.blocking.clone();
        if let Lead::Peer(hops) = &mut routing.lead {
            hops.keep(&routing.routes);
        }
        let basic: Vec<_> =
            routing.families.iter().flat_map(|family| [Rule::Landing(*family), Rule::Lookup(*family)]).collect();
        rules::clean(&mut routing.route, &basic, &numbers)?;
        for rule in basic {
            rules::add(&mut routing.route, &rule, &numbers)?;
        }
        Ok(routing)
    }

    /// Routes the remote side of a protecting policy into the TUN device.
    pub(super) fn protect(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        let remote = prefixes(pair.remote.addresses);
        for prefix in &remote {
            count_up(self.protects.entry(*prefix).or_default(), *pair);
        }
        count_up(&mut self.locals, pair.local.addresses);
        let outcome = self.apply_protect(pair, &remote);
        if outcome.is_err() {
            let _ = self.unprotect(pair); // the first error is the one to tell
        }
        outcome
    }

    /// Takes back one [`Self::protect`].
    pub(super) fn unprotect(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        let remote = prefixes(pair.remote.addresses);
        let is_known = |prefix| self.protects.get(prefix).is_some_and(|pairs| pairs.contains_key(pair));
        if !remote.iter().all(is_known) {
            return Ok(());
        }
        for prefix in &remote {
            if let Some(pairs) = self.protects.get_mut(prefix) {
                count_down(pairs, pair);
                if pairs.is_empty() {
                    self.protects.remove(prefix);
                }
            }
        }
        count_down(&mut self.locals, &pair.local.addresses);
        self.apply_protect(pair, &remote)
    }

    /// Leads a pass shunt around the TUN device.
    pub(super) fn pass(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        around(pair)?;
        if let Some(pass) = self.passes.get_mut(pair) {
            pass.count += 1;
            return Ok(());
        }
        self.passes.insert(*pair, Pass { count: 1, conflicts: 0 });
        self.count_conflicts(pair);
        let outcome = self.apply_pass(pair);
        if outcome.is_err() {
            let _ = self.unpass(pair); // the first error is the one to tell
        }
        outcome
    }

    /// Takes back one [`Self::pass`].
    pub(super) fn unpass(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        let Some(pass) = self.passes.get_mut(pair) else { return Ok(()) };
        pass.count -= 1;
        if pass.count > 0 {
            return Ok(());
        }
        self.passes.remove(pair);
        self.apply_pass(pair)
    }

    /// Keeps the way between two outer addresses out of our table, if a protected prefix covers the peer.
    ///
    /// Our own sockets are marked; this is for the check of the way back to the sender that rp_filter makes for arriving packets.
    pub(super) fn outer(&mut self, local: IpAddr, remote: IpAddr) -> Result<(), HostError> {
        count_up(&mut self.outer, (local, remote));
        let outcome = self.apply_outer(local, remote);
        if outcome.is_err() {
            let _ = self.forget_outer(local, remote); // the first error is the one to tell
        }
        outcome
    }

    /// Takes back one [`Self::outer`].
    pub(super) fn forget_outer(&mut self, local: IpAddr, remote: IpAddr) -> Result<(), HostError> {
        count_down(&mut self.outer, &(local, remote));
        self.apply_outer(local, remote)
    }

    /// Makes the remote side unreachable while it is not routed into the TUN device: a part of the guard.
    pub(super) fn block(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        for prefix in prefixes(pair.remote.addresses) {
            count_up(&mut self.blocks, prefix);
            self.unclaimed.remove(&prefix);
        }
        count_up(&mut self.locals, pair.local.addresses);
        let outcome = self.apply_blocks(pair);
        if outcome.is_err() {
            let _ = self.unblock(pair); // the first error is the one to tell
        }
        outcome
    }

    /// Takes back one [`Self::block`].
    pub(super) fn unblock(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        for prefix in prefixes(pair.remote.addresses) {
            count_down(&mut self.blocks, &prefix);
        }
        count_down(&mut self.locals, &pair.local.addresses);
        self.apply_blocks(pair)
    }

    /// Takes the addresses as they are while there is no device yet; adopted routes stay until claimed or dropped.
    pub(super) fn surround_without_device(&mut self, interfaces: &Interfaces) {
        self.interfaces = interfaces.clone();
    }

    /// Follows the TUN device and the addresses of the host; also puts back what vanished from the table.
    pub(super) fn surround(&mut self, tun: Option<u32>, interfaces: &Interfaces) -> Result<(), HostError> {
        if let Lead::Device(device) = &mut self.lead {
            *device = tun;
        }
        self.look_around(interfaces)?;
        self.apply_all()
    }

    /// Puts back the rules that somebody else has removed. Gives how many those were.
    pub(super) fn restore_rules(&mut self) -> Result<usize, HostError> {
        let basic = self.families.iter().flat_map(|family| [Rule::Landing(*family), Rule::Lookup(*family)]);
        let all: Vec<_> = basic.chain(self.rules.iter().copied()).chain(self.sources.iter().copied()).collect();
        let mut restored = 0;
        for rule in all {
            restored += usize::from(rules::add(&mut self.route, &rule, &self.numbers)?);
        }
        Ok(restored)
    }

    /// As [`Self::surround`] with the device as it was. Gives how many of our routes had vanished.
    pub(super) fn restore_routes(&mut self, interfaces: &Interfaces) -> Result<usize, HostError> {
        let before = (self.routes.clone(), self.blocking.clone());
        self.look_around(interfaces)?;
        let routes = before.0.keys().filter(|prefix| !self.routes.contains_key(prefix)).count();
        let blocks = before.1.iter().filter(|prefix| !self.blocking.contains(prefix)).count();
        self.apply_all().map(|()| routes + blocks)
    }

    fn look_around(&mut self, interfaces: &Interfaces) -> Result<(), HostError> {
        self.interfaces = interfaces.clone();
        if let Lead::Peer(hops) = &mut self.lead {
            hops.look_again()?;
        }
        self.read_table(Some(self.numbers.table))
    }

    fn tun(&self) -> Option<u32> {
        match &self.lead {
            Lead::Device(tun) => *tun,
            Lead::Peer(_) => None,
        }
    }

    /// Blocking routes of an earlier run that nobody has claimed since the start.
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = String> {
        self.unclaimed.iter().map(|prefix| format!("unreachable {prefix}"))
    }

    /// Removes leftovers that nobody has claimed since the start.
    pub(super) fn drop_unclaimed(&mut self) -> Result<(), HostError> {
        self.unclaimed.clear();
        if let Lead::Peer(hops) = &mut self.lead {
            hops.let_go();
        }
        self.apply_all()
    }

    /// Removes routes and rules; with `keep_blocks`, those stay that keep blocked traffic blocked, and the shunts beside them.
    pub(super) fn stop(&mut self, keep_blocks: bool) -> Result<(), HostError> {
        self.protects.clear();
        if let Lead::Peer(hops) = &mut self.lead {
            hops.clear();
        }
        let outer: Vec<_> = std::mem::take(&mut self.outer).into_keys().collect();
        let mut outcome = outer.into_iter().try_for_each(|(local, remote)| self.apply_outer(local, remote));
        if !keep_blocks {
            self.blocks.clear();
            self.unclaimed.clear();
        }
        if self.blocks.is_empty() {
            self.passes.clear();
        }
        outcome = outcome.and(self.apply_all());
        if self.blocking.is_empty() {
            let basic = self.families.iter().flat_map(|family| [Rule::Lookup(*family), Rule::Landing(*family)]);
            let rules: Vec<_> = self.rules.iter().copied().chain(basic).collect();
            for rule in rules {
                outcome = outcome.and(rules::delete(&mut self.route, &rule, &self.numbers));
            }
            self.rules.clear();
        }
        outcome
    }

    /// What the kernel holds of ours; a foreign route in our table is an error, ours in another table or to another device go.
    fn read_table(&mut self, only: Option<u32>) -> Result<(), HostError> {
        let listed = links::routes(&mut self.route, only).map_err(|refusal| refusal.on("list", "routes"))?;
        self.routes.clear();
        self.blocking.clear();
        for message in listed {
            let (ours, table) = (message.header.protocol == OURS, links::table(&message));
            match (ours, table == self.numbers.table) {
                (false, true) => {
                    return Err(HostError::ForeignRoute { table, route: describe(&message) });
                }
                (false, false) => {}
                (true, true) => self.adopt(&message)?,
                (true, false) => remove(&mut self.route, &message)?,
            }
        }
        Ok(())
    }

    fn adopt(&mut self, message: &RouteMessage) -> Result<(), HostError> {
        let Some(prefix) = destination(message) else { return Ok(()) };
        let (mut link, mut gateway, mut source) = (None, None, None);
        for attribute in &message.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                link = Some(*index);
            } else if let RouteAttribute::Gateway(address) = attribute {
                gateway = links::ip(address);
            } else if let RouteAttribute::PrefSource(address) = attribute {
                source = links::ip(address);
            }
        }
        match (message.header.kind, link) {
            (RouteType::Throw, _) => {
                self.routes.insert(prefix, Target::Throw);
            }
            (RouteType::Unreachable, _) => {
                self.blocking.insert(prefix);
            }
            (RouteType::Unicast, Some(link)) if self.leads_to(link) => {
                self.routes.insert(prefix, Target::Out { link, gateway, source });
            }
            _ => remove(&mut self.route, message)?,
        }
        Ok(())
    }

    fn leads_to(&self, link: u32) -> bool {
        match &self.lead {
            Lead::Device(tun) => *tun == Some(link),
            Lead::Peer(_) => true,
        }
    }

    fn apply_all(&mut self) -> Result<(), HostError> {
        let mut all: BTreeSet<Prefix> = self.protects.keys().chain(self.routes.keys()).copied().collect();
        all.extend(self.throw_candidates());
        let mut outcome = all.into_iter().try_for_each(|prefix| self.apply(prefix));
        let blocks: BTreeSet<_> = self.blocks.keys().chain(&self.blocking).copied().collect();
        outcome = outcome.and(blocks.into_iter().try_for_each(|prefix| self.apply_block(prefix)));
        let outer: Vec<_> = self.outer.keys().copied().collect();
        outcome = outcome.and(outer.into_iter().try_for_each(|(local, remote)| self.apply_outer(local, remote)));
        outcome.and(self.apply_sources())
    }

    /// After a change of what is protected or blocked at `prefixes`: those, and what lies inside them.
    fn apply_under(&mut self, changed: &[Prefix]) -> Result<(), HostError> {
        let inside = |other: Prefix| changed.iter().any(|prefix| prefix.covers(other));
        let mut all: BTreeSet<_> = self.throw_candidates().into_iter().filter(|prefix| inside(*prefix)).collect();
        all.extend(changed);
        all.into_iter().try_for_each(|prefix| self.apply(prefix))?;
        let outer: Vec<_> = self.outer.keys().filter(|(_, remote)| inside(Prefix::host(*remote))).copied().collect();
        outer.into_iter().try_for_each(|(local, remote)| self.apply_outer(local, remote))
    }

    fn apply_protect(&mut self, pair: &SelectorPair, remote: &[Prefix]) -> Result<(), HostError> {
        self.count_conflicts(pair);
        self.apply_sources()?;
        // IKE and ESP of two protected hosts are let out of our table before the rest is led into it.
        self.apply_exact(pair)?;
        self.apply_under(remote)?;
        let touched: Vec<_> = self.passes.keys().filter(|pass| overlap(&pass.remote, &pair.remote)).copied().collect();
        touched.iter().try_for_each(|pass| self.apply_pass(pass))
    }

    fn apply_blocks(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        let remote = prefixes(pair.remote.addresses);
        self.apply_sources()?;
        remote.iter().try_for_each(|prefix| self.apply_block(*prefix))?;
        self.apply_under(&remote)
    }

    fn apply(&mut self, prefix: Prefix) -> Result<(), HostError> {
        let wanted = self.target(prefix);
        let there = self.routes.get(&prefix).copied();
        if wanted == there {
            return Ok(());
        }
        // IPv6 cannot replace a route by one of another kind.
        let in_place = matches!((there, wanted), (Some(Target::Out { .. }), Some(Target::Out { .. })));
        if let Some(target) = there.filter(|_| !in_place || prefix.family() == Family::V6) {
            let message = self.message(prefix, target);
            remove(&mut self.route, &message)?;
            self.routes.remove(&prefix);
        }
        if let Some(target) = wanted {
            let message = self.message(prefix, target);
            message::add(&mut self.route, &message)?;
            self.routes.insert(prefix, target);
        }
        Ok(())
    }

    /// What our table ought to say about exactly this prefix.
    fn target(&self, prefix: Prefix) -> Option<Target> {
        let pairs = self.protects.get(&prefix);
        let exact = AddressRange::prefix(prefix.address(), prefix.length());
        let by_name = pairs.is_some_and(|pairs| pairs.keys().any(|pair| Some(pair.remote.addresses) == exact));
        // A block of just this prefix counts as named too: better cut off than in clear.
        let by_name = by_name || self.is_blocked(prefix);
        if !by_name && self.is_covered(prefix) && self.is_thrown(prefix) {
            return Some(Target::Throw);
        }
        let source = |pair: &SelectorPair| self.interfaces.source_inside(pair.local.addresses);
        match &self.lead {
            Lead::Device(tun) => {
                let (pairs, link) = (pairs?, (*tun)?);
                Some(Target::Out { link, gateway: None, source: pairs.keys().find_map(source) })
            }
            Lead::Peer(hops) => match pairs {
                Some(pairs) => pairs.keys().find_map(|pair| hops.target(pair, source(pair)?)),
                None => hops.kept(prefix),
            },
        }
    }

    fn is_covered(&self, prefix: Prefix) -> bool {
        prefix.ancestors().any(|around| self.protects.contains_key(&around) || self.is_blocked(around))
    }

    fn is_blocked(&self, prefix: Prefix) -> bool {
        self.blocks.contains_key(&prefix) || self.unclaimed.contains(&prefix)
    }

    fn is_thrown(&self, prefix: Prefix) -> bool {
        let connected = || self.interfaces.connected(self.tun()).iter().any(|near| near.subnet == prefix);
        let mut passed = self.passes.iter().filter(|(pair, pass)| is_whole(pair) && pass.conflicts == 0);
        link_scope().contains(&prefix)
            || connected()
            || passed.any(|(pair, _)| prefixes(pair.remote.addresses).contains(&prefix))
    }

    fn throw_candidates(&self) -> BTreeSet<Prefix> {
        let mut out = BTreeSet::from(link_scope());
        out.extend(self.interfaces.connected(self.tun()).iter().map(|near| near.subnet));
        out.extend(self.passes.keys().filter(|pair| is_whole(pair)).flat_map(|pair| prefixes(pair.remote.addresses)));
        out
    }

    /// Counts again what stands between pass shunts and a plain `throw` route, after `changed` came or went.
    fn count_conflicts(&mut self, changed: &SelectorPair) {
        let protects: BTreeSet<_> = if self.passes.is_empty() {
            BTreeSet::new()
        } else {
            self.protects.values().flat_map(BTreeMap::keys).collect()
        };
        for (pass, state) in &mut self.passes {
            if overlap(&pass.remote, &changed.remote) {
                let conflict =
                    |pair: &&&SelectorPair| overlap(&pass.remote, &pair.remote) && !pass.local.contains(&pair.local);
                state.conflicts = protects.iter().filter(conflict).count();
            }
        }
    }

    fn apply_pass(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        self.apply_under(&prefixes(pair.remote.addresses))?;
        self.apply_pass_rules(pair)
    }

    fn apply_pass_rules(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        let wanted = self.passes.get(pair).is_some_and(|pass| !is_whole(pair) || pass.conflicts > 0);
        for around in around(pair)? {
            let wanted = wanted || self.is_keying(around);
            self.apply_rule(Rule::Around(around), wanted)?;
        }
        Ok(())
    }

    fn apply_block(&mut self, prefix: Prefix) -> Result<(), HostError> {
        let wanted = self.is_blocked(prefix);
        if wanted == self.blocking.contains(&prefix) {
            return Ok(());
        }
        let mut message = message::blank(self.numbers.table, prefix);
        message.header.kind = RouteType::Unreachable;
        message.attributes.push(RouteAttribute::Priority(WORST));
        if wanted {
            message::add(&mut self.route, &message)?;
            self.blocking.insert(prefix);
        } else {
            remove(&mut self.route, &message)?;
            self.blocking.remove(&prefix);
        }
        Ok(())
    }

    fn message(&self, prefix: Prefix, target: Target) -> RouteMessage {
        let mut message = message::blank(self.numbers.table, prefix);
        match target {
            Target::Throw => message.header.kind = RouteType::Throw,
            Target::Out { link, gateway, source } => {
                message.header.kind = RouteType::Unicast;
                message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
                message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
                message.attributes.push(RouteAttribute::Oif(link));
                message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
            }
        }
        message
    }
}

fn count_up<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Multicast, broadcast and link-local addresses, which have no business in a tunnel by way of a wider prefix.
fn link_scope() -> [Prefix; 4] {
    [
        Prefix::new([224, 0, 0, 0].into(), 4),
        Prefix::host([255; 4].into()),
        Prefix::new([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 10),
        Prefix::new([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    ]
}

#[cfg(test)]
mod tests;
