//! One endpoint: where messages go and how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use crate::keys::Keys;
use crate::retry::SCHEDULE;
use crate::target;

/// Header fields that are not for settings: the message says them itself, or the connection needs them.
const OWN_FIELDS: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
/// Those of the signature.
const OWN_PREFIX: &str = "webhook-";

/// A URL that is shown without what may be secret in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Reads an `http` or `https` URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("must begin with `http://` or `https://`, not `{}:`", url.scheme()));
        }
        if url.fragment().is_some() {
            return Err("has a fragment, `#` and what follows, which no server would see".into());
        }
        Ok(Self(url))
    }

    /// Judges its host, where that is an address and not a name.
    ///
    /// # Errors
    /// Why nothing is sent there.
    pub fn permitted(&self, allow_link_local: bool) -> Result<(), String> {
        target::check_literal(&self.0, allow_link_local).map_err(|error| error.to_string())
    }

    /// The URL.
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    /// It is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (url, named) = (&self.0, !self.0.username().is_empty() || self.0.password().is_some());
        write!(f, "{}://{}", url.scheme(), if named { "***@" } else { "" })?;
        f.write_str(url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        write!(f, "{}{}", url.path(), if url.query().is_some() { "?***" } else { "" })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A header field that goes with each message; its value is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    pub(crate) name: HeaderName,
    pub(crate) value: HeaderValue,
}

impl Field {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, without the value.
    pub fn parse(name: &str, value: &str) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        if OWN_FIELDS.contains(&&*lower) || lower.starts_with(OWN_PREFIX) {
            return Err(format!("holds `{name}`, which every message has already"));
        }
        let name =
            HeaderName::from_bytes(lower.as_bytes()).map_err(|_| format!("holds `{name}`, which is no field name"))?;
        let value = HeaderValue::from_str(value);
        let mut value =
            value.map_err(|_| format!("holds a value of `{name}` with characters that no field may have"))?;
        value.set_sensitive(true);
        Ok(Self { name, value })
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ***", self.name)
    }
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its name, which deliveries are kept under.
    pub name: String,
    /// Where messages go.
    pub address: Address,
    /// What they are signed with.
    pub keys: Keys,
    /// Header fields that go with each.
    pub fields: Vec<Field>,
    /// How long an attempt may take as a whole.
    pub timeout: Duration,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// Messages under way at once; with one, they arrive in order as far as none is refused.
    pub concurrency: u16,
    /// Waits before the second and each further attempt.
    pub retry: Vec<Duration>,
    /// The longest wait before an endpoint that is down is tried again.
    pub longest_pause: Duration,
    /// When an endpoint has been down so long, what has waited so long is given up; zero = never.
    pub give_up: Duration,
    /// Link-local addresses and those of metadata services may be connected to.
    pub allow_link_local: bool,
    /// The only certificates that vouch for the receiver; without, those the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Through which HTTP proxy.
    pub proxy: Option<Address>,
}

impl Endpoint {
    /// An endpoint with the defaults of everything else.
    pub fn new(name: impl Into<String>, address: Address, keys: Keys) -> Self {
        Self {
            name: name.into(),
            address,
            keys,
            fields: Vec::new(),
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            concurrency: 1,
            retry: SCHEDULE.to_vec(),
            longest_pause: Duration::from_secs(30),
            give_up: Duration::from_secs(4 * 86_400),
            allow_link_local: false,
            ca_file: None,
            proxy: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Secret;

    #[test]
    fn secrets_of_an_endpoint_are_not_shown() {
        let address = Address::parse("https://me:hidden@hooks.example:8443/a/b?token=hidden").unwrap();
        assert_eq!(address.to_string(), "https://***@hooks.example:8443/a/b?***");
        assert_eq!(Address::parse("http://[::1]:80/x").unwrap().to_string(), "http://[::1]/x");
        let keys = Keys::Given(vec![Secret::parse("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX").unwrap()]);
        let mut endpoint = Endpoint::new("ops", address.clone(), keys);
        endpoint.fields.push(Field::parse("X-Token", "hidden").unwrap());
        endpoint.proxy = Some(address);
        let shown = format!("{endpoint:?}");
        assert!(!shown.contains("hidden") && !shown.contains("AAEC") && shown.contains("x-token: ***"), "{shown}");
    }

    #[test]
    fn wrong_urls_and_fields_are_refused() {
        for url in [
            "ftp://a/",
            "hooks.example",
            "/hook",
            "file:///etc/passwd",
            "http://",
            "http://a/#b",
            "http://[fe80::1%25eth0]/",
        ] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
        let address = Address::parse("http://169.254.169.254/").unwrap();
        assert!(address.permitted(false).unwrap_err().contains("link-local") && address.permitted(true).is_ok());
        for (name, value) in
            [("webhook-id", "x"), ("Host", "x"), ("Content-Length", "1"), ("a b", "x"), ("a", "x\r\ny: z")]
        {
            let error = Field::parse(name, value).unwrap_err();
            assert!(!error.contains("y: z"), "{error}");
        }
    }
}
