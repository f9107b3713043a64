//! A bulk TCP transfer between the hosts, every octet checked.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::process::uninterrupted;
use crate::topology::{Family, Site};

const BLOCK: usize = 64 * 1024;
/// A connection that stands still so long has failed.
const STALL: Duration = Duration::from_secs(30);
/// A flow writes so much at a time; a block is a multiple of it.
const PIECE: usize = 4 * 1024;
/// Between two looks at how much of a flow is due.
const PACE: Duration = Duration::from_millis(2);

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
/// No connection, a stall of half a minute, or an octet that differs.
pub fn transfer(from: &Site, to: &Site, family: Family, octets: u64) -> anyhow::Result<Transfer> {
    let listener = to.host.run(|| TcpListener::bind(SocketAddr::new(to.host_address(family), 0)))??;
    let target = listener.local_addr()?;
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&listener, Some(octets)));
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

/// A transfer at a steady rate that goes on until it is ended.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<anyhow::Result<u64>>>,
    receiver: Option<JoinHandle<anyhow::Result<Transfer>>>,
}

impl Flow {
    /// Starts sending so many octets in a second from a site's host to the other's over one connection.
    ///
    /// # Errors
    /// No connection within half a minute.
    pub fn start(from: &Site, to: &Site, family: Family, rate: f64) -> anyhow::Result<Self> {
        let listener = to.host.run(|| TcpListener::bind(SocketAddr::new(to.host_address(family), 0)))??;
        let target = listener.local_addr()?;
        let stream = from.host.run(|| TcpStream::connect_timeout(&target, STALL))?.context("connecting")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender =
            thread::Builder::new().name("bulk sender".into()).spawn(move || send_paced(stream, rate, &stopped))?;
        let receiver = thread::Builder::new().name("bulk receiver".into()).spawn(move || receive(&listener, None))?;
        Ok(Flow { stop, sender: Some(sender), receiver: Some(receiver) })
    }

    /// Ends the flow once all that was sent has arrived.
    ///
    /// # Errors
    /// A stall of half a minute, an octet that differs, or octets that are missing.
    pub fn finish(mut self) -> anyhow::Result<Transfer> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.take().and_then(|thread| thread.join().ok()).context("the sender failed")??;
        let transfer = self.receiver.take().and_then(|thread| thread.join().ok()).context("the receiver failed")??;
        ensure!(transfer.octets == sent, "{} of {sent} octets arrived", transfer.octets);
        Ok(transfer)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.sender.take() {
            let _ = thread.join();
        }
        if let Some(thread) = self.receiver.take() {
            let _ = thread.join();
        }
    }
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
    close(&mut stream)
}

/// Sends at a steady rate until it is told to stop, and gives the octets sent.
fn send_paced(mut stream: TcpStream, rate: f64, stop: &AtomicBool) -> anyhow::Result<u64> {
    stream.set_write_timeout(Some(STALL))?;
    let (block, started, mut sent) = (pattern(), Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * rate) as u64;
        while sent < due {
            let at = usize::try_from(sent % BLOCK as u64)?;
            stream.write_all(block.get(at..at + PIECE).context("block")?)?;
            sent += PIECE as u64;
        }
        thread::sleep(PACE);
    }
    close(&mut stream)?;
    Ok(sent)
}

/// Says that this was all, and waits for the receiver to say that it has everything.
fn close(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

/// Compares what comes over one connection, `octets` of it or all until the sender closes.
fn receive(listener: &TcpListener, octets: Option<u64>) -> anyhow::Result<Transfer> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(STALL))?;
    let started = Instant::now();
    let (block, mut buffer) = (pattern(), vec![0; BLOCK]);
    let mut total = 0_u64;
    while octets.is_none_or(|octets| total < octets) {
        let at = usize::try_from(total % BLOCK as u64)?;
        let window = buffer.get_mut(..BLOCK - at).context("block")?;
        let count = uninterrupted(|| stream.read(window))?;
        match (count, octets) {
            (0, None) => break,
            (0, Some(octets)) => bail!("the connection ended after {total} of {octets} octets"),
            _ => {}
        }
        ensure!(window.get(..count) == block.get(at..at + count), "octets differ after {total}");
        total += count as u64;
    }
    let time = started.elapsed();
    stream.write_all(&[1])?;
    Ok(Transfer { octets: total, time })
}
