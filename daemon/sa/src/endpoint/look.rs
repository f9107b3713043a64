//! For those who look at messages from outside: which connection one belongs to.

use crate::endpoint::Endpoint;
use crate::ike_sa::IkeSa;

/// Where the header has its flags (RFC 7296 §3.1).
const FLAGS: usize = 19;
/// The original initiator of the IKE SA has sent it.
const INITIATOR: u8 = 0x08;

/// Who has sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// We.
    Us,
    /// The peer.
    Peer,
}

impl Endpoint {
    /// IKE SAs in any state, also those that have ended and still answer.
    pub(crate) fn every_ike(&self) -> impl Iterator<Item = &IkeSa> {
        self.ikes.values().chain(self.departed.values())
    }

    /// The connection of the IKE SA that a message belongs to, by the SPIs in its header: one that stands, is being made or has just ended. While a
    /// peer is not authenticated, it is the one that its address led to. `None` for what belongs to no IKE SA.
    pub fn connection_of(&self, message: &[u8], sender: Sender) -> Option<&str> {
        let spi = |at: usize| message.get(at..)?.first_chunk::<8>().map(|octets| u64::from_be_bytes(*octets));
        let (initiator, responder) = (spi(0)?, spi(8)?);
        let by_initiator = message.get(FLAGS)? & INITIATOR != 0;
        let ours = if by_initiator == (sender == Sender::Us) { initiator } else { responder };
        // A first request names no SPI of ours.
        let ours = if ours == 0 { self.firsts.begun_with(initiator)? } else { ours };
        let ike = self.ikes.get(&ours).or_else(|| self.departed.get(&ours))?;
        Some(&ike.core.connection.name)
    }
}
