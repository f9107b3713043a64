//! The datapath fed by hand: no sockets, no device, a clock that is told.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipsec::conformance::{Fate, Log, OuterContent, OuterPacket, Subject, Wire};
use ipsec::fault::{Fault, Refusal, Refuse, Simulate, Step, Target, Tell};
use ipsec::sa::HeaderCopy;
use ipsec::{
    Answer, DeviceId, DeviceTable, Direction, EspAlgorithm, Instant, KeyMaterial, Limits, NatReader, OffloadBackend,
    OffloadError, OffloadMode, OnStop, Op, OuterAddresses, PolicyAction, PolicyHandle, PolicySpec, Reports, Reqid,
    Request, SaHandle, SaMode, SaSpec, Scope, SelectorPair, Shard, Spi, TableFull, Tag, TrafficSelector, Volume,
};
use offload_userspace::NoMachine;
use offload_userspace::control::{Control, Identity};
use offload_userspace::engine::{Arrival, Batch, Form, Inbound, Outbound, Sink};
use offload_userspace::nic::Simulation;

/// The control side behind the trait, carried out at once.
pub(crate) struct Inline {
    pub(crate) control: Control,
    log: Arc<Log>,
}

/// The whole.
pub(crate) struct InProcess {
    pub(crate) backend: Inline,
    pub(crate) log: Arc<Log>,
    machine: NoMachine,
    clock: Arc<AtomicU64>,
    outbound: Outbound,
    inbound: Inbound,
    batch: Batch,
    captured: Captured,
    delivered: Vec<Vec<u8>>,
    spare: Box<[u8]>,
}

#[derive(Default)]
struct Captured {
    outer: Vec<OuterPacket>,
    inner: Vec<Vec<u8>>,
}

impl InProcess {
    pub(crate) fn new(simulated: bool) -> Self {
        Self::with(simulated, NoMachine::default())
    }

    pub(crate) fn with(simulated: bool, machine: NoMachine) -> Self {
        Self::posing(simulated.then(Simulation::default), machine)
    }

    /// A datapath that poses as NICs, or as none.
    pub(crate) fn posing(simulation: Option<Simulation>, machine: NoMachine) -> Self {
        let log = Arc::new(Log::default());
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let read = Arc::clone(&clock);
        let reports: Arc<dyn Reports> = Arc::<Log>::clone(&log);
        let mut random = [0; 128];
        for (at, octet) in random.iter_mut().enumerate() {
            *octet = (at as u8).wrapping_mul(151).rotate_left(3) ^ 0x3c;
        }
        let control = Control::new(
            Identity { device: "cygnet0".into(), mtu: 1438, simulation },
            reports,
            Box::new(machine.clone()),
            Arc::new(move || Instant::new(Duration::from_millis(read.load(Ordering::Relaxed)))),
            &random,
            Box::new(|| {}),
        );
        Self {
            outbound: Outbound::new(Arc::clone(control.shared())),
            inbound: Inbound::new(Arc::clone(control.shared())),
            backend: Inline { control, log: Arc::clone(&log) },
            log,
            machine,
            clock,
            batch: Batch::default(),
            captured: Captured::default(),
            delivered: Vec::new(),
            spare: vec![0; 1 << 20].into_boxed_slice(),
        }
    }
}

/// Key and salt of [`connect`]'s SAs.
pub(crate) const KEY: [u8; 36] = [9; 36];

/// A subject with one tunnel from 10.1/16 to 10.2/16 that ends in itself.
pub(crate) fn connect() -> InProcess {
    let subject = InProcess::new(false);
    let (ops, _) = subject.tunnel();
    subject.backend.control.execute(&Request::Apply(ops)).unwrap();
    subject
}

impl InProcess {
    /// Operations that make such a tunnel, and its outbound SA.
    pub(crate) fn tunnel(&self) -> (Vec<Op>, SaSpec) {
        let spi = self.backend.control.reserve_spi().unwrap();
        let side = |n: u8| TrafficSelector::prefix(IpAddr::from([10, n, 0, 0]), 16).unwrap();
        let (there, back) =
            (SelectorPair { local: side(1), remote: side(2) }, SelectorPair { local: side(2), remote: side(1) });
        let sa = |count, direction, selectors| SaSpec {
            handle: SaHandle::new(Shard(0), count),
            device: DeviceId(0),
            direction,
            spi,
            mode: SaMode::Tunnel,
            outer: OuterAddresses { local: IpAddr::from([192, 0, 2, 1]), remote: IpAddr::from([192, 0, 2, 2]) },
            peer_view: None,
            encapsulation: None,
            algorithm: EspAlgorithm::AES_256_GCM,
            key: KeyMaterial::new(&KEY, None),
            esn: false,
            replay_window: 1024,
            selectors: Arc::new([selectors]),
            limits: Limits::default(),
            reqid: Reqid(1),
            copy: HeaderCopy::default(),
            offload: OffloadMode::No,
            tags: ipsec::Tags::NONE,
            initial_sequence: 0,
            name: "net/child".into(),
        };
        let (outbound, inbound) = (sa(1, Direction::Outbound, there), sa(2, Direction::Inbound, back));
        let policy = PolicySpec {
            handle: PolicyHandle::new(Shard(0), 1),
            device: DeviceId(0),
            direction: Direction::Outbound,
            selectors: there,
            priority: 1000,
            action: PolicyAction::Protect { reqid: Reqid(1), sa: None, mode: SaMode::Tunnel, outer: outbound.outer },
            offload: OffloadMode::No,
            tags: ipsec::Tags::NONE,
            name: "net/child".into(),
        };
        let activate = Op::Activate { policy: policy.handle, sa: outbound.handle };
        let ops = vec![
            Op::InstallSa(Box::new(inbound.clone())),
            Op::InstallSa(Box::new(outbound.clone())),
            Op::InstallPolicy(policy),
            activate,
        ];
        (ops, outbound)
    }
}

/// Hands what is sealed back in, with no memory of its own.
#[derive(Default)]
pub(crate) struct Carrier {
    pub(crate) delivered: usize,
}

const ARRIVAL: Arrival = Arrival {
    remote: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 0),
    form: Form::Native,
    local: None,
    class: 0,
    hops: 64,
};

struct Turn<'a> {
    inbound: &'a mut Inbound,
    now: Instant,
    carrier: &'a mut Carrier,
    scratch: &'a mut [u8],
    spare: &'a mut [u8],
}

impl Sink for Turn<'_> {
    fn transmit(&mut self, batch: &mut Batch) {
        let Self { inbound, now, carrier, scratch, spare } = self;
        for (_, octets) in batch.datagrams() {
            let copy = &mut scratch[..octets.len()];
            copy.copy_from_slice(octets);
            inbound.process([(ARRIVAL, copy)], spare, *now, |_| carrier.delivered += 1);
        }
    }
}

impl InProcess {
    /// Sends packets out and in again.
    pub(crate) fn carry(&mut self, packets: &[Vec<u8>], carrier: &mut Carrier) {
        let now = self.backend.control.now();
        let (mut scratch, mut spare) = ([0; 4096], [0; 4096]);
        let mut turn = Turn { inbound: &mut self.inbound, now, carrier, scratch: &mut scratch, spare: &mut spare };
        self.outbound.process(packets.iter().map(Vec::as_slice), now, &mut self.batch, &mut turn);
        turn.transmit(&mut self.batch);
        self.batch.clear();
    }

    /// ESP packets made of these.
    pub(crate) fn seal(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.inject_inner(packets);
        self.captured_outer().iter().filter_map(|packet| packet.esp().map(<[u8]>::to_vec)).collect()
    }

    /// Hands ESP packets in.
    pub(crate) fn open(&mut self, packets: &mut [Vec<u8>], carrier: &mut Carrier) {
        self.open_and(packets, carrier, |_| {});
    }

    /// Hands ESP packets in, looks at what is delivered, and returns how many that were.
    pub(crate) fn open_and(&mut self, packets: &mut [Vec<u8>], carrier: &mut Carrier, look: impl Fn(&[u8])) -> usize {
        let (now, before) = (self.backend.control.now(), carrier.delivered);
        let batch = packets.iter_mut().map(|octets| (ARRIVAL, octets.as_mut_slice()));
        self.inbound.process(batch, &mut self.spare, now, |inner| {
            look(inner);
            carrier.delivered += 1;
        });
        carrier.delivered - before
    }

    /// SPI of [`connect`]'s inbound SA.
    pub(crate) fn spi(&self) -> u32 {
        let Ok(Answer::Installed(all)) = self.backend.control.execute(&Request::List(Scope::All)) else {
            panic!("no list")
        };
        all.sas[0].spi.get()
    }
}

impl Sink for Captured {
    fn transmit(&mut self, batch: &mut Batch) {
        for (datagram, octets) in batch.datagrams() {
            let ports = datagram.path.encapsulation.map(|ports| (ports.local_port, ports.remote_port));
            let (from, to) = ports.unwrap_or((0, 0));
            self.outer.push(OuterPacket {
                source: SocketAddr::new(datagram.path.local, from),
                destination: SocketAddr::new(datagram.path.remote, to),
                content: if ports.is_some() {
                    OuterContent::EspInUdp(octets.to_vec())
                } else {
                    OuterContent::Esp(octets.to_vec())
                },
            });
        }
        self.inner.extend(batch.replies().map(<[u8]>::to_vec));
    }
}

impl Wire for InProcess {
    fn inject_inner(&mut self, packets: &[Vec<u8>]) {
        let now = self.backend.control.now();
        self.outbound.process(packets.iter().map(Vec::as_slice), now, &mut self.batch, &mut self.captured);
        self.captured.transmit(&mut self.batch);
        self.batch.clear();
    }

    fn inject_outer(&mut self, packets: &[OuterPacket]) {
        let mut copies: Vec<(Arrival, Vec<u8>)> = packets
            .iter()
            .filter_map(|packet| {
                let form = match packet.content {
                    OuterContent::Esp(_) => Form::Native,
                    OuterContent::EspInUdp(_) => Form::Udp { local_port: packet.destination.port() },
                    OuterContent::Clear(_) => return None,
                };
                let local = Some(packet.destination.ip());
                let arrival = Arrival { remote: packet.source, form, local, class: 0, hops: 64 };
                Some((arrival, packet.esp()?.to_vec()))
            })
            .collect();
        let now = self.backend.control.now();
        let delivered = &mut self.delivered;
        let batch = copies.iter_mut().map(|(arrival, octets)| (*arrival, octets.as_mut_slice()));
        self.inbound.process(batch, &mut self.spare, now, |inner| delivered.push(inner.to_vec()));
    }

    fn captured_outer(&mut self) -> Vec<OuterPacket> {
        std::mem::take(&mut self.captured.outer)
    }

    fn captured_inner(&mut self) -> Vec<Vec<u8>> {
        let mut all = std::mem::take(&mut self.delivered);
        all.append(&mut self.captured.inner);
        all
    }

    fn pass_time(&mut self, span: Duration) {
        self.clock.fetch_add(span.as_millis() as u64, Ordering::Relaxed);
        self.backend.control.tick();
    }
}

impl Subject for InProcess {
    fn backend(&self) -> &dyn OffloadBackend {
        &self.backend
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn settle(&mut self) {
        let now = self.backend.control.now();
        self.outbound.settle(now, &mut self.batch, &mut self.captured);
        self.captured.transmit(&mut self.batch);
        self.batch.clear();
    }

    fn wire(&mut self) -> Option<&mut dyn Wire> {
        Some(self)
    }

    fn pull_device(&mut self, device: DeviceId) -> bool {
        self.order(Fault::DeviceDown, self.device_named(device))
    }

    fn plug_device(&mut self, device: DeviceId) -> bool {
        self.order(Fault::DeviceUp, self.device_named(device))
    }

    fn refuse_install(&mut self) -> bool {
        let refuse = Refuse { step: Some(Step::OutboundSa), mode: None, error: Refusal::System, skip: 0, count: 1 };
        self.order(Fault::Refuse(refuse), Target::default())
    }

    fn lose_state(&mut self, sa: &SaSpec) -> bool {
        self.order(Fault::LoseSas(Tell::Lost), only(sa))
    }

    fn pretend_carried(&mut self, sa: &SaSpec, volume: Volume) -> bool {
        let (packets, bytes) = (volume.packets.unwrap_or(0), volume.bytes.unwrap_or(0));
        self.order(Fault::Carried { packets, bytes }, only(sa))
    }

    /// Guard and routes are seen; the bypass for IKE is the work of a real host.
    fn host(&mut self, direction: Direction, packet: &[u8]) -> Option<Fate> {
        let packet = offload_userspace::packet::parse(packet).ok()?.selectors;
        let own = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])];
        if own.contains(&packet.source) || own.contains(&packet.destination) {
            return None;
        }
        let outbound = direction == Direction::Outbound;
        let matches = |pair: &SelectorPair| match outbound {
            true => pair.matches_outbound(&packet),
            false => pair.matches_inbound(&packet),
        };
        let routed = self.machine.routes.lock().unwrap().iter().any(|policy| matches(&policy.selectors));
        let guarded = self.machine.guards.lock().unwrap().iter().any(|guard| matches(&guard.selectors));
        Some(match (outbound && routed, guarded) {
            (true, _) => Fate::Datapath,
            (false, true) => Fate::Blocked,
            (false, false) => Fate::Clear,
        })
    }
}

/// The two ends of a hair-pin have one SPI, but not one direction.
fn only(sa: &SaSpec) -> Target {
    Target { spi: Some(sa.spi), direction: Some(sa.direction), ..Target::default() }
}

impl InProcess {
    fn order(&self, fault: Fault, target: Target) -> bool {
        self.backend.control.simulate(&Simulate { fault, target }).is_ok()
    }

    fn device_named(&self, device: DeviceId) -> Target {
        let name = self.backend.control.devices().get(device).map(|device| device.name.to_string());
        Target { device: name, ..Target::default() }
    }
}

impl OffloadBackend for Inline {
    fn devices(&self) -> Arc<DeviceTable> {
        self.control.devices()
    }

    fn device_for(&self, local: IpAddr, remote: IpAddr) -> Option<DeviceId> {
        self.control.device_for(local, remote)
    }

    fn reserve_spi(&self, _device: DeviceId) -> Result<Spi, TableFull> {
        self.control.reserve_spi()
    }

    fn release_spi(&self, _device: DeviceId, spi: Spi) {
        self.control.release_spi(spi);
    }

    fn submit(&self, tag: Tag, request: Request) {
        self.log.done(tag, self.control.execute(&request));
    }

    fn adopt_nat_sockets(&self, _sockets: Vec<OwnedFd>) -> io::Result<NatReader> {
        Ok(NatReader::Backend)
    }

    fn shut_down(&self, on_stop: OnStop) {
        self.control.close();
        let stopped: Result<(), OffloadError> = self.control.with_surroundings(|machine| machine.stop(on_stop));
        assert_eq!(stopped, Ok(()));
    }
}
