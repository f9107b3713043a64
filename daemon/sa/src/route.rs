//! Which shard an input belongs to. Pure, so that any thread may ask.

use std::net::SocketAddr;

use ike_model::Command;
use ike_wire::HEADER_LEN;

use ipsec::Shard;

/// Which shards a command must be handed to. Outcomes of [`CommandRoute::All`] are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandRoute {
    /// One.
    Shard(Shard),
    /// All.
    All,
}

const FLAGS_AT: usize = 19;
const FLAG_INITIATOR: u8 = 0x08;

/// The shard an IKE datagram belongs to: the one in our SPI, or for a first request the one its initiator's SPI and address hash to.
pub fn route(octets: &[u8], source: SocketAddr, shards: u8) -> Shard {
    let Some(header) = octets.get(..HEADER_LEN) else { return Shard(0) };
    let (initiator, responder) = (header.get(..8).unwrap_or_default(), header.get(8..16).unwrap_or_default());
    let from_initiator = header.get(FLAGS_AT).is_some_and(|flags| flags & FLAG_INITIATOR != 0);
    let ours = if from_initiator { responder } else { initiator };
    if ours.iter().all(|octet| *octet == 0) {
        let hash = source_octets(source).iter().chain(initiator).fold(FNV_OFFSET, fnv);
        return Shard(modulo(hash, shards));
    }
    Shard(modulo(ours.first().copied().unwrap_or(0).into(), shards))
}

/// The home shard of a connection: its traps, start actions and retries.
pub fn home(connection: &str, shards: u8) -> Shard {
    Shard(modulo(connection.as_bytes().iter().fold(FNV_OFFSET, fnv), shards))
}

/// Which shards a command must be handed to.
pub fn command_route(command: &Command, shards: u8) -> CommandRoute {
    match command {
        Command::Initiate { connection, .. }
        | Command::Install { connection, .. }
        | Command::Uninstall { connection, .. } => CommandRoute::Shard(home(connection, shards)),
        Command::Terminate { .. }
        | Command::Rekey { .. }
        | Command::Reauthenticate { .. }
        | Command::Reload { .. }
        | Command::Shutdown => CommandRoute::All,
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x100_0000_01b3;

fn fnv(hash: u64, octet: &u8) -> u64 {
    (hash ^ u64::from(*octet)).wrapping_mul(FNV_PRIME)
}

fn source_octets(source: SocketAddr) -> Vec<u8> {
    match source.ip() {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn modulo(value: u64, shards: u8) -> u8 {
    u8::try_from(value.checked_rem(u64::from(shards)).unwrap_or(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(initiator: u64, responder: u64, flags: u8) -> Vec<u8> {
        let mut octets = [initiator.to_be_bytes(), responder.to_be_bytes()].concat();
        octets.extend([33, 0x20, 34, flags]);
        octets.extend([0; 8]);
        octets
    }

    #[test]
    fn our_spi_names_the_shard() {
        let source = "192.0.2.1:500".parse().unwrap();
        assert_eq!(route(&datagram(0x0300_0000_0000_0001, 0x0500_0000_0000_0001, 0x08), source, 7), Shard(5));
        assert_eq!(route(&datagram(0x0300_0000_0000_0001, 0x0500_0000_0000_0001, 0x20), source, 7), Shard(3));
    }

    #[test]
    fn first_requests_spread_and_stay() {
        let source = "192.0.2.1:500".parse().unwrap();
        let other_port = "192.0.2.1:4500".parse().unwrap();
        let shards: std::collections::BTreeSet<_> =
            (1..100).map(|spi| route(&datagram(spi, 0, 0x08), source, 4)).collect();
        assert_eq!(shards.len(), 4);
        for spi in 1..100 {
            assert_eq!(route(&datagram(spi, 0, 0x08), source, 4), route(&datagram(spi, 0, 0x08), other_port, 4));
        }
    }

    #[test]
    fn short_datagrams_go_somewhere() {
        assert_eq!(route(&[1, 2, 3], "192.0.2.1:500".parse().unwrap(), 4), Shard(0));
        assert_eq!(route(&[], "192.0.2.1:500".parse().unwrap(), 0), Shard(0));
    }
}
