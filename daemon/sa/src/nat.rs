//! NAT detection and the UDP encapsulation that follows from it (RFC 7296 §2.23, RFC 3948).

use std::net::{IpAddr, SocketAddr};

use ike_crypto::sha1;
use ike_wire::ids::NotifyType;
use ike_wire::{IkeSpi, Notify, Payload, Payloads};
use ipsec::{Path, UdpEncapsulation};

use crate::core::Core;
use crate::say::say;

/// What is known of NAT on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nat {
    /// We are behind NAT.
    pub(crate) local: bool,
    /// The peer is behind NAT.
    pub(crate) remote: bool,
    /// We pretend to be, so that ESP goes in UDP.
    pub(crate) forced: bool,
}

impl Nat {
    /// Whether ESP goes in UDP.
    pub(crate) fn encapsulates(self) -> bool {
        self.local || self.remote || self.forced
    }

    /// The encapsulation of ESP on `path`.
    pub(crate) fn encapsulation(self, path: Path) -> Option<UdpEncapsulation> {
        let ports = UdpEncapsulation { local_port: path.local.port(), remote_port: path.remote.port() };
        self.encapsulates().then_some(ports)
    }
}

/// Digest of one end (RFC 7296 §2.23).
fn digest(spi_i: IkeSpi, spi_r: IkeSpi, end: SocketAddr) -> [u8; 20] {
    let (spi_i, spi_r, port) = (spi_i.to_octets(), spi_r.to_octets(), end.port().to_be_bytes());
    match end.ip() {
        IpAddr::V4(address) => sha1(&[&spi_i, &spi_r, &address.octets(), &port]),
        IpAddr::V6(address) => sha1(&[&spi_i, &spi_r, &address.octets(), &port]),
    }
}

/// The two notifications of a message that goes along `path`. When encapsulation is forced the source digest is that of no address.
pub(crate) fn notifies(spi_i: IkeSpi, spi_r: IkeSpi, path: Path, forced: bool) -> [Payload<'static>; 2] {
    let source = if forced {
        digest(spi_i, spi_r, SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0))
    } else {
        digest(spi_i, spi_r, path.local)
    };
    let destination = digest(spi_i, spi_r, path.remote);
    [
        Payload::Notify(Notify::new(NotifyType::NAT_DETECTION_SOURCE_IP, source.to_vec())),
        Payload::Notify(Notify::new(NotifyType::NAT_DETECTION_DESTINATION_IP, destination.to_vec())),
    ]
}

/// Whether a message does NAT detection.
pub(crate) fn is_present(payloads: &Payloads<'_>) -> bool {
    payloads.notify(NotifyType::NAT_DETECTION_SOURCE_IP).is_some()
        && payloads.notify(NotifyType::NAT_DETECTION_DESTINATION_IP).is_some()
}

//= RFC 7296 §2.23: the hashes of addresses and ports that do not match show who is behind NAT
/// What a message that came along `path` says about NAT; nothing when the peer does not do NAT detection.
pub(crate) fn detect(payloads: &Payloads<'_>, spi_i: IkeSpi, spi_r: IkeSpi, path: Path, forced: bool) -> Nat {
    let matches = |kind: NotifyType, end: SocketAddr| {
        let expected = digest(spi_i, spi_r, end);
        let mut sent = payloads.notifies().filter(|notify| notify.kind == kind).peekable();
        sent.peek().map(|_| ()).map(|()| sent.any(|notify| *notify.data == expected))
    };
    let (Some(source), Some(destination)) = (
        matches(NotifyType::NAT_DETECTION_SOURCE_IP, path.remote),
        matches(NotifyType::NAT_DETECTION_DESTINATION_IP, path.local),
    ) else {
        return Nat::default();
    };
    Nat { local: !destination, remote: !source, forced }
}

/// Tells whom of the two NAT was found to be in front of.
pub(crate) fn say_found(core: &Core) {
    if core.nat.local {
        say!(DEBUG, "IKE 1", core, "local host is behind NAT, sending keep alives");
    }
    if core.nat.remote {
        say!(DEBUG, "IKE 1", core, "remote host is behind NAT");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ike_wire::ids::ExchangeType;
    use ike_wire::{Flags, Header, Message, MessageId};

    fn path(local: &str, remote: &str) -> Path {
        Path { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    fn seen(sent: Path, received: Path, forced: bool) -> Nat {
        let (i, r) = (IkeSpi(1), IkeSpi(0));
        let header = Header::new(i, r, ExchangeType::IKE_SA_INIT, Flags::default(), MessageId(0));
        let octets = ike_wire::encode(&header, &notifies(i, r, sent, forced)).unwrap();
        detect(&Message::parse(&octets).unwrap().payloads, i, r, received, false)
    }

    #[test]
    fn each_end_behind_nat_is_seen() {
        let sent = path("10.0.0.1:500", "192.0.2.2:500");
        let direct = path("192.0.2.2:500", "10.0.0.1:500");
        assert_eq!(seen(sent, direct, false), Nat::default());
        let source = path("192.0.2.2:500", "198.51.100.1:1024");
        assert_eq!(seen(sent, source, false), Nat { remote: true, ..Nat::default() });
        let destination = path("10.9.9.9:500", "10.0.0.1:500");
        assert_eq!(seen(sent, destination, false), Nat { local: true, ..Nat::default() });
        assert_eq!(seen(sent, direct, true), Nat { remote: true, ..Nat::default() });
    }
}
