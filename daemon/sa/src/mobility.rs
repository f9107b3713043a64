//! What one IKE SA knows of the ways to its peer besides the one in use, and the notifications that speak of them (RFC 4555).
//!
//! State and choice only: messages are made in [`crate::exchange::mobike`], SAs are moved in [`crate::established`].

use std::net::IpAddr;

use ike_model::{ConfiguredSelector, Connection, HostSpec};
use ike_wire::ids::NotifyType;
use ike_wire::{Notify, Payload, Payloads};
use ipsec::Path;

use crate::choose;
use crate::core::Core;
use crate::registry::Registry;
use crate::work::WorkId;

/// Addresses of a peer that are kept at most; what it tells beyond is of no use.
const ADDRESSES: usize = 16;
/// Pairs of addresses that are tried at most.
const PAIRS: usize = 12;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mobility {
    /// We began the first of a series of rekeyed IKE SAs: we decide which addresses are used (RFC 4555 §1.2).
    pub(crate) decides: bool,
    /// Both ends have said MOBIKE_SUPPORTED.
    pub(crate) agreed: bool,
    /// Addresses that the peer says it has, besides the one in use.
    pub(crate) peer: Vec<IpAddr>,
    /// Addresses of ours that the peer knows of, in order.
    pub(crate) told: Vec<IpAddr>,
    /// Addresses at which the peer has answered what nobody else could see.
    pub(crate) verified: Vec<IpAddr>,
    /// Pairs that had a route when we last looked, ours first, the best pair first.
    pub(crate) pairs: Vec<(IpAddr, IpAddr)>,
    /// Pairs that the peer does not want.
    pub(crate) refused: Vec<(IpAddr, IpAddr)>,
    /// Routes are being looked up.
    pub(crate) looking: Option<WorkId>,
    /// The request that waits was sent on several ways: its response says that the peer lives, not which way works (RFC 4555 §3.7).
    pub(crate) scattered: bool,
    /// The request that waits goes this way instead of the one in use.
    pub(crate) detour: Option<Path>,
    /// How the peer saw our address and port when it last told: the data of NAT_DETECTION_DESTINATION_IP.
    pub(crate) seen_as: Option<[u8; 20]>,
    /// UNEXPECTED_NAT_DETECTED answers in a row.
    pub(crate) unexpected_nat: u32,
}

impl Mobility {
    /// The IKE SA that takes over by rekeying goes on with what is known; work and requests stay behind.
    pub(crate) fn successor(&self) -> Self {
        Self { looking: None, scattered: false, detour: None, ..self.clone() }
    }

    /// Whether the peer has shown that it receives at this address.
    pub(crate) fn is_verified(&self, remote: IpAddr) -> bool {
        self.verified.contains(&remote)
    }

    /// The peer has shown that it receives at this address.
    pub(crate) fn verify(&mut self, remote: IpAddr) {
        if !self.is_verified(remote) {
            if self.verified.len() >= ADDRESSES {
                self.verified.remove(0);
            }
            self.verified.push(remote);
        }
    }

    /// The request that waits is answered or given up.
    pub(crate) fn answered(&mut self) {
        (self.scattered, self.detour) = (false, None);
    }
}

/// Addresses of ours that a connection may use, without the one in use.
fn others(core: &Core, registry: &Registry) -> Vec<IpAddr> {
    let usable = |address: &IpAddr| {
        *address != core.path.local.ip()
            && choose::allows(&core.connection.local_addrs, *address)
            && !is_protected(&core.connection, Side::Local, *address)
    };
    registry.local_addresses.iter().copied().filter(usable).take(ADDRESSES).collect()
}

/// An end of the tunnel.
#[derive(Clone, Copy)]
enum Side {
    Local,
    Remote,
}

/// An address inside of what the tunnel protects is no end of the tunnel. Selectors of everything say nothing about that.
fn is_protected(connection: &Connection, side: Side, address: IpAddr) -> bool {
    let selectors = connection.children.iter().flat_map(|child| match side {
        Side::Local => &child.local_ts,
        Side::Remote => &child.remote_ts,
    });
    selectors.into_iter().any(|selector| match selector {
        ConfiguredSelector::Fixed(fixed) => fixed.addresses.contains(address) && !is_everything(fixed.addresses),
        ConfiguredSelector::Dynamic { .. } => false,
    })
}

fn is_everything(range: ipsec::AddressRange) -> bool {
    range.start().is_unspecified()
}

/// Our addresses to tell the peer of: the one in use, then the others.
pub(crate) fn ours(core: &Core, registry: &Registry) -> Vec<IpAddr> {
    std::iter::once(core.path.local.ip()).chain(others(core, registry)).collect()
}

/// The peer's addresses to try: the one in use, those it told of, those configured.
pub(crate) fn theirs(core: &Core) -> Vec<IpAddr> {
    let configured = core.connection.remote_addrs.iter().filter_map(|spec| match spec {
        HostSpec::Address(address) => Some(*address),
        HostSpec::Any | HostSpec::Range(_) | HostSpec::Name(_) => None,
    });
    // Others tell of every address they have, also of those in the network behind them.
    let told = core.mobility.peer.iter().copied();
    let told = told.filter(|address| !is_protected(&core.connection, Side::Remote, *address));
    let mut found = vec![core.path.remote.ip()];
    for address in told.chain(configured) {
        if !found.contains(&address) && found.len() < ADDRESSES {
            found.push(address);
        }
    }
    found
}

/// Ways to repeat a request on: all pairs that have a route, besides the one in use.
pub(crate) fn other_ways(core: &Core) -> impl Iterator<Item = Path> {
    let usable = |pair: &&(IpAddr, IpAddr)| !core.mobility.refused.contains(pair);
    let ways = core.mobility.pairs.iter().filter(usable).map(|pair| way(core.path, *pair));
    ways.filter(|way| *way != core.path).take(PAIRS)
}

/// The same ports between other addresses.
pub(crate) fn way(path: Path, (local, remote): (IpAddr, IpAddr)) -> Path {
    let mut way = path;
    way.local.set_ip(local);
    way.remote.set_ip(remote);
    way
}

//= RFC 4555 §3.4: each further address in a notification of its own
/// ADDITIONAL_IP4_ADDRESS and ADDITIONAL_IP6_ADDRESS for all but the first address.
pub(crate) fn additional(addresses: &[IpAddr]) -> impl Iterator<Item = Payload<'static>> {
    addresses.iter().skip(1).map(|address| {
        Payload::Notify(match address {
            IpAddr::V4(v4) => Notify::new(NotifyType::ADDITIONAL_IP4_ADDRESS, v4.octets().to_vec()),
            IpAddr::V6(v6) => Notify::new(NotifyType::ADDITIONAL_IP6_ADDRESS, v6.octets().to_vec()),
        })
    })
}

//= RFC 4555 §3.6: the complete list each time; NO_ADDITIONAL_ADDRESSES when there is only the one in the IP header
/// The whole list as it is told outside of IKE_AUTH.
pub(crate) fn address_list(addresses: &[IpAddr]) -> Vec<Payload<'static>> {
    let mut payloads: Vec<_> = additional(addresses).collect();
    if payloads.is_empty() {
        payloads.push(Payload::Notify(Notify::plain(NotifyType::NO_ADDITIONAL_ADDRESSES)));
    }
    payloads
}

//= RFC 4555 §4.2: ADDITIONAL_IP4_ADDRESS has 4 octets, ADDITIONAL_IP6_ADDRESS 16
/// The additional addresses that a message tells of; `None` when it does not speak of them.
pub(crate) fn told_addresses(payloads: &Payloads<'_>) -> Option<Vec<IpAddr>> {
    let mut spoken = false;
    let mut found = Vec::new();
    for notify in payloads.notifies() {
        let address = match notify.kind {
            NotifyType::ADDITIONAL_IP4_ADDRESS => <[u8; 4]>::try_from(&*notify.data).ok().map(IpAddr::from),
            NotifyType::ADDITIONAL_IP6_ADDRESS => <[u8; 16]>::try_from(&*notify.data).ok().map(IpAddr::from),
            NotifyType::NO_ADDITIONAL_ADDRESSES => None,
            _ => continue,
        };
        spoken = true;
        if let Some(address) = address.filter(|address| is_host(*address) && !found.contains(address))
            && found.len() < ADDRESSES
        {
            found.push(address);
        }
    }
    spoken.then_some(found)
}

/// Whether an address can be that of a peer.
pub(crate) fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !broadcast
}

/// NO_NATS_ALLOWED for a message that goes along `path` (RFC 4555 §4.2.6): source, destination, both ports.
pub(crate) fn no_nats(path: Path) -> Payload<'static> {
    Payload::Notify(Notify::new(NotifyType::NO_NATS_ALLOWED, ends(path)))
}

fn ends(path: Path) -> Vec<u8> {
    let mut data = Vec::with_capacity(36);
    for end in [path.local, path.remote] {
        match end.ip() {
            IpAddr::V4(address) => data.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => data.extend_from_slice(&address.octets()),
        }
    }
    data.extend_from_slice(&path.local.port().to_be_bytes());
    data.extend_from_slice(&path.remote.port().to_be_bytes());
    data
}

//= RFC 4555 §3.9: the contents must match the addresses in the IP header
/// Whether a message that came along `path` says that no NAT is allowed although there is one.
pub(crate) fn is_translated(payloads: &Payloads<'_>, path: Path) -> bool {
    let sent = Path { local: path.remote, remote: path.local };
    payloads.notify(NotifyType::NO_NATS_ALLOWED).is_some_and(|notify| *notify.data != *ends(sent))
}

/// How the peer sees our address and port.
pub(crate) fn seen_as(payloads: &Payloads<'_>) -> Option<[u8; 20]> {
    payloads.notify(NotifyType::NAT_DETECTION_DESTINATION_IP)?.data.as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ike_wire::ids::ExchangeType;
    use ike_wire::{Flags, Header, IkeSpi, Message, MessageId};

    fn through_the_wire<R>(payloads: &[Payload<'_>], look: impl FnOnce(&Payloads<'_>) -> R) -> R {
        let header = Header::new(IkeSpi(1), IkeSpi(2), ExchangeType::INFORMATIONAL, Flags::default(), MessageId(0));
        let octets = ike_wire::encode(&header, payloads).unwrap();
        look(&Message::parse(&octets).unwrap().payloads)
    }

    fn addresses(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    //= RFC 4555 §3.6: the list replaces what was known; NO_ADDITIONAL_ADDRESSES empties it
    //= RFC 4555 §4.2: each list as notifications and back
    #[test]
    fn address_lists_survive_the_wire() {
        let list = addresses(&["192.0.2.1", "198.51.100.1", "2001:db8::1"]);
        assert_eq!(through_the_wire(&address_list(&list), told_addresses), Some(list[1..].to_vec()));
        assert_eq!(through_the_wire(&address_list(&list[..1]), told_addresses), Some(Vec::new()));
        assert_eq!(through_the_wire(&[], told_addresses), None);
    }

    #[test]
    fn nonsense_is_not_kept() {
        let hostile: Vec<_> = addresses(&["192.0.2.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1"]);
        assert_eq!(through_the_wire(&address_list(&hostile), told_addresses), Some(Vec::new()));
        let short = [Payload::Notify(Notify::new(NotifyType::ADDITIONAL_IP4_ADDRESS, vec![1, 2, 3]))];
        assert_eq!(through_the_wire(&short, told_addresses), Some(Vec::new()));
        let many: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        assert_eq!(through_the_wire(&address_list(&many), told_addresses).map(|all| all.len()), Some(ADDRESSES));
    }

    //= RFC 4555 §4.2.6: 12 octets for IPv4, 36 for IPv6
    #[test]
    fn translation_is_seen_by_no_nats_allowed() {
        for (local, remote, length) in
            [("192.0.2.1:500", "192.0.2.2:4500", 12), ("[2001:db8::1]:500", "[2001:db8::2]:4500", 36)]
        {
            let sent = Path { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
            assert_eq!(ends(sent).len(), length);
            let received = Path { local: sent.remote, remote: sent.local };
            let mut translated = received;
            translated.remote.set_port(1_024);
            let seen = |path| through_the_wire(&[no_nats(sent)], |payloads| is_translated(payloads, path));
            assert_eq!((seen(received), seen(translated)), (false, true));
        }
    }
}
