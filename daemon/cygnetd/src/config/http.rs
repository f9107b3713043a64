//! `[http]`: the keys of the HTTP server.

use std::path::PathBuf;

use ike_model::Secret;
use toml::de::DeValue;

use super::keys::Set;
use super::value::{text, texts};

/// Where the server listens unless another place is named.
const DEFAULT_LISTEN: &str = "127.0.0.1:9470";

/// Characters of a token: whoever guesses shall not live to see it.
const TOKEN_MIN: usize = 16;

pub(super) const KEYS: &[(&str, Set)] = &[
    ("http.listen", |c, v| listen(v).map(|places| c.http.listen = places)),
    ("http.token", |c, v| token(text(v)?).map(|token| c.http.token = token)),
    ("http.token_file", |c, v| text(v).map(|path| c.http.token_file = path.into())),
    ("http.hosts", |c, v| texts(v).map(|hosts| c.http.hosts = hosts)),
];

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Http {
    /// Where to listen, `ADDRESS:PORT` or `unix:PATH` each; empty = nowhere.
    pub(crate) listen: Vec<String>,
    /// Who shows it may change things.
    pub(crate) token: Option<Secret>,
    /// The file that holds it instead; empty = none.
    pub(crate) token_file: PathBuf,
    /// Names by which browsers may call the server, besides its addresses and the machine's own names.
    pub(crate) hosts: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: vec![DEFAULT_LISTEN.into()], token: None, token_file: PathBuf::new(), hosts: Vec::new() }
    }
}

impl Http {
    /// The places are somebody's choice: not to have them is an error.
    #[cfg(any(feature = "telemetry", test))]
    pub(crate) fn is_chosen(&self) -> bool {
        self.listen != [DEFAULT_LISTEN]
    }
}

/// What only several keys together can get wrong.
pub(super) fn cross_check(http: &Http) -> Result<(), String> {
    if http.token.is_some() && !http.token_file.as_os_str().is_empty() {
        return Err("http.token and http.token_file are both set: one of them is the token".into());
    }
    Ok(())
}

/// One place or a list of them; empty = nowhere.
fn listen(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let places = match value.as_str() {
        Some("") => Vec::new(),
        Some(place) => vec![place.to_owned()],
        None => texts(value)?,
    };
    #[cfg(feature = "telemetry")]
    for place in &places {
        telemetry::Listen::parse(place).map_err(|reason| format!("cannot be {reason}"))?;
    }
    Ok(places)
}

/// Empty = none. What is said of it never shows it.
///
/// # Errors
/// It is too short, or cannot be sent in a header.
pub(crate) fn token(text: &str) -> Result<Option<Secret>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() < TOKEN_MIN || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("must be at least {TOKEN_MIN} printable ASCII characters without blanks"));
    }
    Ok(Some(Secret::new(text.as_bytes())))
}
