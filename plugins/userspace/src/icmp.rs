//! ICMP errors for the protected side: from which address, and how many. Their octets, and about which packets none may be sent, is the
//! concern of [`offload_host::icmp`].

use std::net::IpAddr;

use ipsec::Instant;

use crate::packet::Packet;
use offload_host::icmp::{Complaint, LARGEST_V6, RateLimit, error};

/// Room an error needs.
pub(crate) const MAX_ERROR: usize = LARGEST_V6;
const PER_SECOND: u32 = 100;
const BURST: u32 = 100;

/// Makes errors within a rate.
pub(crate) struct Errors {
    rate: RateLimit,
}

impl Default for Errors {
    fn default() -> Self {
        Self { rate: RateLimit::new(PER_SECOND, BURST) }
    }
}

impl Errors {
    /// Writes the error about `packet` to `out` and returns its length, if one may be sent from `source`.
    pub(crate) fn write(
        &self,
        packet: &[u8],
        complaint: Complaint,
        source: Option<IpAddr>,
        now: Instant,
        out: &mut [u8],
    ) -> Option<usize> {
        let nanoseconds = u64::try_from(now.since_start().as_nanos()).unwrap_or(u64::MAX);
        // A packet that gets no answer costs a token too: the work is the same.
        let source = source.filter(|_| self.rate.take(nanoseconds))?;
        error(packet, complaint, source, out).ok()
    }
}

/// One of our addresses in the family of a packet's source.
pub(crate) fn own_address(addresses: &[IpAddr], packet: &Packet) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == packet.selectors.source.is_ipv4())
}
