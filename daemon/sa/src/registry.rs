//! What is known across the IKE SAs of a shard: who waits for which answer, which IKE SA owns which CHILD SA, and who is established.

use std::collections::{BTreeMap, BTreeSet};

use ike_model::{Connection, Identity};
use ipsec::{GuardSpec, Op, SelectorPair, Tag};

use crate::directory::DirectoryEntry;
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
    /// Established IKE SAs by unique id, also those of other shards.
    pub(crate) established: BTreeMap<u32, DirectoryEntry>,
    /// Identities of IKE SAs that we are authenticating, by unique id.
    pub(crate) connecting: BTreeMap<u32, (Identity, Identity)>,
    /// Guards that stand.
    pub(crate) guards: BTreeSet<GuardSpec>,
}

impl Registry {
    /// Other IKE SAs of a connection with the same two identities.
    pub(crate) fn twins(&self, connection: &Connection, local: &Identity, remote: &Identity, not: u32) -> Vec<u32> {
        self.established
            .values()
            .filter(|entry| entry.unique_id != not && entry.connection == connection.name)
            .filter(|entry| entry.local_id == *local && entry.remote_id == *remote)
            .map(|entry| entry.unique_id)
            .collect()
    }

    /// Whether any IKE SA, of whatever connection, is established between two identities.
    pub(crate) fn knows_peer(&self, local: &Identity, remote: &Identity) -> bool {
        self.established.values().any(|entry| entry.local_id == *local && entry.remote_id == *remote)
    }

    /// Operations that put up the guards which do not stand yet.
    pub(crate) fn missing_guards(&self, name: &std::sync::Arc<str>, pairs: &[SelectorPair]) -> Vec<Op> {
        let specs = pairs.iter().map(|pair| GuardSpec { name: name.clone(), selectors: *pair });
        specs.filter(|spec| !self.guards.contains(spec)).map(Op::InstallGuard).collect()
    }

    /// These guards stand now.
    pub(crate) fn guarded(&mut self, name: &std::sync::Arc<str>, pairs: &[SelectorPair]) {
        self.guards.extend(pairs.iter().map(|pair| GuardSpec { name: name.clone(), selectors: *pair }));
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
