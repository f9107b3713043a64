//! Signatures of the Standard Webhooks specification.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

/// A secret that messages are signed with; never shown.
pub struct Secret(hmac::Key);

impl Secret {
    /// Reads `whsec_` and base64 behind it; the prefix may be missing.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let encoded = text.strip_prefix("whsec_").unwrap_or(text);
        let octets = BASE64_STANDARD.decode(encoded).map_err(|_| "is not base64 behind `whsec_`".to_owned())?;
        if !(24..=64).contains(&octets.len()) {
            return Err(format!("has {} octets, but needs 24 to 64", octets.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &octets)))
    }

    /// The signature of a message: its identity, the seconds since the epoch at which it is sent, and the octets sent.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}
