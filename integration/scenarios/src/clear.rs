//! INSECURE by design: a provider whose SK payloads are sealed but not encrypted, so that a world can read what its gateways say.
//!
//! Lengths, keys and IVs are those of AES-GCM. The ICV is a sum over key, header, IV and body: it notices what a link does to a message and
//! keeps nobody out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ike_crypto::{CryptoError, CryptoProvider, IkeAead, IkeCipher, Integrity, SecureRandom, insecure_test_provider};
use ike_wire::ids::{EncryptionId, KeyExchangeId};
use ike_wire::{Message, SkBuffer, SkSizes, encode_chain};

/// Octets of the explicit IV.
const IV_LEN: usize = 8;
/// Octets of the ICV.
const ICV_LEN: usize = 16;
const SIZES: SkSizes = SkSizes { iv: IV_LEN, icv: ICV_LEN, block: 1 };
/// Takes the place of a key in what the harness itself makes; everybody accepts it.
const FORGED: u64 = 0;
/// Octets of the salt after the key.
const SALT_LEN: usize = 4;

/// INSECURE: the test provider, with nothing encrypted.
pub fn clear_provider() -> &'static CryptoProvider {
    static PROVIDER: OnceLock<&'static CryptoProvider> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        Box::leak(Box::new(CryptoProvider { ike_ciphers: CLEAR_CIPHERS, ..*insecure_test_provider(0) }))
    })
}

/// INSECURE: the same with two key exchange methods, of which two ends with different `lacks` have one in common, and it is the first guess of
/// neither.
pub fn narrow_provider(lacks: bool) -> &'static CryptoProvider {
    static PROVIDERS: OnceLock<[&'static CryptoProvider; 2]> = OnceLock::new();
    let narrow = |kept: [KeyExchangeId; 2]| -> &'static CryptoProvider {
        let all = clear_provider().key_exchanges.iter().copied();
        let key_exchanges: Vec<_> = all.filter(|method| kept.contains(&method.id())).collect();
        Box::leak(Box::new(CryptoProvider { key_exchanges: key_exchanges.leak(), ..*clear_provider() }))
    };
    let both = PROVIDERS.get_or_init(|| {
        let common = KeyExchangeId::ECP_384;
        [narrow([KeyExchangeId::ECP_256, common]), narrow([KeyExchangeId::CURVE_25519, common])]
    });
    both[usize::from(lacks)]
}

static CLEAR_CIPHERS: &[&dyn IkeCipher] = &[&ClearCipher { key_bits: 256 }, &ClearCipher { key_bits: 128 }];

/// What a message under [`clear_provider`] says inside its SK payload; `None` when it has none.
pub fn inside(octets: &[u8]) -> Option<SkBuffer> {
    let message = Message::parse(octets).ok()?;
    message.encrypted()?;
    SkBuffer::open(&message, SIZES).ok()
}

/// A message with nothing inside in place of this one, as a faulty harness would make it.
pub(crate) fn emptied(octets: &[u8]) -> Option<Vec<u8>> {
    let header = Message::parse(octets).ok()?.header;
    let nothing = encode_chain(&[]).ok()?;
    let mut sealed = SkBuffer::seal(&header, &nothing, SIZES).ok()?;
    let parts = sealed.parts();
    let icv = icv(FORGED, parts.associated, parts.iv, parts.body);
    parts.icv.copy_from_slice(&icv);
    Some(sealed.into_octets())
}

#[derive(Debug)]
struct ClearCipher {
    key_bits: u16,
}

impl IkeCipher for ClearCipher {
    fn id(&self) -> EncryptionId {
        EncryptionId::AES_GCM_16
    }

    fn key_bits(&self) -> Option<u16> {
        Some(self.key_bits)
    }

    fn key_len_with_salt(&self) -> usize {
        usize::from(self.key_bits / 8) + SALT_LEN
    }

    fn iv_len(&self) -> usize {
        IV_LEN
    }

    fn is_aead(&self) -> bool {
        true
    }

    fn key(
        &self,
        encryption_key: &[u8],
        integrity: Option<(&'static dyn Integrity, &[u8])>,
    ) -> Result<Box<dyn IkeAead>, CryptoError> {
        if integrity.is_some() || encryption_key.len() != self.key_len_with_salt() {
            return Err(CryptoError::InvalidKeyLength);
        }
        Ok(Box::new(ClearKey { start: sum(SUM_START, encryption_key), sealed: AtomicU64::new(0) }))
    }
}

/// One direction, keyed.
#[derive(Debug)]
struct ClearKey {
    start: u64,
    sealed: AtomicU64,
}

const SUM_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, taken on from `start`.
fn sum(start: u64, octets: &[u8]) -> u64 {
    octets.iter().fold(start, |sum, octet| (sum ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3))
}

fn icv(start: u64, aad: &[u8], iv: &[u8], body: &[u8]) -> [u8; ICV_LEN] {
    let first = sum(sum(sum(start, aad), iv), body);
    let mut icv = [0; ICV_LEN];
    icv[..8].copy_from_slice(&first.to_be_bytes());
    icv[8..].copy_from_slice(&sum(first, iv).to_be_bytes());
    icv
}

impl IkeAead for ClearKey {
    fn iv_len(&self) -> usize {
        IV_LEN
    }

    fn icv_len(&self) -> usize {
        ICV_LEN
    }

    fn block_len(&self) -> usize {
        1
    }

    fn seal(
        &self,
        _random: &dyn SecureRandom,
        aad: &[u8],
        iv: &mut [u8],
        body: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        let number = self.sealed.fetch_add(1, Ordering::Relaxed);
        if iv.len() != IV_LEN || icv.len() != ICV_LEN {
            return Err(CryptoError::InvalidBufferLength);
        }
        iv.copy_from_slice(&number.to_be_bytes());
        icv.copy_from_slice(&self::icv(self.start, aad, iv, body));
        Ok(())
    }

    fn open(&self, aad: &[u8], iv: &[u8], body: &mut [u8], icv: &[u8]) -> Result<(), CryptoError> {
        if [self.start, FORGED].iter().any(|start| icv == self::icv(*start, aad, iv, body)) {
            Ok(())
        } else {
            Err(CryptoError::AuthenticationFailed)
        }
    }
}
