//! Security parameter indexes that carry their own table index.
//!
//! An SPI is a keyed 32-bit permutation of (slot, generation): the receiver finds the SAD slot without a hash table, a stale or guessed SPI is
//! told apart by comparing the whole value, and an observer sees random numbers. The key is drawn once per start. Values below 256
//! (RFC 4303 §2.1) never come out: the permutation walks on until it leaves them. A backend whose SAD is elsewhere needs no slots and has from it
//! that SPIs are unique, unpredictable and rest before they come again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::handle::Spi;
use crate::time::Instant;

/// Bits of the slot; the rest is the generation.
const SLOT_BITS: u32 = 20;
/// SAs that can be installed or reserved at a time.
pub const SLOTS: u32 = 1 << SLOT_BITS;
const GENERATIONS: u32 = 1 << (32 - SLOT_BITS);
const ROUNDS: usize = 6;
/// Random octets that key a permutation.
pub const KEY_OCTETS: usize = 16 * ROUNDS;
/// How long a slot stays unused after its SA is gone: more than twice the time an inbound SA lingers after a rekey.
pub const SLOT_REST: Duration = Duration::from_secs(60);

/// The keyed permutation of 32-bit values: a balanced Feistel network over 16-bit halves.
#[derive(Clone)]
pub struct Permutation {
    keys: [(u64, u64); ROUNDS],
}

impl Permutation {
    /// A permutation from 96 random octets.
    pub fn new(random: &[u8; KEY_OCTETS]) -> Self {
        let mut keys = [(0, 0); ROUNDS];
        for (key, octets) in keys.iter_mut().zip(random.chunks_exact(16)) {
            let half = |from: usize| {
                octets.iter().skip(from).take(8).fold(0_u64, |value, octet| (value << 8) | u64::from(*octet))
            };
            // An odd multiplier keeps all 64 bits of the product dependent on the input.
            *key = (half(0), half(8) | 1);
        }
        Self { keys }
    }

    /// The SPI of a slot and its generation (at least 1, so that the input is never below 256).
    fn spi(&self, slot: u32, generation: u32) -> u32 {
        let mut value = self.forward((generation << SLOT_BITS) | slot);
        while value < 256 {
            value = self.forward(value);
        }
        value
    }

    /// The slot an SPI points at; whether it is the SPI in use there is for the caller to compare.
    #[inline]
    pub fn slot(&self, spi: u32) -> u32 {
        let mut value = self.backward(spi);
        // The walk ends at the latest when the cycle comes back to `spi` itself, which for a value below 256 is at once.
        while value < 256 && value != spi {
            value = self.backward(value);
        }
        value & (SLOTS - 1)
    }

    fn forward(&self, value: u32) -> u32 {
        let (mut left, mut right) = split(value);
        for key in &self.keys {
            (left, right) = (right, left ^ round(*key, right));
        }
        join(left, right)
    }

    #[inline]
    fn backward(&self, value: u32) -> u32 {
        let (mut left, mut right) = split(value);
        for key in self.keys.iter().rev() {
            (left, right) = (right ^ round(*key, left), left);
        }
        join(left, right)
    }
}

#[inline]
fn split(value: u32) -> (u16, u16) {
    ((value >> 16) as u16, value as u16)
}

#[inline]
fn join(left: u16, right: u16) -> u32 {
    (u32::from(left) << 16) | u32::from(right)
}

#[inline]
fn round((whitening, multiplier): (u64, u64), half: u16) -> u16 {
    let product = u128::from(u64::from(half) ^ whitening) * u128::from(multiplier);
    let folded = (product as u64) ^ ((product >> 64) as u64);
    (folded ^ (folded >> 32) ^ (folded >> 16)) as u16
}

/// Which slots are taken, and the SPI each was given out with.
pub struct SpiTable {
    permutation: Permutation,
    /// Generation of every slot ever used.
    generations: Vec<u32>,
    taken: Vec<bool>,
    /// Free slots, longest free first, with the second since when (rounded up): a flood of short-lived SAs makes this long.
    resting: VecDeque<(u32, u32)>,
}

impl SpiTable {
    /// Everything free.
    pub fn new(permutation: Permutation) -> Self {
        Self { permutation, generations: Vec::new(), taken: Vec::new(), resting: VecDeque::new() }
    }

    /// Takes a slot: one that has rested long enough, or a fresh one. `None` when neither is left.
    pub fn reserve(&mut self, now: Instant) -> Option<Spi> {
        let now = now.since_start().as_secs();
        let rested = self.resting.front().is_some_and(|(since, _)| now >= u64::from(*since) + SLOT_REST.as_secs());
        let slot = if rested {
            let (_, slot) = self.resting.pop_front()?;
            let generation = self.generations.get_mut(slot as usize)?;
            *generation = if *generation + 1 < GENERATIONS { *generation + 1 } else { 1 };
            slot
        } else {
            let slot = u32::try_from(self.generations.len()).ok().filter(|slot| *slot < SLOTS)?;
            self.generations.push(1);
            self.taken.push(false);
            slot
        };
        *self.taken.get_mut(slot as usize)? = true;
        Spi::new(self.permutation.spi(slot, *self.generations.get(slot as usize)?))
    }

    /// The slot of an SPI that is given out at present.
    pub fn slot_of(&self, spi: Spi) -> Option<u32> {
        let slot = self.permutation.slot(spi.get());
        let generation = *self.generations.get(slot as usize)?;
        let current = *self.taken.get(slot as usize)? && self.permutation.spi(slot, generation) == spi.get();
        current.then_some(slot)
    }

    /// Gives a slot back; it rests before it is used again.
    pub fn release(&mut self, spi: Spi, now: Instant) {
        if let Some(slot) = self.slot_of(spi)
            && let Some(taken) = self.taken.get_mut(slot as usize)
        {
            *taken = false;
            let since = now.since_start().as_millis().div_ceil(1_000);
            self.resting.push_back((u32::try_from(since).unwrap_or(u32::MAX), slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn permutation(seed: u8) -> Permutation {
        let mut random = [0; KEY_OCTETS];
        for (index, octet) in random.iter_mut().enumerate() {
            *octet = (index as u8).wrapping_mul(37).wrapping_add(seed).rotate_left(3);
        }
        Permutation::new(&random)
    }

    proptest! {
        #[test]
        #[inline]
    fn backward_undoes_forward(value: u32, seed: u8) {
            let permutation = permutation(seed);
            prop_assert_eq!(permutation.backward(permutation.forward(value)), value);
        }

        #[test]
        fn the_slot_comes_back_and_the_spi_is_never_reserved(slot in 0..SLOTS, generation in 1..GENERATIONS, seed: u8) {
            let permutation = permutation(seed);
            let spi = permutation.spi(slot, generation);
            prop_assert!(spi >= 256);
            prop_assert_eq!(permutation.slot(spi), slot);
        }

        #[test]
        fn any_spi_leads_to_some_slot(spi: u32, seed: u8) {
            prop_assert!(permutation(seed).slot(spi) < SLOTS);
        }
    }

    #[test]
    fn live_spis_are_unique_and_look_random() {
        let mut table = SpiTable::new(permutation(9));
        let spis: Vec<Spi> = (0..10_000).map(|_| table.reserve(Instant::START).unwrap()).collect();
        assert_eq!(spis.iter().collect::<HashSet<_>>().len(), spis.len());
        let upward = spis.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((4_500..5_500).contains(&upward), "{upward} of 9999 steps go up");
    }

    #[test]
    fn a_slot_rests_and_comes_back_with_another_spi() {
        let mut table = SpiTable::new(permutation(1));
        let first = table.reserve(Instant::START).unwrap();
        table.release(first, Instant::START);
        assert_eq!(table.slot_of(first), None);
        let early = table.reserve(Instant::new(SLOT_REST - Duration::from_millis(1))).unwrap();
        assert_eq!(table.slot_of(early), Some(1));
        let late = table.reserve(Instant::new(SLOT_REST)).unwrap();
        assert_eq!(table.slot_of(late), Some(0));
        assert_ne!(late, first);
        assert_eq!(table.slot_of(first), None, "the old generation is not the new one");
    }
}
