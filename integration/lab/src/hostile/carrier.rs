//! What carries IKE messages between the peer and the daemon.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::Namespace;

const MARKER: [u8; 4] = [0; 4];

/// Carries datagrams to the daemon and back.
pub trait Carrier {
    /// Sends one IKE message. One that the kernel refuses to send for its length is skipped.
    ///
    /// # Errors
    /// There is no way to the daemon.
    fn send(&mut self, message: &[u8]) -> Result<()>;

    /// The next IKE message, should one come in time.
    ///
    /// # Errors
    /// There is no way to the daemon.
    fn receive(&mut self, wait: Duration) -> Result<Option<Vec<u8>>>;
}

/// A UDP socket, on the NAT-T port with the non-ESP marker.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    marked: bool,
    buffer: Vec<u8>,
}

impl Udp {
    /// A socket of `namespace` with address `from` towards the daemon's IKE port or, `marked`, its NAT-T port.
    ///
    /// # Errors
    /// The address is not there.
    pub fn new(namespace: &Namespace, from: SocketAddr, to: SocketAddr, marked: bool) -> Result<Self> {
        let socket = namespace.run(|| -> Result<UdpSocket> {
            let socket = UdpSocket::bind(from).with_context(|| format!("binding {from}"))?;
            socket.connect(to)?;
            Ok(socket)
        })??;
        Ok(Udp { socket, marked, buffer: vec![0; 65_536] })
    }

    /// Sends octets without any marker: an ESP packet in UDP, or what is to look like one.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn send_bare(&mut self, octets: &[u8]) -> Result<()> {
        match self.socket.send(octets) {
            Ok(_) => Ok(()),
            // What an earlier datagram has met, or this one cannot be: no reason to stop.
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Errors that say something of one datagram only.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    ) || matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS))
}

impl Carrier for Udp {
    fn send(&mut self, message: &[u8]) -> Result<()> {
        if self.marked { self.send_bare(&[&MARKER, message].concat()) } else { self.send_bare(message) }
    }

    fn receive(&mut self, wait: Duration) -> Result<Option<Vec<u8>>> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left))?;
            let octets = match self.socket.recv(&mut self.buffer) {
                Ok(octets) => self.buffer.get(..octets).unwrap_or_default(),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            // On the NAT-T port ESP and keepalives come too.
            let message = if self.marked { octets.strip_prefix(&MARKER) } else { Some(octets) };
            if let Some(message) = message {
                return Ok(Some(message.to_vec()));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }
}
