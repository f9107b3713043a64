//! Packets shown to a tap: the inner one in clear, the outer one with the headers that the sockets leave to the kernel.
//!
//! Nothing here runs while nobody looks. Sockets give and take ESP without its IP header, so that is rebuilt from what they are told or tell
//! ([`offload_host::head`]).

use ipsec::{Direction, Shown, Side, Tap};
use offload_host::head::{self, DEFAULT_HOPS, Head};

use super::inbound::{Arrival, Form};
use super::transport::Cut;
use super::{Batch, Datagram};
use crate::drops::Reason;
use crate::esp;
use crate::sad::{OuterPath, Sa};

const ESP: u8 = 50;

/// A packet that was sealed: the last of the batch.
pub(super) fn sealed(tap: &dyn Tap, sa: &Sa, sequence: u64, cut: &Cut<'_>, batch: &Batch) {
    if !tap.wants(&sa.name) {
        return;
    }
    let inner = of(sa, Side::Inner);
    tap.show(&Shown { sequence: Some(sequence), octets: [cut.whole, &[]], ..inner });
    let Some((datagram, octets)) = batch.datagrams().last() else { return };
    let Datagram { path: OuterPath { local, remote, encapsulation }, class, dont_fragment, hops, .. } = *datagram;
    let head = Head {
        source: local,
        destination: remote,
        protocol: ESP,
        ports: encapsulation.map(|ports| (ports.local_port, ports.remote_port)),
        class,
        hops: hops.unwrap_or(DEFAULT_HOPS),
        dont_fragment,
        options: batch.options(datagram),
    };
    let mut room = head::room();
    let head = head.write(octets, &mut room);
    tap.show(&Shown { sequence: Some(sequence), octets: [head, octets], ..of(sa, Side::Outer) });
}

/// A packet that its SA does not carry.
pub(super) fn refused(tap: &dyn Tap, sa: &Sa, packet: &[u8], reason: Reason) {
    if tap.wants(&sa.name) {
        tap.show(&Shown { dropped: Some(reason.name()), octets: [packet, &[]], ..of(sa, Side::Inner) });
    }
}

/// An ESP packet that is going to be opened in place.
pub(super) struct Opening<'a> {
    tap: &'a dyn Tap,
    sa: &'a Sa,
    head: Head<'static>,
    sequence: u64,
    octets: &'a [u8],
}

impl<'a> Opening<'a> {
    /// Keeps the packet in `copy`, if it is wanted.
    pub(super) fn of(
        tap: &'a dyn Tap,
        sa: &'a Sa,
        arrival: &Arrival,
        packet: &[u8],
        copy: &'a mut Vec<u8>,
    ) -> Option<Self> {
        if !tap.wants(&sa.name) {
            return None;
        }
        let (_, sequence) = esp::header(packet)?;
        copy.clear();
        copy.extend_from_slice(packet);
        let ports = match arrival.form {
            Form::Native => None,
            Form::Udp { local_port } => Some((arrival.remote.port(), local_port)),
        };
        let head = Head {
            source: arrival.remote.ip(),
            destination: arrival.local.unwrap_or(sa.path.local),
            protocol: ESP,
            ports,
            class: arrival.class,
            hops: arrival.hops,
            dont_fragment: false,
            options: &[],
        };
        Some(Self { tap, sa, head, sequence: sequence.into(), octets: copy })
    }

    /// Shows it, and what was in it.
    pub(super) fn show(self, outcome: &Result<Option<&mut [u8]>, Reason>) {
        let mut room = head::room();
        let sequence = Some(self.sequence);
        let outer = of(self.sa, Side::Outer);
        let dropped = outcome.as_ref().err().map(|reason| reason.name());
        let head = self.head.write(self.octets, &mut room);
        self.tap.show(&Shown { sequence, dropped, octets: [head, self.octets], ..outer });
        if let Ok(Some(inner)) = outcome {
            self.tap.show(&Shown { sequence, octets: [inner, &[]], ..of(self.sa, Side::Inner) });
        }
    }
}

fn of(sa: &Sa, side: Side) -> Shown<'_> {
    let direction = match sa.direction {
        Direction::Outbound => Direction::Outbound,
        Direction::Inbound | Direction::Forward => Direction::Inbound,
    };
    let (handle, name, spi) = (sa.handle, &sa.name, sa.spi);
    Shown { sa: handle, name, spi, direction, side, sequence: None, dropped: None, octets: [&[], &[]] }
}
