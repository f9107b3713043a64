//! A webhook's receiver whose answers a test chooses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use lab::netns::Namespace;

/// Answers every request with one status until it is changed.
pub(super) struct Receiver {
    /// Of the next answer.
    pub(super) status: Arc<AtomicU16>,
    /// Messages that came.
    pub(super) messages: Arc<AtomicUsize>,
}

impl Receiver {
    /// Listens on a port of the gateway's loopback, until the test ends.
    pub(super) fn start(namespace: &Namespace, port: u16, status: u16) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(("127.0.0.1", port)))??;
        let receiver = Self { status: Arc::new(AtomicU16::new(status)), messages: Arc::default() };
        let (status, messages) = (Arc::clone(&receiver.status), Arc::clone(&receiver.messages));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // One that says nothing must not keep the others waiting.
                let served = stream.set_read_timeout(Some(Duration::from_secs(30)));
                if served.is_ok() && answer(stream, status.load(Ordering::SeqCst)).is_ok() {
                    messages.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Ok(receiver)
    }
}

fn answer(stream: TcpStream, status: u16) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    write!(reader.get_mut(), "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
