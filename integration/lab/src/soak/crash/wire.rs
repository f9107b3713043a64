//! What the outer link of gateway A carries: IKE datagrams are kept, of ESP when an SPI was used first.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ike_wire::Header;
use ike_wire::ids::ExchangeType;
use lab::classify::{Class, NAT_PORT, classify};
use lab::frame::{Network, parse, ports};
use lab::netns::Namespace;
use lab::packet::{LARGEST_FRAME, PacketSocket};
use lab::topology::{Family, OUTER, Site};

use super::moment::{Cue, Trap};

/// Since the Unix epoch, as charon and the history tell it.
pub(super) type WallTime = Duration;

/// Now.
pub(super) fn now() -> WallTime {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// One IKE datagram, the non-ESP marker removed.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    /// When it was seen.
    pub(super) at: WallTime,
    /// Gateway A sent it.
    pub(super) from_a: bool,
    /// All of it.
    pub(super) octets: Vec<u8>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// In order.
    pub(super) ike: Vec<Datagram>,
    /// SPIs of ESP that gateway A sent, and when first.
    pub(super) esp_of_a: BTreeMap<u32, WallTime>,
    /// Frames, of any kind.
    frames: u64,
    /// Frames that the link carried meanwhile and that were not seen.
    pub(super) missed: u64,
}

/// A running look at the link.
pub(super) struct Wire<'lab> {
    namespace: &'lab Namespace,
    before: u64,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<io::Result<Seen>>>,
}

impl<'lab> Wire<'lab> {
    /// Looks from now on, and tells the trap of what the daemon in gateway A sends and hears.
    pub(super) fn tap(site: &'lab Site, trap: &Arc<Trap>) -> Result<Self> {
        let namespace = &site.gateway;
        let socket = PacketSocket::open(namespace, OUTER)?;
        let before = carried(namespace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, trap, own) = (Arc::clone(&stop), Arc::clone(trap), site.outer_address(Family::V4));
        let look = move || look(&socket, own, &trap, &flag);
        let worker = thread::Builder::new().name("wire".into()).spawn(look)?;
        Ok(Self { namespace, before, stop, worker: Some(worker) })
    }

    /// Ends it.
    pub(super) fn finish(mut self) -> Result<Seen> {
        let carried = carried(self.namespace)?.saturating_sub(self.before);
        self.stop.store(true, Ordering::Relaxed);
        let worker = self.worker.take().context("ended twice")?;
        let mut seen = worker.join().map_err(|_| anyhow::anyhow!("the tap panicked"))??;
        seen.missed = carried.saturating_sub(seen.frames);
        Ok(seen)
    }
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn carried(namespace: &Namespace) -> Result<u64> {
    let (received, sent) = namespace.frame_counts(OUTER)?;
    Ok(received + sent)
}

fn look(socket: &PacketSocket, own: IpAddr, trap: &Trap, stop: &AtomicBool) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut buffer = vec![0; LARGEST_FRAME];
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        while let Some(frame) = socket.receive(&mut buffer)? {
            seen.frames += 1;
            match classify(frame, &[]) {
                Class::Ike => {
                    let Some(datagram) = datagram(frame, own) else { continue };
                    if let Some(cue) = cue(&datagram) {
                        trap.notice(cue);
                    }
                    seen.ike.push(datagram);
                }
                Class::Esp(spi) | Class::UdpEsp(spi) => {
                    if matches!(parse(frame), Network::Ip(packet) if packet.source == own) {
                        seen.esp_of_a.entry(spi).or_insert_with(now);
                    }
                }
                Class::Keepalive | Class::Housekeeping | Class::Clear | Class::Other => {}
            }
        }
        if stopping {
            return Ok(seen);
        }
        socket.wait(Duration::from_millis(20))?;
    }
}

fn datagram(frame: &[u8], own: IpAddr) -> Option<Datagram> {
    let Network::Ip(packet) = parse(frame) else { return None };
    let (from, to) = ports(&packet)?;
    let data = packet.payload.get(8..)?;
    let octets = if from == NAT_PORT || to == NAT_PORT { data.strip_prefix(&[0; 4])? } else { data };
    Some(Datagram { at: now(), from_a: packet.source == own, octets: octets.to_vec() })
}

/// What the part of a datagram that is sent in clear says of the moment.
fn cue(datagram: &Datagram) -> Option<Cue> {
    let header = Header::parse(&datagram.octets).ok()?;
    match (header.exchange, datagram.from_a, header.flags.response) {
        (ExchangeType::IKE_AUTH, true, _) => Some(Cue::AuthSent),
        (ExchangeType::CREATE_CHILD_SA, true, false) => Some(Cue::RekeyAsked),
        (ExchangeType::CREATE_CHILD_SA, true, true) => Some(Cue::RekeyAnswered),
        (ExchangeType::CREATE_CHILD_SA | ExchangeType::IKE_AUTH, false, true) => Some(Cue::AnswerHeard),
        (ExchangeType::INFORMATIONAL, true, false) => Some(Cue::DeleteSent),
        _ => None,
    }
}
