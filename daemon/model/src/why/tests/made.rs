//! A gateway in which everything is right: 10.1.0.0/24 behind lan0, the peer behind wan0, one child up.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipsec::sa::HeaderCopy;
use ipsec::{
    Device, DeviceId, DeviceState, DeviceTable, Direction as Of, EspAlgorithm, KeyMaterial, LifetimeConfig, Limits,
    ModeInUse, OffloadMode, OuterAddresses, PacketSelectors, PolicyAction, PolicyHandle, PolicySpec, Reqid, SaHandle,
    SaMode, SaSpec, SaStatus, SelectorPair, Shard, Spi, Tags, TrafficSelector,
};

use super::super::{ChildFacts, Facts, HostFacts, Link, Outer, Place, Tunnel, Way};
use crate::config::{Actions, AuthMethod, AuthRound, Childless, Fragmentation, HostSpec, Unique};
use crate::snapshot::{ConfiguredChildStatus, ConfiguredState};
use crate::specs::{ChildSpecs, Origin};
use crate::tags::{InterfaceIds, TagConfig};
use crate::{Child, ChildMode, ChildSaSnapshot, ConfiguredSelector, Connection, Identity, IkeSaSnapshot};

pub(super) const TUNNEL: &str = "cygnet0";
pub(super) const IN: SaHandle = SaHandle::new(Shard(0), 2);
pub(super) const OUT: SaHandle = SaHandle::new(Shard(0), 3);
const UNIQUE_ID: u32 = 12;

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn link(name: &str) -> Link {
    let below = Vec::new();
    Link { name: name.into(), up: true, carrier: true, mtu: 1_500, forwarding: true, reverse_path: 2, below }
}

pub(super) fn out(name: &str, table: u32) -> Way {
    let gateway = (name == "wan0").then(|| address("192.0.2.254"));
    Way::Out { link: link(name), gateway, table, mtu: None }
}

fn selector(address_: &str, length: u8) -> TrafficSelector {
    TrafficSelector::prefix(address(address_), length).unwrap()
}

fn pair() -> SelectorPair {
    SelectorPair { local: selector("10.1.0.0", 24), remote: selector("10.2.0.0", 24) }
}

fn outer() -> OuterAddresses {
    OuterAddresses { local: address("192.0.2.1"), remote: address("203.0.113.9") }
}

fn child() -> Child {
    Child {
        name: "net".into(),
        esp_proposals: Vec::new(),
        local_ts: vec![ConfiguredSelector::Fixed(pair().local)],
        remote_ts: vec![ConfiguredSelector::Fixed(pair().remote)],
        lifetime: LifetimeConfig::default(),
        mode: ChildMode::Tunnel,
        start_action: Actions::NONE,
        close_action: Actions::NONE,
        dpd_action: Actions::NONE,
        hw_offload: OffloadMode::No,
        replay_window: None,
        reqid: None,
        priority: None,
        copy: HeaderCopy::default(),
        updown: None,
        policies: true,
        inactivity: Duration::ZERO,
        tags: TagConfig::default(),
    }
}

fn connection() -> Connection {
    let round = |id: &str| vec![AuthRound { method: AuthMethod::Psk, id: Identity::Fqdn(id.into()) }];
    Connection {
        name: "site".into(),
        local_addrs: vec![HostSpec::Address(outer().local)],
        remote_addrs: vec![HostSpec::Address(outer().remote)],
        local_port: 500,
        remote_port: 500,
        proposals: Vec::new(),
        local: round("gw-a.example"),
        remote: round("gw-b.example"),
        dscp: 0,
        encap: false,
        mobike: true,
        fragmentation: Fragmentation::Yes,
        dpd_delay: Duration::ZERO,
        keyingtries: 1,
        unique: Unique::No,
        childless: Childless::Allow,
        reauth_time: Duration::ZERO,
        rekey_time: Duration::from_secs(14_400),
        over_time: Duration::from_secs(1_440),
        rand_time: Duration::ZERO,
        interface: InterfaceIds::default(),
        children: vec![Arc::new(child())],
    }
}

fn policy(direction: Of, priority: u32, action: PolicyAction, name: &str) -> PolicySpec {
    PolicySpec {
        handle: PolicyHandle::new(Shard(0), 1),
        device: DeviceId(0),
        direction,
        selectors: pair(),
        priority,
        action,
        offload: OffloadMode::No,
        tags: Tags::default(),
        name: name.into(),
    }
}

fn sa(direction: Of) -> SaSpec {
    let (handle, spi) = if direction == Of::Inbound { (IN, 0xc1a2_b3c4) } else { (OUT, 0xd4c3_b2a1) };
    SaSpec {
        handle,
        device: DeviceId(0),
        direction,
        spi: Spi::new(spi).unwrap(),
        mode: SaMode::Tunnel,
        outer: outer(),
        peer_view: None,
        encapsulation: None,
        algorithm: EspAlgorithm::AES_128_GCM,
        key: KeyMaterial::new(&[], None),
        esn: true,
        replay_window: 32,
        selectors: Arc::new([pair()]),
        limits: Limits::default(),
        reqid: Reqid(1),
        copy: HeaderCopy::default(),
        offload: OffloadMode::No,
        tags: Tags::default(),
        initial_sequence: 0,
        name: "site/net".into(),
    }
}

fn specs() -> ChildSpecs {
    let protect = |sa| PolicyAction::Protect { reqid: Reqid(1), sa, mode: SaMode::Tunnel, outer: outer() };
    let policies = [(Of::Inbound, None), (Of::Forward, None), (Of::Outbound, Some(OUT))];
    ChildSpecs {
        connection: "site".into(),
        child: "net".into(),
        origin: Origin::Sa(UNIQUE_ID),
        guards: Vec::new(),
        policies: policies.map(|(direction, sa)| policy(direction, 183_616, protect(sa), "site/net")).into(),
        sas: vec![sa(Of::Inbound), sa(Of::Outbound)],
    }
}

/// The trap of the child.
pub(super) fn trap() -> ChildSpecs {
    let action = PolicyAction::Trap { reqid: Reqid(1), mode: SaMode::Tunnel };
    let policies = vec![policy(Of::Outbound, 283_616, action, "site/net")];
    ChildSpecs { origin: Origin::Trap, policies, sas: Vec::new(), ..specs() }
}

/// A shunt for the same traffic.
pub(super) fn shunt(action: PolicyAction, priority: u32) -> ChildSpecs {
    let policies = vec![policy(Of::Outbound, priority, action, "other/shunt")];
    let (connection, child) = ("other".into(), "shunt".into());
    ChildSpecs { connection, child, origin: Origin::Trap, guards: Vec::new(), policies, sas: Vec::new() }
}

fn ike() -> IkeSaSnapshot {
    let end = |address: &str, id: &str| (address.parse().unwrap(), Identity::Fqdn(id.into()));
    let (local, remote) = (end("192.0.2.1:4500", "gw-a.example"), end("203.0.113.9:4500", "gw-b.example"));
    let child = ChildSaSnapshot {
        spi_in: Spi::new(0xc1a2_b3c4),
        spi_out: Spi::new(0xd4c3_b2a1),
        sa_in: Some(IN),
        sa_out: Some(OUT),
        life_seconds: Some(3_840),
        installed_seconds: Some(120),
        local_ts: vec![pair().local],
        remote_ts: vec![pair().remote],
        ..ChildSaSnapshot::plain("net", UNIQUE_ID)
    };
    IkeSaSnapshot {
        established_seconds: Some(120),
        heard_seconds: 4,
        children: vec![child],
        ..IkeSaSnapshot::plain("site", 7, local, remote)
    }
}

fn status(sa: SaHandle, packets: u64) -> SaStatus {
    SaStatus {
        sa,
        device: DeviceId(0),
        spi: Spi::new(0x1000).unwrap(),
        bytes: packets * 100,
        packets,
        idle_seconds: Some(0),
        sequence: packets,
        soft_expired: None,
        hard_expired: None,
        mode: ModeInUse::SOFTWARE,
    }
}

fn device() -> Device {
    Device { id: DeviceId(0), name: "eth1".into(), state: DeviceState::Up, rungs: Vec::new() }
}

/// A packet that the gateway forwards into the tunnel.
pub(super) fn outbound() -> Facts {
    let status_of = ConfiguredChildStatus {
        connection: "site".into(),
        child: "net".into(),
        state: ConfiguredState::Up,
        offload: Some(ModeInUse::SOFTWARE),
        failures: 0,
        last_cause: None,
    };
    let connection = Arc::new(connection());
    let child = connection.children[0].clone();
    Facts {
        packet: PacketSelectors {
            source: address("10.1.0.10"),
            destination: address("10.2.0.10"),
            protocol: 6,
            ports: Some((49_152, 443)),
        },
        size: None,
        host: HostFacts {
            tunnel: Some(Tunnel { name: TUNNEL.into(), link: Some(Link { mtu: 1_438, ..link(TUNNEL) }) }),
            source: Place { local: false, near: Some(link("lan0")), way: out("lan0", 254) },
            destination: Place { local: false, near: None, way: out(TUNNEL, 220) },
            way: out(TUNNEL, 220),
            foreign_policy: None,
            met: None,
        },
        children: vec![ChildFacts { connection, child, pairs: vec![pair()], status: status_of }],
        specs: vec![specs()],
        ike_sas: vec![ike()],
        devices: DeviceTable { devices: vec![device()] },
        before: vec![status(IN, 70), status(OUT, 75)],
        after: vec![status(IN, 74), status(OUT, 80)],
        sampled_ms: 200,
        outer: vec![Outer {
            connection: "site".into(),
            local: Some(outer().local),
            local_is_ours: true,
            link: Some(link("wan0")),
            remote: Some(outer().remote),
            way: Some(out("wan0", 254)),
        }],
        drops: Vec::new(),
    }
}

/// The same.
pub(super) fn sound() -> Facts {
    outbound()
}

/// The answer to it.
pub(super) fn inbound() -> Facts {
    let mut facts = outbound();
    let packet = &mut facts.packet;
    std::mem::swap(&mut packet.source, &mut packet.destination);
    packet.ports = Some((443, 49_152));
    std::mem::swap(&mut facts.host.source, &mut facts.host.destination);
    facts.host.way = out("lan0", 254);
    facts
}

/// The child in another state, with nothing installed.
pub(super) fn absent(facts: &mut Facts, state: ConfiguredState) {
    facts.specs.clear();
    facts.ike_sas.clear();
    facts.host.way = out("wan0", 254);
    facts.children[0].status.state = state;
}

/// The peer has agreed to one host only.
pub(super) fn narrow(facts: &mut Facts, host: &str) {
    let narrow = SelectorPair { remote: selector(host, 32), ..pair() };
    for specs in &mut facts.specs {
        specs.policies.iter_mut().for_each(|policy| policy.selectors = narrow);
        specs.sas.iter_mut().for_each(|sa| sa.selectors = Arc::new([narrow]));
    }
}
