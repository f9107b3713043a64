//! Algorithm names as VICI clients know them, by IANA transform id.

/// Encryption algorithm (transform type 1).
#[must_use]
pub fn encryption(id: u16) -> String {
    let name = match id {
        3 => "3DES_CBC",
        7 => "BLOWFISH_CBC",
        11 => "NULL",
        12 => "AES_CBC",
        13 => "AES_CTR",
        14 => "AES_CCM_8",
        15 => "AES_CCM_12",
        16 => "AES_CCM_16",
        18 => "AES_GCM_8",
        19 => "AES_GCM_12",
        20 => "AES_GCM_16",
        21 => "NULL_AES_GMAC",
        23 => "CAMELLIA_CBC",
        24 => "CAMELLIA_CTR",
        28 => "CHACHA20_POLY1305",
        _ => return id.to_string(),
    };
    name.to_owned()
}

/// Integrity algorithm (transform type 3).
#[must_use]
pub fn integrity(id: u16) -> String {
    let name = match id {
        1 => "HMAC_MD5_96",
        2 => "HMAC_SHA1_96",
        5 => "AES_XCBC_96",
        7 => "HMAC_SHA1_160",
        8 => "AES_CMAC_96",
        12 => "HMAC_SHA2_256_128",
        13 => "HMAC_SHA2_384_192",
        14 => "HMAC_SHA2_512_256",
        _ => return id.to_string(),
    };
    name.to_owned()
}

/// Pseudorandom function (transform type 2).
#[must_use]
pub fn prf(id: u16) -> String {
    let name = match id {
        1 => "PRF_HMAC_MD5",
        2 => "PRF_HMAC_SHA1",
        4 => "PRF_AES128_XCBC",
        5 => "PRF_HMAC_SHA2_256",
        6 => "PRF_HMAC_SHA2_384",
        7 => "PRF_HMAC_SHA2_512",
        8 => "PRF_AES128_CMAC",
        _ => return id.to_string(),
    };
    name.to_owned()
}

/// Key exchange method (transform type 4).
#[must_use]
pub fn key_exchange(id: u16) -> String {
    let name = match id {
        0 => "KE_NONE",
        1 => "MODP_768",
        2 => "MODP_1024",
        5 => "MODP_1536",
        14 => "MODP_2048",
        15 => "MODP_3072",
        16 => "MODP_4096",
        17 => "MODP_6144",
        18 => "MODP_8192",
        19 => "ECP_256",
        20 => "ECP_384",
        21 => "ECP_521",
        22 => "MODP_1024_160",
        23 => "MODP_2048_224",
        24 => "MODP_2048_256",
        25 => "ECP_192",
        26 => "ECP_224",
        27 => "ECP_224_BP",
        28 => "ECP_256_BP",
        29 => "ECP_384_BP",
        30 => "ECP_512_BP",
        31 => "CURVE_25519",
        32 => "CURVE_448",
        33 => "GOST_VKO_256",
        34 => "GOST_VKO_512",
        35 => "ML_KEM_512",
        36 => "ML_KEM_768",
        37 => "ML_KEM_1024",
        _ => return id.to_string(),
    };
    name.to_owned()
}
