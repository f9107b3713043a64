//! Plain digests and the constant-time comparison that need no provider.

use ring::digest;
use subtle::ConstantTimeEq as _;

/// SHA-1 over the concatenation of `parts`.
///
/// Only for what RFC 7296 fixes to SHA-1 without relying on collision resistance: the NAT detection payloads (§2.23)
/// and the certification authority hashes of CERTREQ (§3.7).
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    let digest = context.finish();
    let mut output = [0; 20];
    output.copy_from_slice(digest.as_ref());
    output
}

/// Whether `a` and `b` are equal, in a time that depends on their lengths only.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    /// FIPS 180-2 appendix A: "abc", also when it comes in pieces.
    #[test]
    fn sha1_of_abc() {
        let expected = hex!("a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(sha1(&[b"abc"]), expected);
        assert_eq!(sha1(&[b"a", b"", b"bc"]), expected);
    }

    #[test]
    fn comparison_sees_content_and_length() {
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        assert!(!constant_time_eq(b"abc", b"ab"));
        assert!(constant_time_eq(b"", b""));
    }
}
