//! The kernel backend as the kit's subject: the backend as it runs, in the gateway of a bed.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use ipsec::conformance::{Fate, Log, OuterContent, OuterPacket, Subject, Wire};
use ipsec::{
    DeviceId, Direction, Event, OffloadBackend, OffloadMode, OnStop, Reports, Request, SaSpec, Shard, Tag, Volume,
};
use lab::frame::{Network, ports};
use offload_host::{Family, sockets};
use offload_kernel::{Kernel, KernelConfig};

use super::bed::{Bed, LOCAL, LOCAL_V6, Link};
use super::frames;
use super::knobs;
use super::wire::{Captured, Local, udp_socket};

/// How often the backend reads the kernel's counters of refused packets, and a little more.
const COUNTED: Duration = Duration::from_millis(6_200);
/// How often it looks whether an inbound SA is used for the first time, when that SA is some seconds old.
const LOOKED: Duration = Duration::from_secs(2);
/// How long an answer may take that has to come.
const PATIENCE: Duration = Duration::from_secs(20);
const IKE_PORTS: [u16; 2] = [500, 4500];
/// What UDP packets of a host carry here; the first octets tell IKE from ESP.
const DATA: &[u8] = b"\0\0\0\0whatever";

/// The backend in the gateway.
pub(super) struct InKernel<'b> {
    bed: &'b Bed,
    log: Arc<Log>,
    backend: Arc<Kernel>,
    local: Local,
    /// The daemon's sockets for IKE, by family and port.
    ike: Vec<(SocketAddr, UdpSocket)>,
    captured: Captured,
    refused: String,
    /// Packets went in from outside, and no inbound SA was told to be in use so far.
    awaits_use: bool,
    tags: AtomicU64,
}

impl<'b> InKernel<'b> {
    pub(super) fn start(bed: &'b Bed) -> anyhow::Result<Self> {
        bed.clean()?;
        let local = Local::open(&bed.gateway)?;
        let ike = bed.gateway.run(ike_sockets)??;
        let log = Arc::new(Log::default());
        let reports: Arc<dyn Reports> = Arc::<Log>::clone(&log);
        let config = KernelConfig { journal: None, ..KernelConfig::default() };
        let backend = bed.gateway.run(|| Kernel::start(config, reports))??;
        let nat = ike.iter().filter(|(at, _)| at.port() == 4500).map(|(_, socket)| socket.as_fd().try_clone_to_owned());
        backend.adopt_nat_sockets(nat.collect::<io::Result<Vec<OwnedFd>>>()?)?;
        let (captured, tags) = (Captured::default(), AtomicU64::new(1));
        let mut subject =
            Self { bed, log, backend, local, ike, captured, refused: String::new(), awaits_use: false, tags };
        subject.refused = subject.refusals()?;
        // What was on the links before is nobody's.
        subject.quiet()?;
        subject.captured = Captured::default();
        Ok(subject)
    }

    /// The kernel's counters of packets that its IPsec refused.
    pub(super) fn refusals(&self) -> anyhow::Result<String> {
        Ok(self.bed.gateway.run(|| std::fs::read_to_string("/proc/thread-self/net/xfrm_stat"))??)
    }

    /// Waits until packets, answers and events have come to rest.
    fn quiet(&mut self) -> anyhow::Result<()> {
        let log = &self.log;
        self.bed.settle(&self.local, &mut self.captured, || log.events().len())
    }

    /// Requests are answered in their order: when this one is, all are. Refused packets are told with the backend's next look at them.
    fn rest(&mut self) -> anyhow::Result<()> {
        self.answered()?;
        self.quiet()?;
        if std::mem::take(&mut self.awaits_use) {
            self.awaits_use = !lab::process::wait_until(LOOKED, || self.log.events().iter().any(is_first_use));
        }
        let now = self.refusals()?;
        if now != self.refused {
            self.refused = now;
            std::thread::sleep(COUNTED);
            self.quiet()?;
        }
        Ok(())
    }

    fn answered(&self) -> anyhow::Result<()> {
        let tag = Tag::new(Shard(9), self.tags.fetch_add(1, Ordering::Relaxed));
        self.backend.submit(tag, Request::Apply(Vec::new()));
        let answered = lab::process::wait_until(PATIENCE, || !self.log.outcomes(tag).is_empty());
        anyhow::ensure!(answered, "the backend does not answer any more");
        Ok(())
    }

    fn outbound(&mut self, octets: &[u8]) -> anyhow::Result<Fate> {
        let before = std::mem::take(&mut self.captured.outer);
        let ends = ends(octets).context("a packet without addresses")?;
        if own(ends.0.ip()) {
            self.say(ends)?;
        } else {
            self.bed.send_inner(&[octets.to_vec()])?;
        }
        self.quiet()?;
        let left = std::mem::replace(&mut self.captured.outer, before);
        Ok(match left.first().map(|packet| &packet.content) {
            Some(OuterContent::Esp(_) | OuterContent::EspInUdp(_)) => Fate::Datapath,
            Some(OuterContent::Clear(_)) => Fate::Clear,
            None => Fate::Blocked,
        })
    }

    /// Has the gateway itself send a datagram. A policy that blocks it may say so at once.
    fn say(&self, (from, to): (SocketAddr, SocketAddr)) -> anyhow::Result<()> {
        if let Some((_, socket)) = self.ike.iter().find(|(at, _)| serves(*at, from)) {
            socket.send_to(DATA, to)?;
            return Ok(());
        }
        let socket = self.bed.gateway.run(|| UdpSocket::bind(from))??;
        if let Err(error) = socket.send_to(DATA, to) {
            let blocked = [1, 3, 13, 101, 113];
            anyhow::ensure!(error.raw_os_error().is_some_and(|code| blocked.contains(&code)), "sending: {error}");
        }
        Ok(())
    }

    fn inbound(&mut self, octets: &[u8]) -> anyhow::Result<Fate> {
        let ends = ends(octets).context("a packet without addresses")?;
        let arrived = if own(ends.1.ip()) { self.hears(ends)? } else { self.passes(octets)? };
        Ok(if arrived { Fate::Clear } else { Fate::Blocked })
    }

    /// Whether a packet from outside is forwarded to the protected side.
    fn passes(&mut self, octets: &[u8]) -> anyhow::Result<bool> {
        let before = std::mem::take(&mut self.captured.inner);
        self.bed.send_outer(&[in_clear(octets.to_vec())])?;
        self.quiet()?;
        Ok(!std::mem::replace(&mut self.captured.inner, before).is_empty())
    }

    /// Whether a socket of the gateway gets a datagram from outside.
    fn hears(&mut self, (from, to): (SocketAddr, SocketAddr)) -> anyhow::Result<bool> {
        let mut datagram = from.port().to_be_bytes().to_vec();
        datagram.extend_from_slice(&to.port().to_be_bytes());
        datagram.extend_from_slice(&(DATA.len() as u16 + 8).to_be_bytes());
        datagram.extend_from_slice(&[0, 0]);
        datagram.extend_from_slice(DATA);
        frames::sum_udp(from.ip(), to.ip(), &mut datagram);
        let packet = frames::around(from.ip(), to.ip(), lab::frame::UDP, &datagram);
        let receiver = match self.ike.iter().find(|(at, _)| serves(*at, to)) {
            Some((_, socket)) => socket.try_clone()?,
            None => self.bed.gateway.run(|| UdpSocket::bind(to))??,
        };
        self.bed.send_outer(&[in_clear(packet)])?;
        self.quiet()?;
        receiver.set_nonblocking(true)?;
        let heard = receiver.recv_from(&mut [0; 2_000]).is_ok();
        receiver.set_nonblocking(false)?;
        Ok(heard)
    }
}

fn is_first_use(event: &Event) -> bool {
    matches!(event, Event::InboundFirstUse { .. })
}

/// Whether a socket bound to everything serves an address.
fn serves(bound: SocketAddr, address: SocketAddr) -> bool {
    bound.port() == address.port() && bound.is_ipv4() == address.is_ipv4()
}

fn in_clear(packet: Vec<u8>) -> OuterPacket {
    let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
    OuterPacket { source: nobody, destination: nobody, content: OuterContent::Clear(packet) }
}

fn own(address: IpAddr) -> bool {
    [LOCAL, LOCAL_V6].iter().any(|own| own.parse() == Ok(address))
}

fn ends(octets: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let frame = frames::ethernet([0; 6], octets);
    let Network::Ip(packet) = lab::frame::parse(&frame) else { return None };
    let (from, to) = ports(&packet)?;
    Some((SocketAddr::new(packet.source, from), SocketAddr::new(packet.destination, to)))
}

/// The sockets that the daemon has for IKE.
fn ike_sockets() -> anyhow::Result<Vec<(SocketAddr, UdpSocket)>> {
    let mut all = Vec::new();
    for port in IKE_PORTS {
        for (any, family) in [("0.0.0.0", Family::V4), ("::", Family::V6)] {
            let at = SocketAddr::new(any.parse()?, port);
            let socket = udp_socket(at)?;
            sockets::set_mark(socket.as_fd(), KernelConfig::default().host.mark)?;
            sockets::socket_bypass(&socket, family)?;
            all.push((at, socket));
        }
    }
    Ok(all)
}

impl Subject for InKernel<'_> {
    fn backend(&self) -> &dyn OffloadBackend {
        &*self.backend
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn settle(&mut self) {
        works("settling", self.rest());
    }

    fn wire(&mut self) -> Option<&mut dyn Wire> {
        Some(self)
    }

    fn is_the_host(&self) -> bool {
        true
    }

    fn host(&mut self, direction: Direction, packet: &[u8]) -> Option<Fate> {
        let fate = match direction {
            Direction::Outbound => self.outbound(packet),
            Direction::Inbound | Direction::Forward => self.inbound(packet),
        };
        Some(works("trying a packet in clear", fate))
    }

    fn pull_device(&mut self, _device: DeviceId) -> bool {
        works("taking the link down", self.bed.down());
        true
    }

    fn plug_device(&mut self, _device: DeviceId) -> bool {
        works("bringing the link up", self.bed.up());
        true
    }

    fn refuse_install(&mut self) -> bool {
        self.bed.link != Link::Plain && works("a knob", knobs::refuse_next(self.bed))
    }

    fn lose_state(&mut self, sa: &SaSpec) -> bool {
        works("deleting an SA by hand", knobs::delete(self.bed, sa));
        true
    }

    fn pretend_carried(&mut self, sa: &SaSpec, volume: Volume) -> bool {
        sa.offload != OffloadMode::Packet && works("setting an SA's counters", knobs::carried(self.bed, sa, volume))
    }
}

impl Wire for InKernel<'_> {
    fn inject_inner(&mut self, packets: &[Vec<u8>]) {
        works("sending from inside", self.bed.send_inner(packets));
    }

    fn inject_outer(&mut self, packets: &[OuterPacket]) {
        self.awaits_use = !self.log.events().iter().any(is_first_use);
        works("sending from outside", self.bed.send_outer(packets));
    }

    fn captured_outer(&mut self) -> Vec<OuterPacket> {
        std::mem::take(&mut self.captured.outer)
    }

    fn captured_inner(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.captured.inner)
    }

    fn pass_time(&mut self, span: Duration) {
        // Time in the machine jumps over what nobody does anything in.
        std::thread::sleep(span);
    }
}

impl Drop for InKernel<'_> {
    fn drop(&mut self) {
        self.backend.shut_down(OnStop::Open);
    }
}

/// What the bed does has to work: a behaviour says nothing about the backend otherwise.
#[expect(clippy::panic, reason = "the kit's traits have no way to say that the test itself is broken")]
fn works<T>(what: &str, outcome: anyhow::Result<T>) -> T {
    outcome.unwrap_or_else(|error| panic!("{what}: {error:#}"))
}
