//! Opening the daemon's socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use swanctl_compat::vici::client::{self, ClientError};
use swanctl_compat::vici::endpoint::Endpoint;

/// A client of a daemon, wherever it listens.
pub(crate) type Client = client::Client<Stream>;

/// Where daemons listen unless told otherwise.
pub(crate) const DEFAULT_URI: &str = "unix:///run/charon.vici";

/// Connects to `unix://PATH` or `tcp://HOST:PORT`.
pub(crate) fn connect(uri: &str) -> Result<Client, ClientError> {
    let endpoint = Endpoint::parse(uri).map_err(|error| ClientError::Uri(uri.to_owned(), error))?;
    let stream = open(&endpoint).map_err(|error| ClientError::Connect(uri.to_owned(), error))?;
    Ok(Client::new(stream))
}

fn open(endpoint: &Endpoint) -> io::Result<Stream> {
    match endpoint {
        Endpoint::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port))?;
            // Requests are small and each waits for its answer.
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(octets),
            Self::Tcp(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
        }
    }
}
