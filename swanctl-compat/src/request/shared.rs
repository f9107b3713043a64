//! `load-shared`: pre-shared keys.

use ike_model::{Secret, SharedSecret};
use thiserror::Error;

use super::{Request, text};
use crate::identity;
use crate::vici::Message;

/// Why a shared secret is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SharedError {
    /// No `type`.
    #[error("shared key type missing")]
    TypeMissing,
    /// Not `IKE EAP XAUTH NTLM PPK`.
    #[error("invalid shared key type: {0}")]
    InvalidType(String),
    /// No `data`.
    #[error("shared key data missing")]
    DataMissing,
    /// An owner that is no identity.
    #[error("owner '{owner}' is no identity: {reason}")]
    Owner {
        /// As given.
        owner: String,
        /// What is wrong with it.
        reason: String,
    },
}

pub(super) fn parse(message: &Message) -> Result<Request, SharedError> {
    let kind = text(message, "type").ok_or(SharedError::TypeMissing)?;
    let ignored = match kind.to_ascii_lowercase().as_str() {
        "ike" => None,
        "eap" | "xauth" => Some("EAP and XAuth are not supported; this secret has no effect"),
        "ntlm" => Some("EAP-MSCHAPv2 is not supported; this NT hash has no effect"),
        "ppk" => Some("postquantum preshared keys are not supported; this key has no effect"),
        _ => return Err(SharedError::InvalidType(kind)),
    };
    let data = message.get("data").filter(|data| !data.as_bytes().is_empty()).ok_or(SharedError::DataMissing)?;
    if let Some(reason) = ignored {
        return Ok(Request::IgnoredShared { id: text(message, "id").unwrap_or_default(), reason });
    }
    let owners: Result<Vec<_>, SharedError> = message.list_strs("owners").map(owner).collect();
    Ok(Request::LoadShared(SharedSecret {
        id: text(message, "id").unwrap_or_default(),
        owners: owners?,
        secret: Secret::new(data.as_bytes()),
    }))
}

fn owner(text: &str) -> Result<ike_model::Identity, SharedError> {
    identity::parse(text).map_err(|error| SharedError::Owner { owner: text.to_owned(), reason: error.to_string() })
}
