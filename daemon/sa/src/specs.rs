//! What the backend is given for a child, for showing: of CHILD SAs, traps and shunts as they are, and as it would come to be where nothing is up.
//!
//! Keys never leave the place where they are used: the SAs shown have empty ones.

use std::sync::Arc;

use ike_model::specs::{ChildSpecs, Origin};
use ike_model::{Child, ChildMode, Connection, IkeSettings};
use ike_wire::ids::EsnId;
use ipsec::{
    DeviceId, Direction, EspAlgorithm, GuardSpec, KeyMaterial, LimitUnits, OuterAddresses, PolicyAction, PolicyHandle,
    PolicySpec, Reqid, SaHandle, SaSpec, SelectorPair, Shard, Spi, Tags, UdpEncapsulation,
};

use crate::children::{ChildSa, Class, Outbound, backend_limits, priority};
use crate::established::Authenticated;
use crate::transport;
use crate::turn::Ids;

/// The first SPI that is none of the reserved ones: a placeholder.
const NO_SPI: u32 = 256;

impl Authenticated {
    /// What its CHILD SAs have the backend hold.
    pub(crate) fn specs(&self, connection: &Connection, ids: &Ids, replay_window: u32) -> Vec<ChildSpecs> {
        self.children.iter().map(|child| child.specs(connection, ids, replay_window)).collect()
    }
}

impl ChildSa {
    fn specs(&self, connection: &Connection, ids: &Ids, replay_window: u32) -> ChildSpecs {
        let active = (self.outbound == Outbound::Active).then(|| ids.sa(self.unique_id, Direction::Outbound));
        let policies = self.installed_policies(active);
        let no_key = || KeyMaterial::new(&[], None);
        let mut sas = Vec::new();
        if self.installed_at.is_some() {
            if !self.deaf {
                sas.push(self.sa(ids, replay_window, Direction::Inbound, no_key()));
            }
            if self.outbound != Outbound::Removed {
                sas.push(self.sa(ids, replay_window, Direction::Outbound, no_key()));
            }
        }
        ChildSpecs {
            connection: connection.name.as_str().into(),
            child: self.config.name.as_str().into(),
            origin: Origin::Sa(self.unique_id),
            guards: Vec::new(),
            policies,
            sas,
        }
    }
}

/// What a child would have the backend hold, were it up with its first proposal and all of its selectors between these addresses.
///
/// # Errors
/// Why that cannot be said, in words.
pub fn planned(
    connection: &Connection,
    child: &Child,
    settings: &IkeSettings,
    device: DeviceId,
    outer: OuterAddresses,
) -> Result<ChildSpecs, String> {
    let name: Arc<str> = format!("{}/{}", connection.name, child.name).into();
    let mode = transport::mode(child);
    let pairs = crate::endpoint::configured_pairs(child, outer)?;
    let shunt = match child.mode {
        ChildMode::Tunnel | ChildMode::Transport => None,
        ChildMode::Pass => Some(PolicyAction::Bypass),
        ChildMode::Drop => Some(PolicyAction::Discard),
    };
    let reqid = Reqid(child.reqid.unwrap_or(0));
    let protect = PolicyAction::Protect { reqid, sa: None, mode, outer };
    let class = if shunt.is_some() { Class::Shunt } else { Class::Protect };
    let action = shunt.clone().unwrap_or(protect);
    let directions = [Direction::Inbound, Direction::Forward, Direction::Outbound];
    let policy = |direction, selectors: &SelectorPair| PolicySpec {
        handle: PolicyHandle::new(Shard(0), 0),
        device,
        direction,
        selectors: *selectors,
        priority: priority(child, class, selectors),
        action: action.clone(),
        offload: child.hw_offload,
        tags: Tags::default(),
        name: name.clone(),
    };
    let policies = directions.into_iter().flat_map(|direction| pairs.iter().map(move |pair| (direction, pair)));
    let policies = policies.map(|(direction, pair)| policy(direction, pair)).collect();
    let sas =
        if shunt.is_some() { Vec::new() } else { planned_sas(connection, child, settings, device, outer, &pairs)? };
    let guards = if shunt.is_some() { Vec::new() } else { guards(&name, &pairs) };
    let (connection, child) = (connection.name.as_str().into(), child.name.as_str().into());
    Ok(ChildSpecs { connection, child, origin: Origin::Planned, guards, policies, sas })
}

fn planned_sas(
    connection: &Connection,
    child: &Child,
    settings: &IkeSettings,
    device: DeviceId,
    outer: OuterAddresses,
    pairs: &[SelectorPair],
) -> Result<Vec<SaSpec>, String> {
    let first = child.esp_proposals.first();
    let suite = first.and_then(|first| {
        let cipher = first.encryption.first()?;
        let integrity = first.integrity.first().map(|id| id.0);
        Some((EspAlgorithm::from_ids(cipher.id.0, cipher.key_bits, integrity)?, first.esn.first()? == &EsnId::EXT_SEQ))
    });
    let (algorithm, esn) = suite.ok_or("its first proposal has no ESP algorithm that an SA can be made of")?;
    let spi = Spi::new(NO_SPI).ok_or("no SPI")?;
    let udp = UdpEncapsulation { local_port: settings.nat_port, remote_port: settings.nat_port };
    // Without jitter: the latest soft limit there can be.
    let limits = child.lifetime.bounded(algorithm, esn).roll(|| 0);
    let sa = |direction| SaSpec {
        handle: SaHandle::new(Shard(0), 0),
        device,
        direction,
        spi,
        mode: transport::mode(child),
        outer,
        peer_view: None,
        encapsulation: connection.encap.then_some(udp),
        algorithm,
        key: KeyMaterial::new(&[], None),
        esn,
        replay_window: child.replay_window.unwrap_or(settings.replay_window),
        selectors: pairs.into(),
        limits: backend_limits(limits, LimitUnits { time: true, bytes: true, packets: true }),
        reqid: Reqid(child.reqid.unwrap_or(0)),
        copy: child.copy,
        offload: child.hw_offload,
        tags: Tags::default(),
        initial_sequence: 0,
        name: format!("{}/{}", connection.name, child.name).into(),
    };
    Ok([Direction::Inbound, Direction::Outbound].map(sa).into())
}

/// The guards of a child by the selectors that are configured.
pub(crate) fn guards(name: &Arc<str>, pairs: &[SelectorPair]) -> Vec<GuardSpec> {
    pairs.iter().map(|pair| GuardSpec { name: name.clone(), selectors: *pair }).collect()
}
