//! Transport mode: one host at each end, and what NAT does to their addresses (RFC 7296 §1.3.1, §2.23.1).
//!
//! The selectors of a CHILD SA in transport mode name the two outer addresses and nothing else, for ESP leaves the IP header as it is. Where NAT is on
//! the way the two ends know each other by different addresses. Each replaces those that it receives by the ones it sees itself, and keeps what
//! it received: the peer's checksums are made with them (RFC 3948 §3.1.2).

use ike_model::{Child, ChildMode};
use ipsec::selector::narrow;
use ipsec::{AddressRange, OuterAddresses, Path, SaMode, TrafficSelector};
use std::net::IpAddr;

use crate::nat::Nat;
use crate::selectors;

/// The mode that a child is configured for.
pub(crate) fn mode(child: &Child) -> SaMode {
    if child.mode == ChildMode::Transport { SaMode::Transport } else { SaMode::Tunnel }
}

/// The outer addresses of a path.
pub(crate) fn outer(path: Path) -> OuterAddresses {
    OuterAddresses { local: path.local.ip(), remote: path.remote.ip() }
}

/// Local and remote selectors that a child may have between two outer addresses; in transport mode what is configured of these two hosts, be it
/// nothing.
//= RFC 7296 §2.23.1: transport mode has exactly one address in TSi and one in TSr, those of the IKE SA
pub(crate) fn allowed(
    child: &Child,
    mode: SaMode,
    outer: OuterAddresses,
) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let side = |configured, address| {
        let resolved = selectors::resolve(configured, address);
        match mode {
            SaMode::Tunnel => resolved,
            SaMode::Transport => narrow(&resolved, &[TrafficSelector::all(AddressRange::host(address))]),
        }
    };
    (side(&child.local_ts, outer.local), side(&child.remote_ts, outer.remote))
}

/// Selectors as received, with the addresses that we see.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Our side.
    pub(crate) local: Vec<TrafficSelector>,
    /// The peer's side.
    pub(crate) remote: Vec<TrafficSelector>,
    /// The addresses as the peer has them, where they differ.
    pub(crate) peer_view: Option<OuterAddresses>,
}

/// Replaces the addresses of received selectors by those that we see; nothing when they are not those of one host each.
//= RFC 7296 §2.23.1: store the original addresses; substitute the address of an end behind NAT by that of the IKE SA as seen here
pub(crate) fn seen(local: &[TrafficSelector], remote: &[TrafficSelector], path: Path, nat: Nat) -> Option<Seen> {
    let outer = outer(path);
    let received = OuterAddresses { local: only_host(local)?, remote: only_host(remote)? };
    let replaced = |selectors: &[TrafficSelector], behind_nat: bool, address: IpAddr| {
        let one = |selector: &TrafficSelector| match behind_nat {
            true => TrafficSelector { addresses: AddressRange::host(address), ..*selector },
            false => *selector,
        };
        selectors.iter().map(one).collect::<Vec<_>>()
    };
    Some(Seen {
        local: replaced(local, nat.local, outer.local),
        remote: replaced(remote, nat.remote, outer.remote),
        peer_view: (received != outer && (nat.local || nat.remote)).then_some(received),
    })
}

/// The one address of all selectors.
fn only_host(selectors: &[TrafficSelector]) -> Option<IpAddr> {
    let address = selectors.first()?.addresses.start();
    let host = AddressRange::host(address);
    selectors.iter().all(|selector| selector.addresses == host).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec::PortRange;

    fn host(address: &str) -> TrafficSelector {
        TrafficSelector::all(AddressRange::host(address.parse().unwrap()))
    }

    fn path(local: &str, remote: &str) -> Path {
        Path { local: format!("{local}:4500").parse().unwrap(), remote: format!("{remote}:4500").parse().unwrap() }
    }

    //= RFC 7296 §2.23.1: the whole picture of the section, with NAT before the client and before the server
    #[test]
    fn both_ends_come_to_the_addresses_they_see() {
        let [ip1, ipn1, ipn2, ip2] = ["10.0.0.1", "198.51.100.1", "203.0.113.2", "10.9.0.2"];
        let both = Nat { local: true, remote: true, forced: false };
        let web = |address: &str| TrafficSelector { protocol: 6, ports: PortRange::single(80), ..host(address) };
        // The server receives IP1 and IPN2, sees IPN1 and IP2.
        let server = seen(&[web(ipn2), host(ipn2)], &[host(ip1)], path(ip2, ipn1), both).unwrap();
        assert_eq!((server.local, server.remote), (vec![web(ip2), host(ip2)], vec![host(ipn1)]));
        let view = |local: &str, remote: &str| {
            Some(OuterAddresses { local: local.parse().unwrap(), remote: remote.parse().unwrap() })
        };
        assert_eq!(server.peer_view, view(ipn2, ip1));
        // Its answer holds what it sees: IPN1 and IP2, which the client turns into IP1 and IPN2.
        let client = seen(&[host(ipn1)], &[web(ip2)], path(ip1, ipn2), both).unwrap();
        assert_eq!((client.local, client.remote), (vec![host(ip1)], vec![web(ipn2)]));
        assert_eq!(client.peer_view, view(ipn1, ip2));
    }

    #[test]
    fn only_an_end_behind_nat_is_replaced() {
        let (local, remote) = ([host("192.0.2.2")], [host("10.0.0.1")]);
        let far = Nat { remote: true, ..Nat::default() };
        let found = seen(&local, &remote, path("192.0.2.2", "198.51.100.1"), far).unwrap();
        assert_eq!((found.local, found.remote), (local.to_vec(), vec![host("198.51.100.1")]));
        // Forced encapsulation makes the peer look as if behind NAT; the addresses are the same.
        let found = seen(&local, &[host("192.0.2.1")], path("192.0.2.2", "192.0.2.1"), far).unwrap();
        assert_eq!((found.remote, found.peer_view), (vec![host("192.0.2.1")], None));
        // Without NAT nothing is replaced, also what is wrong.
        let found = seen(&local, &remote, path("192.0.2.2", "198.51.100.1"), Nat::default()).unwrap();
        assert_eq!((found.remote, found.peer_view), (remote.to_vec(), None));
    }

    #[test]
    fn networks_and_several_hosts_are_none() {
        let path = path("192.0.2.2", "192.0.2.1");
        let net = TrafficSelector::prefix("10.0.0.0".parse().unwrap(), 24).unwrap();
        for wrong in [&[net][..], &[host("10.0.0.1"), host("10.0.0.2")], &[]] {
            assert_eq!(seen(&[host("192.0.2.2")], wrong, path, Nat::default()), None, "{wrong:?}");
        }
    }
}
