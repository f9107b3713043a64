//! Proposals back in words: what was loaded, as it could be written in a file.

use ike_model::{Encryption, EspProposal, IkeProposal};

use super::words;
use crate::names;

/// An IKE proposal in the words of `swanctl.conf`; every algorithm is named, also those that were implied.
#[must_use]
pub fn ike_text(proposal: &IkeProposal) -> String {
    let mut out: Vec<String> = proposal.encryption.iter().map(cipher).collect();
    out.extend(proposal.integrity.iter().map(|id| integrity(id.0)));
    out.extend(proposal.prf.iter().map(|id| prf(id.0)));
    out.extend(proposal.key_exchange.iter().map(|id| key_exchange(id.0)));
    out.join("-")
}

/// An ESP proposal in the words of `swanctl.conf`.
#[must_use]
pub fn esp_text(proposal: &EspProposal) -> String {
    let mut out: Vec<String> = proposal.encryption.iter().map(cipher).collect();
    out.extend(proposal.integrity.iter().map(|id| integrity(id.0)));
    out.extend(proposal.key_exchange.iter().map(|id| key_exchange(id.0)));
    out.extend(proposal.esn.iter().map(|id| if id.0 == 0 { "noesn".to_owned() } else { "esn".to_owned() }));
    out.join("-")
}

fn cipher(cipher: &Encryption) -> String {
    match (cipher.id.0, cipher.key_bits) {
        (words::AES_CBC, Some(bits)) => format!("aes{bits}"),
        (words::AES_GCM_16, Some(bits)) => format!("aes{bits}gcm16"),
        (words::CHACHA20_POLY1305, None) => "chacha20poly1305".to_owned(),
        (id, Some(bits)) => format!("{}_{bits}", names::encryption(id)),
        (id, None) => names::encryption(id),
    }
}

fn integrity(id: u16) -> String {
    match id {
        12 => "sha256".to_owned(),
        13 => "sha384".to_owned(),
        14 => "sha512".to_owned(),
        _ => names::integrity(id),
    }
}

fn prf(id: u16) -> String {
    match id {
        5 => "prfsha256".to_owned(),
        6 => "prfsha384".to_owned(),
        7 => "prfsha512".to_owned(),
        _ => names::prf(id),
    }
}

fn key_exchange(id: u16) -> String {
    words::key_exchange(id).map_or_else(|| names::key_exchange(id), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::{default_esp, default_ike, esp, ike};
    use super::*;

    #[test]
    fn what_is_said_reads_back() {
        for proposal in default_ike() {
            assert_eq!(ike(&ike_text(&proposal)).unwrap().proposals, [proposal]);
        }
        for proposal in default_esp() {
            assert_eq!(esp(&esp_text(&proposal)).unwrap().proposals, [proposal]);
        }
        let text = "aes256gcm16-chacha20poly1305-prfsha384-x25519-ecp384";
        assert_eq!(ike_text(&ike(text).unwrap().proposals[0]), text);
        let text = "aes128-sha256-x25519-none-noesn-esn";
        assert_eq!(esp_text(&esp(text).unwrap().proposals[0]), text);
    }
}
