//! Transform types and the transform ids of each (RFC 7296 §3.3.2, RFC 9370).

use super::registry;

registry! {
    /// Transform type: what a transform of a proposal is for.
    TransformType(u8) {
        ENCR = 1,
        PRF = 2,
        INTEG = 3,
        KE = 4,
        ESN = 5,
        ADDKE1 = 6,
        ADDKE2 = 7,
        ADDKE3 = 8,
        ADDKE4 = 9,
        ADDKE5 = 10,
        ADDKE6 = 11,
        ADDKE7 = 12,
        KWA = 13,
        GCAUTH = 14,
    }
}

impl TransformType {
    /// Transform type of the additional key exchange `index`, counted from 1 to 7 (RFC 9370).
    #[must_use]
    pub fn additional_key_exchange(index: u8) -> Option<Self> {
        matches!(index, 1..=7).then(|| Self(index.saturating_add(5)))
    }

    /// Whether the ids of this type are [`KeyExchangeId`]s: the key exchange method or an additional one.
    #[must_use]
    pub fn is_key_exchange(self) -> bool {
        self == Self::KE || (Self::ADDKE1..=Self::ADDKE7).contains(&self)
    }
}

registry! {
    /// Encryption algorithm, transform type 1. AEAD algorithms count as encryption.
    EncryptionId(u16) {
        DES_IV64 = 1,
        DES_CBC = 2,
        TRIPLE_DES_CBC = 3 => "3DES_CBC",
        RC5_CBC = 4,
        IDEA_CBC = 5,
        CAST_CBC = 6,
        BLOWFISH_CBC = 7,
        TRIPLE_IDEA = 8 => "3IDEA",
        DES_IV32 = 9,
        NULL = 11,
        AES_CBC = 12,
        AES_CTR = 13,
        AES_CCM_8 = 14,
        AES_CCM_12 = 15,
        AES_CCM_16 = 16,
        AES_GCM_8 = 18,
        AES_GCM_12 = 19,
        AES_GCM_16 = 20,
        NULL_AES_GMAC = 21,
        CAMELLIA_CBC = 23,
        CAMELLIA_CTR = 24,
        CAMELLIA_CCM_8 = 25,
        CAMELLIA_CCM_12 = 26,
        CAMELLIA_CCM_16 = 27,
        CHACHA20_POLY1305 = 28,
        AES_CCM_8_IIV = 29,
        AES_GCM_16_IIV = 30,
        CHACHA20_POLY1305_IIV = 31,
        KUZNYECHIK_MGM_KTREE = 32,
        MAGMA_MGM_KTREE = 33,
        KUZNYECHIK_MGM_MAC_KTREE = 34,
        MAGMA_MGM_MAC_KTREE = 35,
    }
}

registry! {
    /// Pseudo-random function, transform type 2.
    PrfId(u16) {
        PRF_HMAC_MD5 = 1,
        PRF_HMAC_SHA1 = 2,
        PRF_HMAC_TIGER = 3,
        PRF_AES128_XCBC = 4,
        PRF_HMAC_SHA2_256 = 5,
        PRF_HMAC_SHA2_384 = 6,
        PRF_HMAC_SHA2_512 = 7,
        PRF_AES128_CMAC = 8,
        PRF_HMAC_STREEBOG_512 = 9,
    }
}

registry! {
    /// Integrity algorithm, transform type 3.
    IntegrityId(u16) {
        NONE = 0,
        HMAC_MD5_96 = 1,
        HMAC_SHA1_96 = 2,
        DES_MAC = 3,
        KPDK_MD5 = 4,
        AES_XCBC_96 = 5,
        HMAC_MD5_128 = 6,
        HMAC_SHA1_160 = 7,
        AES_CMAC_96 = 8,
        AES_128_GMAC = 9,
        AES_192_GMAC = 10,
        AES_256_GMAC = 11,
        HMAC_SHA2_256_128 = 12,
        HMAC_SHA2_384_192 = 13,
        HMAC_SHA2_512_256 = 14,
    }
}

registry! {
    /// Key exchange method, transform types 4 and 6 to 12: Diffie-Hellman groups and KEMs.
    KeyExchangeId(u16) {
        NONE = 0 => "KE_NONE",
        MODP_768 = 1,
        MODP_1024 = 2,
        MODP_1536 = 5,
        MODP_2048 = 14,
        MODP_3072 = 15,
        MODP_4096 = 16,
        MODP_6144 = 17,
        MODP_8192 = 18,
        ECP_256 = 19,
        ECP_384 = 20,
        ECP_521 = 21,
        MODP_1024_160 = 22,
        MODP_2048_224 = 23,
        MODP_2048_256 = 24,
        ECP_192 = 25,
        ECP_224 = 26,
        ECP_224_BP = 27,
        ECP_256_BP = 28,
        ECP_384_BP = 29,
        ECP_512_BP = 30,
        CURVE_25519 = 31,
        CURVE_448 = 32,
        GOST3410_2012_256 = 33,
        GOST3410_2012_512 = 34,
        ML_KEM_512 = 35,
        ML_KEM_768 = 36,
        ML_KEM_1024 = 37,
    }
}

registry! {
    /// Extended sequence numbers, transform type 5: whether the SA counts packets with 64 bits.
    EsnId(u16) {
        NO_EXT_SEQ = 0,
        EXT_SEQ = 1,
    }
}

registry! {
    /// Attribute of a transform (RFC 7296 §3.3.5), without the format bit.
    AttributeType(u16) {
        KEY_LENGTH = 14,
    }
}
