//! Commands about what this daemon does not have: certificates, private keys, authorities, pools, redirection. What is wrong with the command is
//! said as clients know it; a command that is right is answered with the reason why it is not carried out.

use super::{RequestError, refuse, text};
use crate::render;
use crate::vici::Message;

const NO_CERTIFICATES: &str = "certificates and private keys are not supported: authentication is by pre-shared key";
const NO_POOLS: &str = "virtual IP pools are not supported";

/// Kinds of certificates that `load-cert` and `flush-certs` know.
const CERTIFICATE_TYPES: [&str; 6] = ["ANY", "X509", "X509_CRL", "OCSP_RESPONSE", "X509_AC", "PUBKEY"];

/// Kinds of private keys that `load-key` knows.
const KEY_TYPES: [&str; 6] = ["any", "rsa", "ecdsa", "ed25519", "ed448", "bliss"];

/// The answer to one of these commands.
pub(super) fn answer(command: &str, message: &Message) -> RequestError {
    match command {
        "load-cert" => load_cert(message),
        "load-key" => load_key(message),
        "unload-key" => match text(message, "id") {
            Some(_) => refuse("key not found"),
            None => refuse("key id missing"),
        },
        "load-authority" => load_authority(message),
        "unload-authority" => match text(message, "name") {
            Some(name) => refuse(&format!("unload: authority '{name}' not found")),
            None => refuse("unload: missing authority name"),
        },
        "load-pool" => load_pool(message),
        "unload-pool" => match text(message, "name") {
            Some(name) => refuse(&format!("{name} not found")),
            None => refuse("missing pool name to unload"),
        },
        _ => refuse(NO_CERTIFICATES),
    }
}

fn load_cert(message: &Message) -> RequestError {
    match text(message, "type") {
        None => refuse("certificate type missing"),
        Some(kind) if !CERTIFICATE_TYPES.iter().any(|known| known.eq_ignore_ascii_case(&kind)) => {
            refuse(&format!("invalid certificate type '{kind}'"))
        }
        Some(_) => refuse(NO_CERTIFICATES),
    }
}

fn load_key(message: &Message) -> RequestError {
    match text(message, "type") {
        None => refuse("key type missing"),
        Some(kind) if !KEY_TYPES.iter().any(|known| known.eq_ignore_ascii_case(&kind)) => {
            refuse(&format!("invalid key type: {kind}"))
        }
        Some(_) => refuse(NO_CERTIFICATES),
    }
}

fn load_authority(message: &Message) -> RequestError {
    let Some((name, content)) = message.sections().next() else { return refuse(NO_CERTIFICATES) };
    let given = ["cacert", "file", "handle"].iter().any(|key| content.get(key).is_some());
    if given { refuse(NO_CERTIFICATES) } else { refuse(&format!("CA certificate missing: {name}")) }
}

fn load_pool(message: &Message) -> RequestError {
    let Some((name, content)) = message.sections().next() else { return refuse(NO_POOLS) };
    match text(content, "addrs") {
        Some(_) => refuse(NO_POOLS),
        None => refuse(&format!("missing addrs for pool '{name}'")),
    }
}

/// The answer to `redirect`; `matches` IKE SAs are meant.
#[must_use]
pub fn redirect(matches: u32) -> Message {
    const NOTHING: &str = "no matching SAs to redirect found";
    const NOT_SUPPORTED: &str = "redirection (RFC 5685) is not supported";
    render::matched(matches, Some(if matches == 0 { NOTHING } else { NOT_SUPPORTED }))
}
