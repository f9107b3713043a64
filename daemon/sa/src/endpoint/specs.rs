//! What this shard has the backend hold, child by child.

use std::sync::Arc;

use ike_model::specs::{ChildSpecs, Origin};
use ike_model::{Child, ConfigSnapshot};
use ipsec::{OuterAddresses, SelectorPair};

use crate::endpoint::Endpoint;
use crate::endpoint::configured::{Keeper, Trap};
use crate::endpoint::traps;
use crate::ike_sa::Phase;

impl Endpoint {
    /// What CHILD SAs, traps and shunts of this shard have the backend hold, with empty keys. The guards are among those of the CHILD SA or
    /// trap that comes first.
    pub fn specs(&self, config: &ConfigSnapshot) -> Vec<ChildSpecs> {
        let window = config.settings.replay_window;
        let mut all = Vec::new();
        for ike in self.ikes.values() {
            if let Phase::Authenticated(authenticated) = &ike.phase {
                all.extend(authenticated.specs(&ike.core.connection, &self.shared.ids, window));
            }
        }
        all.extend(self.keepers.by_number.values().filter_map(trap_specs));
        for specs in &mut all {
            let name: Arc<str> = format!("{}/{}", specs.connection, specs.child).into();
            specs.guards = self.shared.registry.guards_of(&name);
        }
        all
    }
}

fn trap_specs(keeper: &Keeper) -> Option<ChildSpecs> {
    let Trap::Present { policies, .. } = &keeper.trap else { return None };
    let policies = policies.clone();
    let (connection, child) = (keeper.connection.name.as_str().into(), keeper.child.name.as_str().into());
    Some(ChildSpecs { connection, child, origin: Origin::Trap, guards: Vec::new(), policies, sas: Vec::new() })
}

/// The selectors of a child between two outer addresses, of which one or both may not be known, or why they cannot be said.
///
/// # Errors
/// In words.
pub fn configured_pairs(child: &Child, outer: OuterAddresses) -> Result<Vec<SelectorPair>, String> {
    traps::pairs(child, outer.local, outer.remote)
}
