//! The receiving thread: from the outer sockets through [`Inbound`] to the tunnel device, and IKE to the daemon.
//!
//! **IKE under a flood of ESP.** IKE (marker of four zero octets, RFC 3948 §2.2) has a socket and so a queue of its own beside each adopted one,
//! and sockets take turns, one batch each: IKE waits for at most one batch of cryptography for each other socket. Where the kernel refuses the second
//! socket both share a queue; then the IKE of a batch still goes up before any ESP of it is decrypted.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ipsec::Path;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::mmsg::{Meta, RECEIVE_BATCH, ReceiveBuffers};
use super::offload::coalesce::deliver;
use super::socket::OuterSocket;
use super::transmit::Wires;
use crate::drops::Reason;
use crate::engine::{Arrival, Form, Inbound, Shared};
use crate::packet::IPV4_HEADER;

/// Packets of one batch when every datagram is a full run of joined ones.
const INNER_PACKETS: usize = 64 * RECEIVE_BATCH;

/// Runs until told to stop.
pub(crate) fn run(shared: &Arc<Shared>, wires: &Wires) {
    let mut inbound = Inbound::new(Arc::clone(shared));
    let mut buffers = ReceiveBuffers::new();
    // Where in the buffers the inner packets of a batch are.
    let mut inner = Vec::with_capacity(INNER_PACKETS);
    let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
    while !wires.stop.load(Relaxed) {
        let sockets = wires.sockets.load_full();
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(&wires.receive_wake, PollFlags::IN)];
        fds.extend(sockets.iter().map(|socket| PollFd::new(socket.as_ref(), PollFlags::IN)));
        // Until something other than packets happens, nothing is allocated.
        while !wires.stop.load(Relaxed) && poll(&mut fds, Some(&timeout)).is_ok() {
            if fds.first().is_some_and(|wake| !wake.revents().is_empty()) {
                wires.receive_wake.clear();
                break;
            }
            let ready = fds.iter().skip(1).map(|fd| !fd.revents().is_empty());
            let mut idle = true;
            for (socket, _) in sockets.iter().zip(ready).filter(|(_, ready)| *ready) {
                idle = false;
                take_batch(socket, &mut buffers, &mut inner, &mut inbound, shared, wires);
            }
            if idle {
                inbound.renew();
            }
        }
    }
}

fn take_batch(
    socket: &OuterSocket,
    buffers: &mut ReceiveBuffers,
    inner: &mut Vec<Range<usize>>,
    inbound: &mut Inbound,
    shared: &Shared,
    wires: &Wires,
) {
    // An error (an ICMP error that came back, for example) is cleared by being read.
    if !matches!(buffers.receive(socket), Ok(1..)) {
        return;
    }
    let arena_start = buffers.arena().as_ptr().addr();
    for (meta, datagram) in buffers.datagrams() {
        hand_up_ike(socket, &meta, datagram, shared);
    }
    let (form, v4) = (socket.form, socket.local.is_ipv4());
    let (datagrams, spare) = buffers.datagrams_and_spare();
    let packets = datagrams.flat_map(|(meta, datagram)| {
        let arrival = Arrival { remote: meta.remote, form, local: meta.local, class: meta.class, hops: meta.hops };
        datagram.chunks_mut(meta.segment.max(1)).filter_map(move |packet| Some((arrival, esp(form, v4, packet)?)))
    });
    inner.clear();
    inbound.process(packets, spare, super::now(), |packet| {
        let start = packet.as_ptr().addr() - arena_start;
        inner.push(start..start + packet.len());
    });
    let tun = wires.tun.load();
    deliver(buffers.arena(), inner, |pieces| {
        if tun.as_ref().as_ref().is_none_or(|tun| rustix::io::writev(tun, pieces).is_err()) {
            shared.count(Reason::DeliveryFailed);
        }
    });
}

/// The non-ESP marker in front of IKE.
const MARKER: [u8; 4] = [0; 4];

/// Hands up the IKE messages among what a UDP socket gave.
fn hand_up_ike(socket: &OuterSocket, meta: &Meta, datagram: &[u8], shared: &Shared) {
    if socket.form == Form::Native {
        return;
    }
    for message in datagram.chunks(meta.segment.max(1)).filter_map(|datagram| datagram.strip_prefix(&MARKER)) {
        let local = SocketAddr::new(meta.local.unwrap_or(socket.local.ip()), socket.local.port());
        shared.reports.ike_datagram(Path { local, remote: meta.remote }, message);
    }
}

//= RFC 3948 §2.1, §3.5: ESP behind a UDP header, which goes before the packet is opened
/// The ESP packet in what a socket gave: raw IPv4 sockets show the IP header, UDP sockets also carry IKE and keepalives (RFC 3948 §2).
fn esp(form: Form, v4: bool, packet: &mut [u8]) -> Option<&mut [u8]> {
    match form {
        Form::Native if v4 => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            packet.get_mut(header.max(IPV4_HEADER)..)
        }
        Form::Native => Some(packet),
        Form::Udp { .. } if packet.len() <= MARKER.len() || packet.starts_with(&MARKER) => None,
        Form::Udp { .. } => Some(packet),
    }
}
