//! Opening the daemon's socket.

use std::os::unix::net::UnixStream;

use swanctl_compat::vici::client::{self, ClientError};

/// A client on a Unix socket.
pub(crate) type Client = client::Client<UnixStream>;

/// Where daemons listen unless told otherwise.
pub(crate) const DEFAULT_URI: &str = "unix:///run/charon.vici";

/// Connects to `unix://PATH`.
pub(crate) fn connect(uri: &str) -> Result<Client, ClientError> {
    let path = uri.strip_prefix("unix://").filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| ClientError::Uri(uri.to_owned()))?;
    let stream = UnixStream::connect(path).map_err(|error| ClientError::Connect(uri.to_owned(), error))?;
    Ok(Client::new(stream))
}
