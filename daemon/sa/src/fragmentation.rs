//! Whether messages are fragmented, and how long they may be before they are (RFC 7383 §2.2-2.5).
//!
//! Left to others: how a message is divided ([`ike_wire::SkBuffer::seal_fragments`]), putting it together ([`crate::reassembly`]).

use std::net::IpAddr;
use std::sync::Arc;

use ike_model::{Connection, IkeSettings};
use ike_wire::ids::NotifyType;
use ike_wire::{Notify, Payload, Payloads};
use ipsec::Path;

/// The notification that announces it in IKE_SA_INIT.
//= RFC 7383 §2.3: the notification has no SPI and no data
pub(crate) fn announcement() -> Payload<'static> {
    Payload::Notify(Notify::plain(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED))
}

/// Whether the peer announces it.
pub(crate) fn is_announced(payloads: &Payloads<'_>) -> bool {
    payloads.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some()
}

/// Whether a responder announces it before it knows which of the connections the peer belongs to: when one of them would. Announcing it
/// for nothing does no harm, since fragments are taken anyway; not announcing it can keep a long IKE_AUTH message from ever arriving.
/// Whether fragments are sent is decided by the connection that is chosen then.
pub(crate) fn any_announces(candidates: &[Arc<Connection>]) -> bool {
    candidates.iter().any(|connection| connection.fragmentation.is_announced())
}

/// IP datagram that every IPv4 host takes.
const SMALL_V4: u16 = 576;
/// IP datagram that every IPv6 link carries.
const SMALL_V6: u16 = 1280;
const UDP_HEADER: u16 = 8;
const NON_ESP_MARKER: u16 = 4;

/// Octets of the longest IKE message that goes along `path` in one datagram.
//= RFC 7383 §2.5.1: 1280 octets of IP datagram over IPv6, 576 over IPv4, unless more is known
pub(crate) fn longest_message(settings: &IkeSettings, path: Path) -> usize {
    let (default, ip_header) = match path.remote.ip() {
        IpAddr::V4(_) => (SMALL_V4, 20),
        IpAddr::V6(_) => (SMALL_V6, 40),
    };
    let datagram = if settings.fragment_size == 0 { default } else { settings.fragment_size };
    let marker = if path.local.port() == settings.nat_port { NON_ESP_MARKER } else { 0 };
    usize::from(datagram.saturating_sub(ip_header + UDP_HEADER + marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    //= RFC 7383 §2.5.1: fragment sizes
    #[test]
    fn all_headers_are_taken_off_the_datagram() {
        let v4 = |port: u16| Path {
            local: format!("192.0.2.1:{port}").parse().unwrap(),
            remote: format!("192.0.2.2:{port}").parse().unwrap(),
        };
        let v6 = |port: u16| Path {
            local: format!("[2001:db8::1]:{port}").parse().unwrap(),
            remote: format!("[2001:db8::2]:{port}").parse().unwrap(),
        };
        let cases = [
            (1280, v4(500), 1252),
            (1280, v4(4500), 1248),
            (1280, v6(500), 1232),
            (1280, v6(4500), 1228),
            (0, v4(500), 548),
            (0, v6(500), 1232),
            (1500, v6(4500), 1448),
            (20, v6(500), 0),
        ];
        for (fragment_size, path, longest) in cases {
            let settings = IkeSettings { fragment_size, ..IkeSettings::default() };
            assert_eq!(longest_message(&settings, path), longest, "{fragment_size} {path:?}");
        }
    }
}
