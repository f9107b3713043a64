//! Keys in PKCS#8 under a scheme of PKCS#12 (RFC 7292 appendix B and C), as `openssl pkcs8 -topk8 -v1 PBE-SHA1-3DES` writes them.
//!
//! To PKCS#12 such a key is the content of a "shrouded key bag", so it is read as a container that holds this bag alone and has no MAC.

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;
use zeroize::Zeroizing;

use super::{KeyError, SEQUENCE};
use crate::der::wrap;

const VERSION_3: &[u8] = &[0x02, 1, 3];
/// `data` of PKCS#7, 1.2.840.113549.1.7.1.
const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// `pkcs8ShroudedKeyBag`, 1.2.840.113549.1.12.10.1.2.
const SHROUDED_KEY_BAG: &[u8] = &[0x06, 11, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 2];
const OCTET_STRING: u8 = 0x04;
const EXPLICIT: u8 = 0xa0;

/// The PKCS#8 of an EncryptedPrivateKeyInfo.
pub(super) fn decrypt(der: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    // Passwords become UTF-16 there.
    let password = std::str::from_utf8(password).map_err(|_| KeyError::Password)?;
    let archive = Pkcs12Archive::from_pkcs12(&container(der), password).map_err(|error| match error {
        Error::UnsupportedEncryptionScheme | Error::InvalidParameters => KeyError::Unsupported(OTHER_SCHEME.to_owned()),
        // What comes out of the wrong key with padding that fits by chance is no key.
        Error::UnpadError | Error::InvalidPrivateKey | Error::DerError(_) => KeyError::Password,
        Error::IoError(_)
        | Error::MacError(_)
        | Error::X509Error(_)
        | Error::Pkcs5Error(_)
        | Error::InvalidLength
        | Error::InvalidData
        | Error::InvalidVersion
        | Error::UnsupportedContentType
        | Error::UnsupportedCertificateType
        | Error::UnsupportedMacAlgorithm => KeyError::Malformed,
    })?;
    let bag = archive.keys.first().ok_or(KeyError::Malformed)?;
    Ok(Zeroizing::new(bag.key.as_der().to_vec()))
}

const OTHER_SCHEME: &str = "its encryption (`openssl pkcs8 -topk8` writes the key anew)";

/// A container without a MAC around one bag.
fn container(bag: &[u8]) -> Vec<u8> {
    let bags = wrap(SEQUENCE, &wrap(SEQUENCE, &[SHROUDED_KEY_BAG, &wrap(EXPLICIT, bag)].concat()));
    let safes = wrap(SEQUENCE, &content(&bags));
    wrap(SEQUENCE, &[VERSION_3, &content(&safes)].concat())
}

/// ContentInfo of plain octets.
fn content(octets: &[u8]) -> Vec<u8> {
    wrap(SEQUENCE, &[DATA, &wrap(EXPLICIT, &wrap(OCTET_STRING, octets))].concat())
}
