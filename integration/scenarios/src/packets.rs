//! ESP packets through the recording backends: which SA one end would send on, and whether the other receives it.

use std::net::SocketAddr;

use ipsec::recording::Tables;
use ipsec::{Direction, EspAlgorithm, KeyMaterial, PolicyAction, SaHandle, SaSpec, SelectorPair, Spi};

/// One encrypted packet.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) spi: Spi,
    pub(crate) algorithm: EspAlgorithm,
    pub(crate) esn: bool,
    pub(crate) key: KeyMaterial,
    /// Where it comes from as the receiver sees it, when it is in UDP.
    pub(crate) source: Option<SocketAddr>,
}

/// What was sent through the tunnels so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets encrypted.
    pub sent: u64,
    /// Packets that an SA of the receiver took.
    pub delivered: u64,
    /// Packets for which the receiver had no SA with that SPI and those keys.
    pub lost: u64,
    /// Packets that a policy held back for want of an SA.
    pub blocked: u64,
}

impl Packet {
    pub(crate) fn under(sa: &SaSpec) -> Self {
        Self { spi: sa.spi, algorithm: sa.algorithm, esn: sa.esn, key: sa.key.clone(), source: None }
    }

    /// The SA that takes it.
    pub(crate) fn receiver<'t>(&self, tables: &'t Tables) -> Option<&'t SaSpec> {
        tables.sas.values().find(|sa| {
            sa.direction == Direction::Inbound
                && sa.spi == self.spi
                && sa.algorithm == self.algorithm
                && sa.esn == self.esn
                && sa.key == self.key
        })
    }
}

/// One pair of selectors that is to be protected.
#[derive(Clone, Debug)]
pub struct Way {
    /// Connection and child.
    pub name: std::sync::Arc<str>,
    /// The traffic.
    pub selectors: SelectorPair,
    /// The SA in use.
    pub sa: Option<SaHandle>,
}

/// The outbound policies in force: for equal selectors the one of best priority, among equals the one with an SA and made last.
pub fn ways(tables: &Tables) -> Vec<Way> {
    let mut found: Vec<(u32, Way)> = Vec::new();
    for policy in tables.policies.values().filter(|policy| policy.direction == Direction::Outbound) {
        let PolicyAction::Protect { sa, .. } = &policy.action else { continue };
        let way = Way { name: policy.name.clone(), selectors: policy.selectors, sa: *sa };
        match found.iter_mut().find(|(_, known)| known.selectors == policy.selectors) {
            Some(known)
                if known.0 > policy.priority
                    || known.0 == policy.priority && (sa.is_some() || known.1.sa.is_none()) =>
            {
                *known = (policy.priority, way);
            }
            Some(_) => {}
            None => found.push((policy.priority, way)),
        }
    }
    found.into_iter().map(|(_, way)| way).collect()
}
