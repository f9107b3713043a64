//! The source of random octets: nonces, SPIs, exponents, initialization vectors.

use core::fmt::Debug;

use crate::CryptoError;

/// A cryptographically secure source of random octets (RFC 4086).
///
/// It is passed in wherever randomness is drawn, so that the protocol core can run on a seeded source in scenarios.
pub trait SecureRandom: Debug + Send + Sync {
    /// Fills `destination` with unpredictable octets.
    ///
    /// # Errors
    /// [`CryptoError::RandomUnavailable`] when the source fails; `destination` must not be used then.
    fn fill(&self, destination: &mut [u8]) -> Result<(), CryptoError>;
}

/// The operating system's generator, through *ring*.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl SecureRandom for SystemRandom {
    fn fill(&self, destination: &mut [u8]) -> Result<(), CryptoError> {
        use ring::rand::SecureRandom as _;
        ring::rand::SystemRandom::new().fill(destination).map_err(|_| CryptoError::RandomUnavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_random_does_not_repeat() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        SystemRandom.fill(&mut a).unwrap();
        SystemRandom.fill(&mut b).unwrap();
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }
}
