//! Identification types, authentication methods, certificate encodings and signature hash algorithms.

use super::registry;

registry! {
    /// Type of an identity (RFC 7296 §3.5).
    IdType(u8) {
        ID_IPV4_ADDR = 1,
        ID_FQDN = 2,
        ID_RFC822_ADDR = 3,
        ID_IPV6_ADDR = 5,
        ID_DER_ASN1_DN = 9,
        ID_DER_ASN1_GN = 10,
        ID_KEY_ID = 11,
        ID_FC_NAME = 12,
        ID_NULL = 13,
    }
}

registry! {
    /// How the AUTH payload was computed (RFC 7296 §3.8).
    AuthMethod(u8) {
        RSA_DIGITAL_SIGNATURE = 1,
        SHARED_KEY_MIC = 2,
        DSS_DIGITAL_SIGNATURE = 3,
        ECDSA_SHA256_P256 = 9,
        ECDSA_SHA384_P384 = 10,
        ECDSA_SHA512_P521 = 11,
        GENERIC_SECURE_PASSWORD = 12,
        NULL_AUTHENTICATION = 13,
        DIGITAL_SIGNATURE = 14,
    }
}

registry! {
    /// Encoding of a certificate or of a certification authority (RFC 7296 §3.6).
    CertEncoding(u8) {
        PKCS7_WRAPPED_X509 = 1,
        PGP = 2,
        DNS_SIGNED_KEY = 3,
        X509_SIGNATURE = 4,
        KERBEROS_TOKEN = 6,
        CRL = 7,
        ARL = 8,
        SPKI = 9,
        X509_ATTRIBUTE = 10,
        RAW_RSA_KEY = 11,
        HASH_AND_URL_X509 = 12,
        HASH_AND_URL_BUNDLE = 13,
        OCSP_CONTENT = 14,
        RAW_PUBLIC_KEY = 15,
    }
}

registry! {
    /// Hash algorithm that a peer accepts in signatures: the body of SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4).
    HashAlgorithmId(u16) {
        HASH_SHA1 = 1,
        HASH_SHA2_256 = 2,
        HASH_SHA2_384 = 3,
        HASH_SHA2_512 = 4,
        HASH_IDENTITY = 5,
        HASH_STREEBOG_256 = 6,
        HASH_STREEBOG_512 = 7,
    }
}
