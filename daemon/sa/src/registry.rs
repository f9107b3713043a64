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
    /// Guards that stand.
    pub(crate) guards: BTreeSet<GuardSpec>,
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
        let specs = pairs.iter().map(|pair| GuardSpec { name: name.clone(), selectors: *pair });
        specs.filter(|spec| !self.guards.contains(spec)).map(Op::InstallGuard).collect()
    }

    /// These guards stand now.
    pub(crate) fn guarded(&mut self, name: &Arc<str>, pairs: &[SelectorPair]) {
        self.guards.extend(pairs.iter().map(|pair| GuardSpec { name: name.clone(), selectors: *pair }));
    }

    /// The guards that stand for a configured child.
    pub(crate) fn guards_of(&self, name: &str) -> Vec<GuardSpec> {
        self.guards.iter().filter(|guard| *guard.name == *name).cloned().collect()
    }

    /// Forgets the guards of a configured child and gives the operations that take them down.
    pub(crate) fn unguard(&mut self, name: &str) -> Vec<Op> {
        let gone: Vec<_> = self.guards.iter().filter(|guard| *guard.name == *name).cloned().collect();
        gone.iter().for_each(|guard| {
            self.guards.remove(guard);
        });
        gone.into_iter().map(Op::RemoveGuard).collect()
    }
}

#[cfg(test)]
mod tests {
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
