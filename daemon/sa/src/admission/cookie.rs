//! COOKIEs against floods from forged addresses (RFC 7296 §2.6).
//!
//! A cookie is a PRF over the initiator's nonce, address and SPI under a secret that changes; the one before is still accepted. Nothing is
//! stored per request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ike_crypto::{PrfKey, constant_time_eq};
use ike_wire::IkeSpi;
use ipsec::Instant;
use zeroize::Zeroizing;

use super::Gate;

/// A secret makes cookies for this long, and they are accepted for as long again.
const SECRET_LIFE: Duration = Duration::from_secs(120);
/// Octets of PRF output in a cookie; with the version the whole is within the 64 that RFC 7296 §2.6 allows.
const DIGEST: usize = 32;

/// The secrets of one gateway.
#[derive(Debug, Default)]
pub(super) struct Cookies {
    current: Option<Arc<Secret>>,
    previous: Option<Arc<Secret>>,
}

/// One secret: keyed once, as thousands of cookies per second may be made with it.
#[derive(Debug)]
pub(super) struct Secret {
    version: u8,
    key: Box<dyn PrfKey>,
    born: Instant,
}

/// What a cookie is bound to.
#[derive(Clone, Copy)]
pub(crate) struct Binding<'a> {
    /// Initiator's nonce.
    pub(crate) nonce: &'a [u8],
    /// Initiator's address.
    pub(crate) address: IpAddr,
    /// Initiator's SPI.
    pub(crate) spi: IkeSpi,
}

impl Cookies {
    /// The secret that makes cookies now; nothing when there is no randomness or no PRF.
    pub(super) fn current(&mut self, gate: &Gate<'_>) -> Option<Arc<Secret>> {
        let old = |secret: &Arc<Secret>| gate.now.saturating_since(secret.born) >= SECRET_LIFE;
        if self.current.as_ref().is_none_or(old) {
            let mut octets = Zeroizing::new([0; 32]);
            gate.rng.fill(octets.as_mut()).ok()?;
            //= RFC 7296 §2.6: the secret should change frequently; its version stands in front of the cookie
            let version = self.current.as_ref().map_or(0, |secret| secret.version.wrapping_add(1));
            let key = gate.provider.prfs.first()?.key(octets.as_ref());
            self.previous = self.current.replace(Arc::new(Secret { version, key, born: gate.now }));
        }
        self.current.clone()
    }

    /// The secret whose version a cookie names, unless it is too old.
    pub(super) fn named_by(&self, now: Instant, cookie: &[u8]) -> Option<Arc<Secret>> {
        let named = [&self.current, &self.previous].into_iter().flatten().find(|secret| {
            now.saturating_since(secret.born) < SECRET_LIFE * 2 && cookie.first() == Some(&secret.version)
        });
        named.cloned()
    }
}

impl Secret {
    /// Whether this secret has made this cookie for this request.
    pub(super) fn made(&self, binding: Binding<'_>, cookie: &[u8]) -> bool {
        constant_time_eq(&self.cookie(binding), cookie)
    }

    /// The cookie for a request.
    pub(super) fn cookie(&self, binding: Binding<'_>) -> Vec<u8> {
        let spi = binding.spi.to_octets();
        let output = match binding.address {
            IpAddr::V4(address) => self.key.sign(&[binding.nonce, &address.octets(), &spi]),
            IpAddr::V6(address) => self.key.sign(&[binding.nonce, &address.octets(), &spi]),
        };
        let mut cookie = Vec::with_capacity(DIGEST.saturating_add(1));
        cookie.push(self.version);
        cookie.extend_from_slice(output.as_ref().get(..DIGEST).unwrap_or(output.as_ref()));
        cookie
    }
}
