//! Segmentation and coalescing on the tunnel device: the virtio-net header, large packets in both directions.
//!
//! The kernel hands over TCP and UDP packets far beyond the MTU, to be cut here ([`segment`]), and takes such packets back ([`coalesce`]). Fewer
//! passes through the kernel's stack are what makes a tunnel fast.

pub(super) mod coalesce;
pub(super) mod segment;

/// Octets of the header in front of every packet.
pub(super) const HEADER: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
/// Marks segments of a congestion-experienced flow; nothing to do for us.
const ECN: u8 = 0x80;

/// What a large packet is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// One packet.
    #[default]
    Single,
    TcpV4,
    TcpV6,
    Udp,
}

/// The virtio-net header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The transport checksum covers the pseudo-header only.
    pub(super) partial_checksum: bool,
    pub(super) kind: Kind,
    /// Length of all headers.
    pub(super) headers: u16,
    /// Payload octets of each segment but the last.
    pub(super) segment: u16,
    /// Start of the transport header.
    pub(super) transport: u16,
    /// Place of the checksum in it.
    pub(super) checksum: u16,
}

impl Header {
    /// Reads the header in front of a packet; `None` for a kind nobody asked the kernel for.
    pub(super) fn read(octets: [u8; HEADER]) -> Option<Self> {
        let [flags, kind, h0, h1, s0, s1, t0, t1, c0, c1] = octets;
        let kind = match kind & !ECN {
            0 => Kind::Single,
            TCP_V4 => Kind::TcpV4,
            TCP_V6 => Kind::TcpV6,
            UDP => Kind::Udp,
            _ => return None,
        };
        let word = |low, high| u16::from_ne_bytes([low, high]);
        Some(Self {
            partial_checksum: flags & NEEDS_CHECKSUM != 0,
            kind,
            headers: word(h0, h1),
            segment: word(s0, s1),
            transport: word(t0, t1),
            checksum: word(c0, c1),
        })
    }

    pub(super) fn write(self) -> [u8; HEADER] {
        let kind = match self.kind {
            Kind::Single => 0,
            Kind::TcpV4 => TCP_V4,
            Kind::TcpV6 => TCP_V6,
            Kind::Udp => UDP,
        };
        let [[h0, h1], [s0, s1], [t0, t1], [c0, c1]] =
            [self.headers, self.segment, self.transport, self.checksum].map(u16::to_ne_bytes);
        [u8::from(self.partial_checksum), kind, h0, h1, s0, s1, t0, t1, c0, c1]
    }
}

/// The Internet checksum's sum (RFC 1071) in the machine's own octet order, in which it is the same up to a swap at the end.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// With these octets added; an odd count only at the end.
    pub(super) fn add(self, octets: &[u8]) -> Self {
        let mut chunks = octets.chunks_exact(4);
        let mut sum = self.0;
        for word in chunks.by_ref().filter_map(|chunk| chunk.first_chunk::<4>()) {
            sum += u64::from(u32::from_ne_bytes(*word));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(chunks.remainder()) {
            *to = *from;
        }
        Self(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// With protocol and transport length of the pseudo-header added.
    pub(super) fn add_pseudo(self, protocol: u8, length: usize) -> Self {
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        self.add(&[0, protocol]).add(&length)
    }

    /// As it stands in a header whose checksum is completed later.
    pub(super) fn partial(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (sum as u16).to_ne_bytes()
    }

    /// As it stands in a complete header.
    pub(super) fn checksum(self) -> [u8; 2] {
        (!u16::from_ne_bytes(self.partial())).to_ne_bytes()
    }
}

/// Source and destination address of an IP packet.
fn addresses(packet: &[u8]) -> Option<&[u8]> {
    match packet.first()? >> 4 {
        4 => packet.get(12..20),
        6 => packet.get(8..40),
        _ => None,
    }
}

/// Writes `value` at `at`, as far as there is room: the callers made it.
fn put(octets: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in octets.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn long(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

/// Sets the length of an IP packet of which at least the header is here, and for IPv4 identification and header checksum.
fn set_length(packet: &mut [u8], length: usize, identification: Option<u16>) {
    if packet.first().is_some_and(|octet| octet >> 4 == 4) {
        put(packet, 2, &u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        if let Some(identification) = identification {
            put(packet, 4, &identification.to_be_bytes());
        }
        put(packet, 10, &[0, 0]);
        let header = packet.first().map_or(0, |octet| usize::from(octet & 0x0f) * 4);
        let sum = Sum::default().add(packet.get(..header).unwrap_or_default()).checksum();
        put(packet, 10, &sum);
    } else {
        put(packet, 4, &u16::try_from(length.saturating_sub(40)).unwrap_or(u16::MAX).to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
