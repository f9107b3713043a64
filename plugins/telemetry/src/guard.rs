//! What protects the server from those who reach it: the token, the name it is called by, headers, bounds, and errors that say what to do.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::site::Site;

/// How long the answer to a request may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing but what this server itself serves, and no text ever becomes HTML or a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// An error as every client gets it: `{"error": {"code", "message"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Problem {
    /// An error with a stable code and one sentence.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// What is asked cannot be told now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": { "code": self.code, "message": self.message } }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Proof that a request carries the token. A handler that changes anything takes one of these.
#[derive(Debug)]
pub struct Authorized(());

impl FromRequestParts<Site> for Authorized {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Problem> {
        authorize(&parts.headers, site.options.token.as_ref().map(|token| token.as_str())).map(|()| Self(()))
    }
}

fn authorize(headers: &HeaderMap, token: Option<&str>) -> Result<(), Problem> {
    let Some(token) = token else {
        let message = "nothing can be changed over HTTP: set http.token or http.token_file";
        return Err(Problem::new(StatusCode::FORBIDDEN, "no-token-set", message));
    };
    let shown = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    match shown {
        Some(shown) if bool::from(shown.ct_eq(token.as_bytes())) => Ok(()),
        Some(_) => Err(Problem::new(StatusCode::UNAUTHORIZED, "wrong-token", "this is not the token of http.token")),
        None => {
            let message = "this needs the token of http.token, as `Authorization: Bearer TOKEN`";
            Err(Problem::new(StatusCode::UNAUTHORIZED, "token-needed", message))
        }
    }
}

/// RFC 6750 §2.1; the scheme's case does not matter.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Lets through requests that call the server by an address or one of its own names. A page of somebody else that has its name resolved to us (DNS
/// rebinding) calls us by that name.
pub async fn host(State(site): State<Site>, request: Request, next: Next) -> Response {
    let named = request.uri().authority().map(|authority| authority.as_str());
    let named = named.or_else(|| request.headers().get(HOST)?.to_str().ok());
    match named {
        Some(named) if is_ours(named, &site.options.hosts) => next.run(request).await,
        Some(_) => {
            let message = "the server is not known by this name: use its address, or add the name to http.hosts";
            Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown-host", message).into_response()
        }
        None => Problem::invalid("a request names the host that it is for").into_response(),
    }
}

fn is_ours(named: &str, hosts: &[String]) -> bool {
    let name = match named.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => named.split_once(':').map_or(named, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

/// Puts the headers on every answer that keep browsers from doing anything with it but show it.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let always = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Bounds the time until an answer begins; a stream may then go on.
pub async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable(format!("no answer within {} s", PATIENCE.as_secs())).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_the_token_opens() {
        let code = |headers: &HeaderMap, token| authorize(headers, token).err().map(|problem| problem.code);
        assert_eq!(code(&shown("Bearer right"), Some("right")), None);
        assert_eq!(code(&shown("bearer  right "), Some("right")), None);
        assert_eq!(code(&shown("Bearer right"), None), Some("no-token-set"));
        for wrong in ["Bearer righ", "Bearer rightt", "Bearer ", "Bearer wrong"] {
            assert_eq!(code(&shown(wrong), Some("right")), Some("wrong-token"), "{wrong}");
        }
        for none in ["Basic right", "right", "Bearer"] {
            assert_eq!(code(&shown(none), Some("right")), Some("token-needed"), "{none}");
        }
        assert_eq!(code(&HeaderMap::new(), Some("right")), Some("token-needed"));
    }

    #[test]
    fn only_our_names_are_ours() {
        let hosts = ["gw-a.example".to_owned()];
        for ours in [
            "127.0.0.1:9470",
            "192.0.2.7",
            "[2001:db8::1]:9470",
            "[::1]",
            "LocalHost:80",
            "GW-A.example.",
            "gw-a.example:1",
        ] {
            assert!(is_ours(ours, &hosts), "{ours}");
        }
        for other in
            ["", "evil.example:9470", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "[evil]", ":80"]
        {
            assert!(!is_ours(other, &hosts), "{other}");
        }
    }
}
