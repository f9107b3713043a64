//! Known-answer tests of a provider, run once before it is trusted.
//!
//! HMAC: RFC 4231 test case 2 and RFC 4868 §2.7.2. ChaCha20-Poly1305: RFC 7634 appendices A and B. AES-GCM in ESP: the
//! test cases that accompany RFC 4106 (draft-mcgrew-gcm-test-01). What no publication has an answer for (AES-GCM and
//! AES-CBC in IKE, AES-CBC with an HMAC in ESP, powers in the MODP groups) was computed with OpenSSL and Python
//! integers. Elliptic curves: agreeing with the base point must give the own public value.

use hex_literal::hex;
use ike_wire::ids::{EncryptionId, IntegrityId, KeyExchangeId, PrfId};

use crate::{CryptoError, CryptoProvider, EspCipher, IkeCipher, Integrity, KeyExchange, Prf, SecureRandom};

/// Octets that count up, as keys and as IVs.
const fn counting<const N: usize>(first: u8) -> [u8; N] {
    let mut octets = [0; N];
    let mut rest: &mut [u8] = &mut octets;
    let mut next = first;
    while let [octet, tail @ ..] = rest {
        *octet = next;
        next = next.wrapping_add(1);
        rest = tail;
    }
    octets
}

const COUNTING_FROM_0: [u8; 64] = counting(0);
const COUNTING_FROM_80: [u8; 64] = counting(0x80);
const SALT: [u8; 4] = hex!("a0a1a2a3");

impl CryptoProvider {
    /// Checks every part of the tables against known answers; some 20 ms of work.
    ///
    /// A part for which no answer is known here, because another provider brought it, is checked for consistency
    /// alone: what it seals it opens, what is altered it refuses, and two ends agree on one secret.
    ///
    /// # Errors
    /// [`CryptoError::SelfTestFailed`] with the kind of the part that failed.
    pub fn self_test(&self) -> Result<(), CryptoError> {
        check("random", random_differs(self.random))?;
        for prf in self.prfs {
            check("PRF", prf_answers(*prf))?;
        }
        for integrity in self.integrity {
            check("integrity", integrity_answers(*integrity))?;
        }
        for cipher in self.ike_ciphers {
            check("IKE cipher", ike_cipher_answers(self, *cipher))?;
        }
        for cipher in self.esp_ciphers {
            check("ESP cipher", esp_cipher_answers(*cipher))?;
        }
        for method in self.key_exchanges {
            check("key exchange", key_exchange_answers(self.random, *method))?;
        }
        Ok(())
    }
}

/// An error inside a test fails it just as a wrong answer does.
fn check(part: &'static str, outcome: Result<bool, CryptoError>) -> Result<(), CryptoError> {
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(CryptoError::SelfTestFailed(part)),
    }
}

fn random_differs(random: &dyn SecureRandom) -> Result<bool, CryptoError> {
    let (mut a, mut b) = ([0; 32], [0; 32]);
    random.fill(&mut a)?;
    random.fill(&mut b)?;
    Ok(a != b && a != [0; 32] && b != [0; 32])
}

fn prf_answers(prf: &dyn Prf) -> Result<bool, CryptoError> {
    let output = prf.key(b"Jefe").sign(&[b"what do ya want ", b"for nothing?"]);
    let known: &[u8] = match prf.id() {
        PrfId::PRF_HMAC_SHA2_256 => &hex!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        PrfId::PRF_HMAC_SHA2_384 => {
            &hex!("af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649")
        }
        PrfId::PRF_HMAC_SHA2_512 => &hex!(
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
            "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        ),
        _ => return Ok(output.as_ref().len() == prf.output_len()),
    };
    Ok(output.as_ref() == known && prf.output_len() == known.len())
}

fn integrity_answers(integrity: &dyn Integrity) -> Result<bool, CryptoError> {
    let key = integrity.key(&vec![0x0b; integrity.key_len()])?;
    let mut icv = vec![0; integrity.icv_len()];
    key.sign(&[b"Hi ", b"There"], &mut icv)?;
    let accepted = key.verify(&[b"Hi There"], &icv).is_ok();
    let refused = key.verify(&[b"Hi there"], &icv) == Err(CryptoError::AuthenticationFailed);
    let known = match integrity.id() {
        IntegrityId::HMAC_SHA2_256_128 => icv == hex!("198a607eb44bfbc69903a0f1cf2bbdc5"),
        IntegrityId::HMAC_SHA2_384_192 => icv == hex!("b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
        IntegrityId::HMAC_SHA2_512_256 => {
            icv == hex!("637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8")
        }
        _ => true,
    };
    Ok(known && accepted && refused)
}

/// Sealed by some other implementation: `aad` with the lengths of the message, IV, body, ICV, and the opened body.
pub(crate) struct IkeVector {
    pub(crate) aad: [u8; 32],
    pub(crate) iv: &'static [u8],
    pub(crate) body: &'static [u8],
    pub(crate) icv: [u8; 16],
    pub(crate) opened: &'static [u8],
}

impl IkeVector {
    /// RFC 7634 appendix B and what shares its header, IV and payload.
    const fn aead(body: &'static [u8; 13], icv: [u8; 16]) -> Self {
        Self {
            aad: hex!("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029"),
            iv: &hex!("1011121314151617"),
            body,
            icv,
            opened: &hex!("0000000c000040010000000a 00"),
        }
    }

    /// The same payload, padded to a block.
    const fn cbc(body: &'static [u8; 16], icv: [u8; 16]) -> Self {
        Self {
            aad: hex!("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000005029000034"),
            iv: &hex!("101112131415161718191a1b1c1d1e1f"),
            body,
            icv,
            opened: &hex!("0000000c000040010000000a 000000 03"),
        }
    }

    /// AES-CBC stands with HMAC-SHA2-256-128.
    pub(crate) fn known(id: EncryptionId, key_bits: Option<u16>) -> Option<Self> {
        match (id, key_bits) {
            (EncryptionId::CHACHA20_POLY1305, None) => {
                Some(Self::aead(&hex!("610394701f8d017f7c12924889"), hex!("6b71bfe25236efd7cdc67066906315b2")))
            }
            (EncryptionId::AES_GCM_16, Some(128)) => {
                Some(Self::aead(&hex!("5992ea1df71bdbae22abd23b19"), hex!("9d95efb5e89756b5bd190677d115aef9")))
            }
            (EncryptionId::AES_GCM_16, Some(256)) => {
                Some(Self::aead(&hex!("ba1914dcdc98d9ce8bc9b458da"), hex!("f9cd3123bd53a611270b5e8944402790")))
            }
            (EncryptionId::AES_CBC, Some(128)) => {
                Some(Self::cbc(&hex!("12f54ff3b063a0a838f0314bcc7e0287"), hex!("a8a1854428c0f8d1a6761df35ebb2c92")))
            }
            (EncryptionId::AES_CBC, Some(192)) => {
                Some(Self::cbc(&hex!("9167cd79af06f36880ac322b3022c556"), hex!("20af443babf2265d71c208560edd7b95")))
            }
            (EncryptionId::AES_CBC, Some(256)) => {
                Some(Self::cbc(&hex!("785139df46c24bf131aaf5be24056c85"), hex!("7f7aaae353ca626264dcfffa1449e602")))
            }
            _ => None,
        }
    }
}

/// Counting octets; RFC 7634 has its key start at 0x80. An AEAD has the salt at the end.
pub(crate) fn encryption_key(id: EncryptionId, is_aead: bool, len: usize) -> Vec<u8> {
    let source = if id == EncryptionId::CHACHA20_POLY1305 { COUNTING_FROM_80 } else { COUNTING_FROM_0 };
    let salt: &[u8] = if is_aead { &SALT } else { &[] };
    source.into_iter().take(len.saturating_sub(salt.len())).chain(salt.iter().copied()).collect()
}

pub(crate) fn integrity_key(len: usize) -> Vec<u8> {
    COUNTING_FROM_80.into_iter().take(len).collect()
}

fn ike_cipher_answers(provider: &CryptoProvider, cipher: &dyn IkeCipher) -> Result<bool, CryptoError> {
    let encryption_key = encryption_key(cipher.id(), cipher.is_aead(), cipher.key_len_with_salt());
    let integrity = provider.integrity(IntegrityId::HMAC_SHA2_256_128).filter(|_| !cipher.is_aead());
    let integrity_key = integrity_key(integrity.map_or(0, Integrity::key_len));
    let key = cipher.key(&encryption_key, integrity.map(|integrity| (integrity, integrity_key.as_slice())))?;

    if let Some(vector) = IkeVector::known(cipher.id(), cipher.key_bits()) {
        let mut body = vector.body.to_vec();
        key.open(&vector.aad, vector.iv, &mut body, &vector.icv)?;
        if body != vector.opened {
            return Ok(false);
        }
    }

    let (mut iv, mut body, mut icv) = (vec![0; key.iv_len()], vec![7; 64], vec![0; key.icv_len()]);
    key.seal(provider.random, b"aad", &mut iv, &mut body, &mut icv)?;
    let open = |aad: &[u8], body: &mut [u8], icv: &[u8]| key.open(aad, &iv, body, icv);
    let refused = Err(CryptoError::AuthenticationFailed);
    let other_aad_refused = open(b"aae", &mut body.clone(), &icv) == refused;
    let altered_refused = open(b"aad", &mut altered(&body), &icv) == refused
        && open(b"aad", &mut body.clone(), &altered(&icv)) == refused;
    open(b"aad", &mut body, &icv)?;
    Ok(body == [7; 64] && other_aad_refused && altered_refused)
}

/// With one bit in the middle flipped.
fn altered(octets: &[u8]) -> Vec<u8> {
    let mut altered = octets.to_vec();
    if let Some(octet) = altered.get_mut(octets.len() / 2) {
        *octet ^= 0x10;
    }
    altered
}

/// One ESP packet: what goes in, and the ICV that comes out. The ICV covers IV and ciphertext, so it stands for both.
pub(crate) struct EspVector {
    pub(crate) key: Vec<u8>,
    pub(crate) integrity_key: Vec<u8>,
    pub(crate) sequence: u64,
    pub(crate) aad: &'static [u8],
    pub(crate) plaintext: &'static [u8],
    pub(crate) icv: &'static [u8],
}

impl EspVector {
    fn aead(
        cipher: &dyn EspCipher,
        key: Option<&[u8]>,
        sequence: u64,
        aad: &'static [u8],
        plaintext: &'static [u8],
        icv: &'static [u8; 16],
    ) -> Self {
        let key = key.map(<[u8]>::to_vec);
        let key = key.unwrap_or_else(|| encryption_key(cipher.id(), true, cipher.key_len_with_salt()));
        Self { key, integrity_key: Vec::new(), sequence, aad, plaintext, icv }
    }

    /// With extended sequence numbers, the high half being 1.
    fn cbc(cipher: &dyn EspCipher, icv: &'static [u8]) -> Self {
        Self {
            key: encryption_key(cipher.id(), false, cipher.key_len_with_salt()),
            integrity_key: integrity_key(cipher.integrity_key_len()),
            sequence: 0x0000_0001_0000_0005,
            aad: &hex!("01020304 00000001 00000005"),
            plaintext: &hex!(
                "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10"
                "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223"
                "2425262728292a2b2c2d2e2f30313233343536370102030405060708090a0a04"
            ),
            icv,
        }
    }

    pub(crate) fn known(cipher: &dyn EspCipher) -> Option<Self> {
        match (cipher.id(), cipher.key_bits(), cipher.integrity_id()) {
            (EncryptionId::CHACHA20_POLY1305, None, None) => Some(Self::aead(
                cipher,
                None,
                0x1011_1213_1415_1617,
                &hex!("01020304 00000005"),
                &hex!(
                    "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10"
                    "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223"
                    "2425262728292a2b2c2d2e2f303132333435363701020204"
                ),
                &hex!("76aaa8266b7fb0f7b11b369907e1ad43"),
            )),
            (EncryptionId::AES_GCM_16, Some(128), None) => Some(Self::aead(
                cipher,
                Some(&hex!("4c80cdefbb5d10da906ac73c3613a634 2e443b68")),
                0x4956_ed7e_3b24_4cfe,
                &hex!("00004321 87654321 00000000"),
                &hex!(
                    "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000"
                    "00000000045f736970045f756470037369700963796265726369747902646b00"
                    "0021000101020201"
                ),
                &hex!("459018148f6cbe722fd04796562dfdb4"),
            )),
            (EncryptionId::AES_GCM_16, Some(256), None) => Some(Self::aead(
                cipher,
                Some(&hex!("abbccddef00112233445566778899aababbccddef00112233445566778899aab 11223344")),
                0x0102_0304_0506_0708,
                &hex!("4a2cbfe3 00000002"),
                &hex!(
                    "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee000000000"
                    "7002400020bf0000020405b40101040201020201"
                ),
                &hex!("b335f4eecfdbf831824b4c4915956c96"),
            )),
            (EncryptionId::AES_CBC, Some(bits), Some(integrity)) => {
                known_cbc_icv(bits, integrity).map(|icv| Self::cbc(cipher, icv))
            }
            _ => None,
        }
    }
}

fn known_cbc_icv(key_bits: u16, integrity: IntegrityId) -> Option<&'static [u8]> {
    match (key_bits, integrity) {
        (128, IntegrityId::HMAC_SHA2_256_128) => Some(&hex!("e77ebb1317d86ab34f2c00900cb7e591")),
        (128, IntegrityId::HMAC_SHA2_384_192) => Some(&hex!("bda720ff41c11b94d8e8d9bd70a3ee9a6f6f5e429d94aad9")),
        (128, IntegrityId::HMAC_SHA2_512_256) => {
            Some(&hex!("d32e1a708336d1828b5e671dd9d354e0188d75fd01c7c5bbacb7454cf8b0a2e3"))
        }
        (192, IntegrityId::HMAC_SHA2_256_128) => Some(&hex!("cdf07930801d8876f71bbcdf498d1c45")),
        (192, IntegrityId::HMAC_SHA2_384_192) => Some(&hex!("727c184a030ecd3514f8bb39311d15a40f827edfba1d6e29")),
        (192, IntegrityId::HMAC_SHA2_512_256) => {
            Some(&hex!("c677a10605e06451399620c1868f43133ab8c3e97c64c1f07a9734d629fc6f9a"))
        }
        (256, IntegrityId::HMAC_SHA2_256_128) => Some(&hex!("39959f60554fa29a887e0f9ead393930")),
        (256, IntegrityId::HMAC_SHA2_384_192) => Some(&hex!("d0117744f3c1d2d2e23a43a9c741c333e042853ccd7e0444")),
        (256, IntegrityId::HMAC_SHA2_512_256) => {
            Some(&hex!("aed4fd2e120ffa12438b004b99317e5bf9a0d30407c1cd5c8fa53627f4a5e369"))
        }
        _ => None,
    }
}

fn esp_cipher_answers(cipher: &dyn EspCipher) -> Result<bool, CryptoError> {
    let vector = EspVector::known(cipher);
    let known = vector.is_some();
    let vector = vector.unwrap_or_else(|| EspVector::cbc(cipher, &[]));
    let key = cipher.key(&vector.key, &vector.integrity_key)?;
    let (mut iv, mut sealed, mut icv) = (vec![0; key.iv_len()], vector.plaintext.to_vec(), vec![0; key.icv_len()]);
    key.seal_in_place(vector.sequence, vector.aad, &mut iv, &mut sealed, &mut icv)?;
    if known && icv != vector.icv {
        return Ok(false);
    }
    sealed.extend_from_slice(&icv);
    let refused = key.open_in_place(&iv, vector.aad, &mut altered(&sealed)) == Err(CryptoError::AuthenticationFailed);
    Ok(refused && key.open_in_place(&iv, vector.aad, &mut sealed)? == vector.plaintext)
}

/// The generator as a public value, and how many octets of the own public value are the secret of agreeing with it.
///
/// Only the real group gives that answer, for any private value: X25519(k, 9) and the x coordinate of k G are what the
/// own public value (begins with).
fn generator(id: KeyExchangeId) -> Option<(Vec<u8>, usize)> {
    match id {
        KeyExchangeId::CURVE_25519 => {
            Some((hex!("0900000000000000000000000000000000000000000000000000000000000000").to_vec(), 32))
        }
        KeyExchangeId::ECP_256 => Some((
            hex!(
                "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
                "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
            )
            .to_vec(),
            32,
        )),
        KeyExchangeId::ECP_384 => Some((
            hex!(
                "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7"
                "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f"
            )
            .to_vec(),
            48,
        )),
        _ => None,
    }
}

/// A public value of 3, and the first octets of the secret when the private value counts up from 0x11.
fn known_power(id: KeyExchangeId) -> Option<(Vec<u8>, [u8; 8])> {
    let (len, secret) = match id {
        KeyExchangeId::MODP_2048 => (256, hex!("7a457bd0325b43e8")),
        KeyExchangeId::MODP_3072 => (384, hex!("c9b09bb9ea76d786")),
        _ => return None,
    };
    let mut three = vec![0; len];
    *three.last_mut()? = 3;
    Some((three, secret))
}

/// Not random at all: octets that count up from 0x11.
#[derive(Debug)]
struct Counting;

impl SecureRandom for Counting {
    fn fill(&self, destination: &mut [u8]) -> Result<(), CryptoError> {
        let mut next = 0x11_u8;
        for octet in destination {
            *octet = next;
            next = next.wrapping_add(1);
        }
        Ok(())
    }
}

fn key_exchange_answers(random: &dyn SecureRandom, method: &dyn KeyExchange) -> Result<bool, CryptoError> {
    if let Some((generator, len)) = generator(method.id()) {
        let (public, secret) = method.respond(random, &generator)?;
        if secret.as_ref().len() != len || !public.starts_with(secret.as_ref()) {
            return Ok(false);
        }
    }
    if let Some((three, known)) = known_power(method.id())
        && !method.respond(&Counting, &three)?.1.as_ref().starts_with(&known)
    {
        return Ok(false);
    }
    let started = method.start(random)?;
    let (public, responders_secret) = method.respond(random, started.public_value())?;
    Ok(started.complete(&public)? == responders_secret)
}

#[cfg(test)]
mod tests;
