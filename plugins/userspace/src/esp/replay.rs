//! Anti-replay window (RFC 4303 §3.4.3) and the guess of the high half of an extended sequence number (RFC 4303 appendix A2).
//!
//! The window is a ring of 64-bit words as RFC 6479 describes it: advancing clears whole words and never shifts. It has one writer, the thread
//! that receives for the SA; the atomics only let others read along, so all accesses are plain loads and stores.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Largest window in packets.
pub const MAX_WINDOW: u32 = 1024;
/// Words of the ring: one more than the largest window needs, rounded up to a power of two.
const WORDS: usize = 32;

/// The window of one inbound SA.
#[derive(Debug)]
pub struct ReplayWindow {
    top: AtomicU64,
    ring: [AtomicU64; WORDS],
}

impl ReplayWindow {
    /// A window whose right edge is `top`, with everything up to there taken as received.
    pub fn new(top: u64) -> Self {
        let fill = if top == 0 { 0 } else { u64::MAX };
        Self { top: AtomicU64::new(top), ring: std::array::from_fn(|_| AtomicU64::new(fill)) }.sealed(top)
    }

    /// Clears the bits beyond the right edge within its word.
    fn sealed(self, top: u64) -> Self {
        if top != 0
            && let Some(word) = self.word(top)
        {
            word.store(u64::MAX >> (63 - (top & 63)), Relaxed);
        }
        self
    }

    /// Highest sequence number received.
    pub fn top(&self) -> u64 {
        self.top.load(Relaxed)
    }

    /// Whether a packet with this number is neither too old nor known. `window` is in packets; 0 accepts every number.
    pub fn accepts(&self, sequence: u64, window: u32) -> bool {
        let top = self.top();
        if window == 0 || sequence > top {
            return sequence != 0;
        }
        let known = || self.word(sequence).is_none_or(|word| word.load(Relaxed) & bit(sequence) != 0);
        sequence != 0 && top - sequence < u64::from(window.min(MAX_WINDOW)) && !known()
    }

    /// Notes an authentic packet; true when it moved the right edge.
    pub fn advance(&self, sequence: u64) -> bool {
        let top = self.top();
        let ahead = sequence > top;
        if ahead {
            let steps = ((sequence >> 6) - (top >> 6)).min(WORDS as u64);
            for step in 1..=steps {
                // Wrapping: only the low bits pick the word.
                if let Some(word) = self.word(((top >> 6).wrapping_add(step)) << 6) {
                    word.store(0, Relaxed);
                }
            }
            self.top.store(sequence, Relaxed);
        }
        if let Some(word) = self.word(sequence)
            && (ahead || top - sequence < u64::from(MAX_WINDOW))
        {
            word.store(word.load(Relaxed) | bit(sequence), Relaxed);
        }
        ahead
    }

    fn word(&self, sequence: u64) -> Option<&AtomicU64> {
        self.ring.get((sequence >> 6) as usize & (WORDS - 1))
    }
}

fn bit(sequence: u64) -> u64 {
    1 << (sequence & 63)
}

/// The full number of a packet that shows only the low half, given the highest number received (RFC 4303 §A2.2). `None` when it would lie
/// before the first packet.
pub fn extend(low: u32, top: u64, window: u32) -> Option<u64> {
    let (top_high, top_low) = (top >> 32, top as u32);
    let edge = top_low.wrapping_sub(window.max(1) - 1);
    let high = if top_low >= window.max(1) - 1 {
        if low >= edge { top_high } else { top_high.checked_add(1).filter(|high| *high <= u64::from(u32::MAX))? }
    } else if low >= edge {
        top_high.checked_sub(1)?
    } else {
        top_high
    };
    Some((high << 32) | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a model that remembers every number.
        #[test]
        fn window_agrees_with_a_set(
            window in 32_u32..=1024,
            start in prop_oneof![Just(0_u64), Just((1_u64 << 32) - 500), 1_u64..100_000],
            steps in prop::collection::vec(-1_200_i64..1_500, 1..400),
        ) {
            let ring = ReplayWindow::new(start);
            let (mut seen, mut top) = (BTreeSet::new(), start);
            for step in steps {
                let sequence = top.saturating_add_signed(step);
                let fresh = sequence > top;
                let inside = sequence > start && top - sequence.min(top) < u64::from(window) && !seen.contains(&sequence);
                let expected = sequence != 0 && (fresh || inside);
                prop_assert_eq!(ring.accepts(sequence, window), expected, "sequence {} top {}", sequence, top);
                if expected {
                    prop_assert_eq!(ring.advance(sequence), fresh);
                    seen.insert(sequence);
                    top = top.max(sequence);
                }
                prop_assert_eq!(ring.top(), top);
            }
        }

        #[test]
        fn high_half_is_guessed_right_within_reach(top in 0_u64..u64::from(u32::MAX) * 8, window in 32_u32..=1024, step in -1_000_i64..1_000_000) {
            let sequence = top.saturating_add_signed(step);
            prop_assume!(sequence > 0 && top.saturating_sub(sequence) < u64::from(window));
            prop_assert_eq!(extend(sequence as u32, top, window), Some(sequence));
        }
    }

    #[test]
    fn nothing_lies_before_the_first_packet() {
        assert_eq!(extend(u32::MAX, 0, 64), None);
        assert_eq!(extend(1, 0, 64), Some(1));
        assert_eq!(extend(3, (1 << 32) - 5, 64), Some((1 << 32) + 3));
        assert_eq!(extend(u32::MAX, (1 << 32) + 3, 64), Some(u64::from(u32::MAX)));
    }

    #[test]
    fn a_window_that_starts_later_knows_what_came_before() {
        let ring = ReplayWindow::new(1_000);
        assert!(!ring.accepts(1_000, 64) && !ring.accepts(990, 64) && ring.accepts(1_001, 64));
    }
}
