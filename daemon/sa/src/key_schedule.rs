//! From nonces and shared secrets to keys.
//!
//! Implements RFC 7296 §2.14 (SKEYSEED and the keys of an IKE SA), §2.15 (AUTH with a shared key), §2.17 (KEYMAT of a CHILD SA) and §2.18
//! (keys of a rekeyed IKE SA).

use ike_crypto::{CryptoError, CryptoProvider, IkeAead, Prf, PrfOutput, prf_plus};
use ike_model::KeyExport;
use ike_wire::{IkeSpi, SkSizes};
use ipsec::{EspAlgorithm, EspIntegrity, KeyMaterial};
use zeroize::Zeroizing;

use crate::export::IkeSaKeys;
use crate::suite::IkeSuite;

/// Keys that an IKE SA keeps for its life.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Function negotiated.
    pub(crate) prf: &'static dyn Prf,
    /// SK_d.
    sk_d: PrfOutput,
    /// Protects what we send.
    pub(crate) outbound: Box<dyn IkeAead>,
    /// Protects what the peer sends.
    pub(crate) inbound: Box<dyn IkeAead>,
    /// The same once more, with leave to give them out only.
    pub(crate) kept: Option<Box<IkeSaKeys>>,
}

/// Keys that are needed until both ends are authenticated.
#[derive(Debug)]
pub(crate) struct AuthKeys {
    sk_pi: PrfOutput,
    sk_pr: PrfOutput,
}

/// What both ends have contributed to an IKE SA.
#[derive(Clone, Copy)]
pub(crate) struct Contributions<'a> {
    /// Initiator's nonce.
    pub(crate) nonce_i: &'a [u8],
    /// Responder's nonce.
    pub(crate) nonce_r: &'a [u8],
    /// Initiator's SPI.
    pub(crate) spi_i: IkeSpi,
    /// Responder's SPI.
    pub(crate) spi_r: IkeSpi,
    /// Shared secret.
    pub(crate) secret: &'a [u8],
}

/// Whose AUTH is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The initiator's.
    Initiator,
    /// The responder's.
    Responder,
}

/// What AUTH covers.
#[derive(Clone, Copy)]
pub(crate) struct SignedOctets<'a> {
    /// The signer's IKE_SA_INIT message.
    pub(crate) message: &'a [u8],
    /// The other end's nonce.
    pub(crate) nonce: &'a [u8],
    /// Body of the signer's ID payload.
    pub(crate) identification: &'a [u8],
}

const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

impl Keys {
    //= RFC 7296 §2.14: SKEYSEED = prf(Ni | Nr, g^ir); then SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr
    /// Keys of the first IKE SA. `initiator` says which end we are.
    pub(crate) fn initial(
        provider: &CryptoProvider,
        suite: IkeSuite,
        from: Contributions<'_>,
        initiator: bool,
        export: Option<KeyExport>,
    ) -> Result<(Self, AuthKeys), CryptoError> {
        let prf = provider.prf(suite.prf).ok_or(CryptoError::InvalidKeyLength)?;
        let seed = Zeroizing::new([from.nonce_i, from.nonce_r].concat());
        let skeyseed = prf.key(&seed).sign(&[from.secret]);
        Self::expand(provider, suite, (prf, &skeyseed), from, initiator, export)
    }

    /// Keys of the IKE SA that replaces this one.
    pub(crate) fn rekeyed(
        &self,
        provider: &CryptoProvider,
        suite: IkeSuite,
        from: Contributions<'_>,
        initiator: bool,
        export: Option<KeyExport>,
    ) -> Result<Self, CryptoError> {
        let prf = provider.prf(suite.prf).ok_or(CryptoError::InvalidKeyLength)?;
        //= RFC 7296 §2.18: SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr), with the old prf
        let skeyseed = self.prf.key(self.sk_d.as_ref()).sign(&[from.secret, from.nonce_i, from.nonce_r]);
        Self::expand(provider, suite, (prf, &skeyseed), from, initiator, export).map(|(keys, _)| keys)
    }

    fn expand(
        provider: &CryptoProvider,
        suite: IkeSuite,
        (prf, skeyseed): (&'static dyn Prf, &PrfOutput),
        from: Contributions<'_>,
        initiator: bool,
        export: Option<KeyExport>,
    ) -> Result<(Self, AuthKeys), CryptoError> {
        let cipher =
            provider.ike_cipher(suite.encryption.id, suite.encryption.key_bits).ok_or(CryptoError::InvalidKeyLength)?;
        let integrity = match suite.integrity {
            Some(id) => Some(provider.integrity(id).ok_or(CryptoError::InvalidKeyLength)?),
            None => None,
        };
        let (d, a, e) = (prf.key_len(), integrity.map_or(0, |i| i.key_len()), cipher.key_len_with_salt());
        let total = d * 3 + (a + e) * 2;
        let (spi_i, spi_r) = (from.spi_i.to_octets(), from.spi_r.to_octets());
        let seed = [from.nonce_i, from.nonce_r, &spi_i, &spi_r];
        let stream = prf_plus(prf.key(skeyseed.as_ref()).as_ref(), &seed, total)?;
        let mut pieces = Pieces(&stream);
        let sk_d = pieces.output(d)?;
        let (sk_ai, sk_ar) = (pieces.take(a)?, pieces.take(a)?);
        let (sk_ei, sk_er) = (pieces.take(e)?, pieces.take(e)?);
        let auth = AuthKeys { sk_pi: pieces.output(d)?, sk_pr: pieces.output(d)? };
        let from_initiator = cipher.key(sk_ei, integrity.map(|i| (i, sk_ai)))?;
        let from_responder = cipher.key(sk_er, integrity.map(|i| (i, sk_ar)))?;
        let (outbound, inbound) =
            if initiator { (from_initiator, from_responder) } else { (from_responder, from_initiator) };
        let kept =
            export.map(|_| Box::new(IkeSaKeys::new((from.spi_i, from.spi_r), suite, [sk_ei, sk_er, sk_ai, sk_ar])));
        Ok((Self { prf, sk_d, outbound, inbound, kept }, auth))
    }

    //= RFC 7296 §2.17: KEYMAT = prf+(SK_d, [g^ir |] Ni | Nr)
    /// Keys of a CHILD SA: from the exchange's initiator to its responder, and back.
    pub(crate) fn child(
        &self,
        algorithm: EspAlgorithm,
        secret: Option<&[u8]>,
        nonce_i: &[u8],
        nonce_r: &[u8],
    ) -> Result<(KeyMaterial, KeyMaterial), CryptoError> {
        let encryption = algorithm.encryption.keymat_octets();
        let integrity = algorithm.integrity.map_or(0, EspIntegrity::keymat_octets);
        let seed: Vec<&[u8]> = secret.into_iter().chain([nonce_i, nonce_r]).collect();
        let stream = prf_plus(self.prf.key(self.sk_d.as_ref()).as_ref(), &seed, (encryption + integrity) * 2)?;
        let mut pieces = Pieces(&stream);
        let mut direction = || {
            let (key, mac) = (pieces.take(encryption)?, pieces.take(integrity)?);
            Ok::<_, CryptoError>(KeyMaterial::new(key, algorithm.integrity.map(|_| mac)))
        };
        Ok((direction()?, direction()?))
    }

    /// Sizes around the inside of what we send or the peer sends.
    pub(crate) fn sizes(aead: &dyn IkeAead) -> SkSizes {
        SkSizes { iv: aead.iv_len(), icv: aead.icv_len(), block: aead.block_len() }
    }
}

impl AuthKeys {
    //= RFC 7296 §2.15: AUTH = prf(prf(shared secret, "Key Pad for IKEv2"), octets to be signed)
    /// AUTH of one end with a pre-shared key.
    pub(crate) fn psk(&self, prf: &dyn Prf, role: Role, secret: &[u8], octets: SignedOctets<'_>) -> PrfOutput {
        let sk_p = match role {
            Role::Initiator => &self.sk_pi,
            Role::Responder => &self.sk_pr,
        };
        let maced_id = prf.key(sk_p.as_ref()).sign(&[octets.identification]);
        let padded = prf.key(secret).sign(&[KEY_PAD]);
        prf.key(padded.as_ref()).sign(&[octets.message, octets.nonce, maced_id.as_ref()])
    }
}

/// Cuts a key stream into keys.
struct Pieces<'a>(&'a [u8]);

impl<'a> Pieces<'a> {
    fn take(&mut self, octets: usize) -> Result<&'a [u8], CryptoError> {
        let (piece, rest) = self.0.split_at_checked(octets).ok_or(CryptoError::InvalidBufferLength)?;
        self.0 = rest;
        Ok(piece)
    }

    fn output(&mut self, octets: usize) -> Result<PrfOutput, CryptoError> {
        PrfOutput::new(self.take(octets)?).ok_or(CryptoError::InvalidBufferLength)
    }
}

#[cfg(test)]
mod tests;
