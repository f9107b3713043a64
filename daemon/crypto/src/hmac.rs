//! Keyed HMAC-SHA2 on *ring*, shared by the PRFs, the integrity algorithms and ESP.

use core::{
    fmt::{self, Debug},
    hint::black_box,
};

use ring::hmac;

/// A *ring* HMAC key whose state is overwritten when it is dropped.
pub(crate) struct HmacKey(hmac::Key);

impl HmacKey {
    pub(crate) fn new(algorithm: hmac::Algorithm, key: &[u8]) -> Self {
        Self(hmac::Key::new(algorithm, key))
    }

    /// HMAC over the concatenation of `parts`; nothing is allocated.
    pub(crate) fn sign<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        context.sign()
    }
}

/// *ring* does not wipe its keys, so the state of another key is put in their place; `black_box` keeps the compiler
/// from leaving that out because nobody reads it.
impl Drop for HmacKey {
    fn drop(&mut self) {
        self.0 = hmac::Key::new(self.0.algorithm(), &[]);
        black_box(&self.0);
    }
}

impl Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey([redacted])")
    }
}
