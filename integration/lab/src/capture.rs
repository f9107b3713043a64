//! Capturing an interface: every frame classified and counted, kept in memory, written as a pcap file on demand.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use crate::classify::{Class, Counts, Prefix, classify};
use crate::netns::Namespace;
use crate::packet::{LARGEST_FRAME, PacketSocket};

/// Octets kept of a frame; longer ones are cut in memory and in the file, never in the counts.
const KEPT_OCTETS: usize = 2_048;
/// Frames kept unless more are asked for; later ones are only counted. Clear frames are kept always.
pub const KEPT_FRAMES: usize = 20_000;

/// One kept frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Since the Unix epoch.
    pub time: Duration,
    /// What it is.
    pub class: Class,
    /// Its first octets, Ethernet header included.
    pub octets: Vec<u8>,
    /// Its whole length.
    pub length: usize,
}

/// What a capture saw.
#[derive(Debug, Default)]
pub struct Captured {
    /// By kind.
    pub counts: Counts,
    /// In order of arrival.
    pub frames: Vec<Frame>,
    /// Frames that the interface carried meanwhile, as the kernel counts them: more than `counts.total()` means frames were missed.
    pub carried: u64,
}

impl Captured {
    /// Frames of the interface that the capture did not see.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.carried.saturating_sub(self.counts.total())
    }

    /// Writes a classic pcap file (Ethernet, microseconds).
    ///
    /// # Errors
    /// The file could not be written.
    pub fn write_pcap(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, KEPT_OCTETS as u32, 1] {
            file.write_all(&word.to_le_bytes())?;
        }
        for frame in &self.frames {
            for word in [
                frame.time.as_secs() as u32,
                frame.time.subsec_micros(),
                frame.octets.len() as u32,
                frame.length as u32,
            ] {
                file.write_all(&word.to_le_bytes())?;
            }
            file.write_all(&frame.octets)?;
        }
        file.flush()
    }
}

/// Which frames of an interface are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    Both,
    /// Those that leave through it: where the kernel does ESP itself, what comes in is shown a second time, decrypted.
    Sent,
}

impl Which {
    fn carried(self, namespace: &Namespace, interface: &str) -> anyhow::Result<u64> {
        let (received, sent) = namespace.frame_counts(interface)?;
        Ok(match self {
            Which::Both => received + sent,
            Which::Sent => sent,
        })
    }
}

/// A running capture of one interface.
#[derive(Debug)]
pub struct Capture {
    which: Which,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<io::Result<Captured>>>,
    carried_before: u64,
}

impl Capture {
    /// Starts capturing; the first `kept` frames are kept.
    ///
    /// # Errors
    /// No such interface, or raw sockets are not allowed.
    pub fn start(namespace: &Namespace, interface: &str, protected: &[Prefix], kept: usize) -> anyhow::Result<Self> {
        Self::start_of(Which::Both, namespace, interface, protected, kept)
    }

    /// Starts capturing some of the frames; the first `kept` of them are kept.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_of(
        which: Which,
        namespace: &Namespace,
        interface: &str,
        protected: &[Prefix],
        kept: usize,
    ) -> anyhow::Result<Self> {
        let socket = match which {
            Which::Both => PacketSocket::open(namespace, interface)?,
            Which::Sent => PacketSocket::open_sent(namespace, interface)?,
        };
        let carried_before = which.carried(namespace, interface)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, protected) = (Arc::clone(&stop), protected.to_vec());
        let worker = std::thread::Builder::new()
            .name(format!("capture {interface}"))
            .spawn(move || record(&socket, &flag, &protected, kept))?;
        Ok(Capture { which, stop, worker: Some(worker), carried_before })
    }

    /// Ends the capture after the frames that wait have been taken.
    ///
    /// # Errors
    /// The interface vanished meanwhile.
    pub fn finish(mut self, namespace: &Namespace, interface: &str) -> anyhow::Result<Captured> {
        let carried = self.which.carried(namespace, interface)?.saturating_sub(self.carried_before);
        let mut captured = self.join().context("the capture was ended twice")??;
        captured.carried = carried;
        Ok(captured)
    }

    fn join(&mut self) -> Option<io::Result<Captured>> {
        self.stop.store(true, Ordering::Relaxed);
        self.worker.take()?.join().ok()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

fn record(socket: &PacketSocket, stop: &AtomicBool, protected: &[Prefix], kept: usize) -> io::Result<Captured> {
    let mut captured = Captured::default();
    let mut buffer = vec![0; LARGEST_FRAME];
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        while let Some(octets) = socket.receive(&mut buffer)? {
            keep(&mut captured, octets, protected, kept);
        }
        if stopping {
            return Ok(captured);
        }
        socket.wait(Duration::from_millis(20))?;
    }
}

fn keep(captured: &mut Captured, octets: &[u8], protected: &[Prefix], kept: usize) {
    let class = classify(octets, protected);
    captured.counts.add(class);
    if captured.frames.len() < kept || class == Class::Clear {
        captured.frames.push(Frame {
            time: now(),
            class,
            octets: octets.get(..octets.len().min(KEPT_OCTETS)).unwrap_or_default().to_vec(),
            length: octets.len(),
        });
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
