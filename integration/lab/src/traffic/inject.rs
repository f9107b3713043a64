//! Forged packets: a clear UDP packet thrown at a gateway from its outer link, and a look at whether the host behind got it.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::frame::udp;
use crate::packet::PacketSocket;
use crate::process::uninterrupted;
use crate::topology::{Family, OUTER, Site};

/// Payload of forged packets.
const FORGED: &[u8] = b"forged in clear";

/// Sends clear packets that claim to come from the host of `from`, out of that site's gateway, straight to the other gateway's outer
/// interface, and returns how many its LAN host received; it waits for them until none has come for `patience`.
///
/// # Errors
/// Raw sockets are not allowed.
pub fn forged_packets_received(
    from: &Site,
    to: &Site,
    family: Family,
    count: usize,
    patience: Duration,
) -> anyhow::Result<usize> {
    let listener = to.host.run(|| UdpSocket::bind(SocketAddr::new(to.host_address(family), 0)))??;
    listener.set_read_timeout(Some(patience))?;
    let source = SocketAddr::new(from.host_address(family), 40_000);
    let frame = udp(from.outer_mac(), to.outer_mac(), source, listener.local_addr()?, FORGED);
    let socket = PacketSocket::open(&from.gateway, OUTER)?;
    for _ in 0..count {
        socket.send(&frame)?;
    }
    let mut buffer = [0; 64];
    let mut received = 0;
    while received < count
        && let Ok(length) = uninterrupted(|| listener.recv(&mut buffer))
    {
        received += usize::from(buffer.get(..length) == Some(FORGED));
    }
    Ok(received)
}
