//! Proposals such as `aes256gcm16-prfsha384-ecp384`: words to transforms.
//!
//! The rules are those users know: an IKE proposal names encryption, key exchange, integrity unless the cipher is an AEAD, and a PRF unless it
//! follows from the integrity; an ESP proposal without `esn` means `noesn`, without key exchange no forward secrecy, and with `none` beside others
//! optional forward secrecy. A transform that this build lacks is left out when its kind has others, which [`Parsed::left_out`] tells; a proposal that
//! needs it is refused.

mod say;
mod words;

#[cfg(test)]
mod tests;

pub use say::{esp_text, ike_text};

use ike_model::{Encryption, EspProposal, IkeProposal};

use self::words::Transform;
use crate::settings::did_you_mean;

/// Longest text of one proposal.
const MAX_LENGTH: usize = 2048;

/// Why a proposal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalError {
    /// The word concerned; the whole text when it is about all of it.
    pub fragment: String,
    /// One sentence.
    pub reason: String,
    /// What to do.
    pub help: Option<String>,
    /// The text is right, but this build lacks what it asks for.
    pub unsupported: bool,
}

/// A usable proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<P> {
    /// The proposals that the text stands for: one, or several for `default`.
    pub proposals: Vec<P>,
    /// Words left out because this build lacks the transform and others of its kind remain, or because they mean nothing here.
    pub left_out: Vec<String>,
}

/// Understands one IKE proposal.
///
/// # Errors
/// Names the word that is unknown, missing or not built.
pub fn ike(text: &str) -> Result<Parsed<IkeProposal>, ProposalError> {
    if text.eq_ignore_ascii_case("default") {
        return Ok(Parsed { proposals: default_ike(), left_out: Vec::new() });
    }
    let mut sorted = Sorted::read(text)?;
    sorted.check_ciphers(text)?;
    if sorted.prf.is_empty() {
        let prfs = sorted.integrity.iter().filter_map(|(id, word)| Some((words::prf_of_integrity(*id)?, word.clone())));
        sorted.prf = prfs.collect();
    }
    if sorted.prf.is_empty() {
        let help = "add one, such as `prfsha256` or `prfsha384`; with a combined-mode cipher such as AES-GCM it follows from nothing else";
        return Err(missing(text, "an IKE proposal needs a pseudorandom function", help));
    }
    sorted.key_exchange.retain(|(id, _)| *id != words::NONE);
    if sorted.key_exchange.is_empty() {
        return Err(missing(
            text,
            "an IKE proposal needs a key exchange",
            "add one, such as `x25519`, `ecp256` or `modp3072`",
        ));
    }
    sorted.left_out.extend(sorted.esn.iter().map(|esn| if *esn { "esn" } else { "noesn" }.to_owned()));
    let mut left_out = std::mem::take(&mut sorted.left_out);
    let proposal = IkeProposal {
        encryption: built_ciphers(&sorted, text, &mut left_out)?,
        integrity: built(&sorted.integrity, Transform::Integrity, &mut left_out)?,
        prf: built(&sorted.prf, Transform::Prf, &mut left_out)?,
        key_exchange: built(&sorted.key_exchange, Transform::KeyExchange, &mut left_out)?,
    };
    Ok(Parsed { proposals: vec![proposal], left_out })
}

/// Understands one ESP proposal.
///
/// # Errors
/// Names the word that is unknown, missing or not built.
pub fn esp(text: &str) -> Result<Parsed<EspProposal>, ProposalError> {
    if text.eq_ignore_ascii_case("default") {
        return Ok(Parsed { proposals: default_esp(), left_out: Vec::new() });
    }
    let mut sorted = Sorted::read(text)?;
    sorted.check_ciphers(text)?;
    sorted.left_out.extend(sorted.prf.drain(..).map(|(_, word)| word));
    if sorted.esn.is_empty() {
        sorted.esn.push(false);
    }
    let mut left_out = std::mem::take(&mut sorted.left_out);
    let mut key_exchange = built(&sorted.key_exchange, Transform::KeyExchange, &mut left_out)?;
    // `none` alone is the same as no key exchange.
    if key_exchange.iter().all(|id: &_| Some(*id) == Some(words::NONE.into())) {
        key_exchange.clear();
    }
    let proposal = EspProposal {
        encryption: built_ciphers(&sorted, text, &mut left_out)?,
        integrity: built(&sorted.integrity, Transform::Integrity, &mut left_out)?,
        key_exchange,
        esn: sorted.esn.iter().map(|esn| u16::from(*esn).into()).collect(),
    };
    Ok(Parsed { proposals: vec![proposal], left_out })
}

/// What `default` and a missing `proposals` stand for: CBC ciphers, then AEADs.
#[must_use]
pub fn default_ike() -> Vec<IkeProposal> {
    let prf = || [5u16, 6, 7].map(Into::into).to_vec();
    let cbc = IkeProposal {
        encryption: [128, 192, 256].map(|bits| cipher(words::AES_CBC, Some(bits))).to_vec(),
        integrity: [12u16, 13, 14].map(Into::into).to_vec(),
        prf: prf(),
        key_exchange: default_key_exchanges(),
    };
    let aead = IkeProposal {
        encryption: default_aeads(),
        integrity: Vec::new(),
        prf: prf(),
        key_exchange: default_key_exchanges(),
    };
    vec![cbc, aead]
}

/// What `default` and a missing `esp_proposals` stand for: AES-GCM, then CBC ciphers; forward secrecy optional.
#[must_use]
pub fn default_esp() -> Vec<EspProposal> {
    let key_exchange = || {
        let mut list: Vec<_> = default_key_exchanges();
        list.push(words::NONE.into());
        list
    };
    let esn = || vec![0u16.into()];
    let gcm = EspProposal {
        encryption: [128, 256].map(|bits| cipher(words::AES_GCM_16, Some(bits))).to_vec(),
        integrity: Vec::new(),
        key_exchange: key_exchange(),
        esn: esn(),
    };
    let cbc = EspProposal {
        encryption: [128, 192, 256].map(|bits| cipher(words::AES_CBC, Some(bits))).to_vec(),
        integrity: [12u16, 13, 14].map(Into::into).to_vec(),
        key_exchange: key_exchange(),
        esn: esn(),
    };
    vec![gcm, cbc]
}

fn default_aeads() -> Vec<Encryption> {
    let mut ciphers = [128, 256].map(|bits| cipher(words::AES_GCM_16, Some(bits))).to_vec();
    ciphers.push(cipher(words::CHACHA20_POLY1305, None));
    ciphers
}

/// ECP-256, ECP-384, X25519, MODP-3072, MODP-2048.
fn default_key_exchanges<K: From<u16>>() -> Vec<K> {
    [19u16, 20, 31, 15, 14].map(K::from).into()
}

fn cipher(id: u16, key_bits: Option<u16>) -> Encryption {
    Encryption { id: id.into(), key_bits }
}

/// A transform id with the word that named it.
type Named = (u16, String);

/// The words of one proposal, by kind.
#[derive(Default)]
struct Sorted {
    ciphers: Vec<(Transform, String)>,
    integrity: Vec<Named>,
    prf: Vec<Named>,
    key_exchange: Vec<Named>,
    esn: Vec<bool>,
    left_out: Vec<String>,
}

impl Sorted {
    fn read(text: &str) -> Result<Self, ProposalError> {
        if text.len() > MAX_LENGTH {
            let reason = format!("a proposal has at most {MAX_LENGTH} octets");
            return Err(ProposalError { fragment: text.to_owned(), reason, help: None, unsupported: false });
        }
        let mut sorted = Self::default();
        for word in text.split('-') {
            if additional_key_exchange(word)? {
                continue;
            }
            let transform = words::lookup(word).ok_or_else(|| unknown(word))?;
            sorted.add(transform, word);
        }
        Ok(sorted)
    }

    /// Adds a transform once.
    fn add(&mut self, transform: Transform, word: &str) {
        match transform {
            Transform::Encryption { .. } => {
                if !self.ciphers.iter().any(|(known, _)| *known == transform) {
                    self.ciphers.push((transform, word.to_owned()));
                }
            }
            Transform::Integrity(id) => push_new(&mut self.integrity, id, word),
            Transform::Prf(id) => push_new(&mut self.prf, id, word),
            Transform::KeyExchange(id) => push_new(&mut self.key_exchange, id, word),
            Transform::Esn(esn) => {
                if !self.esn.contains(&esn) {
                    self.esn.push(esn);
                }
            }
        }
    }

    /// One kind of cipher, and integrity exactly with ciphers that are no AEADs.
    fn check_ciphers(&mut self, text: &str) -> Result<(), ProposalError> {
        let is_aead =
            |(transform, _): &&(Transform, String)| matches!(transform, Transform::Encryption { aead: true, .. });
        let aeads = self.ciphers.iter().filter(is_aead).count();
        if self.ciphers.is_empty() {
            return Err(missing(
                text,
                "a proposal needs an encryption algorithm",
                "add one, such as `aes256gcm16` or `aes256`",
            ));
        }
        if aeads > 0 && aeads < self.ciphers.len() {
            let help = "write two proposals, one with AES-GCM or ChaCha20-Poly1305 and one with CBC ciphers, separated by a comma";
            return Err(missing(text, "combined-mode ciphers and others cannot stand in one proposal", help));
        }
        if aeads > 0 {
            self.left_out.extend(self.integrity.drain(..).map(|(_, word)| word));
        } else if self.integrity.is_empty() {
            let help = "add one, such as `sha256`, or use a combined-mode cipher such as `aes256gcm16`";
            return Err(missing(text, "a cipher that is no combined mode needs an integrity algorithm", help));
        }
        Ok(())
    }
}

fn push_new(list: &mut Vec<Named>, id: u16, word: &str) {
    if !list.iter().any(|(known, _)| *known == id) {
        list.push((id, word.to_owned()));
    }
}

/// Whether the word is an additional key exchange that may be left out (`keN_none`). A real one is refused: leaving it out would weaken the SA.
fn additional_key_exchange(word: &str) -> Result<bool, ProposalError> {
    let lower = word.to_ascii_lowercase();
    let Some((number, method)) = lower.strip_prefix("ke").and_then(|rest| rest.split_once('_')) else {
        return Ok(false);
    };
    if !matches!(number, "1" | "2" | "3" | "4" | "5" | "6" | "7") {
        return Ok(false);
    }
    match words::lookup(method) {
        Some(Transform::KeyExchange(words::NONE)) => Ok(true),
        Some(Transform::KeyExchange(_)) => Err(ProposalError {
            fragment: word.to_owned(),
            reason: format!("additional key exchanges (RFC 9370) are not supported: `{word}`"),
            help: Some("remove the word; the proposal is then protected by its first key exchange alone".to_owned()),
            unsupported: true,
        }),
        Some(_) | None => Err(unknown(word)),
    }
}

/// The ids that this build has; those it lacks go to `left_out`, and an error comes when none remains of a kind that had some.
fn built<I: From<u16>>(
    named: &[Named],
    transform: fn(u16) -> Transform,
    left_out: &mut Vec<String>,
) -> Result<Vec<I>, ProposalError> {
    let mut out = Vec::new();
    let mut lacking: Option<&str> = None;
    for (id, word) in named {
        if words::is_built(transform(*id)) {
            out.push(I::from(*id));
        } else {
            if !left_out.contains(word) {
                left_out.push(word.clone());
            }
            lacking.get_or_insert(word);
        }
    }
    match lacking {
        Some(word) if out.is_empty() => Err(not_built(word)),
        Some(_) | None => Ok(out),
    }
}

fn built_ciphers(sorted: &Sorted, text: &str, left_out: &mut Vec<String>) -> Result<Vec<Encryption>, ProposalError> {
    let mut out = Vec::new();
    for (transform, word) in &sorted.ciphers {
        match transform {
            Transform::Encryption { id, key_bits, .. } if words::is_built(*transform) => {
                out.push(cipher(*id, *key_bits))
            }
            Transform::Encryption { .. }
            | Transform::Integrity(_)
            | Transform::Prf(_)
            | Transform::KeyExchange(_)
            | Transform::Esn(_) => left_out.push(word.clone()),
        }
    }
    match sorted.ciphers.first() {
        Some((_, word)) if out.is_empty() => Err(not_built(word)),
        Some(_) => Ok(out),
        None => Err(missing(text, "a proposal needs an encryption algorithm", "add one, such as `aes256gcm16`")),
    }
}

fn not_built(word: &str) -> ProposalError {
    ProposalError {
        fragment: word.to_owned(),
        reason: format!("`{word}` is not supported"),
        help: Some(SUPPORTED.to_owned()),
        unsupported: true,
    }
}

/// What can be used, for messages.
const SUPPORTED: &str = "supported are aes128gcm16 aes256gcm16 chacha20poly1305 aes128 aes192 aes256; sha256 sha384 sha512; \
prfsha256 prfsha384 prfsha512; x25519 ecp256 ecp384 modp2048 modp3072";

fn unknown(word: &str) -> ProposalError {
    let help = match did_you_mean(word, words::all()) {
        Some(other) => format!("did you mean `{other}`?"),
        None => SUPPORTED.to_owned(),
    };
    let reason =
        if word.is_empty() { "empty word in the proposal".to_owned() } else { format!("`{word}` is no algorithm") };
    ProposalError { fragment: word.to_owned(), reason, help: Some(help), unsupported: false }
}

fn missing(text: &str, reason: &str, help: &str) -> ProposalError {
    let (fragment, reason, help) = (text.to_owned(), reason.to_owned(), Some(help.to_owned()));
    ProposalError { fragment, reason, help, unsupported: false }
}
