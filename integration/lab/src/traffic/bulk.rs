//! A bulk TCP transfer between the hosts, every octet checked.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::topology::{Family, Site};

const BLOCK: usize = 64 * 1024;
/// A connection that stands still so long has failed.
const STALL: Duration = Duration::from_secs(10);

/// What a transfer achieved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Octets received and compared.
    pub octets: u64,
    /// From the first octet to the last.
    pub time: Duration,
}

impl Transfer {
    /// Megabits in a second.
    #[must_use]
    pub fn megabits_per_second(&self) -> f64 {
        self.octets as f64 * 8.0 / 1e6 / self.time.as_secs_f64().max(1e-9)
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} MiB in {:.2} s, {:.0} Mbit/s",
            self.octets >> 20,
            self.time.as_secs_f64(),
            self.megabits_per_second()
        )
    }
}

/// Sends this many octets from a site's host to the other's over one connection.
///
/// # Errors
/// No connection, a stall of ten seconds, or an octet that differs.
pub fn transfer(from: &Site, to: &Site, family: Family, octets: u64) -> anyhow::Result<Transfer> {
    let listener = to.host.run(|| TcpListener::bind(SocketAddr::new(to.host_address(family), 0)))??;
    let target = listener.local_addr()?;
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&listener, octets));
        let sent = from.host.run(|| send(target, octets))?;
        if sent.is_err() {
            // Nobody may come any more: end the wait of the listener.
            let _ = to.host.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(1)));
        }
        let received = receiving.join().map_err(|_| anyhow::anyhow!("the receiver failed"))?;
        sent.context("sending")?;
        received.context("receiving")
    })
}

fn pattern() -> Vec<u8> {
    (0..BLOCK).map(|index| (index * 31 + index / 251) as u8).collect()
}

fn send(target: SocketAddr, octets: u64) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, STALL)?;
    stream.set_write_timeout(Some(STALL))?;
    let block = pattern();
    let mut left = octets;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        stream.write_all(block.get(..count).unwrap_or_default())?;
        left -= count as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The receiver answers when it has everything.
    stream.set_read_timeout(Some(STALL))?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

fn receive(listener: &TcpListener, octets: u64) -> anyhow::Result<Transfer> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(STALL))?;
    let started = Instant::now();
    let (block, mut buffer) = (pattern(), vec![0; BLOCK]);
    let mut total = 0_u64;
    while total < octets {
        let at = usize::try_from(total % BLOCK as u64)?;
        let window = buffer.get_mut(..BLOCK - at).context("block")?;
        let count = stream.read(window)?;
        if count == 0 {
            bail!("the connection ended after {total} of {octets} octets");
        }
        ensure!(window.get(..count) == block.get(at..at + count), "octets differ after {total}");
        total += count as u64;
    }
    let time = started.elapsed();
    stream.write_all(&[1])?;
    Ok(Transfer { octets: total, time })
}
