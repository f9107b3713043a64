//! What `netlink-packet-xfrm` 0.5 lacks, in its own terms: numbers, attributes and the expire message with its attributes.
//!
//! Attributes that the crate does not know travel in its `XfrmAttrs::Other`.

use netlink_packet_core::{DecodeError, DefaultNla, NlasIterator, Parseable};
use netlink_packet_xfrm::{UserExpire, XFRM_USER_EXPIRE_LEN, XfrmAttrs};

/// XFRM_OFFLOAD_PACKET: the device does all of the data path; without it, its cryptography only.
pub const XFRM_OFFLOAD_PACKET: u8 = 4;
/// XFRM_POLICY_CPU_ACQUIRE: each CPU asks for a state of its own.
pub const XFRM_POLICY_CPU_ACQUIRE: u8 = 4;
/// XFRMA_SA_DIR, since Linux 6.10.
pub const XFRMA_SA_DIR: u16 = 33;
/// XFRMA_NAT_KEEPALIVE_INTERVAL, since Linux 6.11.
pub const XFRMA_NAT_KEEPALIVE_INTERVAL: u16 = 34;
/// XFRMA_SA_PCPU, since Linux 6.13.
pub const XFRMA_SA_PCPU: u16 = 35;

/// XFRMA_SA_DIR's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SaDir {
    /// XFRM_SA_DIR_IN.
    In = 1,
    /// XFRM_SA_DIR_OUT.
    Out = 2,
}

impl SaDir {
    /// From the attribute's value.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::In),
            2 => Some(Self::Out),
            _ => None,
        }
    }
}

/// XFRMA_SA_DIR.
pub fn sa_dir(direction: SaDir) -> XfrmAttrs {
    other(XFRMA_SA_DIR, &[direction as u8])
}

/// XFRMA_NAT_KEEPALIVE_INTERVAL in seconds.
pub fn nat_keepalive_interval(seconds: u32) -> XfrmAttrs {
    other(XFRMA_NAT_KEEPALIVE_INTERVAL, &seconds.to_ne_bytes())
}

/// XFRMA_SA_PCPU.
pub fn sa_pcpu(cpu: u32) -> XfrmAttrs {
    other(XFRMA_SA_PCPU, &cpu.to_ne_bytes())
}

/// An attribute of any kind.
pub fn other(kind: u16, value: &[u8]) -> XfrmAttrs {
    XfrmAttrs::Other(DefaultNla::new(kind, value.to_vec()))
}

/// XFRM_MSG_EXPIRE with the attributes that follow its fixed part (MARK, IF_ID, SA_DIR, SA_PCPU).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpireMessage {
    /// The state, its counters, and whether the hard limit was reached.
    pub expire: UserExpire,
    /// Attributes.
    pub nlas: Vec<XfrmAttrs>,
}

impl ExpireMessage {
    /// Reads a message body of any length.
    ///
    /// # Errors
    /// The body is shorter than its fixed part, or an attribute does not fit.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let (fixed, rest) = body
            .split_at_checked(XFRM_USER_EXPIRE_LEN)
            .ok_or_else(|| DecodeError::buffer_too_small(body.len(), XFRM_USER_EXPIRE_LEN))?;
        let nlas = NlasIterator::new(rest).map(|nla| XfrmAttrs::parse(&nla?)).collect::<Result<_, _>>()?;
        Ok(Self { expire: UserExpire::parse(fixed)?, nlas })
    }
}
