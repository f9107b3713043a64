//! What is known across the IKE SAs of a shard: who waits for which answer, which IKE SA owns which CHILD SA, and who is established.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ike_model::{Connection, Identity};
use ipsec::{GuardSpec, Instant, Op, SelectorPair, Tag};

use crate::admission::TableSpace;
use crate::counters::CounterTable;
use crate::directory::DirectoryEntry;
use crate::farewell::Farewells;
use crate::listing::Listing;
use crate::switch::Switches;
use crate::tally::Tally;
use crate::turn::Purpose;
use crate::work::WorkId;

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Requests that the backend has not answered.
    pub(crate) waiting: BTreeMap<Tag, Purpose>,
    /// Work under way, with our SPI of the IKE SA that waits for it.
    pub(crate) working: BTreeMap<WorkId, u64>,
    /// The IKE SA, by our SPI, of each CHILD SA.
    pub(crate) home: BTreeMap<u32, u64>,
    /// Established IKE SAs, also those of other shards.
    pub(crate) established: Established,
    /// Identities of IKE SAs that we are authenticating, by unique id.
    pub(crate) connecting: BTreeMap<u32, (Identity, Identity)>,
    /// Our addresses as last told by the driver.
    pub(crate) local_addresses: Arc<[IpAddr]>,
    /// Outbound SAs in use, and those that wait to be.
    pub(crate) switches: Switches,
    /// What the guards that stand cover, by connection and child.
    pub(crate) guards: BTreeMap<Arc<str>, BTreeSet<SelectorPair>>,
    /// How full the tables of devices are, counted over all shards.
    pub(crate) tables: Arc<TableSpace>,
    /// What is counted of messages, over all shards.
    pub(crate) tally: Arc<Tally>,
    /// What is counted of them here, by connection.
    pub(crate) counters: CounterTable,
    /// SAs that are being removed and whose last counters are still to come.
    pub(crate) farewells: Farewells,
    /// The comparison of what the backend holds.
    pub(crate) listing: Listing,
}

/// Established IKE SAs by unique id, by connection and by the peer's identity.
#[derive(Debug, Default)]
pub(crate) struct Established {
    by_id: BTreeMap<u32, DirectoryEntry>,
    by_connection: BTreeMap<String, BTreeSet<u32>>,
    by_peer: BTreeMap<Identity, BTreeSet<u32>>,
}

impl Established {
    pub(crate) fn insert(&mut self, entry: DirectoryEntry) {
        self.by_connection.entry(entry.connection.clone()).or_default().insert(entry.unique_id);
        self.by_peer.entry(entry.remote_id.clone()).or_default().insert(entry.unique_id);
        self.by_id.insert(entry.unique_id, entry);
    }

    pub(crate) fn remove(&mut self, unique_id: u32) -> Option<DirectoryEntry> {
        let entry = self.by_id.remove(&unique_id)?;
        take_out(&mut self.by_connection, &entry.connection, unique_id);
        take_out(&mut self.by_peer, &entry.remote_id, unique_id);
        Some(entry)
    }

    pub(crate) fn get(&self, unique_id: u32) -> Option<&DirectoryEntry> {
        self.by_id.get(&unique_id)
    }

    /// How many there are, in all shards.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Those of a connection.
    pub(crate) fn of(&self, connection: &str) -> impl Iterator<Item = &DirectoryEntry> {
        self.by_connection.get(connection).into_iter().flatten().filter_map(|id| self.by_id.get(id))
    }

    /// Those between two identities.
    fn between(&self, local: &Identity, remote: &Identity) -> impl Iterator<Item = &DirectoryEntry> {
        let ids = self.by_peer.get(remote).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id)).filter(move |entry| entry.local_id == *local)
    }
}

fn take_out<K: Ord>(table: &mut BTreeMap<K, BTreeSet<u32>>, key: &K, id: u32) {
    if let Some(ids) = table.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            table.remove(key);
        }
    }
}

impl Registry {
    /// Other IKE SAs of a connection with the same two identities.
    pub(crate) fn twins(
        &self,
        connection: &Connection,
        local: &Identity,
        remote: &Identity,
        not: u32,
    ) -> Vec<DirectoryEntry> {
        let twins = self.established.between(local, remote);
        twins.filter(|entry| entry.unique_id != not && entry.connection == connection.name).cloned().collect()
    }

    /// IKE SAs between two identities that a peer which knows of none has forgotten: they were there when it began to make another one. One
    /// that came up later may have come up behind its back.
    pub(crate) fn stale(&self, local: &Identity, remote: &Identity, not: u32, begun_at: Instant) -> Vec<u32> {
        let old = self.established.between(local, remote);
        old.filter(|entry| entry.unique_id != not && entry.since < begun_at).map(|entry| entry.unique_id).collect()
    }

    /// Whether any IKE SA, of whatever connection, is established between two identities.
    pub(crate) fn knows_peer(&self, local: &Identity, remote: &Identity) -> bool {
        self.established.between(local, remote).next().is_some()
    }

    /// Operations that put up the guards which do not stand yet.
    pub(crate) fn missing_guards(&self, name: &Arc<str>, pairs: &[SelectorPair]) -> Vec<Op> {
        let standing = self.guards.get(name);
        let missing = pairs.iter().filter(|pair| standing.is_none_or(|standing| !standing.contains(pair)));
        missing.map(|pair| Op::InstallGuard(GuardSpec { name: name.clone(), selectors: *pair })).collect()
    }

    /// These guards stand now.
    pub(crate) fn guarded(&mut self, name: &Arc<str>, pairs: &[SelectorPair]) {
        if !pairs.is_empty() {
            self.guards.entry(name.clone()).or_default().extend(pairs);
        }
    }

    /// The guards that stand for a configured child.
    pub(crate) fn guards_of(&self, name: &str) -> Vec<GuardSpec> {
        self.guards.get_key_value(name).into_iter().flat_map(specs).collect()
    }

    /// Forgets the guards of a configured child and gives the operations that take them down.
    pub(crate) fn unguard(&mut self, name: &str) -> Vec<Op> {
        let gone = self.guards.remove_entry(name);
        gone.iter().flat_map(|(name, pairs)| specs((name, pairs))).map(Op::RemoveGuard).collect()
    }
}

fn specs<'g>((name, pairs): (&'g Arc<str>, &'g BTreeSet<SelectorPair>)) -> impl Iterator<Item = GuardSpec> + 'g {
    pairs.iter().map(|pair| GuardSpec { name: name.clone(), selectors: *pair })
}

#[cfg(test)]
mod tests {
    use ipsec::TrafficSelector;

    use super::*;

    fn entry(unique_id: u32, connection: &str, remote: &str) -> DirectoryEntry {
        DirectoryEntry {
            shard: ipsec::Shard(0),
            unique_id,
            connection: connection.into(),
            local_id: Identity::Fqdn("me".into()),
            remote_id: Identity::Fqdn(remote.into()),
            remote: "192.0.2.1:500".parse().unwrap(),
            since: ipsec::Instant::START,
            initiator: true,
            initiator_spi: u64::from(unique_id),
        }
    }

    #[test]
    fn guards_stand_once_and_go_with_their_child() {
        let pair = |number| {
            let lan = |side| TrafficSelector::prefix([10, side, number, 0].into(), 24).unwrap();
            SelectorPair { local: lan(1), remote: lan(2) }
        };
        let mut registry = Registry::default();
        let (one, other): (Arc<str>, Arc<str>) = ("gw/one".into(), "gw/other".into());
        registry.guarded(&one, &[pair(1), pair(2)]);
        registry.guarded(&other, &[pair(1)]);
        let guard = |number| GuardSpec { name: one.clone(), selectors: pair(number) };
        let of = |ops: Vec<Op>| -> Vec<GuardSpec> {
            let guard = |op| if let Op::InstallGuard(guard) | Op::RemoveGuard(guard) = op { Some(guard) } else { None };
            ops.into_iter().filter_map(guard).collect()
        };
        assert_eq!(of(registry.missing_guards(&one, &[pair(1), pair(3)])), [guard(3)]);
        assert_eq!(registry.guards_of("gw/one"), [guard(1), guard(2)]);
        assert_eq!(of(registry.unguard("gw/one")), [guard(1), guard(2)]);
        assert!(registry.unguard("gw/one").is_empty() && registry.guards_of("gw/one").is_empty());
        assert_eq!(registry.guards_of("gw/other").len(), 1);
    }

    #[test]
    fn entries_are_found_by_all_names_and_leave_nothing() {
        let mut established = Established::default();
        established.insert(entry(1, "gw", "a"));
        established.insert(entry(2, "gw", "b"));
        established.insert(entry(3, "other", "a"));
        let ids = |found: Vec<&DirectoryEntry>| found.iter().map(|entry| entry.unique_id).collect::<Vec<_>>();
        let (me, a) = (Identity::Fqdn("me".into()), Identity::Fqdn("a".into()));
        assert_eq!(ids(established.of("gw").collect()), [1, 2]);
        assert_eq!(ids(established.between(&me, &a).collect()), [1, 3]);
        assert_eq!(established.between(&a, &me).count(), 0);
        for id in 1..4 {
            assert!(established.remove(id).is_some() && established.get(id).is_none());
        }
        assert!(established.by_connection.is_empty() && established.by_peer.is_empty());
    }
}
