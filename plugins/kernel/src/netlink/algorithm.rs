//! ESP transforms in the kernel's names, with their keys.

use ipsec::algorithm::{EspEncryption, EspIntegrity};
use ipsec::{EspAlgorithm, KeyMaterial};
use netlink_packet_xfrm::{XFRMA_ALG_AEAD, XFRMA_ALG_AUTH_TRUNC, XFRMA_ALG_CRYPT};
use offload_host::netlink::u32_of;
use offload_host::xfrm::attribute;

use super::body::Body;

const NAME: usize = 64;
const GCM: &str = "rfc4106(gcm(aes))";
const CHACHA: &str = "rfc7539esp(chacha20,poly1305)";
const CBC: &str = "cbc(aes)";

/// Bits of the ICV of the AEADs.
const AEAD_ICV: u32 = 128;

const fn integrity_name(integrity: EspIntegrity) -> &'static str {
    match integrity {
        EspIntegrity::HmacSha2_256_128 => "hmac(sha256)",
        EspIntegrity::HmacSha2_384_192 => "hmac(sha384)",
        EspIntegrity::HmacSha2_512_256 => "hmac(sha512)",
    }
}

/// Appends the algorithm attributes.
///
/// The truncation of HMACs is always said: left out, the kernel takes 96 bits for SHA2-256.
pub(super) fn write(body: &mut Body, algorithm: EspAlgorithm, key: &KeyMaterial) {
    match algorithm.encryption {
        EspEncryption::AesGcm16(_) => aead(body, GCM, &key.encryption),
        EspEncryption::ChaCha20Poly1305 => aead(body, CHACHA, &key.encryption),
        EspEncryption::AesCbc(_) => {
            body.value(XFRMA_ALG_CRYPT, &[&name(CBC), &bits(&key.encryption), &key.encryption]);
        }
    }
    if let (Some(integrity), Some(key)) = (algorithm.integrity, &key.integrity) {
        let truncated = u32::from(algorithm.icv_bits()).to_ne_bytes();
        body.value(XFRMA_ALG_AUTH_TRUNC, &[&name(integrity_name(integrity)), &bits(key), &truncated, key]);
    }
}

fn aead(body: &mut Body, algorithm: &str, key: &[u8]) {
    body.value(XFRMA_ALG_AEAD, &[&name(algorithm), &bits(key), &AEAD_ICV.to_ne_bytes(), key]);
}

fn name(text: &str) -> [u8; NAME] {
    let mut out = [0; NAME];
    out.iter_mut().zip(text.bytes()).for_each(|(slot, octet)| *slot = octet);
    out
}

fn bits(key: &[u8]) -> [u8; 4] {
    u32::try_from(key.len() * 8).unwrap_or(u32::MAX).to_ne_bytes()
}

/// Whether a state has transforms at all; larval ones have none.
pub(super) fn any(attributes: &[u8]) -> bool {
    [XFRMA_ALG_AEAD, XFRMA_ALG_CRYPT, XFRMA_ALG_AUTH_TRUNC].iter().any(|kind| attribute(attributes, *kind).is_some())
}

/// The transforms in a message; `None` = others than ours. The keys are not looked at.
pub(super) fn read(attributes: &[u8]) -> Option<EspAlgorithm> {
    let named = |kind| Named::read(attribute(attributes, kind)?);
    if let Some(aead) = named(XFRMA_ALG_AEAD) {
        let salted = u16::try_from(aead.key_bits.checked_sub(32)?).ok()?;
        let algorithm = match aead.name {
            GCM => EspAlgorithm::from_ids(20, Some(salted), None),
            CHACHA => EspAlgorithm::from_ids(28, Some(salted), None),
            _ => None,
        };
        return algorithm.filter(|_| aead.more == Some(AEAD_ICV));
    }
    let (cipher, hmac) = (named(XFRMA_ALG_CRYPT)?, named(XFRMA_ALG_AUTH_TRUNC)?);
    let integrity = [EspIntegrity::HmacSha2_256_128, EspIntegrity::HmacSha2_384_192, EspIntegrity::HmacSha2_512_256]
        .into_iter()
        .find(|known| integrity_name(*known) == hmac.name)?;
    let algorithm = EspAlgorithm::from_ids(12, u16::try_from(cipher.key_bits).ok(), Some(integrity.id()))?;
    (cipher.name == CBC && hmac.more == Some(u32::from(algorithm.icv_bits()))).then_some(algorithm)
}

/// `struct xfrm_algo`, and the number that follows it in `xfrm_algo_aead` and `xfrm_algo_auth`.
struct Named<'m> {
    name: &'m str,
    key_bits: u32,
    more: Option<u32>,
}

impl<'m> Named<'m> {
    fn read(octets: &'m [u8]) -> Option<Self> {
        let (name, rest) = octets.split_at_checked(NAME)?;
        let length = name.iter().position(|octet| *octet == 0)?;
        let name = std::str::from_utf8(name.get(..length)?).ok()?;
        Some(Self { name, key_bits: u32_of(rest)?, more: rest.get(4..).and_then(u32_of) })
    }
}
