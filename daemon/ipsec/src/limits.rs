//! Lifetimes of SAs: configured values, their derivation, and the limits one SA is installed with.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One limit per unit; `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Time since install.
    pub time: Option<Duration>,
    /// Octets, as [`crate::SaStatus::bytes`] counts them.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
}

/// Soft and hard limits of one SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Reaching one asks for a rekey; the SA goes on.
    pub soft: Volume,
    /// Reaching one ends the SA.
    pub hard: Volume,
}

/// Soft limit, hard limit and jitter of one unit as derived from the configuration; 0 = off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lifetime {
    /// Soft limit before jitter (`rekey_*`).
    pub soft: u64,
    /// Hard limit (`life_*`).
    pub hard: u64,
    /// Upper bound of what is subtracted from the soft limit (`rand_*`).
    pub jitter: u64,
}

/// Configured lifetimes of a child's SAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifetimeConfig {
    /// Seconds.
    pub time: Lifetime,
    /// Octets.
    pub bytes: Lifetime,
    /// Packets.
    pub packets: Lifetime,
}

impl Default for LifetimeConfig {
    /// One hour, no volume limits.
    fn default() -> Self {
        Self {
            time: Lifetime::derive(None, None, None, 3600),
            bytes: Lifetime::derive(None, None, None, 0),
            packets: Lifetime::derive(None, None, None, 0),
        }
    }
}

impl Lifetime {
    /// Fills in what is not configured: soft = hard / 1.1 or `default_soft`, hard = soft * 1.1, jitter = hard - min(hard, soft).
    pub fn derive(soft: Option<u64>, hard: Option<u64>, jitter: Option<u64>, default_soft: u64) -> Self {
        let soft = soft.unwrap_or_else(|| hard.map_or(default_soft, |hard| scale(hard, 10, 11)));
        let hard = hard.unwrap_or_else(|| scale(soft, 11, 10));
        let jitter = jitter.unwrap_or_else(|| hard.saturating_sub(soft));
        Self { soft, hard, jitter }
    }

    /// Soft and hard limit of one SA, `None` = off. `random` is uniform over all values and decides the jitter:
    /// soft - floor(u * min(jitter + 1, soft)).
    pub fn roll(self, random: u32) -> (Option<u64>, Option<u64>) {
        let span = self.jitter.saturating_add(1).min(self.soft);
        let drawn = u64::try_from((u128::from(span) * u128::from(random)) >> 32).unwrap_or(0);
        let soft = self.soft - drawn;
        ((self.soft > 0).then_some(soft), (self.hard > 0).then_some(self.hard))
    }
}

/// `value * times / by` without overflow, saturating.
fn scale(value: u64, times: u64, by: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(times) / u128::from(by)).unwrap_or(u64::MAX)
}

impl LifetimeConfig {
    /// Limits of one SA; `random` gives one uniform value per call.
    pub fn roll(&self, mut random: impl FnMut() -> u32) -> Limits {
        let (soft_time, hard_time) = self.time.roll(random());
        let (soft_bytes, hard_bytes) = self.bytes.roll(random());
        let (soft_packets, hard_packets) = self.packets.roll(random());
        Limits {
            soft: Volume { time: soft_time.map(Duration::from_secs), bytes: soft_bytes, packets: soft_packets },
            hard: Volume { time: hard_time.map(Duration::from_secs), bytes: hard_bytes, packets: hard_packets },
        }
    }
}

impl Limits {
    /// Largest soft packet limit of an SA with 32-bit sequence numbers: three quarters of the sequence space.
    pub const SOFT_PACKETS_WITHOUT_ESN: u64 = 3 << 30;
    /// Packets an SA with 32-bit sequence numbers can carry before its number would wrap.
    pub const HARD_PACKETS_WITHOUT_ESN: u64 = u32::MAX as u64;

    /// Adds the packet limits that keep 32-bit sequence numbers from wrapping (RFC 4303 §3.3.3).
    pub fn bounded_for_sequence(mut self, esn: bool) -> Self {
        if !esn {
            let lower =
                |limit: &mut Option<u64>, bound: u64| *limit = Some(limit.map_or(bound, |value| value.min(bound)));
            lower(&mut self.soft.packets, Self::SOFT_PACKETS_WITHOUT_ESN);
            lower(&mut self.hard.packets, Self::HARD_PACKETS_WITHOUT_ESN);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_follows_the_documented_order() {
        assert_eq!(Lifetime::derive(None, None, None, 3600), Lifetime { soft: 3600, hard: 3960, jitter: 360 });
        assert_eq!(Lifetime::derive(None, Some(3960), None, 0), Lifetime { soft: 3600, hard: 3960, jitter: 360 });
        assert_eq!(Lifetime::derive(Some(0), None, None, 3600), Lifetime { soft: 0, hard: 0, jitter: 0 });
        assert_eq!(Lifetime::derive(Some(1000), Some(500), None, 0), Lifetime { soft: 1000, hard: 500, jitter: 0 });
    }

    /// Zero is a value like any other: no rekeying, no end, whatever would be derived.
    #[test]
    fn explicit_zeros() {
        assert_eq!(Lifetime::derive(None, Some(0), None, 3600), Lifetime { soft: 0, hard: 0, jitter: 0 });
        let no_rekeying = Lifetime::derive(Some(0), Some(100), None, 3600);
        assert_eq!(no_rekeying, Lifetime { soft: 0, hard: 100, jitter: 100 });
        assert_eq!(no_rekeying.roll(u32::MAX), (None, Some(100)));
        let endless = Lifetime::derive(Some(100), Some(0), None, 3600);
        assert_eq!((endless, endless.roll(7)), (Lifetime { soft: 100, hard: 0, jitter: 0 }, (Some(100), None)));
        assert_eq!(Lifetime::derive(Some(100), None, Some(0), 0).roll(u32::MAX), (Some(100), Some(110)));
    }

    #[test]
    fn jitter_stays_inside_its_bounds() {
        let life = Lifetime { soft: 100, hard: 110, jitter: 10 };
        assert_eq!(life.roll(0), (Some(100), Some(110)));
        assert_eq!(life.roll(u32::MAX), (Some(90), Some(110)));
        assert_eq!(Lifetime { soft: 5, hard: 0, jitter: 50 }.roll(u32::MAX), (Some(1), None));
        assert_eq!(Lifetime::default().roll(77), (None, None));
    }

    #[test]
    fn sequence_numbers_cannot_wrap_without_esn() {
        let limits = Limits::default().bounded_for_sequence(false);
        assert_eq!(limits.hard.packets, Some(0xffff_ffff));
        assert_eq!(Limits::default().bounded_for_sequence(true), Limits::default());
    }
}
