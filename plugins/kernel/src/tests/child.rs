//! What the core installs for one CHILD SA.

use std::net::IpAddr;
use std::sync::Arc;

use ipsec::conformance::udp_v4;
use ipsec::sa::HeaderCopy;
use ipsec::{
    DeviceId, Direction, EspAlgorithm, KeyMaterial, Limits, OffloadBackend, OffloadMode, Op, OuterAddresses,
    PolicyAction, PolicyHandle, PolicySpec, Reqid, SaHandle, SaMode, SaSpec, SelectorPair, Shard, Spi, Tags,
    TrafficSelector,
};

use super::subject::InMemory;
use crate::xfrm::StateId;

/// The core's priority of a policy whose SA is not active yet.
const RESERVED: u32 = u32::MAX - 1;

#[derive(Clone)]
pub(super) struct Child {
    pub(super) inbound: SaSpec,
    pub(super) outbound: SaSpec,
    /// Inbound, forward, outbound.
    pub(super) policies: [PolicySpec; 3],
}

pub(super) fn network(n: u8) -> TrafficSelector {
    TrafficSelector::prefix(IpAddr::from([10, n, 0, 0]), 16).unwrap()
}

/// 10.1.0.0/16 === 10.2.0.0/16.
pub(super) fn networks() -> SelectorPair {
    SelectorPair { local: network(1), remote: network(2) }
}

/// From 10.1.0.1 to 10.2.0.1.
pub(super) fn packet() -> Vec<u8> {
    udp_v4([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), (1, 7), 30, false)
}

impl Child {
    /// With names that begin at `number`, which is also the reqid, on a rung of the device that has it.
    pub(super) fn new(subject: &InMemory, number: u64, offload: OffloadMode, pair: SelectorPair) -> Self {
        let device = DeviceId(u16::from(offload != OffloadMode::No));
        let number32 = u32::try_from(number).unwrap();
        let outer = OuterAddresses { local: IpAddr::from([192, 0, 2, 1]), remote: IpAddr::from([192, 0, 2, 2]) };
        let sa = |count, direction, spi| SaSpec {
            handle: SaHandle::new(Shard(0), number + count),
            device,
            direction,
            spi,
            mode: SaMode::Tunnel,
            outer,
            peer_view: None,
            encapsulation: None,
            algorithm: EspAlgorithm::AES_256_GCM,
            key: KeyMaterial::new(&[7; 36], None),
            esn: false,
            replay_window: 64,
            selectors: Arc::new([pair]),
            limits: Limits::default(),
            reqid: Reqid(number32),
            copy: HeaderCopy::default(),
            offload,
            tags: Tags::NONE,
            initial_sequence: 0,
            name: "net/child".into(),
        };
        let policy = |count, direction| PolicySpec {
            handle: PolicyHandle::new(Shard(0), number + count),
            device,
            direction,
            selectors: pair,
            priority: 1_000,
            action: PolicyAction::Protect { reqid: Reqid(number32), sa: None, mode: SaMode::Tunnel, outer },
            offload,
            tags: Tags::NONE,
            name: "net/child".into(),
        };
        Self {
            inbound: sa(0, Direction::Inbound, subject.kernel.reserve_spi(device).unwrap()),
            outbound: sa(1, Direction::Outbound, Spi::new(0x1000 + number32).unwrap()),
            policies: [
                policy(0, Direction::Inbound),
                policy(1, Direction::Forward),
                PolicySpec { priority: RESERVED, ..policy(2, Direction::Outbound) },
            ],
        }
    }

    /// As the responder has it before the peer switches.
    pub(super) fn install(&self) -> Vec<Op> {
        let [inbound, forward, outbound] = self.policies.clone();
        vec![
            Op::InstallPolicy(inbound),
            Op::InstallPolicy(forward),
            Op::InstallSa(Box::new(self.inbound.clone())),
            Op::InstallSa(Box::new(self.outbound.clone())),
            Op::InstallPolicy(outbound),
        ]
    }

    pub(super) fn activate(&self) -> Vec<Op> {
        let sa = self.outbound.handle;
        let mut outbound = PolicySpec { priority: 1_000, ..self.policies[2].clone() };
        if let PolicyAction::Protect { sa: active, .. } = &mut outbound.action {
            *active = Some(sa);
        }
        let policy = outbound.handle;
        vec![Op::UpdatePolicy(outbound), Op::Activate { policy, sa }]
    }

    pub(super) fn up(&self) -> Vec<Op> {
        [self.install(), self.activate()].concat()
    }

    pub(super) fn remove(&self) -> Vec<Op> {
        let policies = self.policies.iter().rev().map(|policy| Op::RemovePolicy(policy.handle));
        policies.chain([Op::RemoveSa(self.outbound.handle), Op::RemoveSa(self.inbound.handle)]).collect()
    }

    pub(super) fn id(&self) -> StateId {
        StateId { destination: self.outbound.outer.remote, spi: self.outbound.spi, mark: None }
    }

    pub(super) fn inbound_id(&self) -> StateId {
        StateId { destination: self.inbound.outer.local, spi: self.inbound.spi, mark: None }
    }
}

/// A trap for the same traffic.
pub(super) fn trap(number: u64, offload: OffloadMode, selectors: SelectorPair) -> PolicySpec {
    PolicySpec {
        handle: PolicyHandle::new(Shard(0), number),
        device: DeviceId(u16::from(offload != OffloadMode::No)),
        direction: Direction::Outbound,
        selectors,
        priority: 2_000,
        action: PolicyAction::Trap { reqid: Reqid(u32::try_from(number).unwrap()), mode: SaMode::Tunnel },
        offload,
        tags: Tags::NONE,
        name: "net/trap".into(),
    }
}
