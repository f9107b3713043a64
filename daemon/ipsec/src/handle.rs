//! Names that core and backend use for each other's objects.
//!
//! Handles and tags are chosen by the core; a backend returns them untouched. The top eight bits of each hold the shard that owns the
//! object, so that a report finds its way home without a table.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of a shard: one endpoint with its own IKE SAs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shard(pub u8);

const SHARD_SHIFT: u32 = 56;

macro_rules! sharded {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(u64);

        impl $name {
            /// The `count`-th object of `shard`; only the lower 56 bits of `count` are kept.
            pub const fn new(shard: Shard, count: u64) -> Self {
                Self(((shard.0 as u64) << SHARD_SHIFT) | (count & ((1 << SHARD_SHIFT) - 1)))
            }

            /// The shard that owns the object.
            pub const fn shard(self) -> Shard {
                Shard((self.0 >> SHARD_SHIFT) as u8)
            }

            /// The whole value, for logs and tables.
            pub const fn raw(self) -> u64 {
                self.0
            }
        }
    };
}

sharded!(
    /// The core's name for an SAD entry; never used twice in the life of a process.
    SaHandle
);
sharded!(
    /// The core's name for an SPD entry; never used twice in the life of a process.
    PolicyHandle
);
sharded!(
    /// Pairs a submitted request with its answer.
    Tag
);

/// A device that holds SAs and policies. Index into [`crate::DeviceTable`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub u16);

/// Groups the SAs that may serve a policy. Zero is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reqid(pub u32);

/// Security parameter index of an ESP SA, in host order. Values below 256 are reserved (RFC 4303 §2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spi(u32);

impl Spi {
    /// `value` in host order, or nothing when it is one of the reserved values below 256.
    pub const fn new(value: u32) -> Option<Self> {
        if value < 256 { None } else { Some(Self(value)) }
    }

    /// The SPI in the octet order of the wire.
    pub const fn from_octets(octets: [u8; 4]) -> Option<Self> {
        Self::new(u32::from_be_bytes(octets))
    }

    /// The value in host order.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The value in the octet order of the wire.
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handle_keeps_its_shard() {
        let handle = SaHandle::new(Shard(7), 42);
        assert_eq!((handle.shard(), handle.raw() & 0xff), (Shard(7), 42));
    }

    #[test]
    fn reserved_spi_is_refused() {
        assert!(Spi::new(255).is_none());
        assert_eq!(Spi::new(256).unwrap().octets(), [0, 0, 1, 0]);
    }
}
