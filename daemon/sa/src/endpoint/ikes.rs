//! The IKE SAs of a shard, found by our SPI, by connection and by unique id without looking at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use crate::ike_sa::{IkeSa, Phase};

/// The table. Reads go through the map by SPI.
#[derive(Default)]
pub(super) struct Ikes {
    by_spi: BTreeMap<u64, IkeSa>,
    /// Half-open ones are missing: their connection is not known before they are authenticated.
    by_connection: BTreeMap<String, BTreeSet<u64>>,
    by_unique_id: BTreeMap<u32, u64>,
}

impl Ikes {
    pub(super) fn insert(&mut self, ike: IkeSa) {
        let spi = ike.core.spi().0;
        self.by_unique_id.insert(ike.core.unique_id, spi);
        let filed = !matches!(ike.phase, Phase::Responding(_));
        self.by_spi.insert(spi, ike);
        if filed {
            self.file(spi);
        }
    }

    /// Files an IKE SA whose connection is known now.
    pub(super) fn file(&mut self, spi: u64) {
        if let Some(ike) = self.by_spi.get(&spi) {
            self.by_connection.entry(ike.core.connection.name.clone()).or_default().insert(spi);
        }
    }

    pub(super) fn remove(&mut self, spi: u64) -> Option<IkeSa> {
        let ike = self.by_spi.remove(&spi)?;
        self.by_unique_id.remove(&ike.core.unique_id);
        if let Some(spis) = self.by_connection.get_mut(&ike.core.connection.name) {
            spis.remove(&spi);
            if spis.is_empty() {
                self.by_connection.remove(&ike.core.connection.name);
            }
        }
        Some(ike)
    }

    pub(super) fn get_mut(&mut self, spi: u64) -> Option<&mut IkeSa> {
        self.by_spi.get_mut(&spi)
    }

    /// Those of a connection.
    pub(super) fn of(&self, connection: &str) -> impl Iterator<Item = (u64, &IkeSa)> {
        let spis = self.by_connection.get(connection).into_iter().flatten();
        spis.filter_map(|spi| Some((*spi, self.by_spi.get(spi)?)))
    }

    /// Our SPI of the one with this unique id.
    pub(super) fn by_unique_id(&self, unique_id: u32) -> Option<u64> {
        self.by_unique_id.get(&unique_id).copied()
    }
}

impl Deref for Ikes {
    type Target = BTreeMap<u64, IkeSa>;

    fn deref(&self) -> &Self::Target {
        &self.by_spi
    }
}
