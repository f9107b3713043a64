//! Private keys in files: which are encrypted, and what is inside when the password is known.
//!
//! Keys that are not encrypted are sent to the daemon as they are. Encrypted ones are PKCS#8 (RFC 5958) under the schemes of PKCS#5 (RFC 8018) or
//! PKCS#12, PKCS#12 containers (RFC 7292), or OpenSSL's older PEM with `DEK-Info`; of these the daemon gets the plain key in its algorithm's own form: PKCS#1 for RSA (RFC 8017 A.1.2),
//! SEC 1 for elliptic curves (RFC 5915), PKCS#8 for Edwards curves (RFC 8410).

mod pem;
mod shrouded;
mod traditional;

#[cfg(test)]
mod tests;

use p12_keystore::Pkcs12Archive;
use pkcs8::der::Decode as _;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use pem::Block;

/// A private key without its protection.
pub struct PrivateKey {
    /// `RSA`, `ECDSA`, `ED25519` or `ED448`: the type that `load-key` names.
    pub kind: &'static str,
    /// Its DER.
    pub der: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey({}, [redacted])", self.kind)
    }
}

/// What a PKCS#12 container holds.
#[derive(Debug)]
pub struct Container {
    /// Certificates, DER.
    pub certificates: Vec<Vec<u8>>,
    /// Private keys.
    pub keys: Vec<PrivateKey>,
}

/// Why a key cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The password does not fit.
    #[error("the password does not fit")]
    Password,
    /// It is protected in a way, or of a kind, that is not known here.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// It is no private key, or a damaged one.
    #[error("it is no private key, or a damaged one")]
    Malformed,
}

/// Whether the octets of a file are a private key that is encrypted.
#[must_use]
pub fn is_encrypted(octets: &[u8]) -> bool {
    match Block::first(octets) {
        Some(block) => block.label == ENCRYPTED || block.dek_info.is_some(),
        None => has_form_of_encrypted(octets),
    }
}

/// EncryptedPrivateKeyInfo is an algorithm and an octet string; a plain key begins with its version.
fn has_form_of_encrypted(der: &[u8]) -> bool {
    let Some((SEQUENCE, content, [])) = element(der) else { return false };
    let Some((SEQUENCE, _, rest)) = element(content) else { return false };
    matches!(element(rest), Some((OCTET_STRING, _, [])))
}

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// The plain key of an encrypted one.
///
/// # Errors
/// When the password does not fit, or the protection is none of those known.
pub fn decrypt(octets: &[u8], password: &[u8]) -> Result<PrivateKey, KeyError> {
    let Some(block) = Block::first(octets) else { return decrypt_pkcs8(octets, password) };
    if block.label == ENCRYPTED {
        return decrypt_pkcs8(&block.octets, password);
    }
    let info = block.dek_info.as_deref().ok_or(KeyError::Malformed)?;
    let der = traditional::decrypt(info, &block.octets, password)?;
    let kind = match block.label.as_str() {
        "RSA PRIVATE KEY" => "RSA",
        "EC PRIVATE KEY" => "ECDSA",
        other => return Err(KeyError::Unsupported(format!("PEM of a kind '{}'", other.escape_debug()))),
    };
    Ok(PrivateKey { kind, der })
}

fn decrypt_pkcs8(der: &[u8], password: &[u8]) -> Result<PrivateKey, KeyError> {
    let info = match EncryptedPrivateKeyInfoRef::from_der(der) {
        Ok(info) => info,
        // Its encryption is none of PKCS#5.
        Err(_) if has_form_of_encrypted(der) => return of_pkcs8(&shrouded::decrypt(der, password)?),
        Err(_) => return Err(KeyError::Malformed),
    };
    let document = info.decrypt(password).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::DecryptFailed) => KeyError::Password,
        pkcs8::Error::EncryptedPrivateKey(error) => KeyError::Unsupported(format!("its encryption ({error})")),
        // What comes out of the wrong key with padding that fits by chance; and the enum may grow.
        pkcs8::Error::Asn1(_)
        | pkcs8::Error::KeyMalformed(_)
        | pkcs8::Error::ParametersMalformed
        | pkcs8::Error::PublicKey(_)
        | _ => KeyError::Password,
    })?;
    of_pkcs8(document.as_bytes())
}

/// What a PKCS#12 container holds.
///
/// # Errors
/// When the password does not fit, or something is protected in a way not known.
pub fn open(container: &[u8], password: &str) -> Result<Container, KeyError> {
    use p12_keystore::error::Error;
    let block = Block::first(container);
    let der = block.as_ref().map_or(container, |block| &block.octets);
    let archive = Pkcs12Archive::from_pkcs12(der, password).map_err(|error| match error {
        Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_) => KeyError::Password,
        Error::UnsupportedContentType
        | Error::UnsupportedCertificateType
        | Error::UnsupportedEncryptionScheme
        | Error::UnsupportedMacAlgorithm
        | Error::InvalidVersion => KeyError::Unsupported(format!("its form ({error})")),
        Error::IoError(_)
        | Error::DerError(_)
        | Error::X509Error(_)
        | Error::InvalidLength
        | Error::InvalidParameters
        | Error::InvalidData
        | Error::InvalidPrivateKey => KeyError::Malformed,
    })?;
    let keys = archive.keys.iter().map(|bag| of_pkcs8(bag.key.as_der())).collect::<Result<_, _>>()?;
    Ok(Container { certificates: archive.certs.iter().map(|bag| bag.cert.as_der().to_vec()).collect(), keys })
}

/// The key's own form of a plain PKCS#8 key.
fn of_pkcs8(der: &[u8]) -> Result<PrivateKey, KeyError> {
    let info = PrivateKeyInfoRef::from_der(der).map_err(|_| KeyError::Malformed)?;
    let own = info.private_key.as_bytes();
    let (kind, der) = match info.algorithm.oid.to_string().as_str() {
        "1.2.840.113549.1.1.1" => ("RSA", own.to_vec()),
        "1.2.840.10045.2.1" => {
            let curve = info.algorithm.parameters_oid().map_err(|_| KeyError::Malformed)?;
            ("ECDSA", with_curve(own, curve.as_bytes()).ok_or(KeyError::Malformed)?)
        }
        "1.3.101.112" => ("ED25519", der.to_vec()),
        "1.3.101.113" => ("ED448", der.to_vec()),
        other => return Err(KeyError::Unsupported(format!("the algorithm {other}"))),
    };
    Ok(PrivateKey { kind, der: Zeroizing::new(der) })
}

/// An ECPrivateKey (RFC 5915) that names its curve, which PKCS#8 leaves to its own header.
fn with_curve(own: &[u8], curve: &[u8]) -> Option<Vec<u8>> {
    const NAMED_CURVE: u8 = 0xa0;
    const OID: u8 = 0x06;
    let (_, content, _) = element(own)?;
    // Version and the key itself come first.
    let (_, _, after_version) = element(content)?;
    let (_, _, rest) = element(after_version)?;
    let head = content.get(..content.len().checked_sub(rest.len())?)?;
    let tail = match element(rest) {
        Some((NAMED_CURVE, _, behind)) => behind,
        Some(_) | None => rest,
    };
    let parameters = crate::der::wrap(NAMED_CURVE, &crate::der::wrap(OID, curve));
    Some(crate::der::wrap(SEQUENCE, &Zeroizing::new([head, &parameters, tail].concat())))
}

/// Tag and content of the first element, and what is behind it.
fn element(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = octets.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..0x80 => (usize::from(*first), rest),
        0x81 | 0x82 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 3))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        0x80 | 0x83.. => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((*tag, content, behind))
}
