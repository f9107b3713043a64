//! PEM as OpenSSL writes it: RFC 7468, with the headers of RFC 1421 that protect a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// One block.
pub(super) struct Block {
    /// What stands behind `BEGIN`.
    pub(super) label: String,
    /// The value of `DEK-Info`: cipher and initialization vector.
    pub(super) dek_info: Option<String>,
    /// What is encoded.
    pub(super) octets: Zeroizing<Vec<u8>>,
}

impl Block {
    /// The first block of a text that is not the curve parameters which OpenSSL writes before a key; nothing when there is none.
    pub(super) fn first(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut lines = text.lines().map(str::trim_end);
        loop {
            let label = lines.by_ref().find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))?;
            let end = format!("-----END {label}-----");
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
            if label == "EC PARAMETERS" {
                continue;
            }
            let headers = body.iter().take_while(|line| line.contains(':') || line.starts_with([' ', '\t'])).count();
            let header = |name: &str| body.iter().take(headers).find_map(|line| line.strip_prefix(name));
            let dek_info = header("DEK-Info:").map(|value| value.trim().to_owned());
            let encoded = Zeroizing::new(body.get(headers..).unwrap_or_default().concat());
            let octets = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
            return Some(Self { label: label.to_owned(), dek_info, octets });
        }
    }
}
