//! COOKIEs against floods from forged addresses (RFC 7296 §2.6).
//!
//! A cookie is a PRF over the initiator's nonce, address and SPI under a secret that changes; the one before is still accepted. Nothing is
//! stored per request.

use std::net::IpAddr;
use std::time::Duration;

use ike_crypto::{CryptoProvider, constant_time_eq};
use ike_wire::IkeSpi;
use ipsec::Instant;
use zeroize::Zeroizing;

use crate::io::Context;

const SECRET_LIFE: Duration = Duration::from_secs(120);

/// The secrets of one shard.
#[derive(Default)]
pub(crate) struct Cookies {
    current: Option<Secret>,
    previous: Option<Secret>,
}

struct Secret {
    version: u8,
    octets: Zeroizing<[u8; 32]>,
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
    /// The cookie for a request; nothing when there is no randomness or no PRF.
    pub(crate) fn make(&mut self, context: &Context<'_>, binding: Binding<'_>) -> Option<Vec<u8>> {
        self.refresh(context)?;
        self.current.as_ref()?.cookie(context.provider, binding)
    }

    /// Whether a cookie is one of ours for this request.
    pub(crate) fn is_valid(&self, context: &Context<'_>, binding: Binding<'_>, cookie: &[u8]) -> bool {
        let secrets = [&self.current, &self.previous];
        let fresh = secrets.into_iter().flatten().filter(|secret| {
            context.now.saturating_since(secret.born) < SECRET_LIFE * 2 && cookie.first() == Some(&secret.version)
        });
        fresh.into_iter().any(|secret| {
            secret.cookie(context.provider, binding).is_some_and(|expected| constant_time_eq(&expected, cookie))
        })
    }

    fn refresh(&mut self, context: &Context<'_>) -> Option<()> {
        let old = |secret: &Secret| context.now.saturating_since(secret.born) >= SECRET_LIFE;
        if self.current.as_ref().is_none_or(old) {
            let mut octets = Zeroizing::new([0; 32]);
            context.rng.fill(octets.as_mut()).ok()?;
            let version = self.current.as_ref().map_or(0, |secret| secret.version.wrapping_add(1));
            self.previous = self.current.replace(Secret { version, octets, born: context.now });
        }
        Some(())
    }
}

impl Secret {
    fn cookie(&self, provider: &CryptoProvider, binding: Binding<'_>) -> Option<Vec<u8>> {
        let key = provider.prfs.first()?.key(self.octets.as_ref());
        let spi = binding.spi.to_octets();
        let output = match binding.address {
            IpAddr::V4(address) => key.sign(&[binding.nonce, &address.octets(), &spi]),
            IpAddr::V6(address) => key.sign(&[binding.nonce, &address.octets(), &spi]),
        };
        let mut cookie = vec![self.version];
        cookie.extend_from_slice(output.as_ref().get(..32).unwrap_or(output.as_ref()));
        Some(cookie)
    }
}
