//! Packets as a data path carries them, shown to whoever looks for a fault.
//!
//! A backend that can show packets implements [`crate::OffloadBackend::show_packets`]. It shows those of SAs that are wanted, by the name in
//! [`crate::SaSpec::name`], inside in clear and outside as ESP, and says in words what of them it can see: of a data path in hardware not much
//! comes by.

use std::sync::Arc;

use crate::handle::{SaHandle, Spi};
use crate::sa::Direction;

/// Which side of ESP a packet was seen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// In clear: before encryption, or after decryption.
    Inner,
    /// As ESP, with the headers in front of it.
    Outer,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The SA that carries it, or was to.
    pub sa: SaHandle,
    /// Connection and child, as the SA was installed with.
    pub name: &'a Arc<str>,
    /// The SA's SPI.
    pub spi: Spi,
    /// `Inbound` or `Outbound`.
    pub direction: Direction,
    /// Where it was seen.
    pub side: Side,
    /// ESP sequence number, as far as it is known.
    pub sequence: Option<u64>,
    /// Why it went no further, in the backend's words.
    pub dropped: Option<&'static str>,
    /// An IP packet, in two parts.
    pub octets: [&'a [u8]; 2],
}

impl Shown<'_> {
    /// Length of the packet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.octets.iter().map(|part| part.len()).sum()
    }

    /// Whether there is nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes packets. Called by the threads of a data path, several at once: it never waits for whoever reads them in the end.
pub trait Tap: Send + Sync {
    /// Whether packets of SAs of this name are wanted; asked before anything of a packet is copied.
    fn wants(&self, name: &str) -> bool;
    /// A packet.
    fn show(&self, packet: &Shown<'_>);
}

/// What a data path can show, in words: half a sentence for each side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Of packets in clear.
    pub inner: String,
    /// Of ESP.
    pub outer: String,
}
