//! Rules that lead around the table: for sources that no protecting policy can mean, and for IKE and ESP between hosts that are protected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipsec::{AddressRange, SelectorPair};

use super::super::error::HostError;
use super::super::links::Interfaces;
use super::super::prefix::{Family, Prefix};
use super::super::rules::{self, Around, Rule};
use super::shunt::{around, is_whole};
use super::{Lead, Routing};

impl Routing {
    /// Keeps those out of the prefixes that hold the way to the outside whom no protecting policy can mean.
    pub(super) fn apply_sources(&mut self) -> Result<(), HostError> {
        let wanted = self.source_rules();
        for rule in wanted.difference(&self.sources) {
            rules::add(&mut self.route, rule, &self.numbers)?;
        }
        for rule in self.sources.difference(&wanted) {
            rules::delete(&mut self.route, rule, &self.numbers)?;
        }
        self.sources = wanted;
        Ok(())
    }

    pub(super) fn source_rules(&self) -> BTreeSet<Rule> {
        let Interfaces { addresses, outside } = &self.interfaces;
        let near = self.interfaces.connected(self.tun());
        let outer = near.iter().filter(|near| outside.contains(&near.link)).map(|near| near.subnet);
        let wide: BTreeSet<_> = outer
            .chain(Family::ALL.map(Prefix::any))
            .flat_map(Prefix::ancestors)
            .filter(|prefix| self.protects.contains_key(prefix) || self.blocks.contains_key(prefix))
            .collect();
        if wide.is_empty() {
            return BTreeSet::new();
        }
        let unknown = |source: &Prefix| !self.locals.keys().any(|local| source.intersects(*local));
        let own = addresses.iter().map(|own| Prefix::host(own.address));
        let sources: BTreeSet<_> = near.iter().map(|near| near.subnet).chain(own).filter(unknown).collect();
        let pairs = sources.iter().flat_map(|from| wide.iter().map(move |to| (*from, *to)));
        pairs
            .filter(|(from, to)| from.family() == to.family())
            .map(|(from, to)| Rule::Around(Around::all(from, to)))
            .collect()
    }

    /// Whether traffic between just these two hosts is protected: then only IKE and ESP may go around our table.
    pub(super) fn is_exact(&self, local: IpAddr, remote: IpAddr) -> bool {
        let exact = |pair: &SelectorPair| hosts(pair) == Some((local, remote));
        self.protects.get(&Prefix::host(remote)).is_some_and(|pairs| pairs.keys().any(exact))
    }

    /// Keeps IKE and ESP between two hosts out of our table while all else between them is protected, for the check of the way back.
    pub(super) fn apply_exact(&mut self, pair: &SelectorPair) -> Result<(), HostError> {
        let Some((local, remote)) = hosts(pair).filter(|(local, _)| local.is_ipv4()) else { return Ok(()) };
        let exact = self.is_exact(local, remote);
        for own in Around::keying(local, remote, self.numbers.ike_ports) {
            let wanted = exact || self.is_passed_by_rule(own);
            self.apply_rule(Rule::Around(own), wanted)?;
        }
        self.apply_outer(local, remote)
    }

    pub(super) fn is_passed_by_rule(&self, rule: Around) -> bool {
        let by_rule = self.passes.iter().filter(|(pair, pass)| !is_whole(pair) || pass.conflicts > 0);
        by_rule.filter_map(|(pair, _)| around(pair).ok()).flatten().any(|passed| passed == rule)
    }

    pub(super) fn is_keying(&self, rule: Around) -> bool {
        let pairs = self.protects.values().flat_map(BTreeMap::keys).filter_map(hosts);
        pairs.flat_map(|(local, remote)| Around::keying(local, remote, self.numbers.ike_ports)).any(|own| own == rule)
    }

    pub(super) fn apply_outer(&mut self, local: IpAddr, remote: IpAddr) -> Result<(), HostError> {
        let covered = self.is_covered(Prefix::host(remote)) && !self.is_exact(local, remote);
        let wanted = self.outer.contains_key(&(local, remote)) && covered;
        // IPv6 has no rp_filter in its routing; but where the kernel does IPsec its packets are not marked.
        let concerned = local.is_ipv4() || matches!(self.lead, Lead::Peer(_));
        if concerned && local.is_ipv4() == remote.is_ipv4() {
            self.apply_rule(Rule::Around(Around::outer(local, remote)), wanted)?;
        }
        Ok(())
    }

    pub(super) fn apply_rule(&mut self, rule: Rule, wanted: bool) -> Result<(), HostError> {
        if wanted == self.rules.contains(&rule) {
            return Ok(());
        }
        if wanted {
            rules::add(&mut self.route, &rule, &self.numbers)?;
            self.rules.insert(rule);
        } else {
            rules::delete(&mut self.route, &rule, &self.numbers)?;
            self.rules.remove(&rule);
        }
        Ok(())
    }
}

/// The two hosts of a pair that names exactly one on each side.
fn hosts(pair: &SelectorPair) -> Option<(IpAddr, IpAddr)> {
    let one = |range: AddressRange| (range == AddressRange::host(range.start())).then_some(range.start());
    Some((one(pair.local.addresses)?, one(pair.remote.addresses)?))
}
