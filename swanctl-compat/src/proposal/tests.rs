use super::*;
use crate::names;

fn show_ike(text: &str) -> String {
    match ike(text) {
        Ok(parsed) => {
            let shown: Vec<String> = parsed.proposals.iter().map(one_ike).collect();
            with_left_out(shown.join(" , "), &parsed.left_out)
        }
        Err(error) => {
            format!("{}{}: {}", if error.unsupported { "unsupported " } else { "" }, error.fragment, error.reason)
        }
    }
}

fn show_esp(text: &str) -> String {
    match esp(text) {
        Ok(parsed) => {
            let shown: Vec<String> = parsed.proposals.iter().map(one_esp).collect();
            with_left_out(shown.join(" , "), &parsed.left_out)
        }
        Err(error) => {
            format!("{}{}: {}", if error.unsupported { "unsupported " } else { "" }, error.fragment, error.reason)
        }
    }
}

fn with_left_out(text: String, left_out: &[String]) -> String {
    if left_out.is_empty() { text } else { format!("{text} without {}", left_out.join(" ")) }
}

fn encryption(list: &[Encryption]) -> String {
    let one = |e: &Encryption| match e.key_bits {
        Some(bits) => format!("{}-{bits}", names::encryption(e.id.0)),
        None => names::encryption(e.id.0),
    };
    list.iter().map(one).collect::<Vec<_>>().join("+")
}

fn one_ike(p: &IkeProposal) -> String {
    let mut parts = vec![encryption(&p.encryption)];
    parts.extend(p.integrity.iter().map(|i| names::integrity(i.0)));
    parts.extend(p.prf.iter().map(|i| names::prf(i.0)));
    parts.extend(p.key_exchange.iter().map(|i| names::key_exchange(i.0)));
    parts.join("/")
}

fn one_esp(p: &EspProposal) -> String {
    let mut parts = vec![encryption(&p.encryption)];
    parts.extend(p.integrity.iter().map(|i| names::integrity(i.0)));
    parts.extend(p.key_exchange.iter().map(|i| names::key_exchange(i.0)));
    parts.extend(p.esn.iter().map(|esn| if esn.0 == 1 { "ESN".to_owned() } else { "NO_ESN".to_owned() }));
    parts.join("/")
}

#[test]
fn ike_proposals() {
    let cases = [
        ("aes256gcm16-prfsha384-ecp384", "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384"),
        ("aes256gcm-prfsha384-ecp384", "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384"),
        ("aes256gcm128-prfsha384-ecp384", "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384"),
        ("aes-sha256-modp2048", "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048"),
        ("aes128-aes256-sha2_512-x25519", "AES_CBC-128+AES_CBC-256/HMAC_SHA2_512_256/PRF_HMAC_SHA2_512/CURVE_25519"),
        ("aes128-aes128-sha256-ecp256", "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_256"),
        ("chacha20poly1305-prfsha256-curve25519", "CHACHA20_POLY1305/PRF_HMAC_SHA2_256/CURVE_25519"),
        // Integrity words beside an AEAD are left out, and so is `none`.
        ("aes128gcm16-sha256-prfsha256-x25519-none", "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519 without sha256"),
        (
            "aes128-3des-sha256-sha1-modp2048-modp1024",
            "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048 without 3des sha1 modp1024",
        ),
        ("aes256gcm16-prfsha384-ecp384-ke1_none", "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384"),
    ];
    for (text, expected) in cases {
        assert_eq!(show_ike(text), expected, "{text}");
    }
}

#[test]
fn refused_ike_proposals() {
    let cases = [
        ("aes256gcm16-ecp384", "aes256gcm16-ecp384: an IKE proposal needs a pseudorandom function"),
        ("aes128-sha256", "aes128-sha256: an IKE proposal needs a key exchange"),
        ("aes128-sha256-none", "aes128-sha256-none: an IKE proposal needs a key exchange"),
        (
            "aes128-prfsha256-ecp256",
            "aes128-prfsha256-ecp256: a cipher that is no combined mode needs an integrity algorithm",
        ),
        ("sha256-modp2048", "sha256-modp2048: a proposal needs an encryption algorithm"),
        (
            "aes128-aes128gcm16-sha256-ecp256",
            "aes128-aes128gcm16-sha256-ecp256: combined-mode ciphers and others cannot stand in one proposal",
        ),
        ("aes256gcm16-prfsha38-ecp384", "prfsha38: `prfsha38` is no algorithm"),
        ("AES128-sha256-ecp256", "AES128: `AES128` is no algorithm"),
        ("aes128--ecp256", ": empty word in the proposal"),
        ("", ": empty word in the proposal"),
        ("3des-sha256-modp2048", "unsupported 3des: `3des` is not supported"),
        ("aes128-sha256-modp1024", "unsupported modp1024: `modp1024` is not supported"),
        (
            "aes128-sha256-x25519-ke1_mlkem768",
            "unsupported ke1_mlkem768: additional key exchanges (RFC 9370) are not supported: `ke1_mlkem768`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(show_ike(text), expected, "{text}");
    }
    let help = ike("aes128-sha265-ecp256").unwrap_err().help.unwrap();
    assert_eq!(help, "did you mean `sha256`?");
}

#[test]
fn esp_proposals() {
    let cases = [
        ("aes256gcm16", "AES_GCM_16-256/NO_ESN"),
        ("aes256gcm16-esn", "AES_GCM_16-256/ESN"),
        ("aes256gcm16-esn-noesn", "AES_GCM_16-256/ESN/NO_ESN"),
        ("aes128-sha256", "AES_CBC-128/HMAC_SHA2_256_128/NO_ESN"),
        ("aes256gcm16-x25519-none", "AES_GCM_16-256/CURVE_25519/KE_NONE/NO_ESN"),
        ("aes256gcm16-none", "AES_GCM_16-256/NO_ESN"),
        ("aes256gcm16-prfsha256", "AES_GCM_16-256/NO_ESN without prfsha256"),
        ("chacha20poly1305", "CHACHA20_POLY1305/NO_ESN"),
        ("aes128", "aes128: a cipher that is no combined mode needs an integrity algorithm"),
        ("null-sha256", "unsupported null: `null` is not supported"),
        ("aes192gcm16", "unsupported aes192gcm16: `aes192gcm16` is not supported"),
        ("x25519", "x25519: a proposal needs an encryption algorithm"),
    ];
    for (text, expected) in cases {
        assert_eq!(show_esp(text), expected, "{text}");
    }
}

#[test]
fn defaults() {
    let kes = "ECP_256/ECP_384/CURVE_25519/MODP_3072/MODP_2048";
    let prfs = "PRF_HMAC_SHA2_256/PRF_HMAC_SHA2_384/PRF_HMAC_SHA2_512";
    let macs = "HMAC_SHA2_256_128/HMAC_SHA2_384_192/HMAC_SHA2_512_256";
    let cbc = "AES_CBC-128+AES_CBC-192+AES_CBC-256";
    assert_eq!(
        show_ike("default"),
        format!("{cbc}/{macs}/{prfs}/{kes} , AES_GCM_16-128+AES_GCM_16-256+CHACHA20_POLY1305/{prfs}/{kes}")
    );
    assert_eq!(
        show_esp("DEFAULT"),
        format!("AES_GCM_16-128+AES_GCM_16-256/{kes}/KE_NONE/NO_ESN , {cbc}/{macs}/{kes}/KE_NONE/NO_ESN")
    );
}
