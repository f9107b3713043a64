//! Packet marks and interface ids: what an SA or policy hangs on besides selectors and SPI.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A packet mark and the bits of it that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Value; no bit outside of the mask is set.
    pub value: u32,
    /// Bits that count.
    pub mask: u32,
}

/// What an SA or policy is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tags {
    /// Only packets with this mark meet the policy or the SA.
    pub mark: Option<Mark>,
    /// What the SA writes into the mark of packets it has processed; policies have none.
    pub set_mark: Option<Mark>,
    /// Interface id; 0 = none.
    pub if_id: u32,
}

impl Mark {
    /// A mark of which only the bits of `mask` count.
    #[must_use]
    pub const fn new(value: u32, mask: u32) -> Self {
        Self { value: value & mask, mask }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}/0x{:08x}", self.value, self.mask)
    }
}

impl Tags {
    /// Bound to nothing.
    pub const NONE: Self = Self { mark: None, set_mark: None, if_id: 0 };

    /// Whether it is bound to nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_outside_of_the_mask_do_not_count() {
        assert_eq!(Mark::new(0x1234, 0xff).to_string(), "0x00000034/0x000000ff");
        assert!(Tags::default().is_none());
        assert!(!Tags { if_id: 1, ..Tags::NONE }.is_none());
    }
}
