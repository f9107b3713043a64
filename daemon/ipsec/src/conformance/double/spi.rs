//! SPIs of the double: a keyed permutation of a running count, so that none comes twice and none shows the next.

use super::fault::Fault;
use crate::handle::Spi;

const KEYS: [u32; 4] = [0x9e37_79b9, 0x7f4a_7c15, 0xf39c_c060, 0x5ced_c834];

/// SPIs given out so far.
#[derive(Debug, Default)]
pub(super) struct Spis {
    count: u32,
    /// What was given back, for a double that gives it out again.
    back: Vec<Spi>,
    last: Option<Spi>,
    fault: Option<Fault>,
}

impl Spis {
    /// None are given out yet.
    pub(super) fn new(fault: Option<Fault>) -> Self {
        Self { fault, ..Self::default() }
    }

    /// The next one; nothing when all were given out.
    pub(super) fn reserve(&mut self) -> Option<Spi> {
        if let Some(spi) = self.back.pop() {
            return Some(spi);
        }
        // The permutation meets the 256 values that are no SPI somewhere.
        loop {
            self.count = self.count.checked_add(1)?;
            if self.fault == Some(Fault::RepeatsSpi) && self.count.is_multiple_of(500) {
                return self.last;
            }
            let counted = self.fault == Some(Fault::CountsSpisUp);
            let value = if counted { self.count + 0x1000 } else { permute(self.count) };
            if let Some(spi) = Spi::new(value) {
                self.last = Some(spi);
                return Some(spi);
            }
        }
    }

    /// Takes one back: it is not given out again.
    pub(super) fn release(&mut self, spi: Spi) {
        if self.fault == Some(Fault::ReusesSpi) {
            self.back.push(spi);
        }
    }

    /// An SA with this one was refused: it stays reserved.
    pub(super) fn refused(&mut self, spi: Spi) {
        if self.fault == Some(Fault::FreesRefusedSpi) {
            self.back.push(spi);
        }
    }
}

/// A balanced Feistel network over 16-bit halves.
fn permute(value: u32) -> u32 {
    let (mut left, mut right) = (value >> 16, value & 0xffff);
    for key in KEYS {
        let mixed = (right ^ key).wrapping_mul(0x85eb_ca6b).rotate_left(13).wrapping_mul(0xc2b2_ae35) >> 16;
        (left, right) = (right, left ^ mixed);
    }
    (left << 16) | right
}
