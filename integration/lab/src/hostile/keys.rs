//! The peer's own key schedule (RFC 7296 §2.13-2.18), for one suite: AES-128-GCM, HMAC-SHA2-256 as PRF, X25519.
//!
//! Written apart from the daemon's, so that an established SA also says that two key schedules agree.

use anyhow::{Context, Result};
use ike_crypto::{CryptoProvider, IkeAead, Prf, PrfOutput, SystemRandom, prf_plus, ring_provider};
use ike_wire::ids::{EncryptionId, PayloadType, PrfId};
use ike_wire::{Chain, HEADER_LEN, Header, IkeSpi, Message, PAYLOAD_HEADER_LEN, SkBuffer, SkSizes};

/// Octets of an AES-128-GCM key with its salt.
pub const GCM_KEY: usize = 20;
const PRF_KEY: usize = 32;
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// What both ends have contributed.
#[derive(Clone, Copy)]
pub struct Contributions<'a> {
    /// Initiator's nonce.
    pub nonce_i: &'a [u8],
    /// Responder's nonce.
    pub nonce_r: &'a [u8],
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// The shared secret.
    pub secret: &'a [u8],
}

/// The keys of an IKE SA, held by its initiator.
#[derive(Debug)]
pub struct Keys {
    sk_d: PrfOutput,
    sk_pi: PrfOutput,
    sk_pr: PrfOutput,
    ours: Box<dyn IkeAead>,
    theirs: Box<dyn IkeAead>,
}

/// The cryptography of this peer.
#[must_use]
pub fn provider() -> &'static CryptoProvider {
    ring_provider()
}

fn prf() -> Result<&'static dyn Prf> {
    provider().prf(PrfId::PRF_HMAC_SHA2_256).context("no PRF")
}

impl Keys {
    /// Keys of a first IKE SA.
    ///
    /// # Errors
    /// The cryptography refused.
    pub fn initial(from: Contributions<'_>) -> Result<Self> {
        let seed = [from.nonce_i, from.nonce_r].concat();
        Self::expand(&prf()?.key(&seed).sign(&[from.secret]), from)
    }

    /// The same keys in the hands of the responder.
    #[must_use]
    pub fn held_by_responder(mut self) -> Self {
        std::mem::swap(&mut self.ours, &mut self.theirs);
        self
    }

    /// Keys of the IKE SA that replaces this one.
    ///
    /// # Errors
    /// The cryptography refused.
    pub fn rekeyed(&self, from: Contributions<'_>) -> Result<Self> {
        let skeyseed = prf()?.key(self.sk_d.as_ref()).sign(&[from.secret, from.nonce_i, from.nonce_r]);
        Self::expand(&skeyseed, from)
    }

    fn expand(skeyseed: &PrfOutput, from: Contributions<'_>) -> Result<Self> {
        let (spi_i, spi_r) = (from.spi_i.to_octets(), from.spi_r.to_octets());
        let seed = [from.nonce_i, from.nonce_r, &spi_i, &spi_r];
        let stream = prf_plus(prf()?.key(skeyseed.as_ref()).as_ref(), &seed, 3 * PRF_KEY + 2 * GCM_KEY)?;
        let mut rest: &[u8] = &stream;
        let mut take = |octets: usize| -> Result<&[u8]> {
            let (piece, left) = rest.split_at_checked(octets).context("key stream too short")?;
            rest = left;
            Ok(piece)
        };
        let (sk_d, sk_ei, sk_er) = (take(PRF_KEY)?, take(GCM_KEY)?, take(GCM_KEY)?);
        let (sk_pi, sk_pr) = (take(PRF_KEY)?, take(PRF_KEY)?);
        let output = |octets| PrfOutput::new(octets).context("PRF output");
        let cipher = provider().ike_cipher(EncryptionId::AES_GCM_16, Some(128)).context("no AES-GCM")?;
        Ok(Keys {
            sk_d: output(sk_d)?,
            sk_pi: output(sk_pi)?,
            sk_pr: output(sk_pr)?,
            ours: cipher.key(sk_ei, None)?,
            theirs: cipher.key(sk_er, None)?,
        })
    }

    /// The initiator's AUTH with a pre-shared key, over its IKE_SA_INIT message, the responder's nonce and the body of its ID.
    ///
    /// # Errors
    /// There is no PRF.
    pub fn auth_of_initiator(&self, secret: &[u8], message: &[u8], nonce: &[u8], id: &[u8]) -> Result<PrfOutput> {
        Self::auth(&self.sk_pi, secret, message, nonce, id)
    }

    /// The responder's AUTH, over its IKE_SA_INIT message, the initiator's nonce and the body of its ID.
    ///
    /// # Errors
    /// There is no PRF.
    pub fn auth_of_responder(&self, secret: &[u8], message: &[u8], nonce: &[u8], id: &[u8]) -> Result<PrfOutput> {
        Self::auth(&self.sk_pr, secret, message, nonce, id)
    }

    fn auth(sk_p: &PrfOutput, secret: &[u8], message: &[u8], nonce: &[u8], id: &[u8]) -> Result<PrfOutput> {
        let prf = prf()?;
        let maced_id = prf.key(sk_p.as_ref()).sign(&[id]);
        let padded = prf.key(secret).sign(&[KEY_PAD]);
        Ok(prf.key(padded.as_ref()).sign(&[message, nonce, maced_id.as_ref()]))
    }

    /// Keys of a CHILD SA with AES-128-GCM: from the exchange's initiator to its responder, and back.
    ///
    /// # Errors
    /// There is no PRF.
    pub fn child(&self, secret: Option<&[u8]>, nonce_i: &[u8], nonce_r: &[u8]) -> Result<[Vec<u8>; 2]> {
        let seed: Vec<&[u8]> = secret.into_iter().chain([nonce_i, nonce_r]).collect();
        let stream = prf_plus(prf()?.key(self.sk_d.as_ref()).as_ref(), &seed, 2 * GCM_KEY)?;
        let (there, back) = stream.split_at_checked(GCM_KEY).context("key stream too short")?;
        Ok([there.to_vec(), back.to_vec()])
    }

    /// A message with `chain` in SK, whatever the chain's octets are.
    ///
    /// # Errors
    /// It is too long for a datagram.
    pub fn seal(&self, header: &Header, chain: &Chain) -> Result<Vec<u8>> {
        let mut buffer = SkBuffer::seal(header, chain, sizes(self.ours.as_ref()))?;
        let parts = buffer.parts();
        self.ours.seal(&SystemRandom, parts.associated, parts.iv, parts.body, parts.icv)?;
        Ok(buffer.into_octets())
    }

    /// A message with a payload in clear in front of SK; the ICV covers it.
    ///
    /// # Errors
    /// The cryptography refused.
    pub fn seal_behind(&self, header: &Header, front: (PayloadType, &[u8]), chain: &Chain) -> Result<Vec<u8>> {
        let sealed = SkBuffer::seal(header, chain, sizes(self.ours.as_ref()))?;
        self.behind(front, PayloadType::SK, PAYLOAD_HEADER_LEN, sealed.into_octets())
    }

    /// The same in front of the only fragment of `chain`.
    ///
    /// # Errors
    /// The cryptography refused.
    pub fn fragment_behind(&self, header: &Header, front: (PayloadType, &[u8]), chain: &Chain) -> Result<Vec<u8>> {
        let sizes = sizes(self.ours.as_ref());
        let sealed = SkBuffer::seal_fragment(header, chain.first, (1, 1), &chain.octets, sizes)?;
        // Number and total stand between the payload header and the IV.
        self.behind(front, PayloadType::SKF, PAYLOAD_HEADER_LEN + 4, sealed.into_octets())
    }

    /// Puts a payload in front of the encrypted one, of which the first `header` octets are not encrypted, and encrypts it.
    fn behind(
        &self,
        (kind, front): (PayloadType, &[u8]),
        encrypted: PayloadType,
        header: usize,
        laid_out: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let sizes = sizes(self.ours.as_ref());
        let (head, rest) = laid_out.split_at_checked(HEADER_LEN).context("a message is longer than its header")?;
        let length = u16::try_from(front.len() + PAYLOAD_HEADER_LEN)?;
        let mut octets = head.to_vec();
        octets.extend([encrypted.0, 0]);
        octets.extend(length.to_be_bytes());
        octets.extend(front);
        octets.extend(rest);
        let total = u32::try_from(octets.len())?;
        for (at, value) in [(16, vec![kind.0]), (24, total.to_be_bytes().to_vec())] {
            octets.iter_mut().skip(at).zip(value).for_each(|(to, from)| *to = from);
        }
        let (associated, rest) = octets.split_at_mut(HEADER_LEN + PAYLOAD_HEADER_LEN + front.len() + header);
        let (iv, rest) = rest.split_at_mut(sizes.iv);
        let (body, icv) = rest.split_at_mut(rest.len() - sizes.icv);
        self.ours.seal(&SystemRandom, associated, iv, body, icv)?;
        Ok(octets)
    }

    /// Fragment `number` of `total` (RFC 7383) with `piece` of a chain.
    ///
    /// # Errors
    /// It is too long for a datagram, or the numbers are none.
    pub fn seal_fragment(
        &self,
        header: &Header,
        first: PayloadType,
        numbers: (u16, u16),
        piece: &[u8],
    ) -> Result<Vec<u8>> {
        let mut buffer = SkBuffer::seal_fragment(header, first, numbers, piece, sizes(self.ours.as_ref()))?;
        let parts = buffer.parts();
        self.ours.seal(&SystemRandom, parts.associated, parts.iv, parts.body, parts.icv)?;
        Ok(buffer.into_octets())
    }

    /// Checks and decrypts what the responder sent; `None` when it is not authentic.
    #[must_use]
    pub fn open(&self, message: &Message<'_>) -> Option<SkBuffer> {
        let mut buffer = SkBuffer::open(message, sizes(self.theirs.as_ref())).ok()?;
        let parts = buffer.parts();
        self.theirs.open(parts.associated, parts.iv, parts.body, parts.icv).ok()?;
        Some(buffer)
    }
}

fn sizes(aead: &dyn IkeAead) -> SkSizes {
    SkSizes { iv: aead.iv_len(), icv: aead.icv_len(), block: aead.block_len() }
}
