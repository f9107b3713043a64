//! OpenSSL's own protection of PEM, from before PKCS#8: the key comes from one pass of MD5 over password and salt.
//!
//! It is weak and nothing new should be written in it; files in it are still found on gateways.

use aes::cipher::block_padding::Pkcs7;
use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

use super::KeyError;

/// Decrypts what `DEK-Info` describes.
pub(super) fn decrypt(dek_info: &str, octets: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (cipher, vector) = dek_info.split_once(',').ok_or(KeyError::Malformed)?;
    let vector = hex(vector.trim()).ok_or(KeyError::Malformed)?;
    let salt = vector.get(..8).ok_or(KeyError::Malformed)?;
    let open = |length: usize, decrypt: Decrypt| decrypt(&key(password, salt, length), &vector, octets);
    let plain = match cipher.trim() {
        "AES-128-CBC" => open(16, with::<cbc::Decryptor<aes::Aes128>>),
        "AES-192-CBC" => open(24, with::<cbc::Decryptor<aes::Aes192>>),
        "AES-256-CBC" => open(32, with::<cbc::Decryptor<aes::Aes256>>),
        "DES-EDE3-CBC" => open(24, with::<cbc::Decryptor<des::TdesEde3>>),
        other => return Err(KeyError::Unsupported(format!("the cipher '{}'", other.escape_debug()))),
    }?;
    // The padding fits by chance once in some hundred wrong passwords.
    let is_sequence = super::element(&plain).is_some_and(|(tag, _, behind)| tag == 0x30 && behind.is_empty());
    if is_sequence { Ok(plain) } else { Err(KeyError::Password) }
}

type Decrypt = fn(&[u8], &[u8], &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError>;

fn with<C: aes::cipher::KeyIvInit + aes::cipher::BlockModeDecrypt>(
    key: &[u8],
    vector: &[u8],
    octets: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let cipher = C::new_from_slices(key, vector).map_err(|_| KeyError::Malformed)?;
    cipher.decrypt_padded_vec::<Pkcs7>(octets).map(Zeroizing::new).map_err(|_| KeyError::Password)
}

/// `EVP_BytesToKey` with MD5 and one iteration.
fn key(password: &[u8], salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut last: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::new());
    while out.len() < length {
        last = Zeroizing::new(
            Md5::new().chain_update(&*last).chain_update(password).chain_update(salt).finalize().to_vec(),
        );
        out.extend_from_slice(&last);
    }
    out.truncate(length);
    out
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(pair).collect::<Option<Vec<u8>>>())?
}
