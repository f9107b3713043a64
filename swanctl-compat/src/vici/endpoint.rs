//! Where a daemon listens, as clients and settings write it: `unix://PATH` or `tcp://HOST:PORT`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Octets that the name of a socket file may have at most.
const PATH_MAX: usize = 107;

/// One place to listen on or to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket file.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// Address or name; an IPv6 address without brackets.
        host: String,
        /// Port, never 0.
        port: u16,
    },
}

/// Why a text names no place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Another transport, which others have.
    #[error("{0}:// is not supported: use unix:///path/to/socket or tcp://host:port")]
    Transport(String),
    /// No URI of these forms.
    #[error("it is no URI of the form unix:///path/to/socket or tcp://host:port")]
    Form,
    /// The name of a socket file is limited by the system.
    #[error("a socket's path has at most {PATH_MAX} octets")]
    TooLong,
}

impl Endpoint {
    /// Reads a URI.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(uri: &str) -> Result<Self, EndpointError> {
        match uri.split_once("://") {
            Some(("unix", path)) if path.len() > PATH_MAX => Err(EndpointError::TooLong),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", place)) => tcp(place).ok_or(EndpointError::Form),
            Some((transport, rest)) if transport != "unix" && is_word(transport) && !rest.is_empty() => {
                Err(EndpointError::Transport(transport.to_owned()))
            }
            Some(_) | None => Err(EndpointError::Form),
        }
    }

    /// The socket file, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp { .. } => None,
        }
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            }
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric())
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn tcp(place: &str) -> Option<Endpoint> {
    let (host, port) = place.rsplit_once(':').filter(|(_, port)| port.chars().all(|c| c.is_ascii_digit()))?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => Some(host).filter(|host| {
            !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        })?,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(Endpoint::Tcp { host: host.to_owned(), port })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_files_or_ports() {
        for uri in ["unix:///run/charon.vici", "tcp://127.0.0.1:4502", "tcp://[::1]:4502", "tcp://gw-a.example:1"] {
            assert_eq!(Endpoint::parse(uri).unwrap().to_string(), uri);
        }
        assert_eq!(Endpoint::parse("unix:///run/x").unwrap().path(), Some(Path::new("/run/x")));
    }

    #[test]
    fn what_is_none_says_what_one_is() {
        let forms = [
            "",
            "x",
            "unix://",
            "tcp://",
            "tcp://:1",
            "tcp://localhost",
            "tcp://localhost:0",
            "tcp://localhost:+1",
            "tcp://localhost:65536",
            "tcp://::1:4502",
            "tcp://[::1]",
            "tcp://[localhost]:1",
            "tcp://a b:1",
            "/run/charon.vici",
        ];
        for wrong in forms {
            assert_eq!(Endpoint::parse(wrong), Err(EndpointError::Form), "{wrong}");
        }
        for other in ["vsock", "systemd", "http"] {
            let error = Endpoint::parse(&format!("{other}://2:4502")).unwrap_err();
            assert_eq!(error, EndpointError::Transport(other.into()));
        }
        assert_eq!(Endpoint::parse(&format!("unix:///{}", "x".repeat(107))), Err(EndpointError::TooLong));
    }

    #[test]
    fn loopback_is_this_machine_only() {
        let is_local = |uri: &str| Endpoint::parse(uri).unwrap().is_local();
        for uri in
            ["unix:///x", "tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://[::ffff:127.0.0.1]:1", "tcp://localhost:1"]
        {
            assert!(is_local(uri), "{uri}");
        }
        for uri in ["tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://192.0.2.1:1", "tcp://gw-a.example:1"] {
            assert!(!is_local(uri), "{uri}");
        }
    }
}
