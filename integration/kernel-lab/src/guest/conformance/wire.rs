//! Both sides of the gateway's data path: frames in at the far ends of its links, frames out there, and what its own sockets get.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use ipsec::conformance::OuterPacket;
use lab::frame::{TCP, UDP};
use lab::netns::Namespace;
use lab::packet::{LARGEST_FRAME, PacketSocket};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with, sockopt};

use super::bed::{Bed, LOCAL_V6};
use super::frames;

/// Nothing moves any more when nothing has moved for so long.
const QUIET: Duration = Duration::from_millis(20);
/// What the outer link carries at most.
const MTU: usize = 1_500;

/// What came out and was not asked for yet.
#[derive(Default)]
pub(super) struct Captured {
    pub(super) outer: Vec<OuterPacket>,
    pub(super) inner: Vec<Vec<u8>>,
    whole: frames::Whole,
}

/// Sockets of the gateway that packets in transport mode are delivered to.
pub(super) struct Local {
    raw: Vec<(Raw, OwnedFd)>,
    /// They take what they get and say nothing: with nobody there, the kernel would answer.
    _silent: Vec<UdpSocket>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Raw {
    V4,
    V6,
}

impl Local {
    pub(super) fn open(gateway: &Namespace) -> anyhow::Result<Self> {
        gateway.run(|| {
            let kinds = [(Raw::V4, UDP), (Raw::V4, TCP), (Raw::V6, UDP)];
            let raw = kinds.into_iter().map(|(kind, protocol)| Ok((kind, raw_socket(kind, protocol)?)));
            let silent = [7, 5_000].into_iter().map(|port| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)));
            Ok(Self {
                raw: raw.collect::<anyhow::Result<_>>()?,
                _silent: silent.collect::<Result<_, _>>().context("silent sockets")?,
            })
        })?
    }

    fn drain(&self, into: &mut Vec<Vec<u8>>) -> anyhow::Result<()> {
        let mut buffer = vec![0; LARGEST_FRAME];
        let own: Ipv6Addr = LOCAL_V6.parse()?;
        for (kind, socket) in &self.raw {
            while let Ok((length, _, from)) = recvfrom(socket, &mut buffer, RecvFlags::DONTWAIT) {
                let octets = buffer.get(..length).unwrap_or_default();
                match kind {
                    // What is of IKE or carries ESP is no packet of a behaviour.
                    Raw::V4 if frames::is_of_ike(octets) => {}
                    Raw::V4 => into.push(octets.to_vec()),
                    Raw::V6 => {
                        let from = from.and_then(|from| SocketAddr::try_from(from).ok()).map(|from| from.ip());
                        let Some(IpAddr::V6(from)) = from else { continue };
                        into.push(frames::with_header(from, own, UDP, octets));
                    }
                }
            }
        }
        Ok(())
    }
}

fn raw_socket(kind: Raw, protocol: u8) -> anyhow::Result<OwnedFd> {
    let family = match kind {
        Raw::V4 => AddressFamily::INET,
        Raw::V6 => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = std::num::NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
    socket_with(family, SocketType::RAW, flags, protocol).context("a raw socket")
}

/// A UDP socket of one family only.
pub(super) fn udp_socket(at: SocketAddr) -> anyhow::Result<UdpSocket> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &at)?;
    Ok(socket.into())
}

impl Bed {
    /// Sends packets into the gateway from the protected side. Forwarding takes a hop from each, which is given before.
    pub(super) fn send_inner(&self, packets: &[Vec<u8>]) -> anyhow::Result<()> {
        for packet in packets {
            let mut packet = packet.clone();
            frames::give_hop_back(&mut packet);
            self.lan.socket.send(&frames::ethernet(self.lan.gateway, &packet))?;
        }
        Ok(())
    }

    /// Sends packets into the gateway from the outer side.
    pub(super) fn send_outer(&self, packets: &[OuterPacket]) -> anyhow::Result<()> {
        for packet in packets.iter().flat_map(|packet| frames::fragments(frames::carrier(packet), MTU)) {
            self.wan.socket.send(&frames::ethernet(self.wan.gateway, &packet))?;
        }
        Ok(())
    }

    /// Takes what has come out by now, and tells whether that was anything.
    fn drain(&self, local: &Local, captured: &mut Captured) -> anyhow::Result<bool> {
        let mut buffer = vec![0; LARGEST_FRAME];
        let mut count = captured.inner.len();
        for end in [&self.lan, &self.behind] {
            receive(&end.socket, &mut buffer, |mut packet| {
                frames::give_hop_back(&mut packet);
                captured.inner.push(packet);
            })?;
        }
        local.drain(&mut captured.inner)?;
        count = captured.inner.len() - count;
        receive(&self.wan.socket, &mut buffer, |packet| {
            count += 1;
            captured.outer.extend(captured.whole.take(packet).and_then(frames::outer));
        })?;
        Ok(count > 0)
    }

    /// Waits until nothing moves any more, on the links and in what `marks` tells.
    pub(super) fn settle<M: PartialEq>(
        &self,
        local: &Local,
        captured: &mut Captured,
        mut marks: impl FnMut() -> M,
    ) -> anyhow::Result<()> {
        let mut before = marks();
        loop {
            let moved = self.drain(local, captured)?;
            std::thread::sleep(QUIET);
            let now = marks();
            let still = !self.drain(local, captured)? && !moved && now == before;
            before = now;
            if still {
                return Ok(());
            }
        }
    }
}

fn receive(socket: &PacketSocket, buffer: &mut [u8], mut each: impl FnMut(Vec<u8>)) -> anyhow::Result<()> {
    while let Some(frame) = socket.receive(buffer)? {
        if let Some(packet) = frames::packet_of(frame) {
            each(packet);
        }
    }
    Ok(())
}
