//! INSECURE by design: a deterministic provider for scenarios and tests. Never for a daemon.
//!
//! Ciphers and PRFs are the real ones, so that messages and keys look and behave as usual. What makes runs repeatable
//! is the random source, which unrolls a seed, and the key exchange: *ring* draws its own private values, so every
//! method is replaced by [`InsecureKeyExchange`], Diffie-Hellman modulo 2^61 - 1 under the ids and with the lengths of the
//! real methods. Anyone can take discrete logarithms there; [`CryptoProvider::self_test`] refuses the provider.

use core::sync::atomic::{AtomicU64, Ordering};

use ike_wire::ids::KeyExchangeId;
use ring::digest;
use zeroize::Zeroizing;

use crate::{
    Cost, CryptoError, CryptoProvider, KeyExchange, SecureRandom, SharedSecret, StartedKeyExchange, ring_provider,
};

/// INSECURE: the tables of [`ring_provider`] with mock key exchanges and an [`InsecureRandom`] from `seed`.
///
/// Each call leaks a few hundred octets, as providers live forever; a test that needs many endpoints can share one
/// provider and give each endpoint its own [`InsecureRandom`].
pub fn insecure_test_provider(seed: u64) -> &'static CryptoProvider {
    let random: &'static InsecureRandom = Box::leak(Box::new(InsecureRandom::new(seed)));
    Box::leak(Box::new(CryptoProvider { key_exchanges: KEY_EXCHANGES, random, ..*ring_provider() }))
}

static KEY_EXCHANGES: &[&dyn KeyExchange] = &[
    &InsecureKeyExchange { id: KeyExchangeId::CURVE_25519, public_len: 32, secret_len: 32 },
    &InsecureKeyExchange { id: KeyExchangeId::ECP_256, public_len: 64, secret_len: 32 },
    &InsecureKeyExchange { id: KeyExchangeId::ECP_384, public_len: 96, secret_len: 48 },
    &InsecureKeyExchange { id: KeyExchangeId::MODP_3072, public_len: 384, secret_len: 384 },
    &InsecureKeyExchange { id: KeyExchangeId::MODP_2048, public_len: 256, secret_len: 256 },
];

/// INSECURE: octets that follow from a seed, SHA-256 over seed and a counter.
///
/// The same calls with the same lengths in the same order give the same octets.
#[derive(Debug)]
pub struct InsecureRandom {
    seed: u64,
    blocks: AtomicU64,
}

impl InsecureRandom {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, blocks: AtomicU64::new(0) }
    }
}

impl SecureRandom for InsecureRandom {
    fn fill(&self, destination: &mut [u8]) -> Result<(), CryptoError> {
        for chunk in destination.chunks_mut(digest::SHA256_OUTPUT_LEN) {
            let block = self.blocks.fetch_add(1, Ordering::Relaxed);
            expand(&[&self.seed.to_be_bytes(), &block.to_be_bytes()], chunk);
        }
        Ok(())
    }
}

/// Fills `output` with SHA-256 over `input` and a counter.
fn expand(input: &[&[u8]], output: &mut [u8]) {
    for (counter, chunk) in (0_u64..).zip(output.chunks_mut(digest::SHA256_OUTPUT_LEN)) {
        let mut context = digest::Context::new(&digest::SHA256);
        input.iter().for_each(|part| context.update(part));
        context.update(&counter.to_be_bytes());
        for (to, from) in chunk.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
    }
}

/// 2^61 - 1, a Mersenne prime.
const PRIME: u64 = (1 << 61) - 1;
/// A generator of its multiplicative group.
const GENERATOR: u64 = 37;
/// Octets in which an element stands at the start of a public value.
const ELEMENT_LEN: usize = 8;

/// INSECURE: Diffie-Hellman in a group of 61 bits that poses as a real method.
///
/// Both ends do agree on a secret, a changed public value does change it, and lengths and range are checked as for the
/// real method. A public value is the element and a filling that follows from it, so that a flipped bit is noticed.
#[derive(Debug, Clone, Copy)]
pub struct InsecureKeyExchange {
    id: KeyExchangeId,
    public_len: usize,
    secret_len: usize,
}

impl InsecureKeyExchange {
    fn private(rng: &dyn SecureRandom) -> Result<u64, CryptoError> {
        let mut octets = [0; ELEMENT_LEN];
        rng.fill(&mut octets)?;
        // From 2 to 2^60 + 1: never so that the public value would be refused.
        Ok((u64::from_be_bytes(octets) >> 4).saturating_add(2))
    }

    fn public_value(&self, private: u64) -> Vec<u8> {
        self.encode(power(GENERATOR, private))
    }

    fn encode(&self, element: u64) -> Vec<u8> {
        let mut public = element.to_be_bytes().to_vec();
        public.resize(self.public_len, 0);
        if let Some(filling) = public.get_mut(ELEMENT_LEN..) {
            expand(&[b"public value", &element.to_be_bytes()], filling);
        }
        public
    }

    fn agree(&self, private: u64, peer: &[u8]) -> Result<SharedSecret, CryptoError> {
        let element = peer.first_chunk().map(|octets| u64::from_be_bytes(*octets));
        let element = element
            .filter(|element| (2..PRIME.saturating_sub(1)).contains(element) && self.encode(*element) == peer)
            .ok_or(CryptoError::InvalidPublicValue)?;
        let mut secret = Zeroizing::new(vec![0; self.secret_len]);
        expand(&[b"shared secret", &self.id.0.to_be_bytes(), &power(element, private).to_be_bytes()], &mut secret);
        Ok(SharedSecret::new(secret))
    }
}

/// `base ^ exponent mod PRIME` by squaring and multiplying.
fn power(base: u64, exponent: u64) -> u64 {
    let (mut result, mut square, mut rest) = (1, base, exponent);
    while rest != 0 {
        if rest & 1 == 1 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        rest >>= 1;
    }
    result
}

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b)) % u128::from(PRIME);
    u64::try_from(product).unwrap_or_default()
}

impl KeyExchange for InsecureKeyExchange {
    fn id(&self) -> KeyExchangeId {
        self.id
    }

    fn cost(&self) -> Cost {
        Cost::Cheap
    }

    fn start(&self, rng: &dyn SecureRandom) -> Result<Box<dyn StartedKeyExchange>, CryptoError> {
        let private = Self::private(rng)?;
        Ok(Box::new(Started { method: *self, public: self.public_value(private), private }))
    }

    fn respond(&self, rng: &dyn SecureRandom, peer: &[u8]) -> Result<(Vec<u8>, SharedSecret), CryptoError> {
        let private = Self::private(rng)?;
        Ok((self.public_value(private), self.agree(private, peer)?))
    }
}

#[derive(Debug)]
struct Started {
    method: InsecureKeyExchange,
    public: Vec<u8>,
    private: u64,
}

impl StartedKeyExchange for Started {
    fn id(&self) -> KeyExchangeId {
        self.method.id
    }

    fn public_value(&self) -> &[u8] {
        &self.public
    }

    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, CryptoError> {
        self.method.agree(self.private, peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_agree_for_every_method() {
        let provider = insecure_test_provider(1);
        for method in provider.key_exchanges {
            let started = method.start(provider.random).unwrap();
            let (public, secret) = method.respond(provider.random, started.public_value()).unwrap();
            assert_eq!(started.public_value().len(), public.len());
            assert_ne!(started.public_value(), public);
            assert_eq!(started.complete(&public).unwrap(), secret);
        }
    }

    #[test]
    fn lengths_are_those_of_the_real_methods() {
        let real = ring_provider();
        for mock in insecure_test_provider(1).key_exchanges {
            let started = real.key_exchange(mock.id()).unwrap().start(real.random).unwrap();
            let public_len = started.public_value().len();
            let secret = real.key_exchange(mock.id()).unwrap().respond(real.random, started.public_value()).unwrap().1;
            let mocked = mock.start(&InsecureRandom::new(3)).unwrap();
            assert_eq!(mocked.public_value().len(), public_len);
            let mocked = mock.respond(&InsecureRandom::new(4), mocked.public_value()).unwrap().1;
            assert_eq!(mocked.as_ref().len(), secret.as_ref().len());
        }
    }

    #[test]
    fn a_seed_decides_everything() {
        let run = |seed| {
            let provider = insecure_test_provider(seed);
            let method = provider.key_exchange(KeyExchangeId::CURVE_25519).unwrap();
            let started = method.start(provider.random).unwrap();
            let answer = method.respond(provider.random, started.public_value()).unwrap();
            let mut nonce = [0; 40];
            provider.random.fill(&mut nonce).unwrap();
            (started.public_value().to_vec(), answer, nonce)
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7).0, run(8).0);
        assert_ne!(run(7).2, run(8).2);
    }

    #[test]
    fn bad_public_values_are_refused() {
        let method = insecure_test_provider(1).key_exchange(KeyExchangeId::ECP_256).unwrap();
        let random = InsecureRandom::new(9);
        let good = method.start(&random).unwrap().public_value().to_vec();
        assert!(method.respond(&random, &good).is_ok());
        for position in [0, 7, 8, 63] {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert_eq!(method.respond(&random, &bad), Err(CryptoError::InvalidPublicValue), "octet {position}");
        }
        for bad in [&[][..], &good[..63], &[0; 64]] {
            assert_eq!(method.respond(&random, bad), Err(CryptoError::InvalidPublicValue));
        }
    }

    /// What a daemon calls at start does not take this provider for a real one.
    #[test]
    fn self_test_refuses_the_mock() {
        assert_eq!(insecure_test_provider(1).self_test(), Err(CryptoError::SelfTestFailed("key exchange")));
    }

    /// Nothing of [`InsecureRandom`] repeats early.
    #[test]
    fn random_blocks_differ() {
        let random = InsecureRandom::new(0);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..10_000 {
            let mut octets = [0; 8];
            random.fill(&mut octets).unwrap();
            assert!(seen.insert(octets));
        }
    }
}
