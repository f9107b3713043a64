//! Lifetimes of SAs: configured values, their derivation, the bounds that no SA may go beyond, and the limits one SA is installed with.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::algorithm::{EspAlgorithm, EspEncryption};
use crate::backend::LimitUnit;
use crate::capability::LimitUnits;

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

/// What one SA may carry at most, whatever is configured.
///
/// Two things bound an SA. Without extended sequence numbers it has 2^32 - 1 of them, and they never come twice (RFC 4303 §3.3.3). And a key
/// must not encipher so much that the block cipher behind it can be told from a random function:
///
/// - **AES-GCM, AES-CBC**: 2^40 blocks. A permutation of 128-bit blocks differs from a function by equal blocks not coming; after `n` blocks
///   that shows with a probability of about n^2 / 2^129, here 2^-49. In CBC two equal blocks even give away what two plaintexts have in
///   common (Bellare, Desai, Jokipii and Rogaway 1997, "A concrete security treatment of symmetric encryption"), so it gets no more.
/// - **ChaCha20-Poly1305**: none. The ChaCha20 block is no permutation, and each packet has a nonce of its own, so there is no more to lose
///   than sequence numbers (RFC 9001 §6.6 and RFC 8446 §5.5 say the same of its use there).
///
/// Blocks are not counted by any device, octets and packets are. A packet of `n` counted octets has at most n + 2 + 15 that are enciphered
/// (ESP trailer, and padding up to a block in CBC), so at most n / 16 + 17 / 16 blocks, and one more for the ICV (GCM) or the IV (CBC): less
/// than n / 16 + 9 / 4. Half of the blocks are for the octets, which makes 2^43 octets; of the other half, 2^37 packets need 9/16.
/// Together that is below 2^40 whatever the size of the packets, and wastes less than half of it with the smallest as with the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Octets.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
}

impl Bounds {
    /// Packets an SA with 32-bit sequence numbers can carry before its number would wrap.
    pub const SEQUENCE: u64 = u32::MAX as u64;
    /// Octets under one key of a 128-bit block cipher.
    pub const BLOCK_CIPHER_BYTES: u64 = 1 << 43;
    /// Packets under one key of a 128-bit block cipher.
    pub const BLOCK_CIPHER_PACKETS: u64 = 1 << 37;

    /// The bounds of an SA with this algorithm.
    pub fn of(algorithm: EspAlgorithm, esn: bool) -> Self {
        let cipher = match algorithm.encryption {
            EspEncryption::AesGcm16(_) | EspEncryption::AesCbc(_) => {
                Self { bytes: Some(Self::BLOCK_CIPHER_BYTES), packets: Some(Self::BLOCK_CIPHER_PACKETS) }
            }
            EspEncryption::ChaCha20Poly1305 => Self::default(),
        };
        //= RFC 4303 §3.3.3: without ESN no sequence number comes twice, so the SA ends before they are used up
        let sequence = (!esn).then_some(Self::SEQUENCE);
        Self { packets: [sequence, cipher.packets].into_iter().flatten().min(), ..cipher }
    }

    /// Where a bound asks for a rekey: at three quarters of it.
    const fn soft(bound: u64) -> u64 {
        bound - bound / 4
    }
}

impl Lifetime {
    /// The same, within a bound. What is not configured is taken from the bound, with its last quarter as jitter; what is configured above it
    /// is lowered and keeps its jitter. A hard limit below the bound without a soft one stays without.
    pub fn within(self, bound: Option<u64>) -> Self {
        let Some(bound) = bound else { return self };
        let least = |value: u64, most: u64| if value == 0 { most } else { value.min(most) };
        let (soft, hard) = (Bounds::soft(bound), least(self.hard, bound));
        match (self.soft, self.hard) {
            (0, 1..) if self.hard <= soft => self,
            (0, _) => Self { soft, hard, jitter: bound - soft },
            (configured, _) => Self { soft: configured.min(soft), hard, jitter: self.jitter },
        }
    }
}

impl LifetimeConfig {
    /// The same, within the bounds of an SA with this algorithm.
    pub fn bounded(self, algorithm: EspAlgorithm, esn: bool) -> Self {
        let bounds = Bounds::of(algorithm, esn);
        Self { bytes: self.bytes.within(bounds.bytes), packets: self.packets.within(bounds.packets), ..self }
    }

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
    /// The same, within the bounds of an SA with this algorithm: for whoever installs SAs and must not trust that it was asked for no more.
    pub fn bounded(mut self, algorithm: EspAlgorithm, esn: bool) -> Self {
        let bounds = Bounds::of(algorithm, esn);
        for (soft, hard, bound) in [
            (&mut self.soft.bytes, &mut self.hard.bytes, bounds.bytes),
            (&mut self.soft.packets, &mut self.hard.packets, bounds.packets),
        ] {
            let Some(bound) = bound else { continue };
            *soft = Some(soft.map_or(Bounds::soft(bound), |value| value.min(Bounds::soft(bound))));
            *hard = Some(hard.map_or(bound, |value| value.min(bound)));
        }
        self
    }

    /// What a device that raises these units is to watch. In each unit the soft limit is below the hard one, as devices want it: where it is
    /// not, or there is none, one right before the hard limit stands in, which asks for nothing (see [`Self::asks`]).
    pub fn raised(self, units: LimitUnits) -> Self {
        let (soft_bytes, hard_bytes) = ordered(self.soft.bytes, self.hard.bytes).filter_by(units.bytes);
        let (soft_packets, hard_packets) = ordered(self.soft.packets, self.hard.packets).filter_by(units.packets);
        Self {
            soft: Volume { time: self.soft.time.filter(|_| units.time), bytes: soft_bytes, packets: soft_packets },
            hard: Volume { time: self.hard.time.filter(|_| units.time), bytes: hard_bytes, packets: hard_packets },
        }
    }

    /// Whether reaching the soft limit of a unit asks for a rekey: there is one, and it comes before the hard limit.
    pub fn asks(&self, unit: LimitUnit) -> bool {
        fn before<T: PartialOrd>(soft: Option<T>, hard: Option<T>) -> bool {
            soft.is_some_and(|soft| hard.is_none_or(|hard| soft < hard))
        }
        match unit {
            LimitUnit::Time => before(self.soft.time, self.hard.time),
            LimitUnit::Bytes => before(self.soft.bytes, self.hard.bytes),
            LimitUnit::Packets => before(self.soft.packets, self.hard.packets),
        }
    }
}

/// Soft and hard limit of one unit.
struct Ordered(Option<u64>, Option<u64>);

fn ordered(soft: Option<u64>, hard: Option<u64>) -> Ordered {
    match hard {
        // There is no room for a soft limit below it.
        Some(..2) => Ordered(None, None),
        Some(hard) => Ordered(Some(soft.filter(|soft| *soft < hard).unwrap_or(hard - 1)), Some(hard)),
        None => Ordered(soft, None),
    }
}

impl Ordered {
    fn filter_by(self, raised: bool) -> (Option<u64>, Option<u64>) {
        if raised { (self.0, self.1) } else { (None, None) }
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

    //= RFC 4303 §3.3.3: without ESN no sequence number comes twice, so the SA ends before they are used up
    #[test]
    fn sequence_numbers_cannot_wrap_without_esn() {
        let chacha = EspAlgorithm::CHACHA20_POLY1305;
        let limits = Limits::default().bounded(chacha, false);
        assert_eq!((limits.soft.packets, limits.hard.packets), (Some(0xc000_0000), Some(0xffff_ffff)));
        assert_eq!((limits.soft.bytes, limits.hard.bytes), (None, None));
        assert_eq!(Limits::default().bounded(chacha, true), Limits::default());
    }

    /// Blocks that packets of one size take, by the letter: plaintext, trailer and padding, and one more.
    fn blocks(octets: u64, packets: u64, align: u64) -> u128 {
        let size = octets.div_ceil(packets.max(1)) + 2;
        u128::from(packets) * u128::from(size.next_multiple_of(align).div_ceil(16) + 1)
    }

    #[test]
    fn no_size_of_packets_goes_beyond_the_blocks_of_a_key() {
        let cbc = EspAlgorithm::from_ids(12, Some(256), Some(12)).unwrap();
        for (algorithm, align) in [(EspAlgorithm::AES_128_GCM, 4), (EspAlgorithm::AES_256_GCM, 4), (cbc, 16)] {
            let bounds = Bounds::of(algorithm, true);
            let (bytes, most) = (bounds.bytes.unwrap(), bounds.packets.unwrap());
            let mut best = 0;
            for size in (1..=2_000).chain([4_000, 9_000, 65_535]) {
                let packets = most.min(bytes / size);
                let used = blocks(packets * size, packets, align);
                assert!(used <= 1 << 40, "{algorithm:?}, packets of {size}: {used} blocks");
                best = best.max(used);
            }
            assert!(best > 1 << 39, "{algorithm:?}: the bounds leave too much unused");
        }
    }

    #[test]
    fn what_is_configured_stays_within_the_bounds() {
        let none = Lifetime::default();
        let quarter = (1_u64 << 30) - 1;
        assert_eq!(none.within(None), none);
        let automatic = none.within(Some(Bounds::SEQUENCE));
        assert_eq!(automatic, Lifetime { soft: 3 << 30, hard: 0xffff_ffff, jitter: quarter });
        assert_eq!(automatic.roll(0), (Some(3 << 30), Some(0xffff_ffff)));
        let (earliest, _) = automatic.roll(u32::MAX);
        assert!(earliest.is_some_and(|soft| soft > 2 << 30), "{earliest:?}");
        let small = Lifetime { soft: 1_000, hard: 1_100, jitter: 100 };
        assert_eq!(small.within(Some(Bounds::SEQUENCE)), small);
        let large = Lifetime { soft: 1 << 40, hard: 1 << 41, jitter: 7 };
        assert_eq!(large.within(Some(Bounds::SEQUENCE)), Lifetime { soft: 3 << 30, hard: 0xffff_ffff, jitter: 7 });
        let endless = Lifetime { soft: 1_000, hard: 0, jitter: 7 };
        assert_eq!(endless.within(Some(5_000)), Lifetime { soft: 1_000, hard: 5_000, jitter: 7 });
        let ends_only = Lifetime { soft: 0, hard: 1_000, jitter: 1_000 };
        assert_eq!(ends_only.within(Some(5_000)), ends_only);
        assert_eq!(ends_only.within(Some(1_200)), Lifetime { soft: 900, hard: 1_000, jitter: 300 });
    }

    #[test]
    fn a_device_gets_its_units_with_the_soft_limit_first() {
        let volume = |bytes, packets| Volume { time: Some(Duration::from_secs(9)), bytes, packets };
        let all = Limits { soft: volume(Some(80), Some(8)), hard: volume(Some(100), Some(10)) };
        let packets = LimitUnits { time: false, bytes: false, packets: true };
        let raised = all.raised(packets);
        assert_eq!(raised.soft, Volume { packets: Some(8), ..Volume::default() });
        assert_eq!(raised.hard, Volume { packets: Some(10), ..Volume::default() });
        assert_eq!(all.raised(LimitUnits::ALL), all);
        for (soft, hard, given) in [
            (None, Some(10), (Some(9), Some(10))),
            (Some(10), Some(10), (Some(9), Some(10))),
            (Some(20), Some(10), (Some(9), Some(10))),
            (Some(20), None, (Some(20), None)),
            (None, Some(1), (None, None)),
            (None, None, (None, None)),
        ] {
            let limits = Limits { soft: volume(None, soft), hard: volume(None, hard) };
            let raised = limits.raised(packets);
            assert_eq!((raised.soft.packets, raised.hard.packets), given, "{soft:?} {hard:?}");
            assert_eq!(limits.asks(LimitUnit::Packets), soft == Some(20) && hard.is_none(), "{soft:?} {hard:?}");
        }
    }
}
