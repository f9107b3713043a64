//! The words that proposals are made of, with the transforms they stand for and whether this build has them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What a word stands for. Numbers are IANA transform ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    /// Encryption (type 1), with its key length attribute.
    Encryption { id: u16, key_bits: Option<u16>, aead: bool },
    /// Integrity (type 3).
    Integrity(u16),
    /// Pseudorandom function (type 2).
    Prf(u16),
    /// Key exchange (type 4).
    KeyExchange(u16),
    /// Extended sequence numbers (type 5).
    Esn(bool),
}

/// Looks a word up. Words are case-sensitive.
pub(super) fn lookup(word: &str) -> Option<Transform> {
    WORDS.get(word).copied()
}

/// All words, for suggestions.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    WORDS.keys().map(String::as_str)
}

/// Whether the crypto provider and the SA types here can carry out a transform.
pub(super) fn is_built(transform: Transform) -> bool {
    match transform {
        Transform::Encryption { id: AES_CBC, key_bits: Some(128 | 192 | 256), .. }
        | Transform::Encryption { id: AES_GCM_16, key_bits: Some(128 | 256), .. }
        | Transform::Encryption { id: CHACHA20_POLY1305, key_bits: None, .. } => true,
        Transform::Encryption { .. } => false,
        Transform::Integrity(id) => matches!(id, 12..=14),
        Transform::Prf(id) => matches!(id, 5..=7),
        Transform::KeyExchange(id) => matches!(id, NONE | 14 | 15 | 19 | 20 | 31),
        Transform::Esn(_) => true,
    }
}

pub(super) const AES_CBC: u16 = 12;
pub(super) const AES_GCM_16: u16 = 20;
pub(super) const CHACHA20_POLY1305: u16 = 28;
/// KE_NONE.
pub(super) const NONE: u16 = 0;

/// The word for a key exchange method; of several the shorter one.
pub(super) fn key_exchange(id: u16) -> Option<&'static str> {
    let fitting = KEY_EXCHANGES.iter().filter(|(_, known)| *known == id);
    fitting.map(|(word, _)| *word).min_by_key(|word| word.len())
}

/// The PRF that goes with an integrity algorithm when a proposal names none.
pub(super) fn prf_of_integrity(id: u16) -> Option<u16> {
    match id {
        1 => Some(1),
        2 | 7 => Some(2),
        5 => Some(4),
        8 => Some(8),
        12 => Some(5),
        13 => Some(6),
        14 => Some(7),
        _ => None,
    }
}

static WORDS: LazyLock<BTreeMap<String, Transform>> = LazyLock::new(|| {
    let mut words = BTreeMap::new();
    ciphers(&mut words);
    let integrity = [
        ("md5", 1),
        ("sha", 2),
        ("sha1", 2),
        ("aesxcbc", 5),
        ("md5_128", 6),
        ("sha1_160", 7),
        ("aescmac", 8),
        ("sha256", 12),
        ("sha2_256", 12),
        ("sha384", 13),
        ("sha2_384", 13),
        ("sha512", 14),
        ("sha2_512", 14),
        ("sha256_96", 1024),
        ("sha2_256_96", 1024),
        ("camelliaxcbc", 1025),
    ];
    words.extend(integrity.map(|(word, id)| (word.to_owned(), Transform::Integrity(id))));
    let prfs = [
        ("prfmd5", 1),
        ("prfsha1", 2),
        ("prfaesxcbc", 4),
        ("prfsha256", 5),
        ("prfsha384", 6),
        ("prfsha512", 7),
        ("prfaescmac", 8),
        ("prfcamelliaxcbc", 1025),
    ];
    words.extend(prfs.map(|(word, id)| (word.to_owned(), Transform::Prf(id))));
    words.extend(KEY_EXCHANGES.map(|(word, id)| (word.to_owned(), Transform::KeyExchange(id))));
    words.insert("esn".to_owned(), Transform::Esn(true));
    words.insert("noesn".to_owned(), Transform::Esn(false));
    words
});

const KEY_EXCHANGES: [(&str, u16); 32] = [
    ("none", NONE),
    ("modpnone", NONE),
    ("modp768", 1),
    ("modp1024", 2),
    ("modp1536", 5),
    ("modp2048", 14),
    ("modp3072", 15),
    ("modp4096", 16),
    ("modp6144", 17),
    ("modp8192", 18),
    ("ecp256", 19),
    ("ecp384", 20),
    ("ecp521", 21),
    ("modp1024s160", 22),
    ("modp2048s224", 23),
    ("modp2048s256", 24),
    ("ecp192", 25),
    ("ecp224", 26),
    ("ecp224bp", 27),
    ("ecp256bp", 28),
    ("ecp384bp", 29),
    ("ecp512bp", 30),
    ("curve25519", 31),
    ("x25519", 31),
    ("curve448", 32),
    ("x448", 32),
    ("gost256", 33),
    ("gost512", 34),
    ("mlkem512", 35),
    ("mlkem768", 36),
    ("mlkem1024", 37),
    ("modpnull", 1024),
];

fn ciphers(words: &mut BTreeMap<String, Transform>) {
    let mut add = |word: String, id: u16, key_bits: Option<u16>, aead: bool| {
        words.insert(word, Transform::Encryption { id, key_bits, aead });
    };
    for (word, id, bits) in [("null", 11, None), ("des", 2, None), ("3des", 3, None), ("cast128", 6, Some(128))] {
        add(word.to_owned(), id, bits, false);
    }
    // The bare name of a family means 128 bits.
    for (family, id) in [("aes", AES_CBC), ("camellia", 23), ("blowfish", 7), ("serpent", 65_507), ("twofish", 65_508)]
    {
        add(family.to_owned(), id, Some(128), false);
        for bits in [128, 192, 256] {
            add(format!("{family}{bits}"), id, Some(bits), false);
        }
    }
    for bits in [128, 192, 256] {
        add(format!("aes{bits}ctr"), 13, Some(bits), false);
        add(format!("camellia{bits}ctr"), 24, Some(bits), false);
        add(format!("aes{bits}gmac"), 21, Some(bits), true);
        // Each length of the integrity check value goes by octets or by bits; without one it is 16 octets.
        for (suffixes, step) in [(["8", "64", "64"], 0), (["12", "96", "96"], 1), (["16", "128", ""], 2)] {
            for suffix in suffixes {
                add(format!("aes{bits}gcm{suffix}"), 18 + step, Some(bits), true);
                add(format!("aes{bits}ccm{suffix}"), 14 + step, Some(bits), true);
                if !suffix.is_empty() {
                    add(format!("camellia{bits}ccm{suffix}"), 25 + step, Some(bits), true);
                }
            }
        }
    }
    add("chacha20poly1305".to_owned(), CHACHA20_POLY1305, None, true);
    add("chacha20poly1305compat".to_owned(), CHACHA20_POLY1305, Some(256), true);
}
