//! Configurations: plain values that a test changes before it loads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ike_model::{
    Actions, AuthMethod, AuthRound, Child, ChildMode, ConfiguredSelector, Connection, Encryption, EspProposal,
    Fragmentation, HostSpec, Identity, IkeProposal, Secret, SharedSecret, Unique,
};
use ike_wire::ids::{EncryptionId, EsnId, KeyExchangeId, PrfId};
use ipsec::limits::Lifetime;
use ipsec::sa::HeaderCopy;
use ipsec::{LifetimeConfig, OffloadMode, TrafficSelector};

use crate::Who;

/// Address of a gateway.
pub fn address(who: Who) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, octet(who)).into()
}

/// Further addresses of a gateway, by number; 0 is [`address`].
pub fn further_address(who: Who, number: u8) -> IpAddr {
    match number {
        0 => address(who),
        1 => Ipv4Addr::new(198, 51, 100, octet(who)).into(),
        _ => Ipv4Addr::new(100, 64, number, octet(who)).into(),
    }
}

/// IPv6 address of a gateway, once it is given to it.
pub fn address_v6(who: Who) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, octet(who).into()).into()
}

/// Identity of a gateway.
pub fn identity(who: Who) -> Identity {
    let letter = char::from(b'a' + u8::try_from(who).unwrap());
    Identity::Fqdn(format!("{letter}.example"))
}

/// Network number `number` behind a gateway.
pub fn lan(who: Who, number: u8) -> TrafficSelector {
    TrafficSelector::prefix(Ipv4Addr::new(10, octet(who), number, 0).into(), 24).unwrap()
}

/// A host in network number `number` behind a gateway.
pub fn host(who: Who, number: u8) -> IpAddr {
    Ipv4Addr::new(10, octet(who), number, 5).into()
}

fn octet(who: Who) -> u8 {
    u8::try_from(who).unwrap() + 1
}

/// A connection between two gateways with addresses and identities given, one try, no timed rekeying, and the child `net`.
pub fn connection(name: &str, local: Who, remote: Who) -> Connection {
    let round = |id| vec![AuthRound { method: AuthMethod::Psk, id }];
    Connection {
        name: name.into(),
        local_addrs: vec![HostSpec::Address(address(local))],
        remote_addrs: vec![HostSpec::Address(address(remote))],
        local_port: 500,
        remote_port: 500,
        proposals: vec![ike_proposal(&[KeyExchangeId::CURVE_25519])],
        local: round(identity(local)),
        remote: round(identity(remote)),
        dscp: 0,
        encap: false,
        mobike: false,
        fragmentation: Fragmentation::Yes,
        dpd_delay: Duration::ZERO,
        keyingtries: 1,
        unique: Unique::No,
        childless: ike_model::Childless::Allow,
        interface: ike_model::InterfaceIds::default(),
        reauth_time: Duration::ZERO,
        rekey_time: Duration::ZERO,
        over_time: Duration::ZERO,
        rand_time: Duration::ZERO,
        children: vec![Arc::new(child("net", local, remote, 0))],
    }
}

/// The same over IPv6.
pub fn connection_v6(name: &str, local: Who, remote: Who) -> Connection {
    Connection {
        local_addrs: vec![HostSpec::Address(address_v6(local))],
        remote_addrs: vec![HostSpec::Address(address_v6(remote))],
        ..connection(name, local, remote)
    }
}

/// AES-256-GCM with these key exchange methods.
pub fn ike_proposal(methods: &[KeyExchangeId]) -> IkeProposal {
    IkeProposal {
        encryption: vec![Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(256) }],
        integrity: Vec::new(),
        prf: vec![PrfId::PRF_HMAC_SHA2_256],
        key_exchange: methods.to_vec(),
    }
}

/// AES-256-GCM with these key exchange methods for rekeying.
pub fn esp_proposal(methods: &[KeyExchangeId]) -> EspProposal {
    EspProposal {
        encryption: vec![Encryption { id: EncryptionId::AES_GCM_16, key_bits: Some(256) }],
        integrity: Vec::new(),
        key_exchange: methods.to_vec(),
        esn: vec![EsnId::NO_EXT_SEQ],
    }
}

/// ChaCha20-Poly1305 for an ESP proposal.
pub fn chacha() -> Encryption {
    Encryption { id: EncryptionId::CHACHA20_POLY1305, key_bits: None }
}

/// A tunnel between networks number `number` of both ends, without limits and actions.
pub fn child(name: &str, local: Who, remote: Who, number: u8) -> Child {
    Child {
        name: name.into(),
        esp_proposals: vec![esp_proposal(&[])],
        local_ts: vec![ConfiguredSelector::Fixed(lan(local, number))],
        remote_ts: vec![ConfiguredSelector::Fixed(lan(remote, number))],
        lifetime: no_limits(),
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
        tags: ike_model::TagConfig::default(),
    }
}

/// No soft and no hard limit.
pub fn no_limits() -> LifetimeConfig {
    LifetimeConfig { time: Lifetime::default(), bytes: Lifetime::default(), packets: Lifetime::default() }
}

/// Soft limit after `soft` seconds, hard limit after `hard`, no jitter.
pub fn time_limits(soft: u64, hard: u64) -> LifetimeConfig {
    LifetimeConfig { time: Lifetime { soft, hard, jitter: 0 }, ..no_limits() }
}

/// The key for two gateways.
pub fn secret(one: Who, other: Who) -> SharedSecret {
    let key = format!("key of {} and {}", one.min(other), one.max(other));
    SharedSecret { id: key.clone(), owners: vec![identity(one), identity(other)], secret: Secret::new(key.as_bytes()) }
}

/// Changes the only child of a connection, or its first.
pub fn with_child(mut connection: Connection, change: impl FnOnce(&mut Child)) -> Connection {
    change(Arc::make_mut(&mut connection.children[0]));
    connection
}

/// Actions that only trap.
pub const TRAP: Actions = Actions { trap: true, start: false };
/// Actions that only start.
pub const START: Actions = Actions { trap: false, start: true };
