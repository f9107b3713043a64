//! Counters of this shard, and what messages count as that belong to no IKE SA of ours.

use ike_model::{Counter, CounterScope, Counters};
use ike_wire::Header;

use crate::counters::of_stranger;
use crate::endpoint::{Endpoint, our_spi};

impl Endpoint {
    /// The counters that are meant, by name of the connection; those of everything have none. What all shards share is among those of the
    /// first.
    pub fn counters(&self, scope: &CounterScope) -> Vec<(String, Counters)> {
        let mut all = self.shared.registry.counters.read(scope);
        if let (CounterScope::Global, true, Some((_, global))) = (scope, self.is_first(), all.first_mut()) {
            *global += self.admission.unread();
        }
        all
    }

    /// Begins again at zero.
    pub fn reset_counters(&mut self, scope: &CounterScope) {
        self.shared.registry.counters.reset(scope);
        if *scope == CounterScope::Global && self.is_first() {
            self.admission.forget_unread();
        }
    }

    fn is_first(&self) -> bool {
        self.shared.ids.shard().0 == 0
    }

    /// A message breaks the format: it may be one for an IKE SA of ours.
    pub(super) fn count_malformed(&mut self, octets: &[u8]) {
        let ike = Header::parse(octets).ok().and_then(|header| self.ikes.get(&our_spi(&header).0));
        match ike {
            Some(ike) => ike.core.count_in(&mut self.shared.registry.counters, Counter::Invalid),
            None => self.count_stranger(octets),
        }
    }

    /// A message is for no IKE SA of ours.
    pub(super) fn count_stranger(&mut self, octets: &[u8]) {
        if let Some(what) = of_stranger(octets) {
            self.shared.registry.counters.count(what);
        }
    }
}
