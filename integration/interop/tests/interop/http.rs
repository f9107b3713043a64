//! Asking the HTTP server of gateway A.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::topology::Lab;

use crate::life;

/// Where the daemon serves it by default, on the loopback of its gateway.
const LISTEN: &str = "127.0.0.1:9470";

/// The answer as soon as all is well, which it may not be for a moment on a busy machine.
pub(crate) fn get_well(lab: &Lab, path: &str) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    life::settle(&format!("all is well at {path}"), || {
        let (status, answer) = get(lab, path)?;
        found = answer;
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&found));
        Ok(true)
    })?;
    Ok(found)
}

/// The status of an answer and all of its octets, headers included.
pub(crate) fn get(lab: &Lab, path: &str) -> Result<(u16, Vec<u8>)> {
    let mut stream = lab.a.gateway.run(|| TcpStream::connect(LISTEN))?.context("connecting to the page")?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {LISTEN}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Ok((status.context("no answer of HTTP")?, answer))
}
